/* Hardware tasks: the TSS, stacks of inner levels, task switches
 * (SDM 3A chapter 7). Not in long mode, where only the stacks are left. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

/* Field offsets of the 32-bit and the 16-bit TSS (SDM 3A 7.2.1, 7.6). */
struct tss_layout {
    unsigned size, limit;
    unsigned cr3, ip, flags, gpr, segments, segment_count, ldt, trap;
    unsigned word, segment_step;
};

static const struct tss_layout layout32 = {4, 103, 28, 32, 36, 40, 72, 6, 96, 100, 4, 4};
static const struct tss_layout layout16 = {2, 43, 0, 14, 16, 18, 34, 4, 42, 0, 2, 2};

static bool is_32(uint16_t attributes)
{
    return attributes & 8;
}

void task_stack(struct cpu *cpu, unsigned cpl, uint16_t *ret_ss, uint64_t *ret_rsp)
{
    const struct x86_segment *tr = &cpu->state.segment[X86_TR];
    const bool wide = is_32(tr->attributes);
    const unsigned at = wide ? 4 + cpl * 8 : 2 + cpl * 4, size = wide ? 4 : 2;

    if (at + size + 1 > tr->limit)
        cpu_raise_error(cpu, X86_TS, tr->selector & 0xfffc);
    *ret_rsp = cpu_load_system(cpu, tr->base + at, size);
    *ret_ss = (uint16_t)cpu_load_system(cpu, tr->base + at + size, 2);
}

static void set_busy(struct cpu *cpu, uint16_t selector, bool busy)
{
    uint64_t address = cpu->state.gdtr.base + (selector & 0xfff8) + 5;
    uint64_t type = cpu_load_system(cpu, address, 1);

    cpu_store_system(cpu, address, 1, busy ? type | 2 : type & ~2ull);
}

static void save_task(struct cpu *cpu, uint64_t rflags)
{
    const struct x86_segment *tr = &cpu->state.segment[X86_TR];
    const struct tss_layout *l = is_32(tr->attributes) ? &layout32 : &layout16;

    cpu_store_system(cpu, tr->base + l->ip, l->word, cpu->state.rip);
    cpu_store_system(cpu, tr->base + l->flags, l->word, rflags);
    for (unsigned i = 0; i < 8; i++)
        cpu_store_system(cpu, tr->base + l->gpr + i * l->word, l->word, cpu->state.gpr[i]);
    for (unsigned i = 0; i < l->segment_count; i++)
        cpu_store_system(cpu, tr->base + l->segments + i * l->segment_step, 2,
                         cpu->state.segment[i].selector);
}

