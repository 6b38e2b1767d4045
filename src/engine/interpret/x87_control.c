/* x87 instructions that control the unit: control and status word, the
 * environment, and the whole state by FSAVE (SDM 1 8.1.8 to 8.1.11). */
#include "engine/interpret/vector.h"
#include "engine/interpret/x87.h"

#include "base/bytes.h"

#include <string.h>

#define FCW_INIT 0x37f
#define FCW_FIXED 0x40   /* a reserved bit that reads as one */
#define FCW_VALID 0x1f3f
#define FSW_CONDITIONS 0x7f00 /* what FNCLEX keeps: C0-C3, TOP */

#define ENVIRONMENT_16 14 /* bytes */
#define ENVIRONMENT_32 28
#define REGISTERS      80

void x87_set_top(struct x86_xsave *fpu, unsigned top)
{
    unsigned by = top - x87_top(fpu);
    struct x86_xsave old;

    if ((by & 7) == 0)
        return;
    memcpy(old.st, fpu->st, sizeof(old.st));
    for (unsigned i = 0; i < 8; i++)
        fpu->st[i] = old.st[(i + by) & 7];
    fpu->fsw = (uint16_t)((fpu->fsw & ~FSW_TOP) | (top & 7) << FSW_TOP_SHIFT);
}

void x87_summarize(struct x86_xsave *fpu)
{
    fpu->fsw &= (uint16_t)~(FSW_ES | FSW_B);
    if (fpu->fsw & ~fpu->fcw & FSW_EXCEPTIONS)
        fpu->fsw |= FSW_ES | FSW_B;
}

/* Instructions that do not wait see #NM only. */
static void check_no_wait(struct cpu *cpu)
{
    if (cpu->state.cr0 & (X86_CR0_EM | X86_CR0_TS))
        cpu_raise(cpu, X86_NM);
}

void interpret_fwait(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint32_t both = X86_CR0_MP | X86_CR0_TS;

    (void)insn;
    if ((cpu->state.cr0 & both) == both)
        cpu_raise(cpu, X86_NM);
    if (cpu->state.fpu.fsw & FSW_ES)
        cpu_raise(cpu, X86_MF);
}

static void initialize(struct x86_xsave *fpu)
{
    x87_set_top(fpu, 0);
    fpu->fcw = FCW_INIT;
    fpu->fsw = 0;
    fpu->ftw = 0;
    fpu->fop = 0;
    fpu->fip = fpu->fdp = 0;
}

void interpret_fninit(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    check_no_wait(cpu);
    initialize(&cpu->state.fpu);
}

void interpret_fnclex(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    check_no_wait(cpu);
    cpu->state.fpu.fsw &= FSW_CONDITIONS;
}

void interpret_fnstcw(struct cpu *cpu, const struct x86_insn *insn)
{
    check_no_wait(cpu);
    cpu_write(cpu, cpu_operand_address(cpu, insn, 2, X86_WRITE), &cpu->state.fpu.fcw, 2);
}

void interpret_fnstsw(struct cpu *cpu, const struct x86_insn *insn)
{
    check_no_wait(cpu);
    if (insn->modrm < 0xc0)
        cpu_write(cpu, cpu_operand_address(cpu, insn, 2, X86_WRITE), &cpu->state.fpu.fsw, 2);
    else
        memcpy(&cpu->state.gpr[X86_RAX], &cpu->state.fpu.fsw, 2);
}

static void load_control(struct x86_xsave *fpu, uint16_t value)
{
    fpu->fcw = (value & FCW_VALID) | FCW_FIXED;
    x87_summarize(fpu);
}

void interpret_fldcw(struct cpu *cpu, const struct x86_insn *insn)
{
    uint16_t value;

    x87_check(cpu);
    cpu_read(cpu, cpu_operand_address(cpu, insn, 2, X86_READ), &value, 2);
    load_control(&cpu->state.fpu, value);
}

/* The two-bit tag of a register in use: valid, zero or special (NaN, infinity,
 * denormal, unsupported). */
static unsigned tag_of(uint64_t significand, uint16_t sign_exponent)
{
    uint16_t exponent = sign_exponent & 0x7fff;

    if (exponent == 0 && significand == 0)
        return 1;
    return exponent != 0 && exponent != 0x7fff && significand >> 63 ? 0 : 2;
}

static uint16_t full_tags(const struct x86_xsave *fpu)
{
    uint16_t tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned slot = (i - x87_top(fpu)) & 7;
        unsigned tag = fpu->ftw >> i & 1
                           ? tag_of(fpu->st[slot].significand, fpu->st[slot].sign_exponent)
                           : 3;

        tags |= (uint16_t)(tag << (2 * i));
    }
    return tags;
}

/* The four formats (SDM 1 figures 8-9 to 8-12): wide by the operand size, with
 * linear addresses in real and virtual-8086 mode. Selectors are stored as 0,
 * as CPUs with CPUID.7:EBX[13] do. */
static bool is_wide(const struct x86_insn *insn)
{
    return insn->operand_size != 2;
}

static bool is_real(const struct cpu *cpu)
{
    return !(cpu->state.cr0 & X86_CR0_PE) || (cpu->state.rflags & X86_VM);
}

