/* What the software engines share: memory slots, state, signals, the mode that
 * follows from the state, and the CPUID features that they carry out. */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "engine/interpret/access.h"
#include "engine/interpret/code_pages.h"
#include "engine/interpret/vector.h"

int soft_engine_init(struct soft_engine *soft, const struct engine_config *config,
                     const struct engine_ops *ops, struct error *err)
{
    if (config->cpus > ENGINE_CPUS_MAX)
        return error_set(err, EINVAL, "%u CPUs are more than the %d there can be", config->cpus,
                         ENGINE_CPUS_MAX);
    soft->engine.ops = ops;
    soft->config = *config;
    for (unsigned i = 0; i < config->cpus; i++)
        soft->cpuid[i] = config->cpuid[i];
    soft->config.cpuid = soft->cpuid;
    soft->dot_by_lane = vector_dot_by_lane();
    pthread_mutex_init(&soft->code_lock, NULL);
    pthread_mutex_init(&soft->written_lock, NULL);
    pthread_mutex_init(&soft->split_lock, NULL);
    return 0;
}

void soft_engine_destroy(struct soft_engine *soft)
{
    for (unsigned i = 0; i < soft->slot_count; i++)
        free(soft->slots[i].pages);
    pthread_mutex_destroy(&soft->code_lock);
    pthread_mutex_destroy(&soft->written_lock);
    pthread_mutex_destroy(&soft->split_lock);
}

int soft_engine_map(struct engine *engine, uint64_t address, uint64_t size, void *host,
                    unsigned flags, struct error *err)
{
    struct soft_engine *soft = (struct soft_engine *)engine;
    struct code_page *pages;

    if (soft->slot_count == MEMORY_SLOTS_MAX)
        return error_set(err, ENOSPC, "more than %d memory slots", MEMORY_SLOTS_MAX);
    pages = calloc((size_t)(size >> 12), sizeof(*pages));
    if (!pages)
        return error_set(err, ENOMEM, "out of memory for the memory map");
    soft->slots[soft->slot_count++] = (struct memory_slot){
        .address = address, .size = size, .host = host, .flags = flags, .pages = pages};
    return 0;
}

int soft_engine_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err)
{
    struct soft_engine *soft = (struct soft_engine *)engine;

    for (unsigned i = 0; i < soft->slot_count; i++) {
        struct memory_slot *slot = &soft->slots[i];

        if (slot->address != address || slot->size != size)
            continue;
        free(slot->pages);
        *slot = soft->slots[--soft->slot_count];
        for (unsigned k = 0; k < soft->config.cpus; k++)
            if (soft->engine.vcpus[k])
                tlb_flush(&cpu_of(soft->engine.vcpus[k])->tlb, false);
        return 0;
    }
    return error_set(err, ENOENT, "no memory is mapped at 0x%llx", (unsigned long long)address);
}

int cpu_init(struct cpu *cpu, struct soft_engine *soft, const struct engine_ops *ops,
             unsigned index, struct error *err)
{
    const struct x86_cpuid_leaf *leaf = x86_cpuid_find(&soft->cpuid[index], 1, 0);

    (void)err;
    cpu->vcpu = (struct vcpu){.ops = ops, .engine = &soft->engine, .index = index};
    cpu->soft = soft;
    tlb_init(&cpu->tlb);
    x86_state_reset(&cpu->state, leaf ? leaf->eax : 0);
    cpu_update_mode(cpu);
    soft->engine.vcpus[index] = &cpu->vcpu;
    return 0;
}

