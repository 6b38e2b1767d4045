/* return.h - where returns go.
 *
 * Assumption: a function in code that runs often is called from few places, most often from
 * its own page. So a return gets two ways (inline_cache.h), one for each of the two places it
 * was last found to return to, and the host's prediction of conditional branches tells which.
 * No stack of return addresses is kept beside the guest's: to push an address and the code
 * behind it, and to compare them, takes more instructions than the jump cache. */
#ifndef LODGE_ENGINE_TRANSLATE_RETURN_H
#define LODGE_ENGINE_TRANSLATE_RETURN_H

#include <stdint.h>

struct build;
struct site;

/* As inline_cache_emit, for a return. */
uint8_t *return_emit(struct build *b, struct site *site);

#endif