static unsigned environment_make(const struct cpu *cpu, const struct x86_insn *insn,
                                 uint8_t *buffer)
{
    const struct x86_xsave *fpu = &cpu->state.fpu;
    uint32_t ip = (uint32_t)fpu->fip, dp = (uint32_t)fpu->fdp;
    uint16_t opcode = fpu->fop & 0x7ff;

    if (is_wide(insn)) {
        const uint32_t reserved = 0xffff0000;
        uint32_t words[7] = {reserved | fpu->fcw, reserved | fpu->fsw, reserved | full_tags(fpu),
                             ip,                  (uint32_t)opcode << 16, dp, reserved};

        if (is_real(cpu)) {
            words[3] = reserved | (ip & 0xffff);
            words[4] = (ip >> 16 << 12) | opcode;
            words[5] = reserved | (dp & 0xffff);
            words[6] = dp >> 16 << 12;
        }
        memcpy(buffer, words, sizeof(words));
        return ENVIRONMENT_32;
    }

    uint16_t words[7] = {fpu->fcw, fpu->fsw, full_tags(fpu), (uint16_t)ip, 0, (uint16_t)dp, 0};

    if (is_real(cpu)) {
        words[4] = (uint16_t)((ip >> 16 << 12) | opcode);
        words[6] = (uint16_t)(dp >> 16 << 12);
    }
    memcpy(buffer, words, sizeof(words));
    return ENVIRONMENT_16;
}

static void environment_load(struct cpu *cpu, const struct x86_insn *insn, const uint8_t *buffer)
{
    struct x86_xsave *fpu = &cpu->state.fpu;
    unsigned step = is_wide(insn) ? 4 : 2;
    uint16_t status = load_le16(buffer + step), tags = load_le16(buffer + 2 * step);
    uint32_t ip, dp;
    uint16_t opcode = 0;

    if (is_wide(insn)) {
        ip = load_le32(buffer + 12);
        dp = load_le32(buffer + 20);
        opcode = load_le16(buffer + 18);
        if (is_real(cpu)) {
            opcode = load_le16(buffer + 16);
            ip = (ip & 0xffff) | (load_le32(buffer + 16) >> 12 << 16);
            dp = (dp & 0xffff) | (load_le32(buffer + 24) >> 12 << 16);
        }
    } else {
        ip = load_le16(buffer + 6);
        dp = load_le16(buffer + 10);
        if (is_real(cpu)) {
            opcode = load_le16(buffer + 8);
            ip |= (uint32_t)opcode >> 12 << 16;
            dp |= (uint32_t)load_le16(buffer + 12) >> 12 << 16;
        }
    }
    x87_set_top(fpu, (status & FSW_TOP) >> FSW_TOP_SHIFT);
    fpu->fsw = status;
    fpu->ftw = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((tags >> (2 * i) & 3) != 3)
            fpu->ftw |= (uint8_t)(1u << i);
    fpu->fop = opcode & 0x7ff;
    fpu->fip = ip;
    fpu->fdp = dp;
    load_control(fpu, load_le16(buffer));
}

void interpret_fnstenv(struct cpu *cpu, const struct x86_insn *insn)
{
    uint8_t buffer[ENVIRONMENT_32];
    unsigned size;

    check_no_wait(cpu);
    size = environment_make(cpu, insn, buffer);
    cpu_write(cpu, cpu_operand_address(cpu, insn, size, X86_WRITE), buffer, size);
    cpu->state.fpu.fcw |= FSW_EXCEPTIONS;
    x87_summarize(&cpu->state.fpu);
}

void interpret_fldenv(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned size = is_wide(insn) ? ENVIRONMENT_32 : ENVIRONMENT_16;
    uint8_t buffer[ENVIRONMENT_32];

    x87_check(cpu);
    cpu_read(cpu, cpu_operand_address(cpu, insn, size, X86_READ), buffer, size);
    environment_load(cpu, insn, buffer);
}

/* The environment, then ST(0) to ST(7) of ten bytes each. */
void interpret_fnsave(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_xsave *fpu = &cpu->state.fpu;
    uint8_t buffer[ENVIRONMENT_32 + REGISTERS];
    unsigned size;
    uint64_t linear;

    check_no_wait(cpu);
    size = environment_make(cpu, insn, buffer);
    for (unsigned i = 0; i < 8; i++, size += 10)
        memcpy(buffer + size, &fpu->st[i], 10);
    linear = cpu_operand_address(cpu, insn, size, X86_WRITE);
    for (unsigned at = 0; at < size; at += 64)
        cpu_probe_write(cpu, linear + at, size - at < 64 ? size - at : 64);
    for (unsigned at = 0; at < size; at += 64)
        cpu_write(cpu, linear + at, buffer + at, size - at < 64 ? size - at : 64);
    initialize(fpu);
}

void interpret_frstor(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned environment = is_wide(insn) ? ENVIRONMENT_32 : ENVIRONMENT_16;
    unsigned size = environment + REGISTERS;
    uint8_t buffer[ENVIRONMENT_32 + REGISTERS];
    uint64_t linear;

    x87_check(cpu);
    linear = cpu_operand_address(cpu, insn, size, X86_READ);
    for (unsigned at = 0; at < size; at += 64)
        cpu_read(cpu, linear + at, buffer + at, size - at < 64 ? size - at : 64);
    environment_load(cpu, insn, buffer);
    for (unsigned i = 0; i < 8; i++)
        memcpy(&cpu->state.fpu.st[i], buffer + environment + 10 * i, 10);
}
