#include "x86/cpuid.h"

#include <stddef.h>

const struct x86_cpuid_leaf *x86_cpuid_find(const struct x86_cpuid *cpuid, uint32_t function,
                                            uint32_t index)
{
    const struct x86_cpuid_leaf *highest = NULL;
    bool known_range = false;

    for (unsigned i = 0; i < cpuid->count; i++) {
        const struct x86_cpuid_leaf *leaf = &cpuid->leaf[i];

        if (leaf->function == function && (!leaf->indexed || leaf->index == index))
            return leaf;
        /* Leaf 0 of each range names the last function of that range in EAX. */
        if (leaf->function == (function & 0xffff0000) && function <= leaf->eax)
            known_range = true;
        if (leaf->function < 0x40000000 && (!highest || leaf->function >= highest->function) &&
            (!leaf->indexed || leaf->index == index))
            highest = leaf;
    }
    return known_range ? NULL : highest;
}
