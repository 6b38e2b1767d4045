#include "engine/translate/return.h"

#include "engine/translate/inline_cache.h"

#define RETURN_WAYS 2u

uint8_t *return_emit(struct build *b, struct site *site)
{
    return inline_cache_emit(b, site, PREDICT_RETURN, RETURN_WAYS);
}
