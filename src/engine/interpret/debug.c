/* Debug registers and what they watch: instructions, data, ports (SDM 3B 17.2, 17.3).
 *
 * While a breakpoint is on, instructions go one at a time (interpret.c), and
 * pages with watched data have no TLB tags, so that each access comes by here. */
#include "engine/interpret/debug.h"

#include "engine/interpret/access.h"
#include "engine/interpret/bodies.h"

/* The R/W field of a breakpoint (SDM 3B 17.2.4). */
enum { WATCH_RUN, WATCH_WRITE, WATCH_PORT, WATCH_ACCESS };

#define BREAKPOINTS 4u

static bool enabled(const struct x86_state *s, unsigned i)
{
    return s->dr7 >> (2 * i) & 3; /* locally or globally */
}

static unsigned kind(const struct x86_state *s, unsigned i)
{
    return s->dr7 >> (16 + 4 * i) & 3;
}

static unsigned length(const struct x86_state *s, unsigned i)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};

    return lengths[s->dr7 >> (18 + 4 * i) & 3];
}

/* The breakpoint is aligned to its length, whatever its address says. */
static bool overlaps(const struct x86_state *s, unsigned i, uint64_t address, uint64_t size)
{
    const uint64_t start = s->dr[i] & ~(uint64_t)(length(s, i) - 1);

    return start - address < size || address - start < length(s, i);
}

bool debug_watches_page(const struct cpu *cpu, uint64_t linear)
{
    const struct x86_state *s = &cpu->state;

    for (unsigned i = 0; i < BREAKPOINTS; i++)
        if (enabled(s, i) && (kind(s, i) == WATCH_WRITE || kind(s, i) == WATCH_ACCESS) &&
            (s->dr[i] & PAGE_MASK) == (linear & PAGE_MASK))
            return true;
    return false;
}

void debug_data_access(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access)
{
    const struct x86_state *s = &cpu->state;

    for (unsigned i = 0; i < BREAKPOINTS; i++)
        if (enabled(s, i) &&
            (kind(s, i) == WATCH_ACCESS || (kind(s, i) == WATCH_WRITE && access == X86_WRITE)) &&
            overlaps(s, i, linear, size)) {
            cpu->watch_hits |= 1u << i;
            cpu->stop = true;
        }
}

void debug_port_access(struct cpu *cpu, uint16_t port, unsigned size)
{
    const struct x86_state *s = &cpu->state;

    if (!(s->cr4 & X86_CR4_DE))
        return;
    for (unsigned i = 0; i < BREAKPOINTS; i++)
        if (enabled(s, i) && kind(s, i) == WATCH_PORT && overlaps(s, i, port, size))
            cpu->watch_hits |= 1u << i;
}

void debug_check_instruction(struct cpu *cpu, uint64_t linear)
{
    struct x86_state *s = &cpu->state;
    unsigned hits = 0;

    if (!debug_active(cpu) || (s->rflags & X86_RF))
        return;
    for (unsigned i = 0; i < BREAKPOINTS; i++)
        if (enabled(s, i) && kind(s, i) == WATCH_RUN && s->dr[i] == linear)
            hits |= 1u << i;
    if (!hits)
        return;
    s->dr6 = (s->dr6 & ~0xfull) | hits;
    cpu_raise(cpu, X86_DB);
}

void debug_trap(struct cpu *cpu, bool single_step)
{
    const unsigned hits = cpu->watch_hits;

    cpu->watch_hits = 0;
    if (!hits && !single_step)
        return;
    cpu->state.dr6 = (cpu->state.dr6 & ~0xfull) | hits | (single_step ? X86_DR6_BS : 0);
    cpu->state.activity = X86_RUNNING; /* a HLT that was stepped over does not halt */
    cpu_deliver(cpu, X86_DB, INTERRUPT_TRAP, false, 0);
}

/* --- MOV to and from debug registers --- */

static unsigned debug_register(struct cpu *cpu, unsigned reg)
{
    if (reg == 4 || reg == 5) {
        if (cpu->state.cr4 & X86_CR4_DE)
            cpu_raise(cpu, X86_UD);
        reg += 2;
    }
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    if (cpu->state.dr7 & X86_DR7_GD) {
        cpu->state.dr7 &= ~(uint64_t)X86_DR7_GD;
        cpu->state.dr6 |= X86_DR6_BD;
        cpu_raise(cpu, X86_DB);
    }
    return reg;
}

void interpret_mov_to_dr(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned reg = debug_register(cpu, insn->operands[0].reg);
    uint64_t value = gpr_read(cpu, insn->operands[1].reg, insn->operands[1].size);

    if (reg >= 6 && value >> 32)
        cpu_raise_error(cpu, X86_GP, 0);
    if (reg == 6)
        cpu->state.dr6 = (value & 0x1e00f) | X86_DR6_FIXED;
    else if (reg == 7)
        cpu->state.dr7 = (value & 0xffff2bff) | X86_DR7_FIXED;
    else
        cpu->state.dr[reg & 3] = value;
    if (reg != 6)
        tlb_flush(&cpu->tlb, false); /* other pages are watched now */
    cpu_update_mode(cpu);
}

void interpret_mov_from_dr(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned reg = debug_register(cpu, insn->operands[1].reg);
    uint64_t value = reg == 6 ? cpu->state.dr6 : reg == 7 ? cpu->state.dr7 : cpu->state.dr[reg & 3];

    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, value);
}
