/* record.h - the path that code takes from a hot head, recorded while the interpreter
 * runs it. Private to this folder.
 *
 * Assumption: one look is enough. The path taken once, when its head has just become hot,
 * is most likely the one taken most times; where it is not, the trial of the trace tells. */
#ifndef LODGE_ENGINE_TRANSLATE_RECORD_H
#define LODGE_ENGINE_TRANSLATE_RECORD_H

#include "engine/translate/build.h"

/* Run from state.rip on and put the steps into b->steps, those of branches with what they
 * did, and the pages into b->record, until the head is met again, or an inner loop, or what
 * no unit goes on over. Raises what an instruction raises; then there is no path. */
void record_run(struct build *b, uint64_t linear, uint64_t physical, unsigned mode);

#endif
