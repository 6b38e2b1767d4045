/* Near branches (SDM 2 Jcc, JMP, CALL, RET, LOOP). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/flags.h"

/* A target outside the segment or not canonical faults at the branch. */
static void go(struct cpu *cpu, const struct x86_insn *insn, uint64_t target)
{
    if (insn->mode == X86_MODE_64) {
        if (unlikely(!cpu_canonical(target)))
            cpu_raise_error(cpu, X86_GP, 0);
    } else {
        target &= insn->operand_size == 2 ? 0xffff : 0xffffffff;
        if (unlikely(target > cpu->state.segment[X86_CS].limit))
            cpu_raise_error(cpu, X86_GP, 0);
    }
    cpu->state.rip = target;
}

static void go_relative(struct cpu *cpu, const struct x86_insn *insn)
{
    go(cpu, insn, cpu->state.rip + (uint64_t)insn->immediate);
}

void interpret_jcc(struct cpu *cpu, const struct x86_insn *insn)
{
    if (flags_condition(cpu->state.rflags, insn->opcode))
        go_relative(cpu, insn);
}

void interpret_jmp(struct cpu *cpu, const struct x86_insn *insn)
{
    go_relative(cpu, insn);
}

void interpret_jmp_indirect(struct cpu *cpu, const struct x86_insn *insn)
{
    go(cpu, insn, operand_read(cpu, insn, 0));
}

static void call(struct cpu *cpu, const struct x86_insn *insn, uint64_t target)
{
    const uint64_t back = cpu->state.rip;
    uint64_t rsp = cpu->state.gpr[X86_RSP];

    go(cpu, insn, target);
    cpu_push_at(cpu, &rsp, back, insn->operand_size);
    cpu_set_rsp(cpu, rsp);
}

void interpret_call(struct cpu *cpu, const struct x86_insn *insn)
{
    call(cpu, insn, cpu->state.rip + (uint64_t)insn->immediate);
}

void interpret_call_indirect(struct cpu *cpu, const struct x86_insn *insn)
{
    call(cpu, insn, operand_read(cpu, insn, 0));
}

void interpret_ret(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP];
    uint64_t target = cpu_pop_at(cpu, &rsp, insn->operand_size);

    go(cpu, insn, target);
    if (insn->operand_count)
        rsp += (uint16_t)insn->immediate;
    cpu_set_rsp(cpu, rsp);
}

static void loop(struct cpu *cpu, const struct x86_insn *insn, bool condition)
{
    uint64_t count = gpr_read(cpu, X86_RCX, insn->address_size) - 1;

    if ((count & size_mask(insn->address_size)) && condition)
        go_relative(cpu, insn);
    gpr_write(cpu, X86_RCX, insn->address_size, count);
}

void interpret_loop(struct cpu *cpu, const struct x86_insn *insn)
{
    loop(cpu, insn, true);
}

void interpret_loope(struct cpu *cpu, const struct x86_insn *insn)
{
    loop(cpu, insn, cpu->state.rflags & X86_ZF);
}

void interpret_loopne(struct cpu *cpu, const struct x86_insn *insn)
{
    loop(cpu, insn, !(cpu->state.rflags & X86_ZF));
}

void interpret_jcxz(struct cpu *cpu, const struct x86_insn *insn)
{
    if (!gpr_read(cpu, X86_RCX, insn->address_size))
        go_relative(cpu, insn);
}

void interpret_bound(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operand_size, shift = 64 - size * 8;
    uint64_t address = operand_address(cpu, insn, size * 2, X86_READ);
    int64_t low = (int64_t)(cpu_load(cpu, address, size) << shift) >> shift;
    int64_t high =
        (int64_t)(cpu_load(cpu, (address + size) & cpu->address_mask, size) << shift) >> shift;
    int64_t index = (int64_t)(cpu->state.gpr[insn->operands[0].reg] << shift) >> shift;

    if (index < low || index > high)
        cpu_raise(cpu, X86_BR);
}
