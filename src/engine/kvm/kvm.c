/* The KVM engine: opening /dev/kvm, the VM and its vCPUs, memory slots. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* Three pages that Intel's VMX needs for real mode, above the local APIC. */
#define TSS_ADDRESS          0xfffbd000u
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull

static const struct {
    int capability;
    const char *what;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "memory slots"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_XSAVE, "the XSAVE area"},
    {KVM_CAP_VCPU_EVENTS, "pending events"},
    {KVM_CAP_DEBUGREGS, "debug registers"},
    {KVM_CAP_X86_USER_SPACE_MSR, "MSR exits"},
    {KVM_CAP_X86_MSR_FILTER, "MSR filters"},
};

/* The remedy for a /dev/kvm that is not ours to open names the group it belongs to. */
static int not_permitted(struct error *err)
{
    struct stat status;
    const struct group *group = NULL;

    if (stat("/dev/kvm", &status) == 0 && status.st_gid && (status.st_mode & 0060) == 0060)
        group = getgrgid(status.st_gid);
    if (group)
        return error_set(err, EACCES, "/dev/kvm is not yours to open; join the group '%s' "
                                      "(usermod -aG %s USER) and log in again",
                         group->gr_name, group->gr_name);
    return error_set(err, EACCES, "/dev/kvm is not yours to open, and no group is let in; ask the "
                                  "administrator for chgrp kvm and chmod 660 on it");
}

int kvm_open(int device_fd, struct error *err)
{
    AUTO_CLOSE int fd = device_fd > 0 ? fcntl(device_fd, F_DUPFD_CLOEXEC, 3)
                                      : open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version;

    if (fd < 0 && errno == ENOENT)
        return error_set(err, ENOENT, "/dev/kvm is missing: this host has no hardware "
                                      "virtualization, or its kvm module is not loaded");
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return not_permitted(err);
    if (fd < 0)
        return error_system(err, errno, "cannot open /dev/kvm");
    version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm speaks API version %d, Lodge version %d; use a "
                                       "newer kernel", version, KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].capability) <= 0)
            return error_set(err, ENOTSUP, "this host's KVM lacks %s; use Linux 5.10 or newer",
                             needed[i].what);
    return steal_fd(&fd);
}

static int kvm_probe(struct error *err)
{
    AUTO_CLOSE int fd = kvm_open(0, err);

    return fd < 0 ? fd : kvm_trial(fd, err);
}

static void ignore_signal(int number)
{
    (void)number; /* its work is to interrupt KVM_RUN */
}

static void vcpu_destroy(struct kvm_vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->run)
        munmap(vcpu->run, vcpu->run_size);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    free(vcpu);
}

static int vcpu_create(struct kvm_engine *kvm, unsigned index, struct error *err)
{
    struct kvm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    int size, r;
    void *run;

    if (!vcpu)
        return error_set(err, ENOMEM, "out of memory for CPU %u", index);
    vcpu->vcpu = (struct vcpu){.ops = &kvm_engine, .engine = &kvm->engine, .index = index};
    vcpu->kvm = kvm;
    vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    size = ioctl(kvm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu->fd < 0 || size < (int)sizeof(struct kvm_run)) {
        r = error_system(err, errno, "KVM cannot create CPU %u", index);
        goto failed;
    }
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED) {
        r = error_system(err, errno, "cannot map the run area of CPU %u", index);
        goto failed;
    }
    vcpu->run = run;
    vcpu->run_size = (size_t)size;
    r = kvm_set_cpuid(vcpu->fd, &kvm->config.cpuid[index], err);
    if (r < 0)
        goto failed;
    kvm->engine.vcpus[index] = &vcpu->vcpu;
    return 0;

failed:
    vcpu_destroy(vcpu);
    return r;
}

/* MSRs of the machine's local APIC leave KVM; so do those nobody knows. (The
 * x2APIC range needs no filter: without an in-kernel APIC KVM does not know it.) */
static int filter_msrs(struct kvm_engine *kvm, struct error *err)
{
    static uint8_t none[1]; /* a zero bit: not KVM's */
    static const uint32_t machine_msrs[] = {X86_MSR_APIC_BASE, X86_MSR_TSC_DEADLINE};
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL |
                 KVM_MSR_EXIT_REASON_FILTER},
    };
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};

    for (size_t i = 0; i < ARRAY_SIZE(machine_msrs); i++)
        filter.ranges[i] = (struct kvm_msr_filter_range){
            .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
            .base = machine_msrs[i],
            .nmsrs = 1,
            .bitmap = none,
        };
    if (ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap) < 0 ||
        ioctl(kvm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
        return error_system(err, errno, "KVM does not hand MSRs over");
    return 0;
}

