/* Far control transfers: JMP, CALL, RET to other segments, call gates, IRET
 * (SDM 3A 5.8; SDM 2 JMP, CALL, RET, IRET). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

enum { SYSTEM_TSS16 = 1, SYSTEM_CALL16 = 4, SYSTEM_TASK_GATE = 5, SYSTEM_TSS32 = 9,
       SYSTEM_CALL32 = 12 };

static unsigned dpl_of(const struct descriptor *d)
{
    return (d->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

static bool is_code(const struct descriptor *d)
{
    return (d->attributes & (X86_SEG_S | X86_SEG_CODE)) == (X86_SEG_S | X86_SEG_CODE);
}

/* Checks of a direct transfer to a code segment; the level stays. */
static void check_direct(struct cpu *cpu, const struct descriptor *cs)
{
    const uint32_t error = cs->selector & 0xfffc;

    if (cs->attributes & X86_SEG_CONFORM) {
        if (dpl_of(cs) > cpu->cpl)
            cpu_raise_error(cpu, X86_GP, error);
    } else if ((cs->selector & 3u) > cpu->cpl || dpl_of(cs) != cpu->cpl) {
        cpu_raise_error(cpu, X86_GP, error);
    }
    if (cpu_long_mode(cpu) && (cs->attributes & X86_SEG_L) && (cs->attributes & X86_SEG_DB))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(cs->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
}

static void check_target(struct cpu *cpu, const struct descriptor *cs, uint64_t rip)
{
    bool to_64 = cpu_long_mode(cpu) && (cs->attributes & X86_SEG_L);

    if (to_64 ? !cpu_canonical(rip) : rip > cs->limit)
        cpu_raise_error(cpu, X86_GP, 0);
}

static void read_far_operand(struct cpu *cpu, const struct x86_insn *insn, uint16_t *selector,
                             uint64_t *offset)
{
    if (insn->operands[0].kind == X86_OPERAND_FAR) {
        *offset = (uint64_t)insn->immediate;
        *selector = (uint16_t)insn->immediate2;
        return;
    }
    uint64_t address = operand_address(cpu, insn, insn->operand_size + 2u, X86_READ);

    *offset = cpu_load(cpu, address, insn->operand_size);
    *selector = (uint16_t)cpu_load(cpu, (address + insn->operand_size) & cpu->address_mask, 2);
}

/* A TSS or task gate as target. False: it is neither. */
static bool switch_task(struct cpu *cpu, struct descriptor *d, enum task_switch_kind kind)
{
    unsigned type = d->attributes & (X86_SEG_TYPE | X86_SEG_S);
    const uint32_t error = d->selector & 0xfffc;

    if (cpu_long_mode(cpu) ||
        (type != SYSTEM_TSS16 && type != SYSTEM_TSS32 && type != SYSTEM_TASK_GATE))
        return false;
    if (dpl_of(d) < cpu->cpl || dpl_of(d) < (d->selector & 3u))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(d->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
    if (type == SYSTEM_TASK_GATE) {
        uint16_t selector = (uint16_t)(cpu_load_system(cpu, d->address + 2, 2));

        if ((selector & 4) || !segment_read_descriptor(cpu, selector, d))
            cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
        type = d->attributes & (X86_SEG_TYPE | X86_SEG_S);
        if (type != SYSTEM_TSS16 && type != SYSTEM_TSS32)
            cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
        if (!(d->attributes & X86_SEG_P))
            cpu_raise_error(cpu, X86_NP, selector & 0xfffc);
    }
    cpu_task_switch(cpu, d, kind, false, 0);
    return true;
}

struct call_gate {
    uint16_t selector;
    uint64_t offset;
    unsigned parameters, size; /* size of a push: 2, 4, 8 */
};

/* False: the descriptor is no call gate. */
static bool read_call_gate(struct cpu *cpu, const struct descriptor *d, struct call_gate *gate)
{
    unsigned type = d->attributes & (X86_SEG_TYPE | X86_SEG_S);
    const uint32_t error = d->selector & 0xfffc;
    uint64_t low;

    if (type != SYSTEM_CALL32 && (type != SYSTEM_CALL16 || cpu_long_mode(cpu)))
        return false;
    if (dpl_of(d) < cpu->cpl || dpl_of(d) < (d->selector & 3u))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(d->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
    low = cpu_load_system(cpu, d->address, 8);
    gate->selector = (uint16_t)(low >> 16);
    gate->offset = (low & 0xffff) | (type == SYSTEM_CALL16 ? 0 : (low >> 32) & 0xffff0000);
    gate->parameters = (low >> 32) & 31;
    gate->size = type == SYSTEM_CALL16 ? 2 : 4;
    if (cpu_long_mode(cpu)) {
        gate->offset |= cpu_load_system(cpu, d->address + 8, 4) << 32;
        gate->parameters = 0;
        gate->size = 8;
    }
    return true;
}

static void gate_target(struct cpu *cpu, const struct call_gate *gate, struct descriptor *cs)
{
    const uint32_t error = gate->selector & 0xfffc;

    if (!(gate->selector & 0xfffc))
        cpu_raise_error(cpu, X86_GP, 0);
    if (!segment_read_descriptor(cpu, gate->selector, cs) || !is_code(cs) ||
        dpl_of(cs) > cpu->cpl)
        cpu_raise_error(cpu, X86_GP, error);
    if (cpu_long_mode(cpu) && (!(cs->attributes & X86_SEG_L) || (cs->attributes & X86_SEG_DB)))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(cs->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
}

/* What a far jump or call names: code, a gate or a task. */
static void read_target(struct cpu *cpu, uint16_t selector, struct descriptor *ret)
{
    if (!(selector & 0xfffc))
        cpu_raise_error(cpu, X86_GP, 0);
    if (!segment_read_descriptor(cpu, selector, ret))
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
}

void interpret_jmp_far(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor cs;
    struct call_gate gate;
    uint16_t selector;
    uint64_t offset;

    read_far_operand(cpu, insn, &selector, &offset);
    cpu->stop = true;
    if (!cpu_protected(cpu)) {
        segment_set_real(cpu, X86_CS, selector);
        cpu->state.rip = offset & size_mask(insn->operand_size);
        cpu_update_mode(cpu);
        return;
    }
    read_target(cpu, selector, &cs);
    if (is_code(&cs)) {
        check_direct(cpu, &cs);
        check_target(cpu, &cs, offset);
    } else if (switch_task(cpu, &cs, TASK_JUMP)) {
        return;
    } else if (read_call_gate(cpu, &cs, &gate)) {
        gate_target(cpu, &gate, &cs);
        if (!(cs.attributes & X86_SEG_CONFORM) && dpl_of(&cs) != cpu->cpl)
            cpu_raise_error(cpu, X86_GP, gate.selector & 0xfffc);
        offset = gate.offset;
        check_target(cpu, &cs, offset);
    } else {
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
    }
    segment_mark_accessed(cpu, &cs);
    segment_load_cs(cpu, &cs, cpu->cpl, offset);
}

/* A call through a gate to an inner level: a new stack (SDM 3A 5.8.5). */
static void call_inner(struct cpu *cpu, const struct call_gate *gate, struct descriptor *cs)
{
    const unsigned cpl = dpl_of(cs), size = gate->size;
    const uint16_t old_ss = cpu->state.segment[X86_SS].selector;
    const uint64_t old_rsp = cpu->state.gpr[X86_RSP];
    uint64_t parameters[32], rsp, mask, base;
    struct descriptor ss = {0};
    uint16_t selector;

    for (unsigned i = 0; i < gate->parameters; i++)
        parameters[i] = cpu_load(cpu,
                                 cpu_segment_address(cpu, X86_SS,
                                                     (old_rsp + i * size) & cpu->stack_mask, size,
                                                     X86_READ),
                                 size);
    if (cpu_long_mode(cpu)) {
        const struct x86_segment *tr = &cpu->state.segment[X86_TR];

        if (4 + cpl * 8 + 7 > tr->limit)
            cpu_raise_error(cpu, X86_TS, tr->selector & 0xfffc);
        rsp = cpu_load_system(cpu, tr->base + 4 + cpl * 8, 8);
        if (!cpu_canonical(rsp))
            cpu_raise_error(cpu, X86_SS_FAULT, 0);
        mask = UINT64_MAX;
        base = 0;
        selector = (uint16_t)cpl;
    } else {
        task_stack(cpu, cpl, &selector, &rsp);
        if (!(selector & 0xfffc))
            cpu_raise_error(cpu, X86_TS, 0);
        if (!segment_read_descriptor(cpu, selector, &ss) || (selector & 3u) != cpl ||
            dpl_of(&ss) != cpl ||
            (ss.attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE)) !=
                (X86_SEG_S | X86_SEG_WRITABLE))
            cpu_raise_error(cpu, X86_TS, selector & 0xfffc);
        if (!(ss.attributes & X86_SEG_P))
            cpu_raise_error(cpu, X86_SS_FAULT, selector & 0xfffc);
        mask = ss.attributes & X86_SEG_DB ? 0xffffffff : 0xffff;
        base = ss.base;
    }
#define PUSH_INNER(value)                                                                          \
    do {                                                                                           \
        rsp = (rsp - size) & mask;                                                                 \
        cpu_store_as(cpu, (base + rsp) & (size == 8 ? UINT64_MAX : 0xffffffff), size, value,       \
                     TLB_SUPERVISOR);                                                              \
    } while (0)
    PUSH_INNER(old_ss);
    PUSH_INNER(old_rsp);
    for (unsigned i = gate->parameters; i-- > 0;)
        PUSH_INNER(parameters[i]);
    PUSH_INNER(cpu->state.segment[X86_CS].selector);
    PUSH_INNER(cpu->state.rip);
#undef PUSH_INNER
    segment_mark_accessed(cpu, cs);
    if (cpu_long_mode(cpu)) {
        segment_set_null(cpu, X86_SS, selector);
    } else {
        segment_mark_accessed(cpu, &ss);
        segment_set(cpu, X86_SS, &ss);
    }
    segment_load_cs(cpu, cs, cpl, gate->offset);
    cpu_set_rsp(cpu, rsp);
}

void interpret_call_far(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP], offset;
    unsigned size = insn->operand_size;
    struct descriptor cs;
    struct call_gate gate;
    uint16_t selector;

    read_far_operand(cpu, insn, &selector, &offset);
    cpu->stop = true;
    if (!cpu_protected(cpu)) {
        cpu_push_at(cpu, &rsp, cpu->state.segment[X86_CS].selector, size);
        cpu_push_at(cpu, &rsp, cpu->state.rip, size);
        cpu_set_rsp(cpu, rsp);
        segment_set_real(cpu, X86_CS, selector);
        cpu->state.rip = offset & size_mask(size);
        cpu_update_mode(cpu);
        return;
    }
    read_target(cpu, selector, &cs);
    if (is_code(&cs)) {
        check_direct(cpu, &cs);
        check_target(cpu, &cs, offset);
    } else if (switch_task(cpu, &cs, TASK_CALL)) {
        return;
    } else if (read_call_gate(cpu, &cs, &gate)) {
        gate_target(cpu, &gate, &cs);
        check_target(cpu, &cs, gate.offset);
        if (!(cs.attributes & X86_SEG_CONFORM) && dpl_of(&cs) < cpu->cpl) {
            call_inner(cpu, &gate, &cs);
            return;
        }
        size = gate.size;
        offset = gate.offset;
    } else {
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
    }
    cpu_push_at(cpu, &rsp, cpu->state.segment[X86_CS].selector, size);
    cpu_push_at(cpu, &rsp, cpu->state.rip, size);
    segment_mark_accessed(cpu, &cs);
    cpu_set_rsp(cpu, rsp);
    segment_load_cs(cpu, &cs, cpu->cpl, offset);
}

/* Segments that an outer level may not use become null (SDM 2 RET, IRET). */
static void drop_inner_segments(struct cpu *cpu, unsigned cpl)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < 4; i++) {
        struct x86_segment *s = &cpu->state.segment[data[i]];
        bool conforming = (s->attributes & (X86_SEG_CODE | X86_SEG_CONFORM)) ==
                          (X86_SEG_CODE | X86_SEG_CONFORM);

        if ((s->attributes & X86_SEG_P) && !conforming &&
            ((s->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT) < cpl) {
            uint64_t base = s->base;

            segment_set_null(cpu, data[i], 0);
            /* FS and GS bases survive a null load on Intel; the base is no secret here. */
            if (cpu_long_mode(cpu))
                s->base = base;
        }
    }
}

static void check_return_cs(struct cpu *cpu, uint16_t selector, struct descriptor *cs)
{
    const uint32_t error = selector & 0xfffc;
    const unsigned rpl = selector & 3u;

    if (!(selector & 0xfffc))
        cpu_raise_error(cpu, X86_GP, 0);
    if (!segment_read_descriptor(cpu, selector, cs) || !is_code(cs) || rpl < cpu->cpl)
        cpu_raise_error(cpu, X86_GP, error);
    if (cs->attributes & X86_SEG_CONFORM ? dpl_of(cs) > rpl : dpl_of(cs) != rpl)
        cpu_raise_error(cpu, X86_GP, error);
    if (cpu_long_mode(cpu) && (cs->attributes & X86_SEG_L) && (cs->attributes & X86_SEG_DB))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(cs->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
}

/* SS on a return to rpl; null is allowed towards 64-bit code below ring 3.
 * False: it is null. */
static bool check_return_ss(struct cpu *cpu, uint16_t selector, unsigned rpl,
                            const struct descriptor *cs, struct descriptor *ss)
{
    const uint32_t error = selector & 0xfffc;

    if (!(selector & 0xfffc)) {
        if (!(cpu_long_mode(cpu) && (cs->attributes & X86_SEG_L) && rpl != 3 &&
              (selector & 3u) == rpl))
            cpu_raise_error(cpu, X86_GP, 0);
        return false;
    }
    if (!segment_read_descriptor(cpu, selector, ss) || (selector & 3u) != rpl ||
        dpl_of(ss) != rpl ||
        (ss->attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE)) !=
            (X86_SEG_S | X86_SEG_WRITABLE))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(ss->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_SS_FAULT, error);
    return true;
}

/* Load CS, and SS:RSP when the level changes or long mode's IRET says so. */
static void load_outer(struct cpu *cpu, struct descriptor *cs, uint16_t ss_selector,
                       struct descriptor *ss, bool ss_null, uint64_t rip, uint64_t rsp)
{
    const unsigned rpl = cs->selector & 3u;
    const bool outer = rpl > cpu->cpl;

    segment_mark_accessed(cpu, cs);
    if (ss_null) {
        segment_set_null(cpu, X86_SS, ss_selector);
    } else {
        segment_mark_accessed(cpu, ss);
        segment_set(cpu, X86_SS, ss);
    }
    segment_load_cs(cpu, cs, rpl, rip);
    cpu_set_rsp(cpu, rsp);
    if (outer)
        drop_inner_segments(cpu, rpl);
}

void interpret_ret_far(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operand_size;
    const uint64_t release = insn->operand_count ? (uint16_t)insn->immediate : 0;
    uint64_t rsp = cpu->state.gpr[X86_RSP], rip, new_rsp;
    struct descriptor cs, ss;
    uint16_t selector, ss_selector;
    bool null;

    rip = cpu_pop_at(cpu, &rsp, size);
    selector = (uint16_t)cpu_pop_at(cpu, &rsp, size);
    cpu->stop = true;
    if (!cpu_protected(cpu)) {
        cpu_set_rsp(cpu, rsp + release);
        segment_set_real(cpu, X86_CS, selector);
        cpu->state.rip = rip;
        cpu_update_mode(cpu);
        return;
    }
    check_return_cs(cpu, selector, &cs);
    check_target(cpu, &cs, rip);
    if ((selector & 3u) == cpu->cpl) {
        segment_mark_accessed(cpu, &cs);
        cpu_set_rsp(cpu, rsp + release);
        segment_load_cs(cpu, &cs, cpu->cpl, rip);
        return;
    }
    rsp += release;
    new_rsp = cpu_pop_at(cpu, &rsp, size);
    ss_selector = (uint16_t)cpu_pop_at(cpu, &rsp, size);
    null = !check_return_ss(cpu, ss_selector, selector & 3u, &cs, &ss);
    load_outer(cpu, &cs, ss_selector, &ss, null, rip, new_rsp + release);
}

/* --- IRET --- */

static void set_flags(struct cpu *cpu, uint64_t value, unsigned size, unsigned old_cpl)
{
    uint64_t mask = X86_STATUS_FLAGS | X86_TF | X86_DF | X86_NT;

    if (size > 2)
        mask |= X86_RF | X86_AC | X86_ID;
    if (old_cpl <= cpu_iopl(cpu))
        mask |= X86_IF;
    if (old_cpl == 0) {
        mask |= X86_IOPL;
        if (size > 2)
            mask |= X86_VIF | X86_VIP;
    }
    cpu->state.rflags = (cpu->state.rflags & ~mask) | (value & mask) | X86_FLAGS_ONE;
}

static void iret_real(struct cpu *cpu, unsigned size)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP], rip, flags;
    uint16_t selector;

    if (cpu_v86(cpu) && cpu_iopl(cpu) < 3)
        cpu_raise_error(cpu, X86_GP, 0);
    rip = cpu_pop_at(cpu, &rsp, size);
    selector = (uint16_t)cpu_pop_at(cpu, &rsp, size);
    flags = cpu_pop_at(cpu, &rsp, size);
    cpu_set_rsp(cpu, rsp);
    segment_set_real(cpu, X86_CS, selector);
    cpu->state.rip = rip;
    /* In virtual-8086 mode IOPL stays as it is (SDM 2 IRET). */
    if (cpu_v86(cpu))
        flags = (flags & ~(uint64_t)X86_IOPL) | (cpu->state.rflags & X86_IOPL);
    set_flags(cpu, flags, size, 0);
    cpu_update_mode(cpu);
}

