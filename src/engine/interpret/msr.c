/* Model-specific registers: a table of those that are plain state, and the few
 * that do something (SDM 4, APM 2 appendix A). The machine has its own. */
#include <x86intrin.h>

#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"

#define EFER_WRITABLE (X86_EFER_SCE | X86_EFER_LME | X86_EFER_NXE)

/* All mitigations that need software are not needed here: nothing speculates
 * across the border between guest modes that the host does not guard. */
#define ARCH_CAPABILITIES_OFFERED                                                                  \
    (1ull << 0 /* RDCL_NO */ | 1ull << 1 /* IBRS_ALL */ | 1ull << 3 /* SKIP_L1DFL */ |             \
     1ull << 4 /* SSB_NO */ | 1ull << 5 /* MDS_NO */ | 1ull << 6 /* PSCHANGE_MC_NO */ |            \
     1ull << 8 /* TAA_NO */ | 1ull << 13 /* SBDR_SSDP_NO */ | 1ull << 14 /* FBSDP_NO */ |          \
     1ull << 15 /* PSDP_NO */ | 1ull << 20 /* BHI_NO */ | 1ull << 24 /* PBRSB_NO */ |              \
     1ull << 26 /* GDS_NO */ | 1ull << 27 /* RFDS_NO */ | 1ull << 62 /* ITS_NO */)

enum { MSR_ANY, MSR_CANONICAL, MSR_READONLY };

