/* Code that owns the machine, in every mode, on two engines: real mode,
 * protected mode of 16 and 32 bits without paging, long mode, all at CPL 0 and
 * with its instructions, and virtual-8086 mode at CPL 3. In half of the cases that
 * are not of long mode, segments have limits, other bases and types, and the stack
 * is of another size than the code. State and all of memory are compared at the exit.
 *
 *   machines [--noise] [--dead-flags] [--hot | --hot-after N] [--seed N] [--count N] [--seconds N]
 *            [--index N] A B
 *
 * With --dead-flags status flags are not compared where an exception saved them
 * and the handler halted: those that nothing would have read may be anything
 * (docs/translator.md). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "compare.h"
#include "engine/interpret/cpu.h"
#include "guest.h"
#include "options.h"
#include "program.h"

#define TIMEOUT   50 /* ms */
#define SHOWN_MAX 5
#define STEPS_MAX 20000

enum machine_mode { REAL, VIRTUAL_86, PROTECTED_16, PROTECTED_32, LONG, MACHINE_MODES };
static const char *const mode_names[] = {"real", "virtual-8086", "16-bit protected",
                                         "32-bit protected", "long"};
static const enum x86_mode code_sizes[] = {X86_MODE_16, X86_MODE_16, X86_MODE_16, X86_MODE_32,
                                           X86_MODE_64};

/* In the free part of the GDT: code and data of PROTECTED_16, of PROTECTED_32. */
#define CS_16 (GUEST_GDT_FREE + 0)
#define DS_16 (GUEST_GDT_FREE + 8)
#define CS_32 (GUEST_GDT_FREE + 16)
#define DS_32 (GUEST_GDT_FREE + 24)
#define CS_HANDLER (GUEST_GDT_FREE + 32) /* flat, for gates */
#define DS_HANDLER (GUEST_GDT_FREE + 40) /* the same, for the stack that v86 mode is left to */

#define GDT_LIMIT  (GUEST_GDT_FREE + 47)

/* A task state segment, and that stack, behind the interrupt table. */
#define TSS         (GUEST_FREE_PAGE + 0x800)
#define TSS_SIZE    104u
#define INNER_STACK (GUEST_FREE_PAGE + 0xf00)

struct machine {
    struct x86_state state;
    uint8_t memory[GUEST_MEMORY_SIZE];
    enum engine_exit exit;
};

struct tally {
    unsigned long same, endless, model, failed;
};

struct run {
    const struct options *options;
    struct guest *guests[2];
    struct guest *tracer;
    struct machine *kernel; /* as it is before anything ran */
    struct tally tally;
};

#define CODE_TYPE (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_READABLE | X86_SEG_ACCESSED)
#define DATA_TYPE (X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED)
#define BIG       (X86_SEG_DB | X86_SEG_G)

/* Load a segment register and enter its descriptor into the GDT, if that has the selector. */
static void set_segment(struct machine *m, unsigned reg, uint16_t selector, uint32_t base,
                        uint16_t attributes)
{
    const bool big = attributes & X86_SEG_G;
    const uint32_t limit = big ? 0xfffff : 0xffff;

    m->state.segment[reg] = (struct x86_segment){
        .selector = selector, .base = base, .limit = big ? 0xffffffff : 0xffff,
        .attributes = attributes};
    if ((m->state.cr0 & X86_CR0_PE) && selector <= GDT_LIMIT)
        store_le64(m->memory + GUEST_GDT + selector,
                   (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base >> 24) << 56 |
                       (limit & 0xffff) | (uint64_t)(limit >> 16) << 48 |
                       (uint64_t)attributes << 40);
}

static void set_data_segments(struct machine *m, uint16_t selector, uint32_t base,
                              uint16_t attributes)
{
    static const uint8_t registers[] = {X86_DS, X86_ES, X86_SS, X86_FS, X86_GS};

    for (size_t i = 0; i < ARRAY_SIZE(registers); i++)
        set_segment(m, registers[i], selector, base, attributes);
}

