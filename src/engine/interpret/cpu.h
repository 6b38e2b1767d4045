/* cpu.h - the software CPU: what the interpreter and the translator share.
 * Private to src/engine/. Architectural state, address translation through a
 * software TLB, exceptions, and operand access for instruction bodies.
 *
 * An instruction body is `void interpret_NAME(struct cpu *, const struct
 * x86_insn *)`, one for each enum x86_op; the generated table
 * interpret_bodies[] holds them all. While a body runs, state.rip is already
 * the address of the next instruction and insn_rip that of this one. A body
 * changes registers only when nothing in it can fault any more: cpu_raise and
 * the memory functions do not return when they fault, and the instruction then
 * has not happened. */
#ifndef LODGE_ENGINE_INTERPRET_CPU_H
#define LODGE_ENGINE_INTERPRET_CPU_H

#include "engine/engine.h"
#include "x86/decode.h"
#include "x86/state.h"

struct cpu {
    struct vcpu vcpu;       /* first: a vcpu of the software engines is a cpu */
    struct x86_state state;
    uint64_t insn_rip;      /* start of the instruction being carried out */
};

typedef void interpret_body(struct cpu *cpu, const struct x86_insn *insn);
extern interpret_body *const interpret_bodies[]; /* by enum x86_op; generated */

/* Raise an exception at this instruction and leave it. */
_Noreturn void cpu_raise(struct cpu *cpu, enum x86_vector vector);
_Noreturn void cpu_raise_error(struct cpu *cpu, enum x86_vector vector, uint32_t error_code);

/* Linear address of the memory operand, segment checks for size bytes done
 * (#GP, #SS); access is X86_READ | X86_WRITE. */
uint64_t cpu_operand_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                             unsigned access);

/* Guest memory at a linear address, with the rights of the current CPL; any
 * size up to 64, across pages too. Each may raise #PF (or #AC). */
void cpu_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size);
void cpu_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size);
/* Raise now what a write there would raise; after it, the write cannot fault. */
void cpu_probe_write(struct cpu *cpu, uint64_t linear, unsigned size);

/* The value of operand i (general register, memory, immediate), zero-extended
 * from its size; the register write follows the 64-bit rule (a 32-bit write
 * clears the upper half). */
uint64_t cpu_read_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i);
void cpu_write_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i, uint64_t value);

#endif
