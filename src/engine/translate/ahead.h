/* ahead.h - the checks of a loop's addresses before its turns: see loop.c.
 *
 * Each page that ranges are taken to lie in is looked up in the TLB once; each of its ranges is
 * compared with it, and those that move tell how many turns it lasts. */
#ifndef LODGE_ENGINE_TRANSLATE_AHEAD_H
#define LODGE_ENGINE_TRANSLATE_AHEAD_H

#include <stdbool.h>

struct build;
struct loop;
struct range;

/* Whether a range has its turns counted by itself. */
bool ahead_counts_alone(const struct range *r);
/* Emit the checks; then slots and counter are filled. Where the ranges allow no turn, it goes
 * to loop->plain. */
void ahead_check(struct build *b, struct loop *loop);

#endif