/* MSRs that only hold a value. mask: bits that may be set. */
static const struct {
    uint32_t msr;
    uint16_t offset;
    uint8_t kind;
    uint64_t mask;
} plain[] = {
#define STATE(field) offsetof(struct x86_state, field)
    {X86_MSR_STAR, STATE(star), MSR_ANY, UINT64_MAX},
    {X86_MSR_LSTAR, STATE(lstar), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_CSTAR, STATE(cstar), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_SFMASK, STATE(sfmask), MSR_ANY, UINT32_MAX},
    {X86_MSR_FS_BASE, STATE(segment[X86_FS].base), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_GS_BASE, STATE(segment[X86_GS].base), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_KERNEL_GS_BASE, STATE(kernel_gs_base), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_TSC_AUX, STATE(tsc_aux), MSR_ANY, UINT32_MAX},
    {X86_MSR_SYSENTER_CS, STATE(sysenter_cs), MSR_ANY, UINT32_MAX},
    {X86_MSR_SYSENTER_ESP, STATE(sysenter_esp), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_SYSENTER_EIP, STATE(sysenter_eip), MSR_CANONICAL, UINT64_MAX},
    {X86_MSR_MISC_ENABLE, STATE(misc_enable), MSR_ANY, UINT64_MAX},
    {X86_MSR_SPEC_CTRL, STATE(spec_ctrl), MSR_ANY, 0x407}, /* IBRS, STIBP, SSBD, BHI_DIS_S */
    {X86_MSR_MTRR_DEF_TYPE, STATE(mtrr_def_type), MSR_ANY, 0xcff},
    {X86_MSR_MTRR_FIX64K, STATE(mtrr_fixed[0]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX16K_80000, STATE(mtrr_fixed[1]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX16K_A0000, STATE(mtrr_fixed[2]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 0, STATE(mtrr_fixed[3]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 1, STATE(mtrr_fixed[4]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 2, STATE(mtrr_fixed[5]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 3, STATE(mtrr_fixed[6]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 4, STATE(mtrr_fixed[7]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 5, STATE(mtrr_fixed[8]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 6, STATE(mtrr_fixed[9]), MSR_ANY, UINT64_MAX},
    {X86_MSR_MTRR_FIX4K_C0000 + 7, STATE(mtrr_fixed[10]), MSR_ANY, UINT64_MAX},
#undef STATE
};

/* MSRs that read as a constant and take no writes, or ignore them. */
static const struct {
    uint32_t msr;
    uint64_t value;
    bool write_ignored;
} constants[] = {
    {X86_MSR_PLATFORM_ID, 0, false},
    {X86_MSR_FEATURE_CONTROL, 1, false}, /* locked, VMX off */
    {X86_MSR_BIOS_SIGN_ID, 0x100000000, true},
    {X86_MSR_MTRR_CAP, 0x508, false}, /* 8 variable, fixed, write-combining */
    {X86_MSR_ARCH_CAPABILITIES, ARCH_CAPABILITIES_OFFERED, false},
    {X86_MSR_MCG_CAP, 0, false}, /* no banks */
    {X86_MSR_MCG_STATUS, 0, true},
    {X86_MSR_PRED_CMD, 0, true},
};

static void move_tsc(struct cpu *cpu, uint64_t change)
{
    const struct engine_config *config = &cpu->soft->config;

    cpu->state.tsc_offset += change;
    if (config->callbacks->tsc_changed)
        config->callbacks->tsc_changed(config->opaque, cpu->vcpu.index, cpu->state.tsc_offset);
}

static bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8) {
        uint8_t type = (uint8_t)value;

        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

static uint64_t *variable_mtrr(struct cpu *cpu, uint32_t msr)
{
    uint32_t i = msr - X86_MSR_MTRR_PHYSBASE0;

    return i < 16 ? &cpu->state.mtrr_variable[i / 2][i % 2] : NULL;
}

bool cpu_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *ret_value)
{
    const struct engine_config *config = &cpu->soft->config;
    enum cpu_part part;
    bool known;

    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        if (plain[i].msr == msr) {
            *ret_value = *(uint64_t *)(void *)((char *)&cpu->state + plain[i].offset);
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(constants); i++)
        if (constants[i].msr == msr) {
            *ret_value = constants[i].value;
            return true;
        }
    switch (msr) {
    case X86_MSR_TSC:
        *ret_value = cpu_tsc(cpu);
        return true;
    case X86_MSR_TSC_ADJUST:
        *ret_value = cpu->state.tsc_adjust;
        return true;
    case X86_MSR_EFER:
        *ret_value = cpu->state.efer;
        return true;
    case X86_MSR_PAT:
        *ret_value = cpu->state.pat;
        return true;
    case X86_MSR_XSS:
        *ret_value = cpu->state.xss;
        return cpu_offers(cpu, X86_FEATURE_XSAVES);
    default:
        if (variable_mtrr(cpu, msr)) {
            *ret_value = *variable_mtrr(cpu, msr);
            return true;
        }
        part = times_enter(&cpu->times, PART_DEVICE);
        known = config->callbacks->msr_read(config->opaque, cpu->vcpu.index, msr, ret_value);
        times_enter(&cpu->times, part);
        return known;
    }
}

static bool write_efer(struct cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->state;

    if (value & ~(uint64_t)(EFER_WRITABLE | X86_EFER_LMA))
        return false;
    if ((s->cr0 & X86_CR0_PG) && ((s->efer ^ value) & X86_EFER_LME))
        return false;
    if ((s->efer ^ value) & X86_EFER_NXE)
        tlb_flush(&cpu->tlb, false);
    s->efer = (value & EFER_WRITABLE) | (s->efer & X86_EFER_LMA);
    cpu_update_mode(cpu);
    return true;
}

bool cpu_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct engine_config *config = &cpu->soft->config;
    enum cpu_part part;
    bool known;
    uint64_t change;

    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        if (plain[i].msr == msr) {
            if ((value & ~plain[i].mask) ||
                (plain[i].kind == MSR_CANONICAL && !cpu_canonical(value)))
                return false;
            *(uint64_t *)(void *)((char *)&cpu->state + plain[i].offset) = value;
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(constants); i++)
        if (constants[i].msr == msr)
            return constants[i].write_ignored;
    switch (msr) {
    case X86_MSR_TSC:
        /* TSC_ADJUST moves along (SDM 3B 17.17.3). */
        change = value - cpu_tsc(cpu);
        cpu->state.tsc_adjust += change;
        move_tsc(cpu, change);
        return true;
    case X86_MSR_TSC_ADJUST:
        move_tsc(cpu, value - cpu->state.tsc_adjust);
        cpu->state.tsc_adjust = value;
        return true;
    case X86_MSR_EFER:
        return write_efer(cpu, value);
    case X86_MSR_PAT:
        if (!pat_valid(value))
            return false;
        cpu->state.pat = value;
        return true;
    case X86_MSR_XSS:
        if (value || !cpu_offers(cpu, X86_FEATURE_XSAVES))
            return false;
        cpu->state.xss = value;
        return true;
    default:
        if (variable_mtrr(cpu, msr)) {
            *variable_mtrr(cpu, msr) = value;
            return true;
        }
        part = times_enter(&cpu->times, PART_DEVICE);
        known = config->callbacks->msr_write(config->opaque, cpu->vcpu.index, msr, value);
        times_enter(&cpu->times, part);
        return known;
    }
}

void interpret_rdmsr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value = 0;

    (void)insn;
    if (cpu->cpl != 0 || !cpu_msr_read(cpu, (uint32_t)cpu->state.gpr[X86_RCX], &value))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.gpr[X86_RAX] = (uint32_t)value;
    cpu->state.gpr[X86_RDX] = value >> 32;
}

void interpret_wrmsr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value = gpr_read(cpu, X86_RDX, 4) << 32 | gpr_read(cpu, X86_RAX, 4);

    (void)insn;
    if (cpu->cpl != 0 || !cpu_msr_write(cpu, (uint32_t)cpu->state.gpr[X86_RCX], value))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->stop = true;
}