static void iret_to_v86(struct cpu *cpu, uint64_t rsp, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    uint16_t selectors[4], ss;
    uint64_t new_rsp;

    new_rsp = cpu_pop_at(cpu, &rsp, 4);
    ss = (uint16_t)cpu_pop_at(cpu, &rsp, 4);
    for (unsigned i = 0; i < 4; i++)
        selectors[i] = (uint16_t)cpu_pop_at(cpu, &rsp, 4);
    set_flags(cpu, flags, 4, 0);
    cpu->state.rflags |= X86_VM;
    segment_set_real(cpu, X86_CS, cs);
    cpu->state.segment[X86_CS].attributes |= X86_SEG_CODE;
    segment_set_real(cpu, X86_SS, ss);
    for (unsigned i = 0; i < 4; i++)
        segment_set_real(cpu, order[i], selectors[i]);
    cpu->state.rip = rip & 0xffff;
    cpu->state.gpr[X86_RSP] = new_rsp;
    cpu_update_mode(cpu);
}

static void iret_task(struct cpu *cpu)
{
    uint16_t selector = (uint16_t)cpu_load_system(cpu, cpu->state.segment[X86_TR].base, 2);
    struct descriptor tss;
    unsigned type;

    if ((selector & 4) || !segment_read_descriptor(cpu, selector, &tss))
        cpu_raise_error(cpu, X86_TS, selector & 0xfffc);
    type = tss.attributes & (X86_SEG_TYPE | X86_SEG_S);
    if (type != 3 && type != 11) /* it must be busy */
        cpu_raise_error(cpu, X86_TS, selector & 0xfffc);
    if (!(tss.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, selector & 0xfffc);
    cpu_task_switch(cpu, &tss, TASK_IRET, false, 0);
}

/* IRET lets the next NMI in, at once when one waits (SDM 3A 6.7.1). */
static void unblock_nmi(struct cpu *cpu)
{
    cpu->state.nmi_blocked = false;
    if (cpu->state.nmi_pending)
        atomic_fetch_or(&cpu->signals, ENGINE_SIGNAL_NMI);
}

void interpret_iret(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operand_size, old_cpl = cpu->cpl;
    uint64_t rsp = cpu->state.gpr[X86_RSP], rip, flags, new_rsp;
    struct descriptor cs, ss;
    uint16_t selector, ss_selector;
    bool null;

    cpu->stop = true;
    if (!cpu_protected(cpu)) {
        iret_real(cpu, size);
        unblock_nmi(cpu);
        return;
    }
    if (cpu->state.rflags & X86_NT) {
        if (cpu_long_mode(cpu))
            cpu_raise_error(cpu, X86_GP, 0);
        iret_task(cpu);
        unblock_nmi(cpu);
        return;
    }
    rip = cpu_pop_at(cpu, &rsp, size);
    selector = (uint16_t)cpu_pop_at(cpu, &rsp, size);
    flags = cpu_pop_at(cpu, &rsp, size);
    if (size == 4 && (flags & X86_VM) && old_cpl == 0 && !cpu_long_mode(cpu)) {
        iret_to_v86(cpu, rsp, rip, selector, flags);
        unblock_nmi(cpu);
        return;
    }
    check_return_cs(cpu, selector, &cs);
    if ((selector & 3u) == cpu->cpl && cpu->code_size != X86_MODE_64) {
        check_target(cpu, &cs, rip);
        segment_mark_accessed(cpu, &cs);
        cpu_set_rsp(cpu, rsp);
        segment_load_cs(cpu, &cs, cpu->cpl, rip);
    } else {
        new_rsp = cpu_pop_at(cpu, &rsp, size);
        ss_selector = (uint16_t)cpu_pop_at(cpu, &rsp, size);
        null = !check_return_ss(cpu, ss_selector, selector & 3u, &cs, &ss);
        check_target(cpu, &cs, rip);
        load_outer(cpu, &cs, ss_selector, &ss, null, rip, new_rsp);
    }
    set_flags(cpu, flags, size, old_cpl);
    unblock_nmi(cpu);
    cpu_update_mode(cpu);
}
