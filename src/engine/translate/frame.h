/* frame.h - a group that lasts as long as a loop: a function's frame.
 *
 * Assumption: RSP stands still in a loop that has loops in it, and what lies off it is close
 * together. So one check before the loop covers all of these accesses, in each turn, and in the
 * loops inside; what it found stays in a field. A turn begins with a look at the signals, among
 * them what other CPUs say of pages. Where the check fails, one turn is made in a unit without
 * groups; where that comes often, the unit is made again without. */
#ifndef LODGE_ENGINE_TRANSLATE_FRAME_H
#define LODGE_ENGINE_TRANSLATE_FRAME_H

#include <stdbool.h>

struct build;
struct group;

/* Before step i, the head of a loop: make that group, if it pays. */
void frame_begin(struct build *b, unsigned i);
/* The group at the present step; NULL: there is none. Its distance into reg. */
const struct group *frame_group(const struct build *b);
void frame_load_distance(struct build *b, unsigned reg);
/* Whether group k is one, at the present step. */
bool frame_is(const struct build *b, unsigned k);

#endif
