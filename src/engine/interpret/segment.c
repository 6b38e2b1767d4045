/* Segment registers: descriptors, their checks, and what loading them does
 * (SDM 3A 3.4, 5.6; SDM 2 MOV). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

bool segment_read_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *ret)
{
    const struct x86_segment *ldt = &cpu->state.segment[X86_LDTR];
    uint64_t base = cpu->state.gdtr.base;
    uint32_t limit = cpu->state.gdtr.limit, low, high;
    uint16_t offset = selector & 0xfff8;

    if (selector & 4) {
        if (!(ldt->attributes & X86_SEG_P))
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    if (offset + 7u > limit)
        return false;
    ret->address = (base + offset) & (cpu_long_mode(cpu) ? UINT64_MAX : 0xffffffff);
    low = (uint32_t)cpu_load_system(cpu, ret->address, 4);
    high = (uint32_t)cpu_load_system(cpu, ret->address + 4, 4);
    ret->selector = selector;
    ret->base = (low >> 16) | (high & 0xff) << 16 | (high & 0xff000000);
    ret->limit = (low & 0xffff) | (high & 0xf0000);
    ret->attributes = (high >> 8) & 0xf0ff;
    if (ret->attributes & X86_SEG_G)
        ret->limit = ret->limit << 12 | 0xfff;
    /* System descriptors are 16 bytes wide in long mode (SDM 3A 5.2.1, 7.2.3). */
    if (!(ret->attributes & X86_SEG_S) && cpu_long_mode(cpu)) {
        uint16_t type = ret->attributes & X86_SEG_TYPE;

        if (type == 2 || type == 9 || type == 11 || type == 12) {
            if (offset + 15u > limit)
                return false;
            ret->base |= cpu_load_system(cpu, ret->address + 8, 4) << 32;
        }
    }
    return true;
}

void segment_mark_accessed(struct cpu *cpu, struct descriptor *descriptor)
{
    if (descriptor->attributes & X86_SEG_ACCESSED)
        return;
    descriptor->attributes |= X86_SEG_ACCESSED;
    cpu_store_system(cpu, descriptor->address + 5, 1, descriptor->attributes & 0xff);
}

void segment_set(struct cpu *cpu, unsigned segment, const struct descriptor *descriptor)
{
    cpu->state.segment[segment] = (struct x86_segment){
        .base = descriptor->base,
        .limit = descriptor->limit,
        .selector = descriptor->selector,
        .attributes = descriptor->attributes,
    };
}

void segment_set_real(struct cpu *cpu, unsigned segment, uint16_t selector)
{
    struct x86_segment *s = &cpu->state.segment[segment];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (cpu_v86(cpu)) {
        s->limit = 0xffff;
        s->attributes = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED | X86_SEG_DPL;
    } else if (segment == X86_CS) {
        /* In real mode the limit stays what it was ("unreal" mode); a far jump
         * makes CS an ordinary readable segment again. */
        s->attributes = X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_READABLE | X86_SEG_ACCESSED;
    } else if (!(s->attributes & X86_SEG_P)) {
        s->attributes = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED;
    }
}

void segment_set_null(struct cpu *cpu, unsigned segment, uint16_t selector)
{
    /* A null SS in 64-bit mode still carries the CPL. */
    cpu->state.segment[segment] = (struct x86_segment){
        .selector = selector,
        .attributes = segment == X86_SS ? (uint16_t)((selector & 3) << X86_SEG_DPL_SHIFT) : 0,
    };
}

