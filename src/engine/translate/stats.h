/* stats.h - what --stats tells of the translator. */
#ifndef LODGE_ENGINE_TRANSLATE_STATS_H
#define LODGE_ENGINE_TRANSLATE_STATS_H

#include "engine/translate/translator.h"

void stats_print(struct engine *engine, FILE *out);

#endif
