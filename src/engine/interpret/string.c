/* String instructions (SDM 1 7.3.9). REP MOVS and REP STOS go by pages. */
#include <string.h>

#include "engine/interpret/bodies.h"
#include "engine/interpret/string.h"

#include "engine/interpret/access.h"
#include "engine/interpret/flags.h"

uint64_t string_source(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    uint64_t offset = gpr_read(cpu, X86_RSI, insn->address_size);

    return cpu_segment_address(cpu, insn->memory.segment, offset, size, X86_READ);
}

uint64_t string_destination(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                            unsigned access)
{
    uint64_t offset = gpr_read(cpu, X86_RDI, insn->address_size);

    return cpu_segment_address(cpu, X86_ES, offset, size, access);
}

static void advance_by(struct cpu *cpu, const struct x86_insn *insn, unsigned reg, uint64_t bytes)
{
    uint64_t step = cpu->state.rflags & X86_DF ? -bytes : bytes;

    gpr_write(cpu, reg, insn->address_size, cpu->state.gpr[reg] + step);
}

void string_advance(struct cpu *cpu, const struct x86_insn *insn, unsigned reg, unsigned size)
{
    advance_by(cpu, insn, reg, size);
}

static uint64_t count(const struct cpu *cpu, const struct x86_insn *insn)
{
    return gpr_read(cpu, X86_RCX, insn->address_size);
}

static bool repeated(const struct x86_insn *insn)
{
    return insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE);
}

/* Between two rounds, let in who waits: what is left is in rCX, and the
 * instruction is begun anew (SDM 2 REP). */
static bool pauses(struct cpu *cpu)
{
    if (!cpu->stop && !(cpu->state.rflags & X86_TF) &&
        !atomic_load_explicit(&cpu->signals, memory_order_relaxed))
        return false;
    cpu->state.rip = cpu->insn_rip;
    cpu->stop = true;
    return true;
}

void string_repeat(struct cpu *cpu, const struct x86_insn *insn, unsigned size, string_once *once)
{
    if (!repeated(insn)) {
        once(cpu, insn, size);
        return;
    }
    for (;;) {
        uint64_t left = count(cpu, insn);

        if (!left)
            return;
        once(cpu, insn, size);
        gpr_write(cpu, X86_RCX, insn->address_size, left - 1);
        if (left > 1 && pauses(cpu))
            return;
    }
}

static bool goes_down(const struct cpu *cpu)
{
    return cpu->state.rflags & X86_DF;
}

/* How many elements from linear on lie in one page, in the direction they go, and no
 * more than left. */
static uint64_t run_length(const struct cpu *cpu, uint64_t linear, unsigned size, uint64_t left)
{
    const uint64_t offset = linear & ~PAGE_MASK, whole = (PAGE_SIZE - offset) / size;

    return MIN(goes_down(cpu) && whole ? offset / size + 1 : whole, left);
}

/* Host memory for a run, when the TLB has the page; else NULL. */
static uint8_t *run_host(struct cpu *cpu, uint64_t linear, bool write)
{
    return write ? tlb_write_host(&cpu->tlb, cpu->rights, linear)
                 : tlb_read_host(&cpu->tlb, cpu->rights, linear);
}

/* How many elements from the offset in reg on lie within the segment, before the offset
 * wraps around. */
static uint64_t room(const struct cpu *cpu, const struct x86_insn *insn, unsigned number,
                     unsigned reg, unsigned size)
{
    const struct x86_segment *segment = &cpu->state.segment[number];
    const uint64_t offset = gpr_read(cpu, reg, insn->address_size);
    uint64_t last = size_mask(insn->address_size);

    if (insn->mode != X86_MODE_64) {
        if ((segment->attributes & (X86_SEG_CODE | X86_SEG_DOWN)) == X86_SEG_DOWN)
            return 0;
        last = MIN(last, (uint64_t)segment->limit);
    }
    return offset > last ? 0 : (last - offset) / size + ((last - offset) % size == size - 1);
}

static bool can_run(const struct cpu *cpu, const struct x86_insn *insn)
{
    return repeated(insn) && !(cpu->state.rflags & X86_TF) &&
           (!goes_down(cpu) || insn->address_size == 8); /* else it may wrap around */
}

static void movs_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    uint64_t from = string_source(cpu, insn, size);
    uint64_t to = string_destination(cpu, insn, size, X86_WRITE);

    cpu_store(cpu, to, size, cpu_load(cpu, from, size));
    string_advance(cpu, insn, X86_RSI, size);
    string_advance(cpu, insn, X86_RDI, size);
}

/* Copy as if element by element: an overlap repeats the pattern. */
static void copy_elements(uint8_t *to, const uint8_t *from, uint64_t bytes, unsigned size,
                          bool down)
{
    if (down ? to >= from || to + bytes <= from : to <= from || to >= from + bytes) {
        memmove(to, from, bytes);
        return;
    }
    for (uint64_t i = 0; i < bytes; i += size) {
        const uint64_t at = down ? bytes - size - i : i;

        host_store(to + at, size, host_load(from + at, size));
    }
}