static void load_ss(struct cpu *cpu, uint16_t selector)
{
    const uint16_t error = selector & 0xfffc;
    struct descriptor d;

    if (!(selector & 0xfffc)) {
        /* Null is allowed in 64-bit mode below ring 3, with RPL = CPL. */
        if (cpu->code_size != X86_MODE_64 || cpu->cpl == 3 || (selector & 3) != cpu->cpl)
            cpu_raise_error(cpu, X86_GP, 0);
        segment_set_null(cpu, X86_SS, selector);
        cpu_update_mode(cpu);
        return;
    }
    if (!segment_read_descriptor(cpu, selector, &d) || (selector & 3) != cpu->cpl ||
        (d.attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE)) !=
            (X86_SEG_S | X86_SEG_WRITABLE) ||
        ((d.attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT) != cpu->cpl)
        cpu_raise_error(cpu, X86_GP, error);
    if (!(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_SS_FAULT, error);
    segment_mark_accessed(cpu, &d);
    segment_set(cpu, X86_SS, &d);
    cpu_update_mode(cpu);
}

void segment_load(struct cpu *cpu, unsigned segment, uint16_t selector)
{
    const uint16_t error = selector & 0xfffc;
    struct descriptor d;
    unsigned dpl;

    if (!cpu_protected(cpu)) {
        segment_set_real(cpu, segment, selector);
        cpu_update_mode(cpu);
        return;
    }
    if (segment == X86_SS) {
        load_ss(cpu, selector);
        return;
    }
    if (!(selector & 0xfffc)) {
        segment_set_null(cpu, segment, selector);
        cpu_update_mode(cpu);
        return;
    }
    if (!segment_read_descriptor(cpu, selector, &d) || !(d.attributes & X86_SEG_S) ||
        (d.attributes & (X86_SEG_CODE | X86_SEG_READABLE)) == X86_SEG_CODE)
        cpu_raise_error(cpu, X86_GP, error);
    dpl = (d.attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
    if ((d.attributes & (X86_SEG_CODE | X86_SEG_CONFORM)) != (X86_SEG_CODE | X86_SEG_CONFORM) &&
        (dpl < cpu->cpl || dpl < (selector & 3u)))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
    segment_mark_accessed(cpu, &d);
    segment_set(cpu, segment, &d);
    cpu_update_mode(cpu);
}

void segment_load_cs(struct cpu *cpu, const struct descriptor *descriptor, unsigned cpl,
                     uint64_t rip)
{
    segment_set(cpu, X86_CS, descriptor);
    cpu->state.segment[X86_CS].selector = (uint16_t)((descriptor->selector & ~3u) | cpl);
    /* The CPL is that of SS in the state: while the stack has not been switched
     * the two agree already, and where it is, the caller loads SS too. */
    cpu->state.rip = rip;
    cpu_update_mode(cpu);
}

/* MOV, POP and LxS put SS under a shadow of one instruction (SDM 3A 6.8.3). */
static void load_by_instruction(struct cpu *cpu, unsigned segment, uint16_t selector)
{
    segment_load(cpu, segment, selector);
    if (segment == X86_SS) {
        cpu->state.interrupt_shadow = true;
        cpu->retired_shadow = true;
        cpu->stop = true;
    }
}

void interpret_mov_to_sreg(struct cpu *cpu, const struct x86_insn *insn)
{
    uint16_t selector = insn->operands[1].kind == X86_OPERAND_MEMORY
                            ? (uint16_t)cpu_load(cpu, operand_address(cpu, insn, 2, X86_READ), 2)
                            : (uint16_t)cpu->state.gpr[insn->operands[1].reg];

    load_by_instruction(cpu, insn->operands[0].reg, selector);
}

void interpret_mov_from_sreg(struct cpu *cpu, const struct x86_insn *insn)
{
    uint16_t selector = cpu->state.segment[insn->operands[1].reg].selector;

    /* To memory always 16 bits. */
    if (insn->operands[0].kind == X86_OPERAND_MEMORY)
        cpu_store(cpu, operand_address(cpu, insn, 2, X86_WRITE), 2, selector);
    else
        operand_write(cpu, insn, 0, selector);
}

void interpret_push_sreg(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP];
    uint16_t selector = cpu->state.segment[insn->operands[0].reg].selector;

    /* A 32-bit push may leave the upper half alone; Intel's current CPUs do. */
    if (insn->operand_size == 4) {
        uint64_t below = rsp - 4;

        cpu_store(cpu, cpu_segment_address(cpu, X86_SS, below & cpu->stack_mask, 4, X86_WRITE), 2,
                  selector);
        cpu_set_rsp(cpu, below);
        return;
    }
    cpu_push_at(cpu, &rsp, selector, insn->operand_size);
    cpu_set_rsp(cpu, rsp);
}

void interpret_pop_sreg(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP];
    uint16_t selector = (uint16_t)cpu_pop_at(cpu, &rsp, insn->operand_size);
    uint64_t mask = cpu->stack_mask;

    load_by_instruction(cpu, insn->operands[0].reg, selector);
    /* RSP moves by the width that the stack had before. */
    cpu->state.gpr[X86_RSP] = (cpu->state.gpr[X86_RSP] & ~mask) | (rsp & mask);
    if (mask == 0xffffffff)
        cpu->state.gpr[X86_RSP] = (uint32_t)rsp;
}

static void load_far_pointer(struct cpu *cpu, const struct x86_insn *insn, unsigned segment)
{
    uint64_t address =
        operand_address(cpu, insn, insn->operand_size + 2u, X86_READ);
    uint64_t offset = cpu_load(cpu, address, insn->operand_size);
    uint16_t selector =
        (uint16_t)cpu_load(cpu, (address + insn->operand_size) & cpu->address_mask, 2);

    load_by_instruction(cpu, segment, selector);
    gpr_write(cpu, insn->operands[0].reg, insn->operand_size, offset);
}

