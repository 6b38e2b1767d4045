/* guess.h - accesses that do not wait for the TLB.
 *
 * Where a loop reads in each turn where the next turn will read, turns wait for each other, and
 * the TLB's entry comes eight cycles after the address. Other addresses are there in time,
 * and there what a guess takes in instructions is lost.
 *
 * Assumption: pages next to each other in the guest's linear memory mostly are so in its
 * physical memory, since systems hand out memory in order. Then the distance from guest to
 * host address is the one that this instruction met before. So in hot code such an access
 * takes that distance at once, and the check compares it with the TLB's beside looking at the
 * tag; the host's branch prediction takes both for granted. Where the guess is wrong it is
 * replaced, out of line. Where many are, some in turn are looked at, and unless most of these
 * are right, the unit is made again without. */
#ifndef LODGE_ENGINE_TRANSLATE_GUESS_H
#define LODGE_ENGINE_TRANSLATE_GUESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/translate/emit.h"

#define GUESSES 4096u

/* The distance from guest to host address that some instruction met. */
struct guess {
    uint64_t distance;
    uint64_t expected; /* the same, unless C wants to see the next one */
    uint64_t since;   /* the TSC when misses were last counted */
    uint32_t left;    /* misses until C is asked */
    uint8_t samples, same; /* still to be seen; of those seen, that were as the one before */
    uint64_t last;
    bool given_up;
};

/* Which part of an address comes late. */
enum guess_late { GUESS_NONE, GUESS_BASE_LATE, GUESS_INDEX_LATE };

struct build;
struct site;
struct stub;
struct translator;

void guess_init(struct translator *t);
/* See which of the unit's addresses are links of a chain. */
void guess_plan(struct build *b);
/* Whether the access of step i, whose flags are free, should be guessed. */
bool guess_wanted(const struct build *b, unsigned i, const struct x86_memory *memory);
/* The TLB's distance is in s1: go on if it is the guess, which is to be had from memory then.
 * Returns where. */
struct emit_memory guess_check(struct build *b, unsigned i);
/* Where the access of step i, which is in no group, then is: the register that comes late is
 * added to the others last. */
struct emit_memory guess_reach(struct build *b, unsigned i, struct emit_memory distance);
/* What is behind the unit for it. */
void guess_stub(struct build *b, const struct stub *stub);
/* Many guesses were wrong at site. */
void guess_missed(struct translator *t, const struct site *site);

#endif
