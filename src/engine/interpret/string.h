/* string.h - what string instructions share, port strings included. Private
 * to the interpreter. */
#ifndef LODGE_ENGINE_INTERPRET_STRING_H
#define LODGE_ENGINE_INTERPRET_STRING_H

#include "engine/interpret/cpu.h"

typedef void string_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size);

/* Linear addresses of [rSI] with its segment and of ES:[rDI], checked. */
uint64_t string_source(struct cpu *cpu, const struct x86_insn *insn, unsigned size);
uint64_t string_destination(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                            unsigned access);
/* Move RSI or RDI by size in the direction of DF, within the address size. */
void string_advance(struct cpu *cpu, const struct x86_insn *insn, unsigned reg, unsigned size);

/* Do it once, or with REP as often as rCX says; rCX and the pointers are right
 * whenever an element faults. Leaves early, to come back, when a signal waits. */
void string_repeat(struct cpu *cpu, const struct x86_insn *insn, unsigned size, string_once *once);

#endif
