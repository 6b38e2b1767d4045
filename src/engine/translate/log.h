/* log.h - what the translator tells outside of --stats: the log of --trace and
 * the map for perf(1). Both files belong to the translator; NULL: not wanted. */
#ifndef LODGE_ENGINE_TRANSLATE_LOG_H
#define LODGE_ENGINE_TRANSLATE_LOG_H

#include "engine/translate/translator.h"

int log_open_files(struct translator *t, struct error *err);
void log_close_files(struct translator *t);
/* A new unit, whose host code lies at code. */
void log_unit(struct translator *t, const struct unit *unit);
/* A unit that is entered: its guest code, disassembled. */
void log_entry(struct translator *t, const struct unit *unit);

#endif
