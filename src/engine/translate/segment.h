/* segment.h - code whose segments are not flat: units with UNIT_SEGMENTED. Private to this
 * folder; what it assumes is told in segment.c. */
#ifndef LODGE_ENGINE_TRANSLATE_SEGMENT_H
#define LODGE_ENGINE_TRANSLATE_SEGMENT_H

#include "engine/translate/translator.h"

struct build;

/* What may be done through a segment. */
enum segment_class {
    SEGMENT_NONE,  /* nothing, or only the interpreter can tell */
    SEGMENT_READ,  /* read up to its limit */
    SEGMENT_WRITE, /* write too */
    SEGMENT_ALL,   /* anything: it has no limit */
};

/* What such code rests on, as bits of enum unit_mode. */
unsigned segment_mode(const struct cpu *cpu);

/* What the jump cache knows an address of segmented code by: the offset in CS and its base.
 * It is made of the offset by adding a constant. */
static inline uint64_t unit_key(uint64_t linear, uint32_t code_base)
{
    return (uint32_t)(linear - code_base) + ((uint64_t)code_base << 32 | code_base);
}

/* --- While a unit is made --- */

enum segment_class segment_class(const struct build *b, unsigned segment);
/* Whether emitted code may make such an access, up to the limit. */
bool segment_allows(const struct build *b, unsigned segment, unsigned access);
/* Bytes of the stack pointer. */
unsigned segment_stack_size(const struct build *b);
/* The guest's RIP at a linear address. */
uint32_t segment_rip(const struct build *b, uint64_t linear);
/* The offset of a memory operand into reg; the flags are kept. */
void segment_offset(struct build *b, const struct x86_memory *m, unsigned address_size,
                    unsigned reg);
/* To the linear address from the offset in reg; other is used if flags are to be kept. */
void segment_add_base(struct build *b, unsigned segment, unsigned reg, unsigned other,
                      bool flags_live);
/* The linear address of step i's access into s1, or away if the limit forbids it. */
void segment_address(struct build *b, unsigned i, const struct x86_memory *m,
                     unsigned address_size, unsigned size);
/* Step i is the interpreter's unless the value in reg is at most that; the flags are kept. */
void segment_require(struct build *b, unsigned i, unsigned reg, uint32_t most);
/* The same for a branch to the offset in reg of size bytes, which must be within CS. */
void segment_check_target(struct build *b, unsigned i, unsigned reg, unsigned size);
/* From that offset to its key in the jump cache. */
void segment_emit_key(struct build *b, unsigned reg, unsigned other);
void segment_emit_selector(struct build *b, unsigned segment, unsigned reg);
/* Whether loading the segment register cannot fault and changes no more than its base. */
bool segment_loads_simply(const struct build *b, unsigned segment);
/* Load it from selector; other is used, the flags are kept. */
void segment_emit_load(struct build *b, unsigned segment, unsigned selector, unsigned other);

#endif
