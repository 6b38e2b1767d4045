/* inline_cache.h - ways: at an indirect branch of a hot unit, targets that it is compared with,
 * each with a direct jump to its unit. Who comes by none goes on through the jump cache.
 *
 * Assumption: an indirect branch in code that runs often has gone before where it goes now,
 * and mostly stays in its page or trace, as a computed goto does. There who runs has the
 * translation, so a way needs no more than a direct link (chain.c): it is one, and is
 * taken back when its target goes. A branch to another page would have to ask whether that is
 * still where it was, and then is no shorter than the jump cache, to which it is left.
 *
 * Ways learn: C is asked when a count of misses is down, and links one to where the branch
 * goes now. Where misses come too often, or lead to other pages, the ways are given up. */
#ifndef LODGE_ENGINE_TRANSLATE_INLINE_CACHE_H
#define LODGE_ENGINE_TRANSLATE_INLINE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

struct build;
struct site;
struct step;
struct translator;
struct unit;

#define PREDICTIONS 4096u
#define WAYS_MAX    2u

enum prediction_kind { PREDICT_INDIRECT, PREDICT_RETURN, PREDICTION_KINDS };

/* Of a branch with ways, by hash of its site. */
struct prediction {
    uint32_t left;   /* misses until C is asked */
    uint8_t strikes, next; /* how often it was no use; the way to be replaced */
    uint64_t since;  /* the TSC when it last learned */
};

struct predictor {
    struct prediction of[PREDICTIONS];
    /* For --stats, which are counted only with it; given_up always. */
    uint64_t asked[PREDICTION_KINDS], missed[PREDICTION_KINDS];
    uint64_t learned[PREDICTION_KINDS], given_up[PREDICTION_KINDS];
};

/* Whether branches of that unit get ways. */
bool inline_cache_wanted(const struct build *b);
/* Emit ways of the branch that leaves by site, whose target is in SCRATCH_B; flags are in
 * memory, and SCRATCH_A is used. Returns the displacement of a jump to where scratch_target is
 * set and the unit left. */
uint8_t *inline_cache_emit(struct build *b, struct site *site, enum prediction_kind kind,
                           unsigned ways);
/* The branch at site went to that unit. */
void inline_cache_learn(struct translator *t, struct site *site, struct unit *target);

#endif