static void kvm_destroy(struct engine *engine)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;

    for (unsigned i = 0; i < kvm->config.cpus; i++)
        vcpu_destroy((struct kvm_vcpu *)kvm->engine.vcpus[i]);
    if (kvm->vm_fd >= 0)
        close(kvm->vm_fd);
    if (kvm->kvm_fd >= 0)
        close(kvm->kvm_fd);
    free(kvm);
}

static int kvm_create(const struct engine_config *config, struct engine **ret_engine,
                      struct error *err)
{
    const struct sigaction action = {.sa_handler = ignore_signal};
    uint64_t identity = IDENTITY_MAP_ADDRESS;
    struct kvm_engine *kvm;
    int r;

    kvm = calloc(1, sizeof(*kvm));
    if (!kvm)
        return error_set(err, ENOMEM, "out of memory for the KVM engine");
    kvm->engine.ops = &kvm_engine;
    kvm->config = *config;
    kvm->vm_fd = -1;
    kvm->kvm_fd = r = kvm_open(config->device_fd, err);
    if (r >= 0)
        r = kvm_check_cpuid(kvm->kvm_fd, &config->cpuid[0], err);
    if (r < 0)
        goto failed;
    kvm->vm_fd = ioctl(kvm->kvm_fd, KVM_CREATE_VM, 0ul);
    if (kvm->vm_fd < 0) {
        r = errno == EBUSY
                ? error_set(err, EBUSY, "another hypervisor holds the CPU's virtualization; stop "
                                        "it, or use another --engine")
                : error_system(err, errno, "KVM cannot create a virtual machine");
        goto failed;
    }
    if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDRESS) < 0) {
        r = error_system(err, errno, "KVM cannot set its real-mode pages");
        goto failed;
    }
    r = filter_msrs(kvm, err);
    for (unsigned i = 0; r == 0 && i < config->cpus; i++)
        r = vcpu_create(kvm, i, err);
    if (r < 0)
        goto failed;
    kvm->config.cpuid = NULL; /* the kernel has its copy */
    sigaction(kvm_kick_signal(), &action, NULL);
    *ret_engine = &kvm->engine;
    return 0;

failed:
    kvm_destroy(&kvm->engine);
    return r;
}

static int set_slot(struct kvm_engine *kvm, unsigned slot, uint64_t address, uint64_t size,
                    void *host, unsigned flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags & ENGINE_MEMORY_READONLY ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = address,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };

    if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return -errno;
    kvm->slots[slot] = (struct kvm_slot){.address = address, .size = size};
    return 0;
}

static int kvm_map(struct engine *engine, uint64_t address, uint64_t size, void *host,
                   unsigned flags, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    int r;

    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        if (kvm->slots[i].size)
            continue;
        r = set_slot(kvm, i, address, size, host, flags);
        return r < 0 ? error_system(err, -r, "KVM cannot map memory at 0x%llx",
                                    (unsigned long long)address)
                     : 0;
    }
    return error_set(err, ENOSPC, "more than %d memory slots", KVM_SLOTS_MAX);
}

static int kvm_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    int r;

    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        if (kvm->slots[i].address != address || kvm->slots[i].size != size || !size)
            continue;
        r = set_slot(kvm, i, address, 0, NULL, 0);
        return r < 0 ? error_system(err, -r, "KVM cannot unmap memory at 0x%llx",
                                    (unsigned long long)address)
                     : 0;
    }
    return error_set(err, ENOENT, "no memory is mapped at 0x%llx", (unsigned long long)address);
}

static void get_state(struct vcpu *vcpu, struct x86_state *ret_state)
{
    struct kvm_vcpu *kvm_vcpu = (struct kvm_vcpu *)vcpu;
    struct error err;

    if (kvm_get_state(kvm_vcpu, ret_state, &err) < 0)
        log_error(kvm_vcpu->kvm->config.log, "%s", err.text);
}

static void set_state(struct vcpu *vcpu, const struct x86_state *state)
{
    struct kvm_vcpu *kvm_vcpu = (struct kvm_vcpu *)vcpu;
    struct error err;

    if (kvm_set_state(kvm_vcpu, state, &err) < 0)
        log_error(kvm_vcpu->kvm->config.log, "%s", err.text);
}

static void invalidate(struct engine *engine, uint64_t address, uint64_t size)
{
    (void)engine; /* the hardware derives nothing from memory that it does not watch itself */
    (void)address;
    (void)size;
}

const struct engine_ops kvm_engine = {
    .name = "kvm",
    .summary = "the CPU's own virtualization, by Linux KVM",
    .device = "/dev/kvm",
    .probe = kvm_probe,
    .filter_cpuid = kvm_filter_cpuid,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .map = kvm_map,
    .unmap = kvm_unmap,
    .run = kvm_vcpu_run,
    .get_state = get_state,
    .set_state = set_state,
    .signal = kvm_vcpu_signal,
    .invalidate = invalidate,
};
