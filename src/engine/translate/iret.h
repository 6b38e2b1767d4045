/* iret.h - pairs of selectors that IRET may load without the interpreter: see iret.c.
 * Part of struct translator. */
#ifndef LODGE_ENGINE_TRANSLATE_IRET_H
#define LODGE_ENGINE_TRANSLATE_IRET_H

#include <stdint.h>

#include "x86/state.h"

struct translator;

/* A pair of selectors that IRET loaded, and what it loaded of them: see iret.c. */
struct known_return {
    uint32_t selectors;      /* CS, and SS above it; 0: none */
    uint32_t gdt_limit;
    uint64_t gdt_base;
    uint64_t cs_address, ss_address;       /* of the descriptors, in one page, */
    uint64_t cs_descriptor, ss_descriptor; /* and what stood there */
    struct x86_segment cs, ss;
};

enum known_returns {
    RETURN_USER, RETURN_KERNEL, RETURN_NULL, /* the last one: to the kernel, with a null SS */
    KNOWN_RETURNS,
};

/* The interpreter has carried out an IRET from level cpl: what it loaded may be known
 * the next time. */
void iret_remember(struct translator *t, unsigned cpl);

#endif
