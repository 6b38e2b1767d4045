/* loop.h - a loop whose addresses are checked ahead, while it is being made. Private to the
 * files that emit: loop.c plans it and emits its turns, together.c tells what its ranges have
 * in common, ahead.c checks them. */
#ifndef LODGE_ENGINE_TRANSLATE_LOOP_H
#define LODGE_ENGINE_TRANSLATE_LOOP_H

#include "engine/translate/analyse.h"
#include "engine/translate/emit.h"
#include "engine/translate/translator.h"

struct build;

#define LOOP_BESIDES 4 /* bases that are taken to stand beside others */

#define NO_RANGE UINT8_MAX

/* Accesses of a loop off the same registers, and where they lie together. */
struct range {
    struct x86_memory memory; /* the lowest of them */
    int64_t high;             /* displacement behind the highest */
    int64_t up, down;         /* what a turn adds to the address at most, at least */
    uint16_t folded;          /* registers that do not change, added to what the slot holds */
    bool write;
    bool plain;               /* the slot holds the distance alone */
    bool pair;                /* some of the addresses have an index */
    uint8_t page;             /* the range in whose page it is taken to be; itself: none */
    uint8_t holder;           /* the range whose slot it uses, perhaps itself */
    uint8_t slot;             /* register, or EMIT_NONE: a field */
    unsigned uses;
};

/* A loop whose addresses are checked ahead: see loop.c. */
struct loop {
    unsigned first, last;            /* steps */
    enum loop_way {
        LOOP_NEVER,                  /* no way of the fast body leads to the step */
        LOOP_TURN,                   /* it is part of it */
        LOOP_LEAVES,                 /* there it goes on in the plain body */
    } way[UNIT_STEPS];
    struct range ranges[LOOP_RANGES];
    unsigned count;
    uint8_t range_of[UNIT_STEPS];    /* or NO_RANGE */
    int16_t beside[UNIT_STEPS];      /* how far the access's base is from its range's */
    struct beside {                  /* such bases, as taken to be */
        uint8_t base, of;
        int16_t distance;
    } besides[LOOP_BESIDES];
    unsigned beside_count;
    bool checks;                     /* some accesses are checked in each turn */
    uint16_t home;                   /* guest registers at home in the turns */
    uint8_t scratch[2];              /* RSP: none */
    uint8_t loader, counter;         /* registers for slots in fields, for the room left */
    uint8_t step;                    /* what a turn takes of the room that ranges have */
    unsigned loaded;                 /* the range in loader, or NO_RANGE */
    uint8_t *host[UNIT_STEPS];       /* code of its steps */
    uint8_t *plain;                  /* of its body with all checks */
    uint8_t framed;                  /* the first range taken to lie in the frame's page, or
                                        NO_RANGE */
    bool together;                   /* some ranges are taken to lie in one page; */
    uint8_t *missed;                 /* where it goes if they do not, on its way there */
};

/* At the head of a loop: poll, then emit its fast body and the way into it, if it can have
 * one. What is emitted next is its plain body. */
void loop_emit(struct build *b, unsigned first);
/* Whether the access of step i needs scratch registers. */
bool loop_needs_scratch(const struct build *b, unsigned i);
/* Where the host finds it; false: it must be checked. */
bool loop_reach(struct build *b, unsigned i, struct emit_memory *ret_memory);
/* Whether control comes from step i to others while turns of a fast body are emitted, as
 * far as these turns are concerned. */
bool loop_passes(const struct build *b, unsigned i);
/* The field of a range's slot. */
struct emit_memory loop_slot_field(unsigned k);
/* Around an exit to C: what registers hold for the loop. */
void loop_save_counter(struct build *b, const struct loop *loop);
void loop_load_slots(struct build *b, const struct loop *loop);

#endif