/* After the switch: faults belong to the new task, and are #TS (SDM 3A table 7-1). */
static void load_task_segment(struct cpu *cpu, unsigned segment, uint16_t selector, unsigned cpl)
{
    const uint32_t error = selector & 0xfffc;
    struct descriptor d;
    unsigned dpl;
    bool code, good;

    if (!(selector & 0xfffc)) {
        if (segment == X86_CS || segment == X86_SS)
            cpu_raise_error(cpu, X86_TS, error);
        segment_set_null(cpu, segment, selector);
        return;
    }
    if (!segment_read_descriptor(cpu, selector, &d) || !(d.attributes & X86_SEG_S))
        cpu_raise_error(cpu, X86_TS, error);
    dpl = (d.attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
    code = d.attributes & X86_SEG_CODE;
    if (segment == X86_CS)
        good = code && (d.attributes & X86_SEG_CONFORM ? dpl <= cpl : dpl == cpl);
    else if (segment == X86_SS)
        good = !code && (d.attributes & X86_SEG_WRITABLE) && dpl == cpl && (selector & 3u) == cpl;
    else
        good = (!code || (d.attributes & X86_SEG_READABLE)) &&
               ((code && (d.attributes & X86_SEG_CONFORM)) ||
                (dpl >= cpl && dpl >= (selector & 3u)));
    if (!good)
        cpu_raise_error(cpu, X86_TS, error);
    if (!(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, segment == X86_SS ? X86_SS_FAULT : X86_NP, error);
    segment_mark_accessed(cpu, &d);
    segment_set(cpu, segment, &d);
}

static void load_ldt(struct cpu *cpu, uint16_t selector)
{
    struct descriptor d;

    if (!(selector & 0xfffc)) {
        segment_set_null(cpu, X86_LDTR, selector);
        return;
    }
    if ((selector & 4) || !segment_read_descriptor(cpu, selector, &d) ||
        (d.attributes & (X86_SEG_S | X86_SEG_TYPE)) != 2 || !(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_TS, selector & 0xfffc);
    segment_set(cpu, X86_LDTR, &d);
}

void cpu_task_switch(struct cpu *cpu, const struct descriptor *tss, enum task_switch_kind kind,
                     bool has_error, uint32_t error_code)
{
    const struct tss_layout *l = is_32(tss->attributes) ? &layout32 : &layout16;
    const uint16_t old_selector = cpu->state.segment[X86_TR].selector;
    const unsigned old_word = is_32(cpu->state.segment[X86_TR].attributes) ? 4 : 2;
    uint64_t gpr[8], rip, flags, cr3 = 0, saved_flags = cpu->state.rflags, trap = 0;
    uint16_t selectors[6] = {0}, ldt;

    if (tss->limit < l->limit)
        cpu_raise_error(cpu, X86_TS, tss->selector & 0xfffc);
    /* Read all of the new task before anything changes. */
    if (l->word == 4)
        cr3 = cpu_load_system(cpu, tss->base + l->cr3, 4);
    rip = cpu_load_system(cpu, tss->base + l->ip, l->word);
    flags = cpu_load_system(cpu, tss->base + l->flags, l->word);
    for (unsigned i = 0; i < 8; i++)
        gpr[i] = cpu_load_system(cpu, tss->base + l->gpr + i * l->word, l->word);
    for (unsigned i = 0; i < l->segment_count; i++)
        selectors[i] = (uint16_t)cpu_load_system(cpu, tss->base + l->segments +
                                                          i * l->segment_step, 2);
    ldt = (uint16_t)cpu_load_system(cpu, tss->base + l->ldt, 2);
    if (l->trap)
        trap = cpu_load_system(cpu, tss->base + l->trap, 2) & 1;

    if (kind == TASK_IRET)
        saved_flags &= ~(uint64_t)X86_NT;
    save_task(cpu, saved_flags);
    if (kind == TASK_JUMP || kind == TASK_IRET)
        set_busy(cpu, old_selector, false);
    if (kind == TASK_CALL || kind == TASK_INTERRUPT) {
        cpu_store_system(cpu, tss->base, 2, old_selector);
        flags |= X86_NT;
    }
    if (kind != TASK_IRET)
        set_busy(cpu, tss->selector, true);

    segment_set(cpu, X86_TR, tss);
    cpu->state.segment[X86_TR].attributes |= 2; /* busy */
    cpu->state.cr0 |= X86_CR0_TS;
    if (l->word == 4 && (cpu->state.cr0 & X86_CR0_PG)) {
        if ((cpu->state.cr4 & X86_CR4_PAE) && !cpu_load_pdptes(cpu, cr3))
            cpu_raise_error(cpu, X86_TS, tss->selector & 0xfffc);
        cpu->state.cr3 = cr3;
        tlb_flush(&cpu->tlb, true);
    }
    cpu->state.rip = cpu->insn_rip = rip;
    cpu->state.rflags = (flags & 0x277fd5) | X86_FLAGS_ONE;
    for (unsigned i = 0; i < 8; i++)
        cpu->state.gpr[i] = l->word == 2 ? (cpu->state.gpr[i] & 0xffff0000) | gpr[i] : gpr[i];
    /* Breakpoints that were local to the old task go (SDM 3B 17.2.4). */
    cpu->state.dr7 &= ~0x155ull;
    for (unsigned i = 0; i < 6; i++)
        segment_set_null(cpu, i, selectors[i]);
    cpu->stop = true;
    if (cpu->state.rflags & X86_VM) {
        for (unsigned i = 0; i < 6; i++)
            segment_set_real(cpu, i, selectors[i]);
        load_ldt(cpu, ldt);
        cpu_update_mode(cpu);
    } else {
        const unsigned cpl = selectors[X86_CS] & 3u;

        cpu->state.segment[X86_SS].attributes = (uint16_t)(cpl << X86_SEG_DPL_SHIFT);
        cpu_update_mode(cpu);
        load_ldt(cpu, ldt);
        load_task_segment(cpu, X86_SS, selectors[X86_SS], cpl);
        load_task_segment(cpu, X86_CS, selectors[X86_CS], cpl);
        cpu_update_mode(cpu);
        load_task_segment(cpu, X86_DS, selectors[X86_DS], cpl);
        load_task_segment(cpu, X86_ES, selectors[X86_ES], cpl);
        load_task_segment(cpu, X86_FS, selectors[X86_FS], cpl);
        load_task_segment(cpu, X86_GS, selectors[X86_GS], cpl);
        cpu_update_mode(cpu);
    }
    if (has_error) {
        uint64_t rsp = cpu->state.gpr[X86_RSP];

        cpu_push_at(cpu, &rsp, error_code, l->word);
        cpu_set_rsp(cpu, rsp);
    }
    (void)old_word;
    if (trap) {
        cpu->state.dr6 |= X86_DR6_BT;
        cpu_deliver(cpu, X86_DB, INTERRUPT_TRAP, false, 0);
    }
}
