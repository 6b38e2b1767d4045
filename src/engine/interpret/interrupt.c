/* Interrupts and exceptions: delivery through the IDT in every mode, double
 * and triple faults, what waits at an instruction boundary
 * (SDM 3A chapter 6). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"
#include "engine/interpret/code_pages.h"

/* Bits of the error code of a fault during delivery (SDM 3A 6.13). */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

enum gate_type {
    GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT32 = 14, GATE_TRAP32 = 15,
};

struct gate {
    uint16_t selector;
    uint64_t offset;
    unsigned type, dpl, ist;
    bool present;
};

_Noreturn void cpu_raise(struct cpu *cpu, enum x86_vector vector)
{
    cpu->fault_vector = (int)vector;
    cpu->fault_has_error = false;
    cpu->fault_error = 0;
    siglongjmp(cpu->fault, 1);
}

_Noreturn void cpu_raise_error(struct cpu *cpu, enum x86_vector vector, uint32_t error_code)
{
    cpu->fault_vector = (int)vector;
    cpu->fault_has_error = true;
    cpu->fault_error = error_code;
    siglongjmp(cpu->fault, 1);
}

_Noreturn void cpu_raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error_code)
{
    cpu->state.cr2 = linear;
    cpu_raise_error(cpu, X86_PF_FAULT, error_code);
}

/* Classes for double faults (SDM 3A table 6-5). */
enum fault_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE };

static enum fault_class class_of(unsigned vector)
{
    switch (vector) {
    case X86_DE: case X86_TS: case X86_NP: case X86_SS_FAULT: case X86_GP:
        return CLASS_CONTRIBUTORY;
    case X86_PF_FAULT:
        return CLASS_PAGE_FAULT;
    case X86_DF_FAULT:
        return CLASS_DOUBLE;
    default:
        return CLASS_BENIGN;
    }
}

static uint32_t idt_error(unsigned vector, enum interrupt_source source)
{
    return vector * 8 | ERROR_IDT | (source == INTERRUPT_SOFTWARE ? 0 : ERROR_EXT);
}

static uint64_t return_address(const struct cpu *cpu, enum interrupt_source source)
{
    return source == INTERRUPT_EXCEPTION ? cpu->insn_rip : cpu->state.rip;
}

/* RFLAGS as pushed: faults push RF set, so that the instruction runs when it
 * is returned to even with a code breakpoint on it (SDM 3B 17.3.1.1). */
static uint64_t pushed_flags(const struct cpu *cpu, enum interrupt_source source, unsigned vector)
{
    uint64_t flags = cpu->state.rflags;

    if (source == INTERRUPT_EXCEPTION && vector != X86_DB)
        flags |= X86_RF;
    return flags;
}

static void deliver_real(struct cpu *cpu, unsigned vector, enum interrupt_source source)
{
    uint64_t rsp = cpu->state.gpr[X86_RSP];
    uint32_t entry;

    if (vector * 4 + 3 > cpu->state.idtr.limit)
        cpu_raise(cpu, X86_GP);
    entry = (uint32_t)cpu_load_system(cpu, cpu->state.idtr.base + vector * 4, 4);
    cpu_push_at(cpu, &rsp, cpu->state.rflags, 2);
    cpu_push_at(cpu, &rsp, cpu->state.segment[X86_CS].selector, 2);
    cpu_push_at(cpu, &rsp, return_address(cpu, source), 2);
    cpu_set_rsp(cpu, rsp);
    segment_set_real(cpu, X86_CS, (uint16_t)(entry >> 16));
    cpu->state.rip = entry & 0xffff;
    cpu->state.rflags &= ~(uint64_t)(X86_IF | X86_TF | X86_AC | X86_RF);
    cpu_update_mode(cpu);
}

static void read_gate(struct cpu *cpu, unsigned vector, enum interrupt_source source,
                      struct gate *gate)
{
    const unsigned size = cpu_long_mode(cpu) ? 16 : 8;
    const uint64_t address = cpu->state.idtr.base + vector * size;
    uint64_t low;

