#include "machine/cpuid.h"

#include <string.h>

#include "base/bytes.h"
#include "machine/pvclock.h"
#include "x86/apic.h"

/* A Broadwell, family 6, model 0x3d. Programs choose code by the model alone (GCC's
 * __builtin_cpu_is), so it may not be one with instructions that are not offered: no
 * AVX-512, no GFNI, no VAES. Newer ones without those are slowed down by kernels. */
#define SIGNATURE     0x000306d4u
#define PHYSICAL_BITS 46u
#define LINEAR_BITS   48u
#define XCR0          7u /* x87, SSE, AVX */

/* Leaf 1 and leaf 7 are spelled by bit; the engine cuts what it lacks. */
#define LEAF1_EDX                                                                                  \
    (1u << 0 /* FPU */ | 1u << 2 /* DE */ | 1u << 3 /* PSE */ | 1u << 4 /* TSC */ |                \
     1u << 5 /* MSR */ | 1u << 6 /* PAE */ | 1u << 7 /* MCE */ | 1u << 8 /* CX8 */ |               \
     1u << 9 /* APIC */ | 1u << 11 /* SEP */ | 1u << 12 /* MTRR */ | 1u << 13 /* PGE */ |          \
     1u << 14 /* MCA */ | 1u << 15 /* CMOV */ | 1u << 16 /* PAT */ | 1u << 17 /* PSE36 */ |        \
     1u << 19 /* CLFSH */ | 1u << 23 /* MMX */ | 1u << 24 /* FXSR */ | 1u << 25 /* SSE */ |        \
     1u << 26 /* SSE2 */ | 1u << 27 /* SS */)
#define LEAF1_EDX_HTT (1u << 28)
#define LEAF1_ECX                                                                                  \
    (1u << 0 /* SSE3 */ | 1u << 1 /* PCLMULQDQ */ | 1u << 9 /* SSSE3 */ | 1u << 12 /* FMA */ |     \
     1u << 13 /* CX16 */ | 1u << 17 /* PCID */ | 1u << 19 /* SSE4.1 */ | 1u << 20 /* SSE4.2 */ |   \
     1u << 21 /* x2APIC */ | 1u << 22 /* MOVBE */ | 1u << 23 /* POPCNT */ |                        \
     1u << 24 /* TSC deadline */ | 1u << 25 /* AES */ | 1u << 26 /* XSAVE */ | 1u << 28 /* AVX */ |\
     1u << 29 /* F16C */ | 1u << 30 /* RDRAND */ | 1u << 31 /* hypervisor */)
#define LEAF7_EBX                                                                                  \
    (1u << 0 /* FSGSBASE */ | 1u << 1 /* TSC_ADJUST */ | 1u << 3 /* BMI1 */ | 1u << 5 /* AVX2 */ | \
     1u << 6 /* FDP for exceptions */ | 1u << 7 /* SMEP */ | 1u << 8 /* BMI2 */ |                  \
     1u << 9 /* ERMS */ | 1u << 10 /* INVPCID */ |                                                 \
     1u << 13 /* no FPU selectors */ | 1u << 18 /* RDSEED */ | 1u << 19 /* ADX */ |                \
     1u << 20 /* SMAP */ | 1u << 23 /* CLFLUSHOPT */ | 1u << 24 /* CLWB */ | 1u << 29 /* SHA */)
#define LEAF7_ECX (1u << 2 /* UMIP */ | 1u << 22 /* RDPID */)
#define LEAF7_EDX                                                                                  \
    (1u << 4 /* FSRM */ | 1u << 26 /* IBRS */ | 1u << 27 /* STIBP */ |                             \
     1u << 29 /* ARCH_CAPABILITIES */ | 1u << 31 /* SSBD */)
#define LEAF7_2_EDX (1u << 4 /* BHI_CTRL: else kernels run a loop at each system call */)
#define LEAFD_EAX (1u << 0 /* XSAVEOPT */ | 1u << 1 /* XSAVEC */ | 1u << 2 /* XGETBV 1 */ | 1u << 3)
#define EXT1_ECX  (1u << 0 /* LAHF */ | 1u << 5 /* LZCNT */ | 1u << 8 /* PREFETCHW */)
#define EXT1_EDX                                                                                   \
    (1u << 11 /* SYSCALL */ | 1u << 20 /* NX */ | 1u << 26 /* 1 GiB pages */ |                     \
     1u << 27 /* RDTSCP */ | 1u << 29 /* long mode */)
#define EXT7_INVARIANT_TSC (1u << 8)
#define LEAF6_ARAT         (1u << 2)

static const char brand[48] = "Lodge Virtual CPU";

static void add(struct x86_cpuid *list, struct x86_cpuid_leaf leaf)
{
    if (list->count < X86_CPUID_LEAVES_MAX)
        list->leaf[list->count++] = leaf;
}

static void plain(struct x86_cpuid *list, uint32_t function, uint32_t eax, uint32_t ebx,
                  uint32_t ecx, uint32_t edx)
{
    add(list, (struct x86_cpuid_leaf){function, 0, false, eax, ebx, ecx, edx});
}

static void indexed(struct x86_cpuid *list, uint32_t function, uint32_t index, uint32_t eax,
                    uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    add(list, (struct x86_cpuid_leaf){function, index, true, eax, ebx, ecx, edx});
}

