/* Port input and output (SDM 1 chapter 19, SDM 2 IN, OUT, INS, OUTS). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"
#include "engine/interpret/debug.h"
#include "engine/interpret/string.h"

/* IOPL, or else the bitmap of the TSS (SDM 1 19.5). */
static void check_port(struct cpu *cpu, uint16_t port, unsigned size)
{
    const struct x86_segment *tr = &cpu->state.segment[X86_TR];
    uint32_t bitmap, bits;

    if (!(cpu->state.cr0 & X86_CR0_PE) || (!cpu_v86(cpu) && cpu->cpl <= cpu_iopl(cpu)))
        return;
    /* A 16-bit TSS has no bitmap. */
    if (!(tr->attributes & X86_SEG_P) || !(tr->attributes & 8) || tr->limit < 103)
        cpu_raise_error(cpu, X86_GP, 0);
    bitmap = (uint32_t)cpu_load_system(cpu, tr->base + 102, 2);
    if (bitmap + port / 8 + 1 > tr->limit)
        cpu_raise_error(cpu, X86_GP, 0);
    bits = (uint32_t)cpu_load_system(cpu, tr->base + bitmap + port / 8, 2);
    if (bits >> (port & 7) & ((1u << size) - 1))
        cpu_raise_error(cpu, X86_GP, 0);
}

static uint32_t port_in(struct cpu *cpu, uint16_t port, unsigned size)
{
    const struct engine_config *config = &cpu->soft->config;
    enum cpu_part part;
    uint32_t value;

    if (unlikely(debug_active(cpu)))
        debug_port_access(cpu, port, size);
    part = times_enter(&cpu->times, PART_DEVICE);
    value = config->callbacks->port_read(config->opaque, cpu->vcpu.index, port, size);
    times_enter(&cpu->times, part);
    return value;
}

static void port_out(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    const struct engine_config *config = &cpu->soft->config;
    enum cpu_part part;

    if (unlikely(debug_active(cpu)))
        debug_port_access(cpu, port, size);
    part = times_enter(&cpu->times, PART_DEVICE);
    config->callbacks->port_write(config->opaque, cpu->vcpu.index, port, size, value);
    times_enter(&cpu->times, part);
}

static uint16_t port_operand(const struct cpu *cpu, const struct x86_insn *insn, unsigned i)
{
    if (insn->operands[i].kind == X86_OPERAND_IMMEDIATE)
        return (uint8_t)insn->immediate;
    return (uint16_t)cpu->state.gpr[X86_RDX];
}

void interpret_in(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    const uint16_t port = port_operand(cpu, insn, 1);

    check_port(cpu, port, size);
    gpr_write(cpu, X86_RAX, size, port_in(cpu, port, size));
    cpu->stop = true; /* a device may have changed what waits */
}

void interpret_out(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[1].size;
    const uint16_t port = port_operand(cpu, insn, 0);

    check_port(cpu, port, size);
    port_out(cpu, port, size, (uint32_t)gpr_read(cpu, X86_RAX, size));
    cpu->stop = true;
}

static void ins_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    const uint16_t port = (uint16_t)cpu->state.gpr[X86_RDX];
    uint64_t address;

    check_port(cpu, port, size);
    address = string_destination(cpu, insn, size, X86_WRITE);
    cpu_probe_write(cpu, address, size);
    cpu_store(cpu, address, size, port_in(cpu, port, size));
    string_advance(cpu, insn, X86_RDI, size);
}

static void outs_once(struct cpu *cpu, const struct x86_insn *insn, unsigned size)
{
    const uint16_t port = (uint16_t)cpu->state.gpr[X86_RDX];
    uint64_t value;

    check_port(cpu, port, size);
    value = cpu_load(cpu, string_source(cpu, insn, size), size);
    port_out(cpu, port, size, (uint32_t)value);
    string_advance(cpu, insn, X86_RSI, size);
}

void interpret_ins(struct cpu *cpu, const struct x86_insn *insn)
{
    string_repeat(cpu, insn, insn->operands[0].size, ins_once);
}

void interpret_outs(struct cpu *cpu, const struct x86_insn *insn)
{
    string_repeat(cpu, insn, insn->operands[1].size, outs_once);
}