/* Interrupt vectors of real mode, and 32-bit gates, for the handlers that halt. */
static void make_vectors(struct machine *m)
{
    for (unsigned v = 0; v < 256; v++) {
        const uint32_t handler = GUEST_HANDLERS + v * GUEST_HANDLER_SIZE;

        store_le32(m->memory + v * 4,
                   (GUEST_HANDLERS >> 4) << 16 | v * GUEST_HANDLER_SIZE);
        store_le64(m->memory + GUEST_FREE_PAGE + v * 8,
                   (handler & 0xffff) | CS_HANDLER << 16 |
                       (uint64_t)(X86_SEG_P | 14) << 40 | (uint64_t)(handler >> 16) << 48);
    }
}

/* Segments that forbid something, are elsewhere, or are of another kind. What the table
 * has for a selector stays: it comes when the register is loaded again. */
static void vary_segments(struct random *r, enum machine_mode mode, struct machine *m)
{
    static const uint8_t registers[] = {X86_DS, X86_ES, X86_SS, X86_FS, X86_GS};
    const uint32_t offset = mode == PROTECTED_32 ? IMAGE_DATA : IMAGE_DATA - IMAGE_DATA_BASE_16;

    for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
        struct x86_segment *s = &m->state.segment[registers[i]];
        const unsigned what = random_below(r, 100);

        if (what < 25)
            s->limit = offset + random_below(r, IMAGE_DATA_SIZE);
        else if (what < 35)
            s->limit = 0xffffffff;
        else if (what < 45)
            s->base += 16 * random_below(r, 8) - 64 + random_below(r, 2);
        else if (what < 50 && mode > VIRTUAL_86)
            s->attributes &= (uint16_t)~X86_SEG_WRITABLE;
        else if (what < 55 && mode > VIRTUAL_86) {
            s->attributes |= X86_SEG_DOWN;
            s->limit = offset + random_below(r, IMAGE_DATA_SIZE);
        }
    }
    if (random_chance(r, 20) && mode != VIRTUAL_86) {
        struct x86_segment *s = &m->state.segment[X86_SS];

        s->attributes ^= X86_SEG_DB;
        if (mode == PROTECTED_32) /* of the data's addresses 16 bits count */
            s->base = GUEST_DATA;
    }
    if (random_chance(r, 20))
        m->state.segment[X86_CS].limit =
            (mode == PROTECTED_32 ? IMAGE_CODE : 0) + random_below(r, IMAGE_CODE_SIZE);
}

/* Virtual-8086 mode is left through a task state segment; ports are closed. */
static void make_virtual(struct random *r, struct machine *m)
{
    struct x86_state *s = &m->state;

    set_segment(m, X86_SS, DS_HANDLER, 0, DATA_TYPE | BIG);
    s->segment[X86_TR].base = TSS;
    s->segment[X86_TR].limit = TSS_SIZE - 1;
    memset(m->memory + TSS, 0, TSS_SIZE);
    store_le32(m->memory + TSS + 4, INNER_STACK);
    store_le32(m->memory + TSS + 8, DS_HANDLER);
    store_le32(m->memory + TSS + 100, TSS_SIZE << 16); /* the ports' map is behind the end */
    s->rflags |= X86_VM | (random_chance(r, 70) ? X86_IOPL : 0);
}

/* A machine in that mode that is about to run the program. The segments' bases
 * put the addresses of image.h where physical memory holds those pages. */
static void make_machine(struct run *run, struct random *r, enum machine_mode mode,
                         const struct image *image, const struct image_memory *memory,
                         struct machine *m)
{
    const bool selectors = mode == REAL || mode == VIRTUAL_86;
    const uint32_t base_16 = GUEST_DATA - (IMAGE_DATA - IMAGE_DATA_BASE_16);
    struct x86_state *s = &m->state;
    const struct x86_table_register gdt = {GUEST_GDT, GDT_LIMIT};

