/* Saving and restoring the FPU and vector state: FXSAVE, XSAVE and their kin
 * (SDM 1 chapters 10.5 and 13). struct x86_xsave has the layout of memory. */
#include <string.h>

#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

#define FXSAVE_SIZE   512u
#define MXCSR_MASK    0xffffu
#define XSAVE_HEADER  512u
#define XSAVE_YMM     576u
#define XCOMP_COMPACT (1ull << 63)

static void check_fpu(struct cpu *cpu)
{
    if (cpu->state.cr0 & (X86_CR0_EM | X86_CR0_TS))
        cpu_raise(cpu, X86_NM);
}

static void check_xsave(struct cpu *cpu)
{
    if (!(cpu->state.cr4 & X86_CR4_OSXSAVE))
        cpu_raise(cpu, X86_UD);
    if (cpu->state.cr0 & X86_CR0_TS)
        cpu_raise(cpu, X86_NM);
}

static uint64_t area_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                             unsigned align, unsigned access)
{
    uint64_t address = operand_address(cpu, insn, size, access);

    if (address & (align - 1))
        cpu_raise_error(cpu, X86_GP, 0);
    return address;
}

/* XMM8-15 do not exist outside 64-bit mode. */
static unsigned xmm_count(const struct x86_insn *insn)
{
    return insn->mode == X86_MODE_64 ? 16 : 8;
}

/* Without REX.W the instruction and data pointers are selector:offset; the
 * selectors are not kept and read as zero (CPUID says they are deprecated). */
static void legacy_image(const struct cpu *cpu, const struct x86_insn *insn,
                         struct x86_xsave *image)
{
    memcpy(image, &cpu->state.fpu, FXSAVE_SIZE);
    if (!(insn->rex & 8)) {
        image->fip = (uint32_t)image->fip;
        image->fdp = (uint32_t)image->fdp;
    }
    image->mxcsr_mask = MXCSR_MASK;
    for (unsigned i = 0; i < 8; i++)
        memset(image->st[i].reserved, 0, sizeof(image->st[i].reserved));
}

void interpret_fxsave(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_xsave image;
    uint64_t address;

    check_fpu(cpu);
    address = area_address(cpu, insn, FXSAVE_SIZE, 16, X86_WRITE);
    legacy_image(cpu, insn, &image);
    cpu_probe_write(cpu, address, FXSAVE_SIZE);
    cpu_write(cpu, address, &image, 160);
    cpu_write(cpu, address + 160, image.xmm, xmm_count(insn) * 16);
}

static void load_x87(struct cpu *cpu, const struct x86_xsave *image)
{
    struct x86_xsave *fpu = &cpu->state.fpu;

    memcpy(fpu, image, 24); /* FCW to FDP */
    fpu->reserved1 = 0;
    memcpy(fpu->st, image->st, sizeof(fpu->st));
    fpu->fcw = (fpu->fcw & 0x1f7f) | 0x40;
    /* ES and B follow from what is unmasked. */
    fpu->fsw &= 0x7f7f;
    if (fpu->fsw & ~fpu->fcw & 0x3f)
        fpu->fsw |= 0x8080;
}

static void check_mxcsr(struct cpu *cpu, uint32_t mxcsr)
{
    if (mxcsr & ~MXCSR_MASK)
        cpu_raise_error(cpu, X86_GP, 0);
}

void interpret_fxrstor(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_xsave image;
    uint64_t address;

    check_fpu(cpu);
    address = area_address(cpu, insn, FXSAVE_SIZE, 16, X86_READ);
    cpu_read(cpu, address, &image, FXSAVE_SIZE);
    check_mxcsr(cpu, image.mxcsr);
    if (!(insn->rex & 8)) {
        image.fip = (uint32_t)image.fip;
        image.fdp = (uint32_t)image.fdp;
    }
    load_x87(cpu, &image);
    cpu->state.fpu.mxcsr = image.mxcsr;
    memcpy(cpu->state.fpu.xmm, image.xmm, xmm_count(insn) * 16u);
}

static uint64_t requested(const struct cpu *cpu)
{
    return (gpr_read(cpu, X86_RDX, 4) << 32 | gpr_read(cpu, X86_RAX, 4)) & cpu->state.xcr0;
}

