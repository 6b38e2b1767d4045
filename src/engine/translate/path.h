/* path.h - traces: units that follow a path through the guest's code, over calls,
 * returns, indirect branches and pages.
 *
 * Assumption: code that runs often takes the same way most times. When a unit is hot
 * (hot.h), the next path from its head is recorded (record.c) and made one unit: taken
 * branches become side exits to where they would not have gone, a call goes on in what
 * it calls, a return and an indirect branch compare with where they went when they were
 * recorded. What is known of flags and of addresses then lives as long as the path.
 *
 * A trace rests on all its pages: each of them drops it when it is written. Whether they
 * are still where they were its head asks by one number (a stamp), which changes whenever
 * one of them may have moved; then C looks. Side exits may be linked to units of all its
 * pages, as the head has looked.
 *
 * A trace is tried: for its first turns it counts, and its side exits do. When those are
 * taken in more than a part of the turns, the trace was no good: it goes, its head is
 * remembered, and gets an ordinary unit. */
#ifndef LODGE_ENGINE_TRANSLATE_PATH_H
#define LODGE_ENGINE_TRANSLATE_PATH_H

#include "engine/translate/translator.h"

/* Whether a trace may begin at a unit there. */
bool path_wanted(const struct translator *t, uint64_t physical, unsigned mode);
/* At state.rip, whose addresses are given: run a path and make it a trace, if it is worth
 * one. What is at state.rip then is another instruction. False: nothing was run. Raises
 * what the path raises. */
bool path_record(struct translator *t, uint64_t linear, uint64_t physical, unsigned mode);
/* The trial of a trace is over: it stays, or an ordinary unit takes its place. */
void path_judge(struct translator *t, struct unit *unit);
/* The stamp of a trace has changed. False: its pages have moved, and it is gone. */
bool path_renew(struct translator *t, struct unit *unit);
/* Translations were flushed: stamps change if traces may rest on them. */
void path_flushed(struct translator *t);
/* The physical address of an instruction of the unit at rip. */
uint64_t path_physical(const struct unit *unit, uint64_t rip);
/* The page of a trace that linear lies in, or NULL. */
const struct path_page *path_page_at(const struct path_page *pages, unsigned count,
                                     uint64_t linear);

#endif