    *s = run->kernel->state;
    memcpy(m->memory, run->kernel->memory, sizeof(m->memory));
    memcpy(m->memory + GUEST_CODE, memory->code, IMAGE_CODE_SIZE);
    memcpy(m->memory + GUEST_DATA, memory->data, IMAGE_DATA_SIZE);
    memcpy(s->gpr, image->gpr, sizeof(s->gpr));
    s->rip = image->rip;
    s->rflags = image->rflags & ~(uint64_t)X86_IF;
    s->fpu = image->fpu;
    s->fpu.xstate_bv = s->xcr0;
    make_vectors(m);
    if (mode == LONG)
        return;
    s->efer = 0;
    s->cr4 &= ~X86_CR4_PAE;
    s->cr0 &= ~(uint64_t)(X86_CR0_PG | (mode == REAL ? X86_CR0_PE : 0));
    s->gdtr = gdt;
    s->idtr = mode == REAL ? (struct x86_table_register){0, 0x3ff}
                           : (struct x86_table_register){GUEST_FREE_PAGE, 0x7ff};
    s->segment[X86_TR] = (struct x86_segment){.limit = 0xffff, .attributes = X86_SEG_P | 11};
    if (mode == VIRTUAL_86)
        make_virtual(r, m);
    if (mode == PROTECTED_32) {
        set_segment(m, X86_CS, CS_32, GUEST_CODE - IMAGE_CODE, CODE_TYPE | BIG);
        set_data_segments(m, DS_32, GUEST_DATA - IMAGE_DATA, DATA_TYPE | BIG);
    } else {
        const uint16_t dpl = mode == VIRTUAL_86 ? X86_SEG_DPL : 0;

        set_segment(m, X86_CS, selectors ? GUEST_CODE >> 4 : CS_16, GUEST_CODE,
                    mode == VIRTUAL_86 ? DATA_TYPE | dpl : CODE_TYPE);
        set_data_segments(m, selectors ? (uint16_t)(base_16 >> 4) : DS_16, base_16,
                          DATA_TYPE | dpl);
    }
    if (mode != REAL) {
        struct x86_segment cs = s->segment[X86_CS];

        set_segment(m, X86_CS, CS_HANDLER, 0, CODE_TYPE | BIG);
        s->segment[X86_CS] = cs;
    }
    if (random_chance(r, 50))
        vary_segments(r, mode, m);
}

/* --- Comparison --- */

#define FIELD(name)                                                                                \
    {                                                                                              \
        #name, offsetof(struct x86_state, name), sizeof(((struct x86_state *)0)->name)             \
    }

/* All of struct x86_state but segments, FPU and what depends on the time. */
static const struct {
    const char *name;
    size_t offset, size;
} fields[] = {
    FIELD(gpr), FIELD(rip), FIELD(gdtr.base), FIELD(gdtr.limit), FIELD(idtr.base),
    FIELD(idtr.limit), FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4), FIELD(cr8), FIELD(xcr0),
    FIELD(dr), FIELD(dr6), FIELD(dr7), FIELD(efer), FIELD(star), FIELD(lstar), FIELD(cstar),
    FIELD(sfmask), FIELD(kernel_gs_base), FIELD(sysenter_cs), FIELD(sysenter_esp),
    FIELD(sysenter_eip), FIELD(pat), FIELD(tsc_aux), FIELD(misc_enable), FIELD(spec_ctrl),
    FIELD(activity), FIELD(interrupt_shadow), FIELD(fpu.fcw), FIELD(fpu.fsw), FIELD(fpu.ftw),
    FIELD(fpu.mxcsr), FIELD(fpu.st), FIELD(fpu.xmm), FIELD(fpu.ymm_high),
};

static bool same_segment(const struct x86_segment *a, const struct x86_segment *b)
{
    return a->selector == b->selector && a->base == b->base && a->limit == b->limit &&
           a->attributes == b->attributes;
}

