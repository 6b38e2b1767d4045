/* keep.h - status flags kept in memory, on the way to code that may or may not read them.
 * Part of translator.h; how it works is told in keep.c. */
#ifndef LODGE_ENGINE_TRANSLATE_KEEP_H
#define LODGE_ENGINE_TRANSLATE_KEEP_H

#include <stdint.h>

struct emit;
struct translator;

/* What makes them of kept.a and another operand, b: the lowest bits of kept.how. */
enum keep_operation {
    KEEP_TEST,   /* a and b */
    KEEP_RESULT, /* a, the result of a logical instruction */
    KEEP_CMP,    /* a less b */
    KEEP_SUB,    /* a is what is left after b was taken off */
    KEEP_ADD,    /* a is the sum, b was added */
    KEEP_OPERATIONS,
};

/* A kind: the operation by 8, and for its size 2 to the power of that by 2, and 1 if b is in
 * kept.b, 0 if it is in kept.how above the kind. */
#define KEEP_KIND(operation, size_log, in_field) ((operation) * 8 + (size_log) * 2 + (in_field))

enum {
    KEEP_IMAGE = KEEP_OPERATIONS * 8, /* kept.a is AX after LAHF and SETO AL */
    KEEP_RFLAGS,                      /* kept.a is the guest's RFLAGS */
    KEEP_KINDS,
};

/* Fields for emitted code. */
struct kept {
    uint64_t a, b;
    uint32_t how;
    uint64_t rax, site;           /* while flags are made */
    uint8_t *routines[KEEP_KINDS]; /* for each kind; executable view */
    uint8_t *make, *leave;        /* common routines: to make them, to do so and leave to C */
};

/* b fits beside the kind in kept.how: 24 bits, signed. */
#define KEEP_BESIDE_MAX (1 << 23)

void keep_emit_routines(struct translator *t);
/* The flags that kept.how tells of become the host's, and code goes on behind. Registers are
 * as between units; R10 and R11 are lost. */
void keep_emit_make(const struct translator *t, struct emit *e);
/* The same, and go on at to. */
void keep_emit_make_for(const struct translator *t, struct emit *e, const uint8_t *to);
/* A constant kind, whose kept.a is stored. Flags stay. */
void keep_emit_how(struct emit *e, uint32_t how);
/* Those that the host has now are kept; reg is used. They stay, too. */
void keep_emit_image(struct emit *e, unsigned reg);

#endif
