/* CPUID: what KVM can carry out, and handing the list over. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "engine/kvm/kvm.h"

#define SUPPORTED_MAX 256

int kvm_set_cpuid(int vcpu_fd, const struct x86_cpuid *cpuid, struct error *err)
{
    AUTO_FREE struct kvm_cpuid2 *list =
        calloc(1, sizeof(*list) + cpuid->count * sizeof(list->entries[0]));

    if (!list)
        return error_set(err, ENOMEM, "out of memory for CPUID leaves");
    list->nent = cpuid->count;
    for (unsigned i = 0; i < cpuid->count; i++) {
        const struct x86_cpuid_leaf *leaf = &cpuid->leaf[i];

        list->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaf->function,
            .index = leaf->index,
            .flags = leaf->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = leaf->eax,
            .ebx = leaf->ebx,
            .ecx = leaf->ecx,
            .edx = leaf->edx,
        };
    }
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, list) < 0)
        return error_system(err, errno, "KVM does not take the CPUID leaves");
    return 0;
}

/* The leaves whose bits are features; registers that hold numbers stay. */
static const struct {
    uint32_t function, index;
    bool eax, ebx, ecx, edx;
} feature_leaves[] = {
    {1, 0, false, false, true, true},
    {7, 0, false, true, true, true},
    {7, 2, false, false, false, true},
    {0xd, 0, true, false, false, false}, /* XCR0 */
    {0xd, 1, true, false, false, false},
    {0x80000001, 0, false, false, true, true},
};

/* Bits that the machine's own local APIC stands for, whatever KVM says. */
#define LEAF1_ECX_X2APIC       (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_APIC         (1u << 9)

/* Leaf 0x80000008 EAX: the width of physical addresses. Page tables with bits
 * above the host's own would fault there. */
#define PHYSICAL_BITS 0xffu

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *list, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < list->nent; i++)
        if (list->entries[i].function == function &&
            (!(list->entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) ||
             list->entries[i].index == index))
            return &list->entries[i];
    return NULL;
}

static void narrow_addresses(struct x86_cpuid_leaf *leaf, const struct kvm_cpuid2 *list)
{
    const struct kvm_cpuid_entry2 *host = find(list, leaf->function, 0);

    if (host && (host->eax & PHYSICAL_BITS) < (leaf->eax & PHYSICAL_BITS))
        leaf->eax = (leaf->eax & ~PHYSICAL_BITS) | (host->eax & PHYSICAL_BITS);
}

static void cut(struct x86_cpuid_leaf *leaf, const struct kvm_cpuid2 *list)
{
    for (size_t i = 0; i < sizeof(feature_leaves) / sizeof(feature_leaves[0]); i++) {
        const struct kvm_cpuid_entry2 *host;

        if (feature_leaves[i].function != leaf->function ||
            (leaf->indexed && feature_leaves[i].index != leaf->index))
            continue;
        host = find(list, leaf->function, leaf->index);
        if (feature_leaves[i].eax)
            leaf->eax &= host ? host->eax : 0;
        if (feature_leaves[i].ebx)
            leaf->ebx &= host ? host->ebx : 0;
        if (feature_leaves[i].ecx)
            leaf->ecx &= (host ? host->ecx : 0) |
                         (leaf->function == 1 ? LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE |
                                                    LEAF1_ECX_HYPERVISOR
                                              : 0);
        if (feature_leaves[i].edx)
            leaf->edx &= (host ? host->edx : 0) | (leaf->function == 1 ? LEAF1_EDX_APIC : 0);
    }
}

/* What KVM offers; NULL when it does not tell. The caller frees it. */
static struct kvm_cpuid2 *supported(int kvm_fd)
{
    AUTO_FREE struct kvm_cpuid2 *list =
        calloc(1, sizeof(*list) + SUPPORTED_MAX * sizeof(list->entries[0]));

    if (!list)
        return NULL;
    list->nent = SUPPORTED_MAX;
    return ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, list) < 0 ? NULL : steal_pointer(&list);
}

void kvm_filter_cpuid(struct x86_cpuid *cpuid)
{
    AUTO_CLOSE int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    AUTO_FREE struct kvm_cpuid2 *list = fd < 0 ? NULL : supported(fd);

    if (!list)
        return; /* create fails with the reason */
    for (unsigned i = 0; i < cpuid->count; i++) {
        cut(&cpuid->leaf[i], list);
        if (cpuid->leaf[i].function == 0x80000008)
            narrow_addresses(&cpuid->leaf[i], list);
    }
}

int kvm_check_cpuid(int kvm_fd, const struct x86_cpuid *cpuid, struct error *err)
{
    AUTO_FREE struct kvm_cpuid2 *list = supported(kvm_fd);

    if (!list)
        return error_system(err, errno, "KVM does not tell which CPU features it has");
    for (unsigned i = 0; i < cpuid->count; i++) {
        struct x86_cpuid_leaf leaf = cpuid->leaf[i];

        cut(&leaf, list);
        if (memcmp(&leaf, &cpuid->leaf[i], sizeof(leaf)) != 0)
            return error_set(err, ENOTSUP,
                             "the guest was offered a CPU feature that KVM lacks on this host: "
                             "CPUID leaf 0x%x says %08x %08x %08x %08x, KVM %08x %08x %08x %08x",
                             leaf.function, cpuid->leaf[i].eax, cpuid->leaf[i].ebx,
                             cpuid->leaf[i].ecx, cpuid->leaf[i].edx, leaf.eax, leaf.ebx, leaf.ecx,
                             leaf.edx);
    }
    return 0;
}