    if (vector * size + size - 1 > cpu->state.idtr.limit)
        cpu_raise_error(cpu, X86_GP, idt_error(vector, source));
    low = cpu_load_system(cpu, address, 8);
    *gate = (struct gate){
        .selector = (uint16_t)(low >> 16),
        .offset = (low & 0xffff) | ((low >> 32) & 0xffff0000),
        .type = (low >> 40) & 31, /* with the S bit: a gate has it clear */
        .dpl = (low >> 45) & 3,
        .present = low >> 47 & 1,
        .ist = size == 16 ? (low >> 32) & 7 : 0,
    };
    if (size == 16)
        gate->offset |= cpu_load_system(cpu, address + 8, 4) << 32;
    if (!(gate->type == GATE_INT32 || gate->type == GATE_TRAP32 ||
          (size == 8 && (gate->type == GATE_TASK || gate->type == GATE_INT16 ||
                         gate->type == GATE_TRAP16))))
        cpu_raise_error(cpu, X86_GP, idt_error(vector, source));
    if (source == INTERRUPT_SOFTWARE && gate->dpl < cpu->cpl)
        cpu_raise_error(cpu, X86_GP, idt_error(vector, source));
    if (!gate->present)
        cpu_raise_error(cpu, X86_NP, idt_error(vector, source));
}

/* The handler's code segment and the level it runs at. */
static unsigned handler_segment(struct cpu *cpu, const struct gate *gate, uint32_t ext,
                                struct descriptor *cs)
{
    const uint32_t error = (gate->selector & 0xfffc) | ext;
    unsigned dpl;

