/* System instructions: control and debug registers, descriptor-table
 * registers, HLT, CLI and STI, INVLPG, CPUID, RDTSC and the like
 * (SDM 3A chapter 2, SDM 2). */
#include <sched.h>
#include <sys/random.h>
#include <x86intrin.h>

#include "engine/interpret/bodies.h"
#include "engine/interpret/arithmetic.h"

static void require_cpl0(struct cpu *cpu)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
}

/* --- Control registers --- */

#define CR0_WRITABLE                                                                               \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM |    \
     X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

static void write_cr0(struct cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->state;
    const uint64_t old = s->cr0;
    uint64_t changed;

    if (value >> 32)
        cpu_raise_error(cpu, X86_GP, 0);
    value = (value & CR0_WRITABLE) | X86_CR0_ET;
    changed = old ^ value;
    if (((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
        ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
        cpu_raise_error(cpu, X86_GP, 0);
    if (!(value & X86_CR0_PG) && ((s->cr4 & X86_CR4_PCIDE) || cpu->code_size == X86_MODE_64))
        cpu_raise_error(cpu, X86_GP, 0);
    if (changed & value & X86_CR0_PG) {
        if (s->efer & X86_EFER_LME) {
            if (!(s->cr4 & X86_CR4_PAE) || (s->segment[X86_CS].attributes & X86_SEG_L))
                cpu_raise_error(cpu, X86_GP, 0);
            s->efer |= X86_EFER_LMA;
        } else if ((s->cr4 & X86_CR4_PAE) && !cpu_load_pdptes(cpu, s->cr3)) {
            cpu_raise_error(cpu, X86_GP, 0);
        }
    } else if (changed & X86_CR0_PG) {
        s->efer &= ~(uint64_t)X86_EFER_LMA;
    }
    s->cr0 = value;
    if (changed & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
        tlb_flush(&cpu->tlb, false);
    cpu_update_mode(cpu);
}

/* Whether the guest was offered what a CR4 bit turns on. */
static uint64_t cr4_allowed(const struct cpu *cpu)
{
    static const struct {
        uint64_t bits;
        enum x86_feature feature;
    } conditions[] = {
        {X86_CR4_FSGSBASE, X86_FEATURE_FSGSBASE}, {X86_CR4_OSXSAVE, X86_FEATURE_XSAVE},
        {X86_CR4_SMAP, X86_FEATURE_SMAP},         {X86_CR4_OSFXSR, X86_FEATURE_FXSR},
        {X86_CR4_OSXMMEXCPT, X86_FEATURE_SSE},
    };
    const struct x86_cpuid_leaf *leaf1 = x86_cpuid_find(&cpu->soft->cpuid[cpu->vcpu.index], 1, 0);
    const struct x86_cpuid_leaf *leaf7 = x86_cpuid_find(&cpu->soft->cpuid[cpu->vcpu.index], 7, 0);
    uint64_t allowed = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE |
                       X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE;

    for (size_t i = 0; i < ARRAY_SIZE(conditions); i++)
        if (cpu_offers(cpu, conditions[i].feature))
            allowed |= conditions[i].bits;
    if (leaf1 && (leaf1->ecx & 1u << 17))
        allowed |= X86_CR4_PCIDE;
    if (leaf7 && leaf7->function == 7) {
        allowed |= leaf7->ebx & 1u << 7 ? X86_CR4_SMEP : 0;
        allowed |= leaf7->ecx & 1u << 2 ? X86_CR4_UMIP : 0;
    }
    /* VME and PVI are not offered. */
    return allowed & ~(uint64_t)(X86_CR4_VME | X86_CR4_PVI);
}

static void write_cr4(struct cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->state;
    const uint64_t changed = s->cr4 ^ value;

    if (value & ~cr4_allowed(cpu))
        cpu_raise_error(cpu, X86_GP, 0);
    if (cpu_long_mode(cpu) && !(value & X86_CR4_PAE))
        cpu_raise_error(cpu, X86_GP, 0);
    if (changed & value & X86_CR4_PCIDE &&
        (!cpu_long_mode(cpu) || (s->cr3 & 0xfff)))
        cpu_raise_error(cpu, X86_GP, 0);
    if ((changed & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE)) && (s->cr0 & X86_CR0_PG) &&
        (value & X86_CR4_PAE) && !cpu_long_mode(cpu) && !cpu_load_pdptes(cpu, s->cr3))
        cpu_raise_error(cpu, X86_GP, 0);
    s->cr4 = value;
    if (changed & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP |
                   X86_CR4_SMAP))
        tlb_flush(&cpu->tlb, false);
    cpu_update_mode(cpu);
}

static void write_cr3(struct cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->state;
    const bool pcid = s->cr4 & X86_CR4_PCIDE;

    if (cpu_long_mode(cpu)) {
        /* Bit 63 with PCIDs: keep what is cached for the new one. */
        if (pcid)
            value &= ~(1ull << 63);
        if (value >> 52)
            cpu_raise_error(cpu, X86_GP, 0);
    } else {
        value = (uint32_t)value;
        if ((s->cr0 & X86_CR0_PG) && (s->cr4 & X86_CR4_PAE) && !cpu_load_pdptes(cpu, value))
            cpu_raise_error(cpu, X86_GP, 0);
    }
    s->cr3 = value;
    /* The TLB has no PCID tags: every load drops what is not global, which the
     * architecture always allows (SDM 3A 4.10.2.4). */
    tlb_flush(&cpu->tlb, s->cr4 & X86_CR4_PGE);
    cpu->stop = true;
}

void interpret_mov_to_cr(struct cpu *cpu, const struct x86_insn *insn)
{
    const struct engine_config *config = &cpu->soft->config;
    uint64_t value = gpr_read(cpu, insn->operands[1].reg, insn->operands[1].size);

    require_cpl0(cpu);
    switch (insn->operands[0].reg) {
    case 0: write_cr0(cpu, value); break;
    case 2: cpu->state.cr2 = value; break;
    case 3: write_cr3(cpu, value); break;
    case 4: write_cr4(cpu, value); break;
    default:
        if (value > 15)
            cpu_raise_error(cpu, X86_GP, 0);
        cpu->state.cr8 = value;
        config->callbacks->cr8_write(config->opaque, cpu->vcpu.index, value);
        cpu->stop = true;
        break;
    }
}

void interpret_mov_from_cr(struct cpu *cpu, const struct x86_insn *insn)
{
    const struct engine_config *config = &cpu->soft->config;
    uint64_t value;

    require_cpl0(cpu);
    switch (insn->operands[1].reg) {
    case 0: value = cpu->state.cr0; break;
    case 2: value = cpu->state.cr2; break;
    case 3: value = cpu->state.cr3; break;
    case 4: value = cpu->state.cr4; break;
    default:
        value = config->callbacks->cr8_read(config->opaque, cpu->vcpu.index);
        break;
    }
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, value);
}

void interpret_clts(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    cpu->state.cr0 &= ~(uint64_t)X86_CR0_TS;
    cpu_update_mode(cpu);
}

/* SMSW, SLDT, STR, SGDT, SIDT leak kernel state unless UMIP forbids. */
static void check_umip(struct cpu *cpu)
{
    if ((cpu->state.cr4 & X86_CR4_UMIP) && cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
}

static void store_word(struct cpu *cpu, const struct x86_insn *insn, uint64_t value)
{
    if (insn->operands[0].kind == X86_OPERAND_MEMORY)
        cpu_store(cpu, operand_address(cpu, insn, 2, X86_WRITE), 2, value);
    else
        operand_gpr_write(cpu, &insn->operands[0], value);
}

static uint16_t load_word(struct cpu *cpu, const struct x86_insn *insn)
{
    if (insn->operands[0].kind == X86_OPERAND_MEMORY)
        return (uint16_t)cpu_load(cpu, operand_address(cpu, insn, 2, X86_READ), 2);
    return (uint16_t)cpu->state.gpr[insn->operands[0].reg];
}

void interpret_smsw(struct cpu *cpu, const struct x86_insn *insn)
{
    check_umip(cpu);
    store_word(cpu, insn, cpu->state.cr0);
}

void interpret_lmsw(struct cpu *cpu, const struct x86_insn *insn)
{
    uint16_t value;

    require_cpl0(cpu);
    value = load_word(cpu, insn);
    /* It sets PE but never clears it. */
    write_cr0(cpu, (cpu->state.cr0 & ~0xeull) | (value & 0xf));
}

/* --- Descriptor tables --- */

static void store_table(struct cpu *cpu, const struct x86_insn *insn,
                        const struct x86_table_register *table)
{
    const unsigned width = insn->mode == X86_MODE_64 ? 8 : 4;
    uint64_t address;

    check_umip(cpu);
    address = operand_address(cpu, insn, 2 + width, X86_WRITE);
    cpu_probe_write(cpu, address, 2 + width);
    cpu_store(cpu, address, 2, table->limit);
    cpu_store(cpu, (address + 2) & cpu->address_mask, width, table->base);
}

static void load_table(struct cpu *cpu, const struct x86_insn *insn,
                       struct x86_table_register *table)
{
    const unsigned width = insn->mode == X86_MODE_64 ? 8 : 4;
    uint64_t address, base;
    uint16_t limit;

    require_cpl0(cpu);
    address = operand_address(cpu, insn, 2 + width, X86_READ);
    limit = (uint16_t)cpu_load(cpu, address, 2);
    base = cpu_load(cpu, (address + 2) & cpu->address_mask, width);
    if (insn->mode == X86_MODE_64 && !cpu_canonical(base))
        cpu_raise_error(cpu, X86_GP, 0);
    /* A 16-bit operand size means 24 bits of base. */
    if (insn->operand_size == 2)
        base &= 0xffffff;
    *table = (struct x86_table_register){.base = base, .limit = limit};
}

void interpret_sgdt(struct cpu *cpu, const struct x86_insn *insn)
{
    store_table(cpu, insn, &cpu->state.gdtr);
}

void interpret_sidt(struct cpu *cpu, const struct x86_insn *insn)
{
    store_table(cpu, insn, &cpu->state.idtr);
}

void interpret_lgdt(struct cpu *cpu, const struct x86_insn *insn)
{
    load_table(cpu, insn, &cpu->state.gdtr);
}

void interpret_lidt(struct cpu *cpu, const struct x86_insn *insn)
{
    load_table(cpu, insn, &cpu->state.idtr);
}

static void require_protected(struct cpu *cpu)
{
    if (!cpu_protected(cpu))
        cpu_raise(cpu, X86_UD);
}

void interpret_sldt(struct cpu *cpu, const struct x86_insn *insn)
{
    require_protected(cpu);
    check_umip(cpu);
    store_word(cpu, insn, cpu->state.segment[X86_LDTR].selector);
}

void interpret_str(struct cpu *cpu, const struct x86_insn *insn)
{
    require_protected(cpu);
    check_umip(cpu);
    store_word(cpu, insn, cpu->state.segment[X86_TR].selector);
}

void interpret_lldt(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(cpu);
    require_cpl0(cpu);
    selector = load_word(cpu, insn);
    if (!(selector & 0xfffc)) {
        segment_set_null(cpu, X86_LDTR, selector);
        return;
    }
    if ((selector & 4) || !segment_read_descriptor(cpu, selector, &d) ||
        (d.attributes & (X86_SEG_S | X86_SEG_TYPE)) != 2)
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
    if (!(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, selector & 0xfffc);
    segment_set(cpu, X86_LDTR, &d);
}

void interpret_ltr(struct cpu *cpu, const struct x86_insn *insn)
{
    struct descriptor d;
    uint16_t selector;
    unsigned type;

    require_protected(cpu);
    require_cpl0(cpu);
    selector = load_word(cpu, insn);
    if (!(selector & 0xfffc))
        cpu_raise_error(cpu, X86_GP, 0);
    if ((selector & 4) || !segment_read_descriptor(cpu, selector, &d))
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
    type = d.attributes & (X86_SEG_S | X86_SEG_TYPE);
    if (type != 9 && (type != 1 || cpu_long_mode(cpu)))
        cpu_raise_error(cpu, X86_GP, selector & 0xfffc);
    if (!(d.attributes & X86_SEG_P))
        cpu_raise_error(cpu, X86_NP, selector & 0xfffc);
    d.attributes |= 2; /* busy */
    cpu_store_system(cpu, d.address + 5, 1, d.attributes & 0xff);
    segment_set(cpu, X86_TR, &d);
}

/* --- Caches and the TLB --- */

void interpret_invlpg(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t address = effective_address(cpu, insn);

    require_cpl0(cpu);
    if (insn->memory.segment >= X86_FS || insn->mode != X86_MODE_64)
        address += cpu->state.segment[insn->memory.segment].base;
    tlb_flush_page(&cpu->tlb, address & cpu->address_mask);
    cpu->stop = true;
}

void interpret_invpcid(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t type, address, pcid, linear;

    require_cpl0(cpu);
    type = gpr_read(cpu, insn->operands[0].reg, insn->operands[0].size);
    address = operand_address(cpu, insn, 16, X86_READ);
    pcid = cpu_load(cpu, address, 8);
    linear = cpu_load(cpu, (address + 8) & cpu->address_mask, 8);
    if (type > 3 || pcid >> 12 || (type == 0 && !cpu_canonical(linear)) ||
        (type < 2 && pcid && !(cpu->state.cr4 & X86_CR4_PCIDE)))
        cpu_raise_error(cpu, X86_GP, 0);
    if (type == 0)
        tlb_flush_page(&cpu->tlb, linear);
    else
        tlb_flush(&cpu->tlb, type == 1 || type == 3);
    cpu->stop = true;
}

#define PRIVILEGED_NOTHING(name)                                                                   \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        (void)insn;                                                                                \
        require_cpl0(cpu);                                                                         \
    }

PRIVILEGED_NOTHING(invd)
PRIVILEGED_NOTHING(wbinvd)

/* --- Interrupt flag, halting --- */

void interpret_cli(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    if ((cpu->state.cr0 & X86_CR0_PE) && cpu->cpl > cpu_iopl(cpu))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.rflags &= ~(uint64_t)X86_IF;
}

void interpret_sti(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    if ((cpu->state.cr0 & X86_CR0_PE) && cpu->cpl > cpu_iopl(cpu))
        cpu_raise_error(cpu, X86_GP, 0);
    if (!(cpu->state.rflags & X86_IF)) {
        cpu->state.rflags |= X86_IF;
        cpu->state.interrupt_shadow = true;
        cpu->retired_shadow = true;
        cpu->stop = true;
    }
}

void interpret_hlt(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    cpu->state.activity = X86_HALTED;
    cpu->stop = true;
}

void interpret_pause(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    /* Whoever spins may wait for a CPU that has no host CPU now. */
    if (++cpu->pauses >= CPU_PAUSES) {
        cpu->pauses = 0;
        sched_yield();
    }
}

void interpret_monitor(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    if (cpu->state.gpr[X86_RCX])
        cpu_raise_error(cpu, X86_GP, 0);
    cpu_load(cpu, cpu_segment_address(cpu, X86_DS, cpu->state.gpr[X86_RAX], 1, X86_READ), 1);
}

/* A wake-up may come for any reason (SDM 3A 8.10.4); here it comes at once. */
void interpret_mwait(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    if (cpu->state.gpr[X86_RCX] & ~1ull)
        cpu_raise_error(cpu, X86_GP, 0);
    sched_yield();
}

void interpret_clac(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    if (cpu->cpl != 0)
        cpu_raise(cpu, X86_UD);
    cpu->state.rflags &= ~(uint64_t)X86_AC;
    cpu_update_mode(cpu);
}

void interpret_stac(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    if (cpu->cpl != 0)
        cpu_raise(cpu, X86_UD);
    cpu->state.rflags |= X86_AC;
    cpu_update_mode(cpu);
}

#define UNDEFINED(name)                                                                            \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        (void)insn;                                                                                \
        cpu_raise(cpu, X86_UD);                                                                    \
    }

UNDEFINED(vmcall)
UNDEFINED(vmmcall)
UNDEFINED(rsm)

/* --- Time, identity, randomness --- */

uint64_t cpu_tsc(const struct cpu *cpu)
{
    return __rdtsc() + cpu->state.tsc_offset;
}

static void check_tsd(struct cpu *cpu)
{
    if ((cpu->state.cr4 & X86_CR4_TSD) && cpu->cpl != 0)
        cpu_raise_error(cpu, X86_GP, 0);
}

void interpret_rdtsc(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t tsc;

    (void)insn;
    check_tsd(cpu);
    tsc = cpu_tsc(cpu);
    cpu->state.gpr[X86_RAX] = (uint32_t)tsc;
    cpu->state.gpr[X86_RDX] = tsc >> 32;
}

void interpret_rdtscp(struct cpu *cpu, const struct x86_insn *insn)
{
    interpret_rdtsc(cpu, insn);
    cpu->state.gpr[X86_RCX] = (uint32_t)cpu->state.tsc_aux;
}

void interpret_rdpid(struct cpu *cpu, const struct x86_insn *insn)
{
    cpu->state.gpr[insn->operands[0].reg] = (uint32_t)cpu->state.tsc_aux;
}

/* No performance counters are offered: any index is out of range. */
void interpret_rdpmc(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_raise_error(cpu, X86_GP, 0);
}

static void random_value(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value = 0;
    bool done = getrandom(&value, sizeof(value), GRND_NONBLOCK) == sizeof(value);

    operand_gpr_write(cpu, &insn->operands[0], done ? value : 0);
    flags_set(cpu, FLAGS_ALL, done ? X86_CF : 0);
}

void interpret_rdrand(struct cpu *cpu, const struct x86_insn *insn)
{
    random_value(cpu, insn);
}

void interpret_rdseed(struct cpu *cpu, const struct x86_insn *insn)
{
    random_value(cpu, insn);
}

void interpret_cpuid(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_state *s = &cpu->state;
    const struct x86_cpuid_leaf *leaf =
        x86_cpuid_find(&cpu->soft->cpuid[cpu->vcpu.index], (uint32_t)s->gpr[X86_RAX],
                       (uint32_t)s->gpr[X86_RCX]);
    struct x86_cpuid_leaf values = leaf ? *leaf : (struct x86_cpuid_leaf){0};

    (void)insn;
    /* Bits that follow the CPU's state (SDM 2 CPUID). */
    if (leaf && leaf->function == 1) {
        values.ecx &= ~(1u << 27);
        if (s->cr4 & X86_CR4_OSXSAVE)
            values.ecx |= 1u << 27;
    } else if (leaf && leaf->function == 0xd && leaf->index == 0) {
        /* Size of what XCR0 enables now. */
        values.ebx = s->xcr0 & X86_XCR0_AVX ? 832 : 576;
    }
    s->gpr[X86_RAX] = values.eax;
    s->gpr[X86_RBX] = values.ebx;
    s->gpr[X86_RCX] = values.ecx;
    s->gpr[X86_RDX] = values.edx;
}

/* --- FS and GS bases --- */

static void check_fsgsbase(struct cpu *cpu)
{
    if (!(cpu->state.cr4 & X86_CR4_FSGSBASE))
        cpu_raise(cpu, X86_UD);
}

static void read_base(struct cpu *cpu, const struct x86_insn *insn, unsigned segment)
{
    check_fsgsbase(cpu);
    operand_gpr_write(cpu, &insn->operands[0], cpu->state.segment[segment].base);
}

static void write_base(struct cpu *cpu, const struct x86_insn *insn, unsigned segment)
{
    uint64_t value;

    check_fsgsbase(cpu);
    value = operand_gpr_read(cpu, &insn->operands[0]);
    if (!cpu_canonical(value))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.segment[segment].base = value;
}

void interpret_rdfsbase(struct cpu *cpu, const struct x86_insn *insn)
{
    read_base(cpu, insn, X86_FS);
}

void interpret_rdgsbase(struct cpu *cpu, const struct x86_insn *insn)
{
    read_base(cpu, insn, X86_GS);
}

void interpret_wrfsbase(struct cpu *cpu, const struct x86_insn *insn)
{
    write_base(cpu, insn, X86_FS);
}

void interpret_wrgsbase(struct cpu *cpu, const struct x86_insn *insn)
{
    write_base(cpu, insn, X86_GS);
}