void interpret_movs(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t left;

    while (can_run(cpu, insn) && (left = count(cpu, insn)) > 0) {
        uint64_t from = string_source(cpu, insn, size);
        uint64_t to = string_destination(cpu, insn, size, X86_WRITE);
        uint64_t n = MIN(run_length(cpu, from, size, left), run_length(cpu, to, size, left));
        uint64_t most = MIN(room(cpu, insn, insn->memory.segment, X86_RSI, size),
                            room(cpu, insn, X86_ES, X86_RDI, size));
        uint8_t *host_from = run_host(cpu, from, false), *host_to = run_host(cpu, to, true);

        n = MIN(n, most);
        if (!n || !host_from || !host_to) {
            movs_once(cpu, insn, size); /* fills the TLB, crosses the page */
            n = 1;
        } else {
            const bool down = goes_down(cpu);
            const uint64_t back = down ? (n - 1) * size : 0;

            copy_elements(host_to - back, host_from - back, n * size, size, down);
            advance_by(cpu, insn, X86_RSI, n * size);
            advance_by(cpu, insn, X86_RDI, n * size);
        }
        gpr_write(cpu, X86_RCX, insn->address_size, left - n);
        if (left > n && pauses(cpu))
            return;
    }
    string_repeat(cpu, insn, size, movs_once);
}

static void stos_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    cpu_store(cpu, string_destination(cpu, insn, size, X86_WRITE), size, cpu->state.gpr[X86_RAX]);
    string_advance(cpu, insn, X86_RDI, size);
}

static void fill_elements(uint8_t *to, uint64_t count, unsigned size, uint64_t value)
{
    value &= size_mask(size);
    if (size == 1 || !value) {
        memset(to, (int)value, count * size);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        host_store(to + i * size, size, value);
}

void interpret_stos(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t left;

    while (can_run(cpu, insn) && (left = count(cpu, insn)) > 0) {
        uint64_t to = string_destination(cpu, insn, size, X86_WRITE);
        uint64_t n = MIN(run_length(cpu, to, size, left), room(cpu, insn, X86_ES, X86_RDI, size));
        uint8_t *host = run_host(cpu, to, true);

        if (!n || !host) {
            stos_once(cpu, insn, size);
            n = 1;
        } else {
            fill_elements(goes_down(cpu) ? host - (n - 1) * size : host, n, size,
                          cpu->state.gpr[X86_RAX]);
            advance_by(cpu, insn, X86_RDI, n * size);
        }
        gpr_write(cpu, X86_RCX, insn->address_size, left - n);
        if (left > n && pauses(cpu))
            return;
    }
    string_repeat(cpu, insn, size, stos_once);
}

static void lods_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    gpr_write(cpu, X86_RAX, size, cpu_load(cpu, string_source(cpu, insn, size), size));
    string_advance(cpu, insn, X86_RSI, size);
}

void interpret_lods(struct cpu *cpu, const struct x86_insn *insn)
{
    string_repeat(cpu, insn, insn->operands[0].size, lods_once);
}

/* CMPS and SCAS: REPE and REPNE look at ZF too. */
static void repeat_while(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                         string_once *once)
{
    const uint64_t rflags = cpu->state.rflags;

    if (!repeated(insn)) {
        once(cpu, insn, size);
        return;
    }
    for (;;) {
        uint64_t left = count(cpu, insn);

        if (!left)
            return;
        cpu->state.rflags = rflags; /* a turn that faults leaves them as they were at first */
        once(cpu, insn, size);
        gpr_write(cpu, X86_RCX, insn->address_size, --left);
        if (!left || !(cpu->state.rflags & X86_ZF) == !(insn->prefixes & X86_PREFIX_REPNE))
            return;
        if (pauses(cpu))
            return;
    }
}

static void cmps_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    uint64_t b = cpu_load(cpu, string_destination(cpu, insn, size, X86_READ), size);
    uint64_t a = cpu_load(cpu, string_source(cpu, insn, size), size);

    flags_sub(cpu, a, b, a - b, size);
    string_advance(cpu, insn, X86_RSI, size);
    string_advance(cpu, insn, X86_RDI, size);
}

static void scas_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    uint64_t a = gpr_read(cpu, X86_RAX, size);
    uint64_t b = cpu_load(cpu, string_destination(cpu, insn, size, X86_READ), size);

    flags_sub(cpu, a, b, a - b, size);
    string_advance(cpu, insn, X86_RDI, size);
}

void interpret_cmps(struct cpu *cpu, const struct x86_insn *insn)
{
    repeat_while(cpu, insn, insn->operands[0].size, cmps_once);
}

void interpret_scas(struct cpu *cpu, const struct x86_insn *insn)
{
    repeat_while(cpu, insn, insn->operands[0].size, scas_once);
}