#define LOAD_FAR_POINTER(name, segment)                                                            \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        load_far_pointer(cpu, insn, segment);                                                      \
    }

LOAD_FAR_POINTER(lds, X86_DS)
LOAD_FAR_POINTER(les, X86_ES)
LOAD_FAR_POINTER(lss, X86_SS)
LOAD_FAR_POINTER(lfs, X86_FS)
LOAD_FAR_POINTER(lgs, X86_GS)

/* LAR, LSL, VERR, VERW: look at a descriptor without loading it. */

static bool visible(const struct cpu *cpu, const struct descriptor *d)
{
    unsigned dpl = (d->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;

    if ((d->attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_CONFORM)) ==
        (X86_SEG_S | X86_SEG_CODE | X86_SEG_CONFORM))
        return true;
    return dpl >= cpu->cpl && dpl >= (d->selector & 3u);
}

static void set_zf(struct cpu *cpu, bool zero)
{
    cpu->state.rflags = zero ? cpu->state.rflags | X86_ZF : cpu->state.rflags & ~(uint64_t)X86_ZF;
}

static uint16_t read_selector(struct cpu *cpu, const struct x86_insn *insn, unsigned i)
{
    if (insn->operands[i].kind == X86_OPERAND_MEMORY)
        return (uint16_t)cpu_load(cpu, operand_address(cpu, insn, 2, X86_READ), 2);
    return (uint16_t)cpu->state.gpr[insn->operands[i].reg];
}

/* Types that LAR and LSL know (SDM 2 LAR table 3-50, LSL table 3-55). */
static bool look_up(struct cpu *cpu, uint16_t selector, bool limit, struct descriptor *d)
{
    static const uint16_t lar_types = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 |
                                      1 << 11 | 1 << 12;
    static const uint16_t lar_types_long = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
    static const uint16_t lsl_types = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
    static const uint16_t lsl_types_long = 1 << 2 | 1 << 9 | 1 << 11;
    bool longmode = cpu_long_mode(cpu);
    uint16_t types = limit ? (longmode ? lsl_types_long : lsl_types)
                           : (longmode ? lar_types_long : lar_types);

    if (!(selector & 0xfffc) || !segment_read_descriptor(cpu, selector, d) || !visible(cpu, d))
        return false;
    return (d->attributes & X86_SEG_S) || (types >> (d->attributes & X86_SEG_TYPE) & 1);
}

static void require_protected(struct cpu *cpu)
{
    if (!cpu_protected(cpu))
        cpu_raise(cpu, X86_UD);
}

void interpret_lar(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    bool found;

    require_protected(cpu);
    found = look_up(cpu, read_selector(cpu, insn, 1), false, &d);
    if (found) {
        uint32_t high = (uint32_t)cpu_load_system(cpu, d.address + 4, 4);

        gpr_write(cpu, insn->operands[0].reg, insn->operand_size, high & 0xffff00);
    }
    set_zf(cpu, found);
}

void interpret_lsl(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    bool found;

    require_protected(cpu);
    found = look_up(cpu, read_selector(cpu, insn, 1), true, &d);
    if (found)
        gpr_write(cpu, insn->operands[0].reg, insn->operand_size, d.limit);
    set_zf(cpu, found);
}

void interpret_verr(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(cpu);
    selector = read_selector(cpu, insn, 0);
    set_zf(cpu, (selector & 0xfffc) && segment_read_descriptor(cpu, selector, &d) &&
                    (d.attributes & X86_SEG_S) && visible(cpu, &d) &&
                    (d.attributes & (X86_SEG_CODE | X86_SEG_READABLE)) != X86_SEG_CODE);
}

void interpret_verw(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(cpu);
    selector = read_selector(cpu, insn, 0);
    set_zf(cpu, (selector & 0xfffc) && segment_read_descriptor(cpu, selector, &d) &&
                    (d.attributes & X86_SEG_S) && visible(cpu, &d) &&
                    (d.attributes & (X86_SEG_CODE | X86_SEG_WRITABLE)) == X86_SEG_WRITABLE);
}

void interpret_arpl(struct cpu *cpu, const struct x86_insn *insn)
{
    uint16_t to, from;

    require_protected(cpu);
    to = (uint16_t)operand_read(cpu, insn, 0);
    from = (uint16_t)cpu->state.gpr[insn->operands[1].reg];
    if ((to & 3) < (from & 3)) {
        operand_write(cpu, insn, 0, (to & ~3u) | (from & 3));
        set_zf(cpu, true);
    } else {
        set_zf(cpu, false);
    }
}