static bool compare_machines(const struct machine *a, const struct machine *b, uint64_t flags,
                             char *text, size_t length)
{
    size_t used = 0;

    text[0] = '\0';
    if (a->exit != b->exit)
        used += (size_t)snprintf(text + used, length - used, " exit %d/%d", a->exit, b->exit);
    for (size_t i = 0; i < ARRAY_SIZE(fields) && used < length; i++) {
        const uint8_t *x = (const uint8_t *)&a->state + fields[i].offset;
        const uint8_t *y = (const uint8_t *)&b->state + fields[i].offset;

        for (size_t k = 0; k < fields[i].size && used < length; k += 8) {
            uint64_t u = 0, v = 0;
            const size_t size = MIN(fields[i].size - k, (size_t)8);

            memcpy(&u, x + k, size);
            memcpy(&v, y + k, size);
            if (u != v)
                used += (size_t)snprintf(text + used, length - used, " %s+%zx %llx/%llx",
                                         fields[i].name, k, (unsigned long long)u,
                                         (unsigned long long)v);
        }
    }
    if (used < length && ((a->state.rflags ^ b->state.rflags) & ~flags))
        used += (size_t)snprintf(text + used, length - used, " rflags %llx/%llx",
                                 (unsigned long long)a->state.rflags,
                                 (unsigned long long)b->state.rflags);
    for (unsigned i = 0; i < X86_SEGMENTS && used < length; i++) {
        const struct x86_segment *x = &a->state.segment[i], *y = &b->state.segment[i];

        if (!same_segment(x, y))
            used += (size_t)snprintf(text + used, length - used,
                                     " segment%u %x:%llx:%x:%x/%x:%llx:%x:%x", i, x->selector,
                                     (unsigned long long)x->base, x->limit, x->attributes,
                                     y->selector, (unsigned long long)y->base, y->limit,
                                     y->attributes);
    }
    for (unsigned i = 0, shown = 0; i < GUEST_MEMORY_SIZE && shown < 8 && used < length; i++)
        if (a->memory[i] != b->memory[i]) {
            used += (size_t)snprintf(text + used, length - used, " [%x] %02x/%02x", i,
                                     a->memory[i], b->memory[i]);
            shown++;
        }
    return !used;
}

/* --- What is undefined, by single steps of the reference --- */

static bool decode_next(struct cpu *cpu, struct x86_insn *insn)
{
    uint8_t bytes[X86_INSN_MAX];
    unsigned have = 0;
    uint64_t physical;
    struct memory_slot *slot;

    for (; have < sizeof(bytes); have++) {
        uint64_t linear = cpu->state.segment[X86_CS].base + cpu->state.rip + have;
        const uint8_t *host;

        if (cpu->code_size != X86_MODE_64)
            linear = (uint32_t)linear;
        if (!cpu_peek_translation(cpu, linear, &physical))
            break;
        host = soft_engine_host(cpu->soft, physical, &slot);
        if (!host)
            break;
        bytes[have] = *host;
    }
    return x86_decode(bytes, have, cpu->code_size, insn) == X86_DECODE_OK;
}

static bool of_the_model(const struct tolerance *t, const struct x86_insn *insn)
{
    return t->registers || t->to || t->fault_any || t->fault_registers || t->fault_address ||
           t->fault_memory || t->fault_x87 || insn->op == X86_OP_RDMSR || /* the TSC */
           (x86_rows[insn->row].attributes & X86_ATTR_NONDETERMINISTIC);
}

/* With --dead-flags that is also what the code that follows a store would not have read, had
 * the store not changed it. */
