/* The stack: PUSH, POP and their kin. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

void cpu_set_rsp(struct cpu *cpu, uint64_t rsp)
{
    uint64_t *gpr = &cpu->state.gpr[X86_RSP];

    if (cpu->stack_mask == 0xffff)
        *gpr = (*gpr & ~0xffffull) | (rsp & 0xffff);
    else
        *gpr = rsp & cpu->stack_mask;
}

static uint64_t stack_address(struct cpu *cpu, uint64_t rsp, unsigned size, unsigned access)
{
    if (likely(cpu->code_size == X86_MODE_64))
        return rsp;
    return cpu_segment_address(cpu, X86_SS, rsp & cpu->stack_mask, size, access);
}

void cpu_push_at(struct cpu *cpu, uint64_t *rsp, uint64_t value, unsigned size)
{
    uint64_t below = (*rsp - size) & cpu->stack_mask;

    cpu_store(cpu, stack_address(cpu, below, size, X86_WRITE), size, value);
    *rsp = below;
}

uint64_t cpu_pop_at(struct cpu *cpu, uint64_t *rsp, unsigned size)
{
    const uint64_t address = stack_address(cpu, *rsp & cpu->stack_mask, size, X86_READ);
    uint64_t value = cpu_load(cpu, address, size);

    *rsp = (*rsp + size) & cpu->stack_mask;
    return value;
}

static void push(struct cpu *cpu, uint64_t value, unsigned size)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP];

    cpu_push_at(cpu, &rsp, value, size);
    cpu_set_rsp(cpu, rsp);
}

void interpret_push(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value;

    if (insn->operands[0].kind == X86_OPERAND_IMMEDIATE)
        value = (uint64_t)insn->immediate;
    else
        value = operand_read(cpu, insn, 0);
    push(cpu, value, insn->operand_size);
}

void interpret_pop(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t before = cpu->state.gpr[X86_RSP], rsp = before;
    uint64_t value = cpu_pop_at(cpu, &rsp, insn->operand_size);

    /* The address of a memory operand counts from RSP after the pop. */
    cpu_set_rsp(cpu, rsp);
    if (insn->operands[0].kind == X86_OPERAND_GPR) {
        gpr_write(cpu, insn->operands[0].reg, insn->operand_size, value);
        return;
    }
    const uint64_t offset = effective_address(cpu, insn);

    cpu->state.gpr[X86_RSP] = before;
    cpu_store(cpu, cpu_segment_address(cpu, insn->memory.segment, offset, insn->operand_size,
                                       X86_WRITE), insn->operand_size, value);
    cpu_set_rsp(cpu, rsp);
}

void interpret_pusha(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t original = cpu->state.gpr[X86_RSP];
    const unsigned size = insn->operand_size;
    uint64_t rsp = original;

    /* Faults come before the first store: probe all of them. */
    for (unsigned i = 1; i <= 8; i++)
        cpu_probe_write(cpu, stack_address(cpu, rsp - i * size, size, X86_WRITE), size);
    for (unsigned reg = X86_RAX; reg <= X86_RDI; reg++)
        cpu_push_at(cpu, &rsp, reg == X86_RSP ? original : cpu->state.gpr[reg], size);
    cpu_set_rsp(cpu, rsp);
}

void interpret_popa(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP], values[8];

    for (int reg = X86_RDI; reg >= X86_RAX; reg--)
        values[reg] = cpu_pop_at(cpu, &rsp, insn->operand_size);
    for (unsigned reg = X86_RAX; reg <= X86_RDI; reg++)
        if (reg != X86_RSP)
            gpr_write(cpu, reg, insn->operand_size, values[reg]);
    cpu_set_rsp(cpu, rsp);
}

void interpret_pushf(struct cpu *cpu, const struct x86_insn *insn)
{
    if (cpu_v86(cpu) && cpu_iopl(cpu) < 3)
        cpu_raise_error(cpu, X86_GP, 0);
    push(cpu, cpu->state.rflags & ~(uint64_t)(X86_VM | X86_RF), insn->operand_size);
}

void interpret_popf(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP], value, mask;

    if (cpu_v86(cpu) && cpu_iopl(cpu) < 3)
        cpu_raise_error(cpu, X86_GP, 0);
    value = cpu_pop_at(cpu, &rsp, insn->operand_size);
    mask = X86_STATUS_FLAGS | X86_TF | X86_DF | X86_NT;
    if (insn->operand_size > 2)
        mask |= X86_AC | X86_ID;
    if (cpu->cpl == 0)
        mask |= X86_IOPL;
    if (cpu->cpl <= cpu_iopl(cpu))
        mask |= X86_IF;
    cpu_set_rsp(cpu, rsp);
    /* RF is cleared except by a 16-bit POPF; VM, VIF, VIP stay. */
    if (insn->operand_size > 2)
        cpu->state.rflags &= ~(uint64_t)X86_RF;
    cpu->state.rflags = (cpu->state.rflags & ~mask) | (value & mask) | X86_FLAGS_ONE;
    cpu_update_mode(cpu);
}

void interpret_enter(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operand_size, level = insn->immediate2 & 31;
    uint64_t rsp = cpu->state.gpr[X86_RSP], rbp = cpu->state.gpr[X86_RBP], frame;

    cpu_push_at(cpu, &rsp, rbp, size);
    frame = (cpu->state.gpr[X86_RSP] & ~cpu->stack_mask) | rsp;
    for (unsigned i = 1; i < level; i++) {
        rbp = (rbp - size) & cpu->stack_mask;
        cpu_push_at(cpu, &rsp, cpu_load(cpu, stack_address(cpu, rbp, size, X86_READ), size), size);
    }
    if (level)
        cpu_push_at(cpu, &rsp, frame, size);
    rsp = (rsp - (uint16_t)insn->immediate) & cpu->stack_mask;
    /* The new top must be writable (SDM 2 ENTER). */
    cpu_probe_write(cpu, stack_address(cpu, rsp, size, X86_WRITE), size);
    gpr_write(cpu, X86_RBP, size, frame);
    cpu_set_rsp(cpu, rsp);
}

void interpret_leave(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RBP];
    uint64_t rbp = cpu_pop_at(cpu, &rsp, insn->operand_size);

    cpu_set_rsp(cpu, rsp);
    gpr_write(cpu, X86_RBP, insn->operand_size, rbp);
}
