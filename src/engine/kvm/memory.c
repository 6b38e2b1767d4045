/* Guest memory: slots, and the addresses in between whose writes ring a bell. */
#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"

int kvm_set_slot(struct kvm_engine *kvm, const struct kvm_userspace_memory_region *region)
{
    if (KVM_CALL(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, region) < 0)
        return -errno;
    kvm->slots[region->slot].region = *region;
    return 0;
}

struct kvm_slot *kvm_find_slot(struct kvm_engine *kvm, uint64_t address)
{
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
        if (kvm->slots[i].region.memory_size && kvm->slots[i].region.guest_phys_addr == address)
            return &kvm->slots[i];
    return NULL;
}

int kvm_map(struct engine *engine, uint64_t address, uint64_t size, void *host, unsigned flags,
            struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    int r;

    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        const struct kvm_userspace_memory_region region = {
            .slot = i,
            .flags = flags & ENGINE_MEMORY_READONLY ? KVM_MEM_READONLY : 0u,
            .guest_phys_addr = address,
            .memory_size = size,
            .userspace_addr = (uintptr_t)host,
        };

        if (kvm->slots[i].region.memory_size)
            continue;
        r = kvm_set_slot(kvm, &region);
        if (r == 0 && kvm->tracking)
            r = kvm_track_slot(kvm, &kvm->slots[i], true);
        return r < 0 ? error_system(err, -r, "KVM cannot map memory at 0x%llx",
                                    (unsigned long long)address)
                     : 0;
    }
    return error_set(err, ENOSPC, "more than %d memory slots", KVM_SLOTS_MAX);
}

int kvm_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    struct kvm_slot *slot = kvm_find_slot(kvm, address);
    struct kvm_userspace_memory_region region;
    int r;

    if (!slot || slot->region.memory_size != size)
        return error_set(err, ENOENT, "no memory is mapped at 0x%llx",
                         (unsigned long long)address);
    region = slot->region;
    region.memory_size = 0;
    free(slot->written);
    slot->written = NULL;
    r = kvm_set_slot(kvm, &region);
    return r < 0 ? error_system(err, -r, "KVM cannot unmap memory at 0x%llx",
                                (unsigned long long)address)
                 : 0;
}

/* --- Doorbells --- */

int kvm_doorbell(struct engine *engine, uint64_t address, int fd, bool on)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_ioeventfd event = {
        .addr = address,
        .len = 0, /* of any size: no data is looked at, which KVM serves fastest */
        .fd = fd,
        .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
    };

    return KVM_CALL(kvm->vm_fd, KVM_IOEVENTFD, &event) < 0 ? -errno : 0;
}
