/* cpuid.h - CPUID leaves as data. The machine makes the list that a guest is
 * offered (what the engine can do, cut by policy); engines look leaves up. */
#ifndef LODGE_X86_CPUID_H
#define LODGE_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#define X86_CPUID_LEAVES_MAX 64

struct x86_cpuid_leaf {
    uint32_t function, index;
    bool indexed; /* index (ECX) matters */
    uint32_t eax, ebx, ecx, edx;
};

struct x86_cpuid {
    unsigned count;
    struct x86_cpuid_leaf leaf[X86_CPUID_LEAVES_MAX];
};

/* The leaf for EAX=function, ECX=index; an out-of-range function gives the
 * highest basic leaf, an unlisted one NULL (all zero), as SDM 2A CPUID says. */
const struct x86_cpuid_leaf *x86_cpuid_find(const struct x86_cpuid *cpuid, uint32_t function,
                                            uint32_t index);

#endif
