#include "fake_kvm.h"

#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

#define RUN_SIZE    0x3000u
#define RING_OFFSET (KVM_DIRTY_LOG_PAGE_OFFSET * 4096u) /* in the run area's file */

struct fake_kvm fake;

static int descriptor(void)
{
    int fd = memfd_create("fake", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, RING_OFFSET + FAKE_RING_SIZE), 0);
    return fd;
}

static int refuse(int code)
{
    errno = code;
    return -1;
}

int kvm_call_open(void)
{
    return fake.open_errno ? refuse(fake.open_errno) : descriptor();
}

int kvm_call_stat(struct stat *ret_status)
{
    *ret_status = fake.device;
    return 0;
}

static void forget_cpu(void)
{
    if (fake.run)
        munmap(fake.run, RUN_SIZE);
    if (fake.ring)
        munmap(fake.ring, FAKE_RING_SIZE);
}

static int create_vcpu(void)
{
    int fd = descriptor();

    forget_cpu();
    fake.run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fake.ring = mmap(NULL, FAKE_RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, RING_OFFSET);
    assert_true(fake.run != MAP_FAILED && fake.ring != MAP_FAILED);
    return fd;
}

/* KVM lets userspace's answers go, and takes the entries back. */
static int reset_ring(void)
{
    int count = 0;

    for (size_t i = 0; i < FAKE_RING_LENGTH; i++)
        if (fake.ring[i].flags & KVM_DIRTY_GFN_F_RESET) {
            fake.ring[i].flags = 0;
            count++;
        }
    fake.ring_resets++;
    return count;
}

static int check_extension(int capability)
{
    if (capability == KVM_CAP_DIRTY_LOG_RING)
        return fake.ring_bytes;
    return capability != fake.lacks;
}

static int enable(const struct kvm_enable_cap *cap)
{
    if (cap->cap == KVM_CAP_DIRTY_LOG_RING)
        fake.ring_size = cap->args[0];
    return 0;
}

/* Leaf 1 has everything. */
static int supported_cpuid(struct kvm_cpuid2 *list)
{
    list->nent = fake.knows_no_cpuid ? 0 : 1;
    if (list->nent)
        list->entries[0] =
            (struct kvm_cpuid_entry2){.function = 1, .ecx = UINT32_MAX, .edx = UINT32_MAX};
    return 0;
}

static int run_guest(void)
{
    if (fake.run->immediate_exit)
        return refuse(EINTR);
    if (fake.run_errno)
        return refuse(fake.run_errno);
    fake.run->exit_reason = fake.exits[MIN(fake.runs, fake.exit_count - 1)];
    if (fake.run->exit_reason == KVM_EXIT_INTERNAL_ERROR) /* it shares its place with others */
        fake.run->internal.suberror = fake.suberror;
    fake.runs++;
    return 0;
}

static struct kvm_msr_entry *find_msr(uint32_t index)
{
    for (unsigned i = 0; i < fake.msr_count; i++)
        if (fake.msrs[i].index == index)
            return &fake.msrs[i];
    assert_true(fake.msr_count < FAKE_MSRS_MAX);
    fake.msrs[fake.msr_count].index = index;
    return &fake.msrs[fake.msr_count++];
}

static int access_msrs(struct kvm_msrs *list, bool write)
{
    for (uint32_t i = 0; i < list->nmsrs; i++)
        if (write)
            find_msr(list->entries[i].index)->data = list->entries[i].data;
        else
            list->entries[i].data = find_msr(list->entries[i].index)->data;
    return (int)list->nmsrs;
}

static int access_tsc(const struct kvm_device_attr *attribute, bool write)
{
    uint64_t *offset = (uint64_t *)(uintptr_t)attribute->addr;

    if (write)
        fake.tsc_offset = *offset;
    else
        *offset = fake.tsc_offset;
    return 0;
}

/* What is given back as it was set. */
static const struct {
    unsigned long get, set;
    void *kept;
    size_t size;
} kept[] = {
    {KVM_GET_REGS, KVM_SET_REGS, &fake.regs, sizeof(fake.regs)},
    {KVM_GET_SREGS, KVM_SET_SREGS, &fake.sregs, sizeof(fake.sregs)},
    {KVM_GET_SREGS2, KVM_SET_SREGS2, &fake.sregs2, sizeof(fake.sregs2)},
    {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, &fake.debug, sizeof(fake.debug)},
    {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &fake.events, sizeof(fake.events)},
    {KVM_GET_XSAVE, KVM_SET_XSAVE, fake.xsave, sizeof(fake.xsave)},
    {KVM_GET_XCRS, KVM_SET_XCRS, &fake.xcrs, sizeof(fake.xcrs)},
    {KVM_GET_MP_STATE, KVM_SET_MP_STATE, &fake.activity, sizeof(fake.activity)},
};

int kvm_call(int fd, unsigned long request, uintptr_t argument)
{
    void *pointer = (void *)argument;

    (void)fd;
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        if (request == kept[i].get || request == kept[i].set) {
            memcpy(request == kept[i].get ? pointer : kept[i].kept,
                   request == kept[i].get ? kept[i].kept : pointer, kept[i].size);
            return 0;
        }
    switch (request) {
    case KVM_GET_API_VERSION: return fake.version;
    case KVM_CHECK_EXTENSION: return check_extension((int)argument);
    case KVM_ENABLE_CAP: return enable(pointer);
    case KVM_RESET_DIRTY_RINGS: return reset_ring();
    case KVM_CREATE_VM: return fake.create_errno ? refuse(fake.create_errno) : descriptor();
    case KVM_CREATE_VCPU: return create_vcpu();
    case KVM_GET_VCPU_MMAP_SIZE: return RUN_SIZE;
    case KVM_GET_SUPPORTED_CPUID: return supported_cpuid(pointer);
    case KVM_RUN: return run_guest();
    case KVM_GET_MSRS: case KVM_SET_MSRS: return access_msrs(pointer, request == KVM_SET_MSRS);
    case KVM_GET_DEVICE_ATTR: case KVM_SET_DEVICE_ATTR:
        return access_tsc(pointer, request == KVM_SET_DEVICE_ATTR);
    case KVM_SET_USER_MEMORY_REGION:
        memcpy(&fake.region, pointer, sizeof(fake.region));
        return 0;
    case KVM_SIGNAL_MSI:
        memcpy(&fake.message, pointer, sizeof(fake.message));
        fake.messages++;
        return 1;
    case KVM_IRQFD: memcpy(&fake.line, pointer, sizeof(fake.line)); return 0;
    case KVM_IOEVENTFD: memcpy(&fake.bell, pointer, sizeof(fake.bell)); return 0;
    case KVM_SET_GSI_ROUTING:
        if (fake.refuses_routes)
            return refuse(EINVAL);
        memcpy(&fake.routes, pointer, sizeof(fake.routes));
        fake.routings++;
        return 0;
    case KVM_GET_DIRTY_LOG:
        *(uint64_t *)((struct kvm_dirty_log *)pointer)->dirty_bitmap = fake.dirty;
        fake.dirty = 0;
        return 0;
    default:
        if (_IOC_DIR(request) == _IOC_READ)
            memset(pointer, 0, _IOC_SIZE(request));
        return 0;
    }
}

void fake_kvm_reset(void)
{
    forget_cpu();
    fake = (struct fake_kvm){.version = KVM_API_VERSION, .lacks = -1, .exit_count = 1};
}