void *cpu_allocate(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void cpu_free(void *cpu, size_t size)
{
    munmap(cpu, size);
}

void soft_engine_get_state(struct vcpu *vcpu, struct x86_state *ret_state)
{
    const struct cpu *cpu = cpu_of(vcpu);

    *ret_state = cpu->state;
    if (atomic_load(&cpu->signals) & ENGINE_SIGNAL_NMI)
        ret_state->nmi_pending = true;
    if (cpu->state.interrupt_shadow && cpu->watch_hits) { /* the trap comes after it */
        ret_state->dr6 = (ret_state->dr6 & ~0xfull) | cpu->watch_hits;
        ret_state->debug_trap = true;
    }
}

void soft_engine_set_state(struct vcpu *vcpu, const struct x86_state *state)
{
    struct cpu *cpu = cpu_of(vcpu);

    cpu->state = *state;
    cpu->watch_hits = 0;
    if (state->debug_trap)
        atomic_fetch_or(&cpu->signals, (unsigned)CPU_SIGNAL_DEBUG_TRAP);
    if (state->nmi_pending)
        atomic_fetch_or(&cpu->signals, ENGINE_SIGNAL_NMI);
    tlb_flush(&cpu->tlb, false);
    cpu_update_mode(cpu);
}

void soft_engine_signal(struct vcpu *vcpu, unsigned signals)
{
    cpu_signal(cpu_of(vcpu), signals);
}

void soft_engine_invalidate(struct engine *engine, uint64_t address, uint64_t size)
{
    struct soft_engine *soft = (struct soft_engine *)engine;

    for (uint64_t page = address & PAGE_MASK; page < address + size; page += PAGE_SIZE) {
        struct code_page *code = code_page_at(soft, page);

        if (code && code_page_is_marked(code))
            code_page_written(soft, code);
    }
}

void cpu_update_mode(struct cpu *cpu)
{
    const struct x86_state *s = &cpu->state;
    const struct x86_segment *cs = &s->segment[X86_CS], *ss = &s->segment[X86_SS];
    static const uint8_t flat_segments[] = {X86_CS, X86_DS, X86_ES, X86_SS};

    cpu->cpl = x86_cpl(s);
    if (cpu_v86(cpu))
        cpu->cpl = 3;
    else if (!(s->cr0 & X86_CR0_PE))
        cpu->cpl = 0;
    if ((s->efer & X86_EFER_LMA) && (cs->attributes & X86_SEG_L))
        cpu->code_size = X86_MODE_64;
    else if (cs->attributes & X86_SEG_DB)
        cpu->code_size = X86_MODE_32;
    else
        cpu->code_size = X86_MODE_16;
    cpu->mode = cpu->code_size == X86_MODE_64   ? CPU_MODE_64
                : cpu->code_size == X86_MODE_32 ? CPU_MODE_32
                                                : CPU_MODE_16;
    if (cpu->cpl == 3)
        cpu->mode |= CPU_MODE_USER;
    cpu->address_mask = cpu->code_size == X86_MODE_64 ? UINT64_MAX : 0xffffffff;
    cpu->stack_mask = cpu->code_size == X86_MODE_64 ? UINT64_MAX
                      : ss->attributes & X86_SEG_DB ? 0xffffffff
                                                    : 0xffff;
    cpu->rights = cpu->cpl == 3             ? TLB_USER
                  : s->rflags & X86_AC      ? TLB_SUPERVISOR_AC
                                            : TLB_SUPERVISOR;
    if (cpu->cpl == 3 && (s->cr0 & X86_CR0_AM) && (s->rflags & X86_AC)) {
        if (!cpu->check_alignment)
            tlb_flush(&cpu->tlb, false);
        cpu->check_alignment = true;
    } else {
        cpu->check_alignment = false;
    }
    cpu->data_flat = true;
    for (unsigned i = 0; i < 4; i++) {
        const struct x86_segment *segment = &s->segment[flat_segments[i]];

        if (segment->base || segment->limit != 0xffffffff || !(segment->attributes & X86_SEG_P) ||
            (segment->attributes & (X86_SEG_CODE | X86_SEG_DOWN)) == X86_SEG_DOWN)
            cpu->data_flat = false;
    }
    cpu->stop = true;
}

/* --- CPUID --- */

enum cpuid_register { EAX, EBX, ECX, EDX };

/* Where CPUID tells of each feature of the table (SDM 2 CPUID). */
static const struct {
    enum x86_feature feature;
    uint32_t function;
    uint8_t reg, bit;
} feature_bits[] = {
    {X86_FEATURE_FPU, 1, EDX, 0},         {X86_FEATURE_SEP, 1, EDX, 11},
    {X86_FEATURE_CLFSH, 1, EDX, 19},      {X86_FEATURE_MMX, 1, EDX, 23},
    {X86_FEATURE_FXSR, 1, EDX, 24},       {X86_FEATURE_SSE, 1, EDX, 25},
    {X86_FEATURE_SSE2, 1, EDX, 26},       {X86_FEATURE_SSE3, 1, ECX, 0},
    {X86_FEATURE_PCLMULQDQ, 1, ECX, 1},   {X86_FEATURE_MONITOR, 1, ECX, 3},
    {X86_FEATURE_SSSE3, 1, ECX, 9},       {X86_FEATURE_FMA, 1, ECX, 12},
    {X86_FEATURE_CX16, 1, ECX, 13},       {X86_FEATURE_SSE4_1, 1, ECX, 19},
    {X86_FEATURE_SSE4_2, 1, ECX, 20},     {X86_FEATURE_MOVBE, 1, ECX, 22},
    {X86_FEATURE_POPCNT, 1, ECX, 23},     {X86_FEATURE_AES, 1, ECX, 25},
    {X86_FEATURE_XSAVE, 1, ECX, 26},      {X86_FEATURE_AVX, 1, ECX, 28},
    {X86_FEATURE_F16C, 1, ECX, 29},       {X86_FEATURE_RDRAND, 1, ECX, 30},
    {X86_FEATURE_FSGSBASE, 7, EBX, 0},    {X86_FEATURE_BMI1, 7, EBX, 3},
    {X86_FEATURE_AVX2, 7, EBX, 5},        {X86_FEATURE_BMI2, 7, EBX, 8},
    {X86_FEATURE_INVPCID, 7, EBX, 10},    {X86_FEATURE_RDSEED, 7, EBX, 18},
    {X86_FEATURE_ADX, 7, EBX, 19},        {X86_FEATURE_SMAP, 7, EBX, 20},
    {X86_FEATURE_CLFLUSHOPT, 7, EBX, 23}, {X86_FEATURE_CLWB, 7, EBX, 24},
    {X86_FEATURE_SHA, 7, EBX, 29},        {X86_FEATURE_RDPID, 7, ECX, 22},
    {X86_FEATURE_XSAVEOPT, 0xd, EAX, 0},  {X86_FEATURE_XSAVEC, 0xd, EAX, 1},
    {X86_FEATURE_XSAVES, 0xd, EAX, 3},    {X86_FEATURE_SYSCALL, 0x80000001, EDX, 11},
    {X86_FEATURE_RDTSCP, 0x80000001, EDX, 27}, {X86_FEATURE_LZCNT, 0x80000001, ECX, 5},
    {X86_FEATURE_PREFETCHW, 0x80000001, ECX, 8},
};

/* Bits that stand for no instruction of the table but work too. */
static const struct {
    uint32_t function;
    uint8_t reg;
    uint32_t bits;
} other_bits[] = {
    /* VME no; DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, MTRR, PGE, MCA, CMOV, PAT, PSE36, SS, HTT */
    {1, EDX, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 9 |
             1u << 12 | 1u << 13 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 17 | 1u << 27 | 1u << 28},
    /* PCID, x2APIC, TSC deadline, OSXSAVE, hypervisor */
    {1, ECX, 1u << 17 | 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31},
    /* TSC_ADJUST, x87 data pointer kept for exceptions only, SMEP, ERMS, no FPU selectors */
    {7, EBX, 1u << 1 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 13},
    {7, ECX, 1u << 2 /* UMIP */},
    /* FSRM, IBRS, STIBP, ARCH_CAPABILITIES, SSBD */
    {7, EDX, 1u << 4 | 1u << 26 | 1u << 27 | 1u << 29 | 1u << 31},
    {0xd, EAX, 1u << 2 /* XGETBV with ECX=1 */},
    /* What leaf 1 has too, NX, 1 GiB pages, long mode */
    {0x80000001, EDX, 0x0183f3ff | 1u << 20 | 1u << 26 | 1u << 29},
    {0x80000001, ECX, 1u << 0 /* LAHF in long mode */},
};

static uint32_t *leaf_register(struct x86_cpuid_leaf *leaf, unsigned reg)
{
    return reg == EAX ? &leaf->eax : reg == EBX ? &leaf->ebx : reg == ECX ? &leaf->ecx : &leaf->edx;
}

static uint32_t index_of(uint32_t function)
{
    return function == 0xd ? 1 : 0;
}

bool host_offers(enum x86_feature feature)
{
    for (size_t i = 0; i < ARRAY_SIZE(feature_bits); i++) {
        struct x86_cpuid_leaf leaf = {0};

        if (feature_bits[i].feature != feature)
            continue;
        if (!__get_cpuid_count(feature_bits[i].function, index_of(feature_bits[i].function),
                               &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx))
            return false;
        return *leaf_register(&leaf, feature_bits[i].reg) >> feature_bits[i].bit & 1;
    }
    return true; /* base */
}

bool cpu_offers(const struct cpu *cpu, enum x86_feature feature)
{
    for (size_t i = 0; i < ARRAY_SIZE(feature_bits); i++) {
        const struct x86_cpuid_leaf *leaf;

        if (feature_bits[i].feature != feature)
            continue;
        leaf = x86_cpuid_find(&cpu->soft->cpuid[cpu->vcpu.index], feature_bits[i].function,
                              index_of(feature_bits[i].function));
        if (!leaf || leaf->function != feature_bits[i].function)
            return false;
        return *leaf_register((struct x86_cpuid_leaf *)leaf, feature_bits[i].reg) >>
                   feature_bits[i].bit & 1;
    }
    return true; /* base */
}

/* Every feature of the table has its bodies, so what is in one of the two
 * lists works; all other bits are cut. */
void soft_engine_filter_cpuid(struct x86_cpuid *cpuid)
{
    for (unsigned i = 0; i < cpuid->count; i++) {
        struct x86_cpuid_leaf *leaf = &cpuid->leaf[i];
        uint32_t keep[4] = {0};
        bool known[4] = {false};

        for (size_t k = 0; k < ARRAY_SIZE(feature_bits); k++)
            if (feature_bits[k].function == leaf->function &&
                leaf->index == index_of(leaf->function)) {
                keep[feature_bits[k].reg] |= 1u << feature_bits[k].bit;
                known[feature_bits[k].reg] = true;
            }
        for (size_t k = 0; k < ARRAY_SIZE(other_bits); k++)
            if (other_bits[k].function == leaf->function &&
                leaf->index == index_of(leaf->function)) {
                keep[other_bits[k].reg] |= other_bits[k].bits;
                known[other_bits[k].reg] = true;
            }
        for (unsigned reg = EAX; reg <= EDX; reg++)
            if (known[reg])
                *leaf_register(leaf, reg) &= keep[reg];
    }
}
