/* together.h - ranges of a loop that lie in one page.
 *
 * Assumption: what a loop in hot code reaches through several registers is often part of
 * one thing, such as a function's frame, and lies in one page each time. When the unit is
 * made the guest's registers tell which ranges do so now, or did when the loop last ran. Of these
 * one is looked up in the TLB, and the others are compared with its page: they need no
 * distances of their own. Where that turns out wrong often, the unit is made again without. */
#ifndef LODGE_ENGINE_TRANSLATE_TOGETHER_H
#define LODGE_ENGINE_TRANSLATE_TOGETHER_H

#include <stdbool.h>
#include <stdint.h>

struct build;
struct loop;
struct site;
struct stub;
struct translator;

#define TOGETHERS 1024u

/* How often the ranges of a loop were not where one of them was. */
struct together {
    uint64_t since; /* the TSC when that was last looked at */
    uint32_t left;  /* times until C is asked */
    bool given_up;
};

void together_init(struct translator *t);
/* Whether a base is now near another, which may be taken to be so each time: how far from it. */
bool together_beside(const struct build *b, const struct loop *loop, unsigned base, unsigned of,
                     int *ret_distance);
/* Take it to be so. */
void together_assume(struct loop *loop, unsigned base, unsigned of, int distance);
/* Tell of each range in whose page it is taken to be, and whose slot it uses. */
void together_plan(struct build *b, struct loop *loop);
/* Before the checks of such a loop: have loop->missed made. */
void together_prepare(struct build *b, struct loop *loop);
void together_stub(struct build *b, struct stub *stub);
/* Whether such things may be assumed of the loop there. */
bool together_allowed(const struct translator *t, uint64_t rip);
/* Count a miss that C came to see. */
void together_count(struct translator *t, const struct site *site);
/* C's part, when there were many misses. Whether the unit goes. */
bool together_missed(struct translator *t, const struct site *site);

#endif
