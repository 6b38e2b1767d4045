/* relocate.h - what a unit's code holds that depends on where it is, noted while it is emitted,
 * for elsewhere.c. Part of emit.h's world: knows nothing of units. */
#ifndef LODGE_ENGINE_TRANSLATE_RELOCATE_H
#define LODGE_ENGINE_TRANSLATE_RELOCATE_H

#include <stdbool.h>
#include <stdint.h>

enum relocation {
    RELOCATE_ADDRESS, /* eight bytes: an address of the guest */
    RELOCATE_TAG,     /* eight bytes: minus such an address, */
    RELOCATE_INDEX,   /* four: a displacement with its place in the jump cache; follows it */
    RELOCATE_SITE,    /* four: the number of one of its sites */
    RELOCATE_ROUTINE, /* four: the displacement of a branch to a common routine */
};

/* A unit with more of them is not copied. */
#define RELOCATIONS_MAX 512u

struct relocations {
    const uint8_t *begin;      /* of the unit */
    const uint8_t *common_end; /* before here are the common routines */
    bool fixed;                /* it is not to be copied: nothing is noted */
    unsigned count;
    uint32_t entries[RELOCATIONS_MAX]; /* kind, and the offset from begin */
};

#define RELOCATION_KIND_SHIFT 24

static inline void relocate_note(struct relocations *r, enum relocation kind, const uint8_t *at)
{
    if (!r || r->fixed)
        return;
    r->fixed = r->count == RELOCATIONS_MAX;
    if (!r->fixed)
        r->entries[r->count++] =
            (uint32_t)kind << RELOCATION_KIND_SHIFT | (uint32_t)(at - r->begin);
}

#endif