/* size: a multiple of 8. */
static bool all_zero(const void *bytes, size_t size)
{
    uint64_t some = 0, word;

    for (size_t i = 0; i < size; i += sizeof(word)) {
        memcpy(&word, (const uint8_t *)bytes + i, sizeof(word));
        some |= word;
    }
    return !some;
}

/* Components that are not in their initial configuration (SDM 1 13.6). */
static uint64_t in_use(const struct cpu *cpu)
{
    const struct x86_xsave *fpu = &cpu->state.fpu;
    uint64_t bits = 0;

    if (fpu->fcw != 0x37f || fpu->fsw || fpu->ftw || fpu->fop || fpu->fip || fpu->fdp ||
        !all_zero(fpu->st, sizeof(fpu->st)))
        bits |= X86_XCR0_X87;
    if (!all_zero(fpu->xmm, sizeof(fpu->xmm)))
        bits |= X86_XCR0_SSE;
    if (!all_zero(fpu->ymm_high, sizeof(fpu->ymm_high)))
        bits |= X86_XCR0_AVX;
    return bits;
}

static void save(struct cpu *cpu, const struct x86_insn *insn, bool optimize, bool compact)
{
    struct x86_xsave image;
    uint64_t address, want, bits, header[8] = {0};
    unsigned size;

    check_xsave(cpu);
    want = requested(cpu);
    size = want & X86_XCR0_AVX ? XSAVE_YMM + 256 : XSAVE_YMM;
    address = area_address(cpu, insn, size, 64, X86_WRITE);
    cpu_probe_write(cpu, address, size);
    legacy_image(cpu, insn, &image);
    bits = in_use(cpu);
    /* In compact form MXCSR is part of the SSE component (SDM 2 XSAVEC). */
    if (compact && image.mxcsr != 0x1f80)
        bits |= X86_XCR0_SSE;
    if (compact) {
        header[0] = want & bits;
        header[1] = XCOMP_COMPACT | want;
    } else {
        uint64_t old = cpu_load(cpu, address + XSAVE_HEADER, 8);

        header[0] = (old & ~want) | (want & (optimize ? bits : bits | want));
        if (!optimize)
            header[0] = (old & ~want) | (want & bits);
    }
    if ((want & X86_XCR0_X87) && (!(optimize || compact) || (bits & X86_XCR0_X87))) {
        cpu_write(cpu, address, &image, 24);
        cpu_write(cpu, address + 32, image.st, sizeof(image.st));
    }
    if (want & (compact ? bits & X86_XCR0_SSE : X86_XCR0_SSE | X86_XCR0_AVX))
        cpu_write(cpu, address + 24, &image.mxcsr, 8);
    if ((want & X86_XCR0_SSE) && (!(optimize || compact) || (bits & X86_XCR0_SSE)))
        cpu_write(cpu, address + 160, image.xmm, xmm_count(insn) * 16);
    if ((want & X86_XCR0_AVX) && (!(optimize || compact) || (bits & X86_XCR0_AVX)))
        cpu_write(cpu, address + XSAVE_YMM, cpu->state.fpu.ymm_high, xmm_count(insn) * 16);
    cpu_write(cpu, address + XSAVE_HEADER, header, compact ? 16 : 8);
}

void interpret_xsave(struct cpu *cpu, const struct x86_insn *insn)
{
    save(cpu, insn, false, false);
}

void interpret_xsaveopt(struct cpu *cpu, const struct x86_insn *insn)
{
    save(cpu, insn, true, false);
}

void interpret_xsavec(struct cpu *cpu, const struct x86_insn *insn)
{
    save(cpu, insn, true, true);
}

void interpret_xsaves(struct cpu *cpu, const struct x86_insn *insn)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    save(cpu, insn, true, true);
}

/* The initial configuration of a component, of which the mode shows `registers`
 * XMM and YMM registers. */
static void init_component(struct x86_xsave *fpu, uint64_t bit, unsigned registers)
{
    if (bit == X86_XCR0_X87) {
        memset(fpu, 0, 24);
        memset(fpu->st, 0, sizeof(fpu->st));
        fpu->fcw = 0x37f;
    } else if (bit == X86_XCR0_SSE) {
        memset(fpu->xmm, 0, registers * 16);
    } else {
        memset(fpu->ymm_high, 0, registers * 16);
    }
}

