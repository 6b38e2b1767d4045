/* chain.h - the ways from unit to unit: direct links, and the jump cache. Part of translator.h;
 * what they assume is told in chain.c. */
#ifndef LODGE_ENGINE_TRANSLATE_CHAIN_H
#define LODGE_ENGINE_TRANSLATE_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

struct translator;
struct unit;
struct site;

#define JUMP_BITS    16
#define JUMP_ENTRIES (1u << JUMP_BITS)

/* Indirect jumps by guest address. */
struct jump_cache {
    uint64_t tag[JUMP_ENTRIES]; /* minus the guest address */
    uint8_t *code[JUMP_ENTRIES]; /* which finds flags in memory: unit->lazy */
};

/* Functions begin at multiples of 16: bits of the page number spread them.
 * Emitted code computes the same. */
#define JUMP_SPREAD 15

static inline unsigned jump_cache_index(uint64_t rip)
{
    return (rip + (rip >> JUMP_SPREAD)) & (JUMP_ENTRIES - 1);
}

enum jump_caches {
    JUMP_USER, JUMP_SUPERVISOR, JUMP_SUPERVISOR_AC, /* 64-bit code */
    JUMP_USER_32, JUMP_SUPERVISOR_32,               /* 32-bit code of one mode at a time */
    JUMP_USER_SEGMENTED, JUMP_SUPERVISOR_SEGMENTED, /* the same, by unit_key */
    JUMP_CACHES,
};

#define JUMP_LIST 4096

void chain_link(struct translator *t, struct site *site, struct unit *target);
/* Its branches lead to C again. */
void chain_unlink(struct site *site);
void chain_unlink_all(struct unit *target);
/* The site, which is linked, goes. */
void chain_forget(struct site *site);
/* Before code of that mode is entered: no jumps of another one stay, nor of another limit of
 * CS if it is segmented. */
void jump_cache_enter_mode(struct translator *t, unsigned mode);
/* large: rip lies in a large page. */
void jump_cache_add(struct translator *t, uint64_t rip, struct unit *unit, bool large);
/* Code for rip in a unit's mode, which finds flags in memory; or NULL. */
const uint8_t *jump_cache_find(const struct translator *t, uint64_t rip, unsigned mode);
enum jump_caches jump_cache_for(unsigned mode);
/* Without this one address. */
void jump_cache_forget(struct translator *t, uint64_t rip);
void jump_cache_flush(struct translator *t, enum jump_caches which);
void jump_cache_flush_all(struct translator *t);
/* What rests on the translation of one page, of any size. */
void jump_cache_flush_page(struct translator *t, uint64_t linear);

#endif