/* Bits that hold an APIC ID below n. */
static unsigned id_bits(unsigned n)
{
    unsigned bits = 0;

    while (1u << bits < n)
        bits++;
    return bits;
}

/* Leaf 4: type 1 data, 2 code, 3 unified; lines of 64 bytes. */
static void cache(struct x86_cpuid *list, uint32_t index, uint32_t type, uint32_t level,
                  uint32_t ways, uint32_t sets, uint32_t sharing, uint32_t cores)
{
    indexed(list, 4, index, type | level << 5 | 1u << 8 | (sharing - 1) << 14 | (cores - 1) << 26,
            63 | (ways - 1) << 22, sets - 1, 0);
}

static void caches(struct x86_cpuid *list, unsigned cpus)
{
    uint32_t cores = MIN(1u << id_bits(cpus), 64u);

    cache(list, 0, 1, 1, 8, 64, 1, cores);
    cache(list, 1, 2, 1, 8, 64, 1, cores);
    cache(list, 2, 3, 2, 16, 1024, 1, cores);
    cache(list, 3, 3, 3, 16, 16384, cores, cores);
    indexed(list, 4, 4, 0, 0, 0, 0);
}

/* Extended topology: one thread a core, all cores in one package. */
static void topology(struct x86_cpuid *list, unsigned index, unsigned cpus)
{
    indexed(list, 0xb, 0, 0, 1, 0 | 1u << 8, index);
    indexed(list, 0xb, 1, id_bits(cpus), cpus, 1 | 2u << 8, index);
    indexed(list, 0xb, 2, 0, 0, 2, index);
}

static void xsave(struct x86_cpuid *list)
{
    indexed(list, 0xd, 0, XCR0, 832, 832, 0);
    indexed(list, 0xd, 1, LEAFD_EAX, 832, 0, 0);
    indexed(list, 0xd, 2, 256, 576, 0, 0);
}

/* The crystal clock is what the APIC timer counts, the TSC a fraction of it: the nearest one (by
 * its continued fraction) whose numerator Linux can multiply by the crystal's kHz in 32 bits. */
static void crystal(struct x86_cpuid *list, uint64_t tsc_hz)
{
    const uint64_t limit = UINT32_MAX / (X86_APIC_TIMER_HZ / 1000);
    uint64_t a = tsc_hz, b = X86_APIC_TIMER_HZ;
    uint64_t numerator = 1, denominator = 0, numerator_before = 0, denominator_before = 1;

    while (b) {
        const uint64_t whole = a / b, rest = a % b;
        const uint64_t next = whole * numerator + numerator_before;
        const uint64_t under = whole * denominator + denominator_before;

        if (next > limit || under > limit)
            break;
        numerator_before = numerator;
        denominator_before = denominator;
        numerator = next;
        denominator = under;
        a = b;
        b = rest;
    }
    plain(list, 0x15, (uint32_t)denominator, (uint32_t)numerator, (uint32_t)X86_APIC_TIMER_HZ, 0);
}

static void extended(struct x86_cpuid *list)
{
    uint32_t words[12];

    memcpy(words, brand, sizeof(words));
    plain(list, 0x80000000, 0x80000008, 0, 0, 0);
    plain(list, 0x80000001, SIGNATURE, 0, EXT1_ECX, EXT1_EDX);
    for (unsigned i = 0; i < 3; i++)
        plain(list, 0x80000002 + i, words[4 * i], words[4 * i + 1], words[4 * i + 2],
              words[4 * i + 3]);
    plain(list, 0x80000006, 0, 0, 1024u << 16 | 6u << 12 | 64, 0);
    plain(list, 0x80000007, 0, 0, 0, EXT7_INVARIANT_TSC);
    plain(list, 0x80000008, PHYSICAL_BITS | LINEAR_BITS << 8, 0, 0, 0);
}

void machine_cpuid(const struct engine_ops *engine, unsigned index, unsigned cpus, uint64_t tsc_hz,
                   struct x86_cpuid *list)
{
    uint32_t mhz = (uint32_t)(tsc_hz / 1000000);

    memset(list, 0, sizeof(*list));
    plain(list, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
    plain(list, 1, SIGNATURE, 8u << 8 | MIN(1u << id_bits(cpus), 255u) << 16 | index << 24,
          LEAF1_ECX, LEAF1_EDX | (cpus > 1 ? LEAF1_EDX_HTT : 0));
    plain(list, 2, 0x00feff01, 0, 0, 0); /* see leaf 4 */
    caches(list, cpus);
    plain(list, 6, LEAF6_ARAT, 0, 0, 0);
    indexed(list, 7, 0, 2, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX);
    indexed(list, 7, 1, 0, 0, 0, 0);
    indexed(list, 7, 2, 0, 0, 0, LEAF7_2_EDX);
    topology(list, index, cpus);
    xsave(list);
    crystal(list, tsc_hz);
    plain(list, 0x16, mhz, mhz, 100, 0);
    plain(list, 0x40000000, 0x40000000, 0x67646f4c, 0x646f4c65, 0x20206567); /* LodgeLodge */
    for (unsigned i = 0; i < PVCLOCK_LEAVES; i++)
        add(list, pvclock_leaves[i]);
    extended(list);
    engine->filter_cpuid(list);
}
