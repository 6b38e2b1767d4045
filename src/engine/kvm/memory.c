/* Guest memory: slots, which pages of them were written, and the addresses in
 * between whose writes ring a bell. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "engine/kvm/kvm.h"

#define PAGE_SIZE 4096u

static int set_slot(struct kvm_engine *kvm, unsigned slot,
                    const struct kvm_userspace_memory_region *region)
{
    if (KVM_CALL(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, region) < 0)
        return -errno;
    kvm->slots[slot].region = *region;
    return 0;
}

/* The slot that begins at address, or NULL. */
static struct kvm_slot *slot_at(struct kvm_engine *kvm, uint64_t address)
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
            .flags = (flags & ENGINE_MEMORY_READONLY ? KVM_MEM_READONLY : 0u) |
                     (kvm->tracking ? KVM_MEM_LOG_DIRTY_PAGES : 0u),
            .guest_phys_addr = address,
            .memory_size = size,
            .userspace_addr = (uintptr_t)host,
        };

        if (kvm->slots[i].region.memory_size)
            continue;
        r = set_slot(kvm, i, &region);
        return r < 0 ? error_system(err, -r, "KVM cannot map memory at 0x%llx",
                                    (unsigned long long)address)
                     : 0;
    }
    return error_set(err, ENOSPC, "more than %d memory slots", KVM_SLOTS_MAX);
}

int kvm_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    struct kvm_slot *slot = slot_at(kvm, address);
    struct kvm_userspace_memory_region region;
    int r;

    if (!slot || slot->region.memory_size != size)
        return error_set(err, ENOENT, "no memory is mapped at 0x%llx",
                         (unsigned long long)address);
    region = slot->region;
    region.memory_size = 0;
    r = set_slot(kvm, region.slot, &region);
    return r < 0 ? error_system(err, -r, "KVM cannot unmap memory at 0x%llx",
                                (unsigned long long)address)
                 : 0;
}

/* --- Writes --- */

int kvm_track_writes(struct engine *engine, bool on, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;

    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_userspace_memory_region region = kvm->slots[i].region;
        int r;

        if (!region.memory_size)
            continue;
        region.flags = on ? region.flags | KVM_MEM_LOG_DIRTY_PAGES
                          : region.flags & ~(uint32_t)KVM_MEM_LOG_DIRTY_PAGES;
        r = set_slot(kvm, i, &region);
        if (r < 0)
            return error_system(err, -r, "KVM cannot track the writes to memory at 0x%llx",
                                (unsigned long long)region.guest_phys_addr);
    }
    kvm->tracking = on;
    return 0;
}

int kvm_fetch_writes(struct engine *engine, uint64_t address, uint64_t *bitmap, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_slot *slot = slot_at(kvm, address);
    const size_t words = slot ? (slot->region.memory_size / PAGE_SIZE + 63) / 64 : 0;
    AUTO_FREE uint64_t *written = calloc(words ? words : 1, sizeof(*written));
    struct kvm_dirty_log log = {.dirty_bitmap = written};

    if (!slot || !kvm->tracking)
        return error_set(err, ENOENT, "no writes to memory at 0x%llx are tracked",
                         (unsigned long long)address);
    if (!written)
        return error_set(err, ENOMEM, "out of memory for the pages that were written");
    log.slot = slot->region.slot;
    /* The kernel fills and clears its own; what was not fetched from bitmap yet stays. */
    if (KVM_CALL(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return error_system(err, errno, "KVM does not tell the writes to memory at 0x%llx",
                            (unsigned long long)address);
    for (size_t i = 0; i < words; i++)
        bitmap[i] |= written[i];
    return 0;
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
