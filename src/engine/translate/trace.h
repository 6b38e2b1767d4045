/* trace.h - what the translator tells outside of --stats: the log of --trace and
 * the map for perf(1). Both files belong to the translator; NULL: not wanted. */
#ifndef LODGE_ENGINE_TRANSLATE_TRACE_H
#define LODGE_ENGINE_TRANSLATE_TRACE_H

#include "engine/translate/translator.h"

int trace_open(struct translator *t, struct error *err);
void trace_close(struct translator *t);
/* A new unit, whose host code lies at code. */
void trace_unit(struct translator *t, const struct unit *unit);
/* A unit that is entered: its guest code, disassembled. */
void trace_entry(struct translator *t, const struct unit *unit);

#endif