static uint64_t trace_undefined(struct run *run, const struct machine *machine, bool *ret_known)
{
    static struct machine idle;
    struct cpu *cpu = cpu_of(guest_vcpu(run->tracer));
    static uint8_t written[GUEST_MEMORY_SIZE];
    const uint8_t *now;
    enum engine_exit exit;
    uint64_t undefined = 0;
    struct memory_slot *slot;
    struct error err;

    /* Place memory and state without running: a halted CPU does nothing. */
    idle = *machine;
    idle.state.activity = X86_HALTED;
    *ret_known = true;
    if (guest_run_machine(run->tracer, &idle.state, idle.memory, 0, &exit, &err) < 0)
        return 0;
    cpu->vcpu.ops->set_state(&cpu->vcpu, &machine->state);
    now = soft_engine_host(cpu->soft, 0, &slot);
    memcpy(written, now, sizeof(written));
    for (unsigned i = 0; i < STEPS_MAX && cpu->state.activity == X86_RUNNING; i++) {
        struct image image = {.mode = cpu->code_size};
        struct tolerance t;
        struct x86_insn insn = {0};

        if (decode_next(cpu, &insn)) {
            memcpy(image.gpr, cpu->state.gpr, sizeof(image.gpr));
            t = tolerance_of(&insn, &image);
            if ((x86_rows[insn.row].flags_read & undefined) || of_the_model(&t, &insn))
                *ret_known = false;
            undefined =
                (undefined & ~(uint64_t)x86_rows[insn.row].flags_written) | t.flags;
        }
        if (!cpu_step(cpu))
            break;
        if (run->options->dead_flags && memcmp(written, now, sizeof(written)) != 0) {
            undefined |= X86_STATUS_FLAGS & ~(uint64_t)x86_rows[insn.row].flags_written;
            memcpy(written, now, sizeof(written));
        }
    }
    return undefined;
}

/* --- Flags that nothing would have read --- */

/* The exceptions that push an error code (SDM 3A table 6-1). */
#define WITH_ERROR_CODE (1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17)

/* The physical address of the flags that the handler which halted was given, or
 * UINT64_MAX if the stack is not in memory. False: it is no handler. After a shutdown: of
 * what is pushed first, and may have been, before the stack's limit. The tracer holds this
 * machine's memory. */
static bool saved_flags(struct run *run, enum machine_mode mode, const struct machine *m,
                        unsigned *ret_vector, uint64_t *ret_physical)
{
    struct cpu *cpu = cpu_of(guest_vcpu(run->tracer));
    const struct x86_state *s = &m->state;
    const unsigned at = (unsigned)(s->segment[X86_CS].base + s->rip - 1) & 0xffff;
    const unsigned vector = (at - GUEST_HANDLERS) / GUEST_HANDLER_SIZE;
    const uint64_t word = mode == REAL ? 2 : mode == LONG ? 8 : 4;
    const bool error = mode != REAL && vector < 32 && WITH_ERROR_CODE >> vector & 1;
    const bool shut_down = m->exit == ENGINE_EXIT_SHUTDOWN;
    uint64_t linear;

    if (!shut_down && (s->activity != X86_HALTED || at < GUEST_HANDLERS || vector > UINT8_MAX))
        return false;
    *ret_vector = shut_down ? 0 : vector;
    cpu->vcpu.ops->set_state(&cpu->vcpu, s);
    linear = s->segment[X86_SS].base +
             ((s->gpr[X86_RSP] + (shut_down ? -word : (2 + error) * word)) & cpu->stack_mask);
    if (!cpu_peek_translation(cpu, mode == LONG ? linear : (uint32_t)linear, ret_physical) ||
        *ret_physical >= GUEST_MEMORY_SIZE - word)
        *ret_physical = UINT64_MAX;
    return true;
}

/* Give b flags of a where both saved them for the same exception, or shut down because it could
 * not be delivered: with --dead-flags all of status. INT n saves what is undefined only. */
static void excuse_saved_flags(struct run *run, enum machine_mode mode, const struct machine *a,
                               struct machine *b, uint64_t undefined)
{
    uint64_t where = UINT64_MAX, flags = undefined;
    unsigned vector = 0;

