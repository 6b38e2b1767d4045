/* Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM 2), SWAPGS. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

static void flat(struct cpu *cpu, unsigned segment, uint16_t selector, uint16_t attributes)
{
    cpu->state.segment[segment] = (struct x86_segment){
        .selector = selector,
        .limit = 0xffffffff,
        .attributes = (uint16_t)(attributes | X86_SEG_P | X86_SEG_S | X86_SEG_G |
                                 X86_SEG_ACCESSED | X86_SEG_WRITABLE),
    };
}

static void enter(struct cpu *cpu, unsigned cpl, uint16_t cs, uint16_t ss, bool to_64)
{
    const uint16_t dpl = (uint16_t)(cpl << X86_SEG_DPL_SHIFT);

    flat(cpu, X86_CS, cs, dpl | X86_SEG_CODE | (to_64 ? X86_SEG_L : X86_SEG_DB));
    flat(cpu, X86_SS, ss, dpl | X86_SEG_DB);
}

void interpret_syscall(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_state *s = &cpu->state;
    const uint16_t selector = (uint16_t)(s->star >> 32) & 0xfffc;

    (void)insn;
    /* As Intel's: only in 64-bit mode. */
    if (!(s->efer & X86_EFER_SCE) || cpu->code_size != X86_MODE_64)
        cpu_raise(cpu, X86_UD);
    s->gpr[X86_RCX] = s->rip;
    s->gpr[X86_R11] = s->rflags & ~(uint64_t)X86_RF;
    s->rip = s->lstar;
    s->rflags = (s->rflags & ~s->sfmask & ~(uint64_t)X86_RF) | X86_FLAGS_ONE;
    enter(cpu, 0, selector, selector + 8, true);
    cpu_update_mode(cpu);
}

void interpret_sysret(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_state *s = &cpu->state;
    const uint16_t selector = (uint16_t)(s->star >> 48) | 3;
    const bool to_64 = insn->operand_size == 8;
    const uint64_t flags = X86_STATUS_FLAGS | X86_TF | X86_IF | X86_DF | X86_IOPL | X86_NT |
                           X86_AC | X86_VIF | X86_VIP | X86_ID;

    if (!(s->efer & X86_EFER_SCE) || cpu->code_size != X86_MODE_64)
        cpu_raise(cpu, X86_UD);
    if (cpu->cpl != 0 || (to_64 && !cpu_canonical(s->gpr[X86_RCX])))
        cpu_raise_error(cpu, X86_GP, 0);
    s->rip = to_64 ? s->gpr[X86_RCX] : (uint32_t)s->gpr[X86_RCX];
    s->rflags = (s->gpr[X86_R11] & flags) | X86_FLAGS_ONE;
    enter(cpu, 3, to_64 ? selector + 16 : selector, selector + 8, to_64);
    cpu_update_mode(cpu);
}

void interpret_sysenter(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_state *s = &cpu->state;
    const uint16_t selector = s->sysenter_cs & 0xfffc;
    const bool longmode = cpu_long_mode(cpu);

    (void)insn;
    if (!(s->cr0 & X86_CR0_PE) || !selector)
        cpu_raise_error(cpu, X86_GP, 0);
    s->rflags &= ~(uint64_t)(X86_VM | X86_IF | X86_RF);
    enter(cpu, 0, selector, selector + 8, longmode);
    s->gpr[X86_RSP] = longmode ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
    s->rip = longmode ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
    cpu_update_mode(cpu);
}

void interpret_sysexit(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_state *s = &cpu->state;
    const uint16_t selector = (s->sysenter_cs & 0xfffc) | 3;
    const bool to_64 = insn->operand_size == 8;

    if (!cpu_protected(cpu) || !(selector & 0xfffc) || cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    if (to_64 && (!cpu_canonical(s->gpr[X86_RDX]) || !cpu_canonical(s->gpr[X86_RCX])))
        cpu_raise_error(cpu, X86_GP, 0);
    s->rip = to_64 ? s->gpr[X86_RDX] : (uint32_t)s->gpr[X86_RDX];
    s->gpr[X86_RSP] = to_64 ? s->gpr[X86_RCX] : (uint32_t)s->gpr[X86_RCX];
    enter(cpu, 3, selector + (to_64 ? 32 : 16), selector + (to_64 ? 40 : 24), to_64);
    cpu_update_mode(cpu);
}

void interpret_swapgs(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t base = cpu->state.segment[X86_GS].base;

    (void)insn;
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.segment[X86_GS].base = cpu->state.kernel_gs_base;
    cpu->state.kernel_gs_base = base;
}
