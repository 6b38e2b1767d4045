/* Which pages the CPUs wrote. KVM tells it in one of two ways: by a bitmap of
 * each slot (its dirty log), or, where it has them, by a ring of each CPU whose
 * cost grows with the pages that were written instead of with the memory there
 * is (Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING). */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "engine/kvm/kvm.h"

#define PAGE_SIZE    4096u
#define RING_ENTRIES 4096u /* a CPU that has written so many pages waits until they are gathered */
#define RING_SIZE    (RING_ENTRIES * sizeof(struct kvm_dirty_gfn))

void kvm_ring_create(struct kvm_engine *kvm)
{
    const struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING, .args = {RING_SIZE}};
    const int most = KVM_CALL(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);

    kvm->rings = most >= (int)RING_SIZE && KVM_CALL(kvm->vm_fd, KVM_ENABLE_CAP, &cap) == 0;
}

int kvm_ring_map(struct kvm_vcpu *vcpu, struct error *err)
{
    void *ring;

    if (!vcpu->kvm->rings)
        return 0;
    ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
                KVM_DIRTY_LOG_PAGE_OFFSET * (long)PAGE_SIZE);
    if (ring == MAP_FAILED)
        return error_system(err, errno, "cannot map the ring of written pages of CPU %u",
                            vcpu->vcpu.index);
    vcpu->ring = ring;
    return 0;
}

void kvm_ring_unmap(struct kvm_vcpu *vcpu)
{
    if (vcpu->ring)
        munmap(vcpu->ring, RING_SIZE);
}

/* --- The rings --- */

/* Its bit in its slot. What was logged before a slot went away is of no use. */
static void note(struct kvm_engine *kvm, const struct kvm_dirty_gfn *entry)
{
    struct kvm_slot *slot = entry->slot < KVM_SLOTS_MAX ? &kvm->slots[entry->slot] : NULL;

    if (slot && slot->written && entry->offset < slot->region.memory_size / PAGE_SIZE)
        slot->written[entry->offset / 64] |= 1ull << entry->offset % 64;
}

static unsigned gather_ring(struct kvm_vcpu *vcpu)
{
    unsigned count = 0;

    for (;; count++) {
        struct kvm_dirty_gfn *entry = &vcpu->ring[vcpu->ring_next % RING_ENTRIES];

        /* The kernel sets the flag last; the answer lets it use the entry again. */
        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY) ||
            (entry->flags & KVM_DIRTY_GFN_F_RESET))
            return count;
        note(vcpu->kvm, entry);
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        vcpu->ring_next++;
    }
}

/* Afterwards the pages are watched anew. */
int kvm_ring_gather(struct kvm_engine *kvm)
{
    unsigned count = 0;
    int r = 0;

    pthread_mutex_lock(&kvm->lock);
    for (unsigned i = 0; i < kvm->config.cpus; i++)
        count += gather_ring((struct kvm_vcpu *)kvm->engine.vcpus[i]);
    if (count && KVM_CALL(kvm->vm_fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
        r = -errno;
    pthread_mutex_unlock(&kvm->lock);
    return r;
}

static size_t bitmap_words(const struct kvm_slot *slot)
{
    return (slot->region.memory_size / PAGE_SIZE + 63) / 64;
}

static void free_bitmaps(struct kvm_engine *kvm)
{
    pthread_mutex_lock(&kvm->lock);
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        free(kvm->slots[i].written);
        kvm->slots[i].written = NULL;
    }
    pthread_mutex_unlock(&kvm->lock);
}

static int make_bitmap(struct kvm_engine *kvm, struct kvm_slot *slot)
{
    uint64_t *written = calloc(bitmap_words(slot), sizeof(*written));

    pthread_mutex_lock(&kvm->lock);
    free(slot->written);
    slot->written = written;
    pthread_mutex_unlock(&kvm->lock);
    return written ? 0 : -ENOMEM;
}

/* --- Either --- */

int kvm_track_slot(struct kvm_engine *kvm, struct kvm_slot *slot, bool on)
{
    struct kvm_userspace_memory_region region = slot->region;

    if (on && kvm->rings && make_bitmap(kvm, slot) < 0)
        return -ENOMEM;
    region.flags = on ? region.flags | KVM_MEM_LOG_DIRTY_PAGES
                      : region.flags & ~(uint32_t)KVM_MEM_LOG_DIRTY_PAGES;
    return kvm_set_slot(kvm, &region);
}

int kvm_track_writes(struct engine *engine, bool on, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    int r;

    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_slot *slot = &kvm->slots[i];

        r = slot->region.memory_size ? kvm_track_slot(kvm, slot, on) : 0;
        if (r < 0)
            return error_system(err, -r, "KVM cannot track the writes to memory at 0x%llx",
                                (unsigned long long)slot->region.guest_phys_addr);
    }
    kvm->tracking = on;
    if (!on && kvm->rings) {
        kvm_ring_gather(kvm); /* so that the next time begins with empty rings */
        free_bitmaps(kvm);
    }
    return 0;
}

static int fetch_rings(struct kvm_engine *kvm, struct kvm_slot *slot, uint64_t *bitmap)
{
    const int r = kvm_ring_gather(kvm);

    pthread_mutex_lock(&kvm->lock);
    for (size_t i = 0; i < bitmap_words(slot); i++) {
        bitmap[i] |= slot->written[i];
        slot->written[i] = 0;
    }
    pthread_mutex_unlock(&kvm->lock);
    return r;
}

static int fetch_log(struct kvm_engine *kvm, const struct kvm_slot *slot, uint64_t *bitmap)
{
    AUTO_FREE uint64_t *written = calloc(bitmap_words(slot), sizeof(*written));
    struct kvm_dirty_log log = {.slot = slot->region.slot, .dirty_bitmap = written};

    if (!written)
        return -ENOMEM;
    /* The kernel fills and clears its own; what was not fetched from bitmap yet stays. */
    if (KVM_CALL(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return -errno;
    for (size_t i = 0; i < bitmap_words(slot); i++)
        bitmap[i] |= written[i];
    return 0;
}

int kvm_fetch_writes(struct engine *engine, uint64_t address, uint64_t *bitmap, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    struct kvm_slot *slot = kvm_find_slot(kvm, address);
    int r;

    if (!slot || !kvm->tracking)
        return error_set(err, ENOENT, "no writes to memory at 0x%llx are tracked",
                         (unsigned long long)address);
    r = kvm->rings ? fetch_rings(kvm, slot, bitmap) : fetch_log(kvm, slot, bitmap);
    return r < 0 ? error_system(err, -r, "KVM does not tell the writes to memory at 0x%llx",
                                (unsigned long long)address)
                 : 0;
}