static void restore(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_xsave image = {0};
    struct x86_xsave *fpu = &cpu->state.fpu;
    uint64_t address, want, bits, header[8];
    bool compact;

    check_xsave(cpu);
    want = requested(cpu);
    address = area_address(cpu, insn, XSAVE_YMM, 64, X86_READ);
    cpu_read(cpu, address + XSAVE_HEADER, header, sizeof(header));
    compact = header[1] & XCOMP_COMPACT;
    bits = header[0];
    if (bits & ~cpu->state.xcr0)
        cpu_raise_error(cpu, X86_GP, 0);
    if (compact ? (header[1] & ~XCOMP_COMPACT & ~cpu->state.xcr0) || (bits & ~header[1])
                : header[1] != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    if (!all_zero(&header[2], compact ? 48 : 8))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu_read(cpu, address, &image, FXSAVE_SIZE);
    /* MXCSR is loaded in standard form whenever SSE or AVX is asked for. */
    if (want & (compact ? bits & X86_XCR0_SSE : X86_XCR0_SSE | X86_XCR0_AVX))
        check_mxcsr(cpu, image.mxcsr);
    if (want & bits & X86_XCR0_AVX)
        cpu_read(cpu, address + XSAVE_YMM, image.ymm_high, xmm_count(insn) * 16);

    if (want & bits & X86_XCR0_X87)
        load_x87(cpu, &image);
    else if (want & X86_XCR0_X87)
        init_component(fpu, X86_XCR0_X87, xmm_count(insn));
    if (want & bits & X86_XCR0_SSE)
        memcpy(fpu->xmm, image.xmm, xmm_count(insn) * 16u);
    else if (want & X86_XCR0_SSE)
        init_component(fpu, X86_XCR0_SSE, xmm_count(insn));
    if (compact ? want & X86_XCR0_SSE : want & (X86_XCR0_SSE | X86_XCR0_AVX))
        fpu->mxcsr = compact && !(bits & X86_XCR0_SSE) ? 0x1f80 : image.mxcsr;
    if (want & bits & X86_XCR0_AVX)
        memcpy(fpu->ymm_high, image.ymm_high, xmm_count(insn) * 16u);
    else if (want & X86_XCR0_AVX)
        init_component(fpu, X86_XCR0_AVX, xmm_count(insn));
}

void interpret_xrstor(struct cpu *cpu, const struct x86_insn *insn)
{
    restore(cpu, insn);
}

void interpret_xrstors(struct cpu *cpu, const struct x86_insn *insn)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    restore(cpu, insn);
}

void interpret_xgetbv(struct cpu *cpu, const struct x86_insn *insn)
{
    uint32_t index = (uint32_t)cpu->state.gpr[X86_RCX];
    uint64_t value = cpu->state.xcr0;

    (void)insn;
    if (!(cpu->state.cr4 & X86_CR4_OSXSAVE))
        cpu_raise(cpu, X86_UD);
    if (index == 1 && cpu_offers(cpu, X86_FEATURE_XSAVEC))
        value &= in_use(cpu);
    else if (index != 0)
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.gpr[X86_RAX] = (uint32_t)value;
    cpu->state.gpr[X86_RDX] = value >> 32;
}

void interpret_xsetbv(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value = gpr_read(cpu, X86_RDX, 4) << 32 | gpr_read(cpu, X86_RAX, 4);
    uint64_t known = X86_XCR0_X87 | X86_XCR0_SSE;

    (void)insn;
    if (!(cpu->state.cr4 & X86_CR4_OSXSAVE))
        cpu_raise(cpu, X86_UD);
    if (cpu_offers(cpu, X86_FEATURE_AVX))
        known |= X86_XCR0_AVX;
    if (cpu->cpl != 0 || (uint32_t)cpu->state.gpr[X86_RCX] || !(value & X86_XCR0_X87) ||
        (value & ~known) || ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE)))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.xcr0 = value;
    cpu_update_mode(cpu);
}