    if (!(gate->selector & 0xfffc))
        cpu_raise_error(cpu, X86_GP, ext);
    if (!segment_read_descriptor(cpu, gate->selector, cs) ||
        (cs->attributes & (X86_SEG_S | X86_SEG_CODE)) != (X86_SEG_S | X86_SEG_CODE))
        cpu_raise_error(cpu, X86_GP, error);
    dpl = (cs->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
    if (dpl > cpu->cpl)
        cpu_raise_error(cpu, X86_GP, error);
    if (cpu_long_mode(cpu) && (!(cs->attributes & X86_SEG_L) || (cs->attributes & X86_SEG_DB)))
        cpu_raise_error(cpu, X86_GP, error);
    if (!(cs->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, error);
    return cs->attributes & X86_SEG_CONFORM ? cpu->cpl : dpl;
}

/* Store a push outside of the current mode's rules: the new stack is known to
 * be what rights say. */
static void push_raw(struct cpu *cpu, uint64_t base, uint64_t *rsp, uint64_t mask, uint64_t value,
                     unsigned size, enum tlb_rights rights)
{
    *rsp = (*rsp - size) & mask;
    cpu_store_as(cpu, (base + *rsp) & (mask == UINT64_MAX ? mask : 0xffffffff), size, value,
                 rights);
}

static uint64_t long_mode_stack(struct cpu *cpu, unsigned slot, unsigned vector)
{
    const struct x86_segment *tr = &cpu->state.segment[X86_TR];
    uint64_t rsp;

    /* RSP0-2 at 4, 12, 20; IST1-7 at 36.. (SDM 3A 7.7). */
    if (slot + 7 > tr->limit)
        cpu_raise_error(cpu, X86_TS, (tr->selector & 0xfffcu) | 0);
    rsp = cpu_load_system(cpu, tr->base + slot, 8);
    if (!cpu_canonical(rsp))
        cpu_raise_error(cpu, X86_SS_FAULT, 0);
    (void)vector;
    return rsp;
}

static void finish_entry(struct cpu *cpu, const struct gate *gate)
{
    cpu->state.rflags &= ~(uint64_t)(X86_TF | X86_VM | X86_RF | X86_NT);
    if (gate->type == GATE_INT16 || gate->type == GATE_INT32)
        cpu->state.rflags &= ~(uint64_t)X86_IF;
    cpu_update_mode(cpu);
}

/* SDM 3A 6.14: eight-byte pushes, SS:RSP always pushed, the stack aligned. */
static void deliver_long(struct cpu *cpu, unsigned vector, enum interrupt_source source,
                         bool has_error, uint32_t error_code)
{
    const uint64_t old_rsp = cpu->state.gpr[X86_RSP];
    const uint16_t old_ss = cpu->state.segment[X86_SS].selector;
    const uint64_t flags = pushed_flags(cpu, source, vector);
    const uint64_t rip = return_address(cpu, source);
    const uint32_t ext = source == INTERRUPT_SOFTWARE ? 0 : ERROR_EXT;
    struct descriptor cs;
    struct gate gate;
    enum tlb_rights rights;
    uint64_t rsp;
    unsigned cpl;

    read_gate(cpu, vector, source, &gate);
    cpl = handler_segment(cpu, &gate, ext, &cs);
    if (!cpu_canonical(gate.offset))
        cpu_raise_error(cpu, X86_GP, ext);
    if (gate.ist)
        rsp = long_mode_stack(cpu, 36 + (gate.ist - 1) * 8, vector);
    else if (cpl < cpu->cpl)
        rsp = long_mode_stack(cpu, 4 + cpl * 8, vector);
    else
        rsp = old_rsp;
    rsp &= ~15ull;
    rights = cpl == 3 ? TLB_USER : cpu->cpl == 3 ? TLB_SUPERVISOR : cpu->rights;
    push_raw(cpu, 0, &rsp, UINT64_MAX, old_ss, 8, rights);
    push_raw(cpu, 0, &rsp, UINT64_MAX, old_rsp, 8, rights);
    push_raw(cpu, 0, &rsp, UINT64_MAX, flags, 8, rights);
    push_raw(cpu, 0, &rsp, UINT64_MAX, cpu->state.segment[X86_CS].selector, 8, rights);
    push_raw(cpu, 0, &rsp, UINT64_MAX, rip, 8, rights);
    if (has_error)
        push_raw(cpu, 0, &rsp, UINT64_MAX, error_code, 8, rights);
    segment_mark_accessed(cpu, &cs);
    if (cpl != cpu->cpl)
        segment_set_null(cpu, X86_SS, (uint16_t)cpl);
    cpu->state.gpr[X86_RSP] = rsp;
    segment_load_cs(cpu, &cs, cpl, gate.offset);
    finish_entry(cpu, &gate);
}

static void new_stack_segment(struct cpu *cpu, uint16_t selector, unsigned cpl, uint32_t ext,
                              struct descriptor *ss)
{
    const uint32_t error = (selector & 0xfffc) | ext;

    if (!(selector & 0xfffc))
        cpu_raise_error(cpu, X86_TS, ext);
    if (!segment_read_descriptor(cpu, selector, ss) || (selector & 3u) != cpl ||
        (ss->attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE)) !=
            (X86_SEG_S | X86_SEG_WRITABLE) ||
        ((ss->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT) != cpl)
        cpu_raise_error(cpu, X86_TS, error);
    if (!(ss->attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_SS_FAULT, error);
}

/* Protected mode and virtual-8086 mode (SDM 3A 6.12.1, 20.3). */
static void deliver_protected(struct cpu *cpu, unsigned vector, enum interrupt_source source,
                              bool has_error, uint32_t error_code)
{
    const uint32_t ext = source == INTERRUPT_SOFTWARE ? 0 : ERROR_EXT;
    const uint64_t flags = pushed_flags(cpu, source, vector), rip = return_address(cpu, source);
    const bool v86 = cpu->state.rflags & X86_VM;
    const struct x86_state *s = &cpu->state;
    struct descriptor cs, ss;
    struct gate gate;
    uint64_t rsp;
    unsigned cpl, size;

    read_gate(cpu, vector, source, &gate);
    if (gate.type == GATE_TASK) {
        struct descriptor tss;

        if ((gate.selector & 4) || !segment_read_descriptor(cpu, gate.selector, &tss) ||
            ((tss.attributes & 0x1f) != 9 && (tss.attributes & 0x1f) != 1))
            cpu_raise_error(cpu, X86_GP, (gate.selector & 0xfffc) | ext);
        if (!(tss.attributes & X86_SEG_P))
            cpu_raise_error(cpu, X86_NP, (gate.selector & 0xfffc) | ext);
        if (source == INTERRUPT_EXCEPTION)
            cpu->state.rip = cpu->insn_rip;
        cpu_task_switch(cpu, &tss, TASK_INTERRUPT, has_error, error_code);
        return;
    }
    cpl = handler_segment(cpu, &gate, ext, &cs);
    size = gate.type == GATE_INT16 || gate.type == GATE_TRAP16 ? 2 : 4;
    if (v86 && cpl != 0)
        cpu_raise_error(cpu, X86_GP, (gate.selector & 0xfffc) | ext);
    if (cpl < cpu->cpl) {
        uint16_t selector;
        uint64_t mask;

        task_stack(cpu, cpl, &selector, &rsp);
        new_stack_segment(cpu, selector, cpl, ext, &ss);
        mask = ss.attributes & X86_SEG_DB ? 0xffffffff : 0xffff;
        if (v86)
            for (unsigned i = 0; i < 4; i++) {
                static const uint8_t order[] = {X86_GS, X86_FS, X86_DS, X86_ES};

                push_raw(cpu, ss.base, &rsp, mask, s->segment[order[i]].selector, size,
                         TLB_SUPERVISOR);
            }
        push_raw(cpu, ss.base, &rsp, mask, s->segment[X86_SS].selector, size, TLB_SUPERVISOR);
        push_raw(cpu, ss.base, &rsp, mask, s->gpr[X86_RSP], size, TLB_SUPERVISOR);
        push_raw(cpu, ss.base, &rsp, mask, flags, size, TLB_SUPERVISOR);
        push_raw(cpu, ss.base, &rsp, mask, s->segment[X86_CS].selector, size, TLB_SUPERVISOR);
        push_raw(cpu, ss.base, &rsp, mask, rip, size, TLB_SUPERVISOR);
        if (has_error)
            push_raw(cpu, ss.base, &rsp, mask, error_code, size, TLB_SUPERVISOR);
        segment_mark_accessed(cpu, &ss);
        segment_mark_accessed(cpu, &cs);
        cpu->state.rflags &= ~(uint64_t)X86_VM;
        if (v86)
            for (unsigned i = 0; i < 4; i++) {
                static const uint8_t order[] = {X86_GS, X86_FS, X86_DS, X86_ES};

                segment_set_null(cpu, order[i], 0);
            }
        segment_set(cpu, X86_SS, &ss);
        cpu->state.gpr[X86_RSP] = mask == 0xffff ? (s->gpr[X86_RSP] & ~0xffffull) | rsp : rsp;
    } else {
        rsp = s->gpr[X86_RSP];
        cpu_push_at(cpu, &rsp, flags, size);
        cpu_push_at(cpu, &rsp, s->segment[X86_CS].selector, size);
        cpu_push_at(cpu, &rsp, rip, size);
        if (has_error)
            cpu_push_at(cpu, &rsp, error_code, size);
        segment_mark_accessed(cpu, &cs);
        cpu_set_rsp(cpu, rsp);
    }
    segment_load_cs(cpu, &cs, cpl, size == 2 ? gate.offset & 0xffff : gate.offset);
    finish_entry(cpu, &gate);
}

void cpu_deliver(struct cpu *cpu, unsigned vector, enum interrupt_source source, bool has_error,
                 uint32_t error_code)
{
    cpu->state.interrupt_shadow = false;
    cpu->stop = true;
    if (!(cpu->state.cr0 & X86_CR0_PE))
        deliver_real(cpu, vector, source);
    else if (cpu_long_mode(cpu))
        deliver_long(cpu, vector, source, has_error, error_code);
    else
        deliver_protected(cpu, vector, source, has_error, error_code);
}

/* One attempt with a frame of its own. False: it faulted, see fault_vector. */
static __attribute__((noinline)) bool try_deliver(struct cpu *cpu, unsigned vector,
                                                  enum interrupt_source source, bool has_error,
                                                  uint32_t error_code)
{
    cpu->delivering = true;
    cpu->deliver_class = (int)(source == INTERRUPT_EXCEPTION ? class_of(vector) : CLASS_BENIGN);
    if (sigsetjmp(cpu->fault, 0) != 0)
        return false;
    cpu_deliver(cpu, vector, source, has_error, error_code);
    cpu->delivering = false;
    return true;
}

bool cpu_take_exception(struct cpu *cpu)
{
    unsigned vector;

    if (cpu->split_locked)
        cpu_split_unlock(cpu);
    do {
        enum fault_class class, first = (enum fault_class)cpu->deliver_class;

        vector = (unsigned)cpu->fault_vector;
        class = class_of(vector);
        if (cpu->delivering && first == CLASS_DOUBLE) {
            cpu->delivering = false;
            cpu->state.rip = cpu->insn_rip; /* whoever looks finds what caused it */
            cpu->state.activity = X86_SHUTDOWN;
            return false;
        }
        if (cpu->delivering &&
            ((first == CLASS_CONTRIBUTORY && class == CLASS_CONTRIBUTORY) ||
             (first == CLASS_PAGE_FAULT && class != CLASS_BENIGN))) {
            vector = X86_DF_FAULT;
            cpu->fault_has_error = true;
            cpu->fault_error = 0;
        }
    } while (!try_deliver(cpu, vector, INTERRUPT_EXCEPTION, cpu->fault_has_error,
                          cpu->fault_error));
    return true;
}

/* Deliver with a frame of its own; a fault on the way becomes an exception. */
static bool deliver_safely(struct cpu *cpu, unsigned vector, enum interrupt_source source)
{
    cpu->insn_rip = cpu->state.rip;
    return try_deliver(cpu, vector, source, false, 0) || cpu_take_exception(cpu);
}

/* A request of the local APIC or the 8259. */
static bool take_interrupt(struct cpu *cpu)
{
    const struct engine_config *config = &cpu->soft->config;
    int vector;

    /* Cleared before asking: a request that comes meanwhile sets it anew. */
    atomic_fetch_and(&cpu->signals, ~(unsigned)ENGINE_SIGNAL_INTERRUPT);
    vector = config->callbacks->interrupt_acknowledge(config->opaque, cpu->vcpu.index);
    if (vector < 0)
        return true;
    atomic_fetch_or(&cpu->signals, ENGINE_SIGNAL_INTERRUPT); /* there may be another behind it */
    cpu->state.activity = X86_RUNNING;
    return deliver_safely(cpu, (unsigned)vector, INTERRUPT_EXTERNAL);
}

/* The trap that was due when the state came from elsewhere; it comes before any interrupt. */
static bool take_debug_trap(struct cpu *cpu)
{
    atomic_fetch_and(&cpu->signals, ~(unsigned)CPU_SIGNAL_DEBUG_TRAP);
    if (!cpu->state.debug_trap) /* of a state that has been replaced */
        return true;
    cpu->state.debug_trap = false;
    cpu->state.activity = X86_RUNNING;
    return deliver_safely(cpu, X86_DB, INTERRUPT_TRAP);
}

bool cpu_take_signals(struct cpu *cpu, enum engine_exit *ret_exit)
{
    unsigned signals = cpu_takeable_signals(cpu);

    if (signals & CPU_SIGNAL_CODE_EPOCH) {
        atomic_fetch_and(&cpu->signals, ~(unsigned)CPU_SIGNAL_CODE_EPOCH);
        code_pages_acknowledge(cpu);
    }
    if (signals & CPU_SIGNAL_INVALIDATE)
        atomic_fetch_and(&cpu->signals, ~(unsigned)CPU_SIGNAL_INVALIDATE);
    if (signals & ENGINE_SIGNAL_KICK) {
        atomic_fetch_and(&cpu->signals, ~(unsigned)ENGINE_SIGNAL_KICK);
        *ret_exit = ENGINE_EXIT_KICK;
        return true;
    }
    if (signals & CPU_SIGNAL_DEBUG_TRAP) {
        if (!take_debug_trap(cpu))
            goto shutdown;
        return false; /* the others, as its handler's flags allow */
    }
    if ((signals & ENGINE_SIGNAL_NMI) && !cpu->state.interrupt_shadow) {
        atomic_fetch_and(&cpu->signals, ~(unsigned)ENGINE_SIGNAL_NMI);
        /* One more is kept while one is being handled; IRET signals it. */
        cpu->state.nmi_pending = cpu->state.nmi_blocked;
        if (!cpu->state.nmi_blocked) {
            cpu->state.nmi_blocked = true;
            cpu->state.activity = X86_RUNNING;
            if (!deliver_safely(cpu, X86_NMI, INTERRUPT_EXTERNAL))
                goto shutdown;
        }
    }
    if ((signals & ENGINE_SIGNAL_INTERRUPT) && !take_interrupt(cpu))
        goto shutdown;
    return false;

shutdown:
    *ret_exit = ENGINE_EXIT_SHUTDOWN;
    return true;
}

/* --- INT n and its kin --- */

static void software_interrupt(struct cpu *cpu, unsigned vector)
{
    if (cpu_v86(cpu) && vector != X86_BP && cpu_iopl(cpu) < 3)
        cpu_raise_error(cpu, X86_GP, 0);
    cpu_deliver(cpu, vector, INTERRUPT_SOFTWARE, false, 0);
}

void interpret_int(struct cpu *cpu, const struct x86_insn *insn)
{
    software_interrupt(cpu, (uint8_t)insn->immediate);
}

void interpret_int3(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_deliver(cpu, X86_BP, INTERRUPT_SOFTWARE, false, 0);
}

void interpret_into(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    if (cpu->state.rflags & X86_OF)
        cpu_deliver(cpu, X86_OF_TRAP, INTERRUPT_SOFTWARE, false, 0);
}

void interpret_icebp(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_deliver(cpu, X86_DB, INTERRUPT_TRAP, false, 0);
}

void interpret_ud0(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_raise(cpu, X86_UD);
}

void interpret_ud1(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_raise(cpu, X86_UD);
}

void interpret_ud2(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_raise(cpu, X86_UD);
}