    if (a->exit != b->exit || a->state.rip != b->state.rip ||
        a->state.gpr[X86_RSP] != b->state.gpr[X86_RSP] ||
        !saved_flags(run, mode, a, &vector, &where))
        return;
    if (run->options->dead_flags && vector <= X86_XM)
        flags = X86_STATUS_FLAGS;
    for (unsigned i = 0; i < 2 && where != UINT64_MAX; i++) {
        const uint8_t status = (uint8_t)(flags >> 8 * i);

        b->memory[where + i] =
            (uint8_t)((b->memory[where + i] & ~status) | (a->memory[where + i] & status));
    }
    b->state.rflags = (b->state.rflags & ~flags) | (a->state.rflags & flags);
}

static void try_machine(struct run *run, unsigned long index)
{
    static struct image_memory memory;
    static struct machine before, machines[2];
    const struct options *o = run->options;
    struct random r = random_case(o->seed, index, 2 + o->noise);
    const enum machine_mode mode = random_below(&r, MACHINE_MODES);
    struct program program = {.mode = code_sizes[mode], .privileged = mode != VIRTUAL_86};
    struct image image;
    struct error err;
    uint64_t undefined;
    char text[1024];
    bool known;

    if (o->noise)
        program_noise(&r, program.mode, &image, &memory, &program);
    else
        program_make(&r, &program, &image, &memory);
    make_machine(run, &r, mode, &image, &memory, &before);
    if (o->index >= 0)
        program_print(&program, &memory);
    for (unsigned i = 0; i < 2; i++) {
        machines[i] = before;
        if (guest_run_machine(run->guests[i], &machines[i].state, machines[i].memory, TIMEOUT,
                              &machines[i].exit, &err) < 0) {
            printf("seed %llu index %lu, %s mode, %s: %s\n", (unsigned long long)o->seed, index,
                   mode_names[mode], o->names[i], err.text);
            run->tally.failed++;
            return;
        }
    }
    if (machines[0].exit == ENGINE_EXIT_KICK || machines[1].exit == ENGINE_EXIT_KICK) {
        run->tally.endless++;
        return;
    }
    if (compare_machines(&machines[0], &machines[1], 0, text, sizeof(text))) {
        run->tally.same++;
        return;
    }
    undefined = trace_undefined(run, &before, &known);
    excuse_saved_flags(run, mode, &machines[0], &machines[1], undefined);
    if (compare_machines(&machines[0], &machines[1], undefined, text, sizeof(text))) {
        run->tally.same++;
        return;
    }
    if (!known) {
        run->tally.model++;
        return;
    }
    if (run->tally.failed++ < SHOWN_MAX) {
        printf("seed %llu index %lu%s, %s mode, %s/%s:%s\n", (unsigned long long)o->seed, index,
               o->noise ? " noise" : "", mode_names[mode], o->names[0], o->names[1], text);
        if (o->index < 0)
            program_print(&program, &memory);
    }
}

int main(int argc, char **argv)
{
    static struct machine kernel;
    struct options options;
    struct run run = {.options = &options, .kernel = &kernel};
    const time_t start = time(NULL);
    struct error err;

    if (options_parse(argc, argv, 5000, &options) < 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *const peers[] = {options.names[0], options.names[1], NULL};

    if (guest_open(options.names[0], peers, options.hot_turns, &run.guests[0], &err) < 0 ||
        guest_open(options.names[1], peers, options.hot_turns, &run.guests[1], &err) < 0 ||
        guest_open("interpret", peers, 0, &run.tracer, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    guest_get_kernel(run.guests[1], &kernel.state, kernel.memory);
    do {
        if (options.index >= 0)
            try_machine(&run, (unsigned long)options.index);
        for (unsigned i = 0; options.index < 0 && i < options.count; i++)
            try_machine(&run, i);
        printf("seed %llu: %lu the same, %lu without an end, %lu by the model, %lu failed\n",
               (unsigned long long)options.seed, run.tally.same, run.tally.endless,
               run.tally.model, run.tally.failed);
        options.seed++;
    } while (!run.tally.failed && time(NULL) - start < (time_t)options.seconds);
    guest_close(run.guests[0]);
    guest_close(run.guests[1]);
    guest_close(run.tracer);
    return run.tally.failed != 0;
}
