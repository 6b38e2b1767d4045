/* compare.h - lays the outcome of one CPU over that of another. */
#ifndef LODGE_TESTS_ORACLE_COMPARE_H
#define LODGE_TESTS_ORACLE_COMPARE_H

#include "image.h"

/* What the architecture leaves undefined, or leaves to the model. */
struct tolerance {
    uint64_t flags;      /* of RFLAGS */
    uint16_t registers;  /* by bit: general registers that may differ */
    uint16_t halves;     /* the same: their upper halves */
    uint32_t from, to;   /* offsets in data that may differ */
    /* When it faults; else nothing may differ then. */
    uint64_t fault_flags;
    uint16_t fault_registers;
    uint16_t fault_halves;
    uint16_t fault_vectors; /* the same of vector registers, */
    uint16_t fault_high;    /* and of their upper halves */
    uint16_t fault_mxcsr;
    bool fault_memory;   /* stores before the one that faults */
    bool fault_x87;      /* TOP, tags and their registers */
    bool fault_address;  /* CR2 */
    bool fault_pending;  /* whether it does, when else an x87 exception is left pending */
    bool fault_any;      /* whether it does, and where */
};

/* What the instruction leaves undefined when it is carried out in `before`. */
struct tolerance tolerance_of(const struct x86_insn *insn, const struct image *before);

/* False: they differ, and text says where, in one line: name and both values. */
bool compare_outcomes(const struct image *a, const struct image_memory *a_memory,
                      const struct image *b, const struct image_memory *b_memory,
                      const struct tolerance *tolerance, char *text, size_t length);

#endif
