/* maker.h - a program while it is being made: private to program.c, which makes it of
 * statements, and nest.c, which makes one kind of these. */
#ifndef LODGE_TESTS_ORACLE_MAKER_H
#define LODGE_TESTS_ORACLE_MAKER_H

#include "program.h"

struct maker {
    struct random *r;
    struct image *image;
    struct image_memory *memory;
    struct program *program;
    uint64_t at;     /* linear address of the next byte */
    unsigned left;   /* instructions that may still come */
    bool full;       /* the page ended first */
    unsigned loops;
};

/* An instruction; the second has a value of that size behind its opcode. */
void maker_emit(struct maker *m, const uint8_t *bytes, unsigned count);
void maker_emit_sized(struct maker *m, const uint8_t *opcode, unsigned count, uint64_t value,
                      unsigned size);
void maker_set_register(struct maker *m, unsigned reg, uint64_t value);
/* Flags that are undefined must not be read: all are set anew. */
void maker_set_flags(struct maker *m);
/* A branch, or one on some condition, whose target is filled in later; returns where. */
uint64_t maker_branch(struct maker *m, const uint8_t *opcode, unsigned count);
uint64_t maker_condition(struct maker *m);
void maker_set_target(struct maker *m, uint64_t where, uint64_t target);
/* Where a stack may begin: in a page, beside a page's border, or where it soon faults. */
uint64_t maker_stack(struct maker *m);

#endif
