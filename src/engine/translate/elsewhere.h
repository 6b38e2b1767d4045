/* elsewhere.h - the same code at another linear address: a unit made by copying or moving another
 * one, instead of translating. What that rests on is told in elsewhere.c. */
#ifndef LODGE_ENGINE_TRANSLATE_ELSEWHERE_H
#define LODGE_ENGINE_TRANSLATE_ELSEWHERE_H

#include <stdbool.h>
#include <stdint.h>

struct build;
struct code_cache;
struct translator;
struct unit;

/* What belongs to a unit in its region's tables, and behind its code. */
struct belongings {
    uint32_t first_site, first_trap; /* in the cache's tables */
    uint16_t sites, traps;
    uint16_t relocations;            /* which follow the code */
    bool movable;                    /* else the rest says nothing */
    uint64_t root;                   /* CR3 when it was last looked up */
    struct unit *next, **where;      /* movable ones with the same hash */
};

/* Before a unit is emitted, and after. */
void elsewhere_begin(struct build *b);
void elsewhere_finish(struct build *b);
/* A unit for linear, made of one for the same physical address, none of which is of an older
 * version of the page; NULL: there is none. There must be room for a unit. */
struct unit *elsewhere_make(struct translator *t, uint64_t linear, uint64_t physical,
                            unsigned mode);
/* The unit goes. */
void elsewhere_forget(const struct unit *unit);
/* An address of the guest into reg, which depends on where its code is. */
void elsewhere_constant(struct build *b, unsigned reg, uint64_t address);

#endif
