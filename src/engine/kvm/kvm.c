/* The KVM engine: opening /dev/kvm, the VM and its vCPUs. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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
    {KVM_CAP_SPLIT_IRQCHIP, "local APICs in the kernel"},
    {KVM_CAP_SIGNAL_MSI, "interrupt messages"},
    {KVM_CAP_MP_STATE, "the activity of CPUs"},
};

/* The remedy for a /dev/kvm that is not ours to open names the group it belongs to. */
static int not_permitted(struct error *err)
{
    struct stat status;
    const struct group *group = NULL;

    if (kvm_call_stat(&status) == 0 && status.st_gid && (status.st_mode & 0060) == 0060)
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
                                      : kvm_call_open();
    int version;

    if (fd < 0 && errno == ENOENT)
        return error_set(err, ENOENT, "/dev/kvm is missing: this host has no hardware "
                                      "virtualization, or its kvm module is not loaded");
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return not_permitted(err);
    if (fd < 0)
        return error_system(err, errno, "cannot open /dev/kvm");
    version = KVM_CALL(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm speaks API version %d, Lodge version %d; use a "
                                       "newer kernel", version, KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (KVM_CALL(fd, KVM_CHECK_EXTENSION, needed[i].capability) <= 0)
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
    kvm_ring_unmap(vcpu);
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
    vcpu->external = -1;
    vcpu->fd = KVM_CALL(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    size = KVM_CALL(kvm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
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
    r = kvm_ring_map(vcpu, err);
    if (r == 0)
        r = kvm_set_cpuid(vcpu->fd, &kvm->cpuid[index], err);
    if (r < 0)
        goto failed;
    kvm->engine.vcpus[index] = &vcpu->vcpu;
    return 0;

failed:
    vcpu_destroy(vcpu);
    return r;
}

static void kvm_destroy(struct engine *engine)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;

    for (unsigned i = 0; i < kvm->config.cpus; i++)
        vcpu_destroy((struct kvm_vcpu *)kvm->engine.vcpus[i]);
    kvm_drain_lines(kvm);
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
        free(kvm->slots[i].written);
    if (kvm->vm_fd >= 0)
        close(kvm->vm_fd);
    if (kvm->kvm_fd >= 0)
        close(kvm->kvm_fd);
    pthread_mutex_destroy(&kvm->lock);
    free(kvm->cpuid);
    free(kvm);
}

static int kvm_create(const struct engine_config *config, struct engine **ret_engine,
                      struct error *err)
{
    const struct sigaction action = {.sa_handler = ignore_signal};
    const struct kvm_enable_cap tell_failures = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE,
                                                 .args = {1}};
    uint64_t identity = IDENTITY_MAP_ADDRESS;
    struct kvm_engine *kvm;
    int r;

    kvm = calloc(1, sizeof(*kvm));
    if (!kvm)
        return error_set(err, ENOMEM, "out of memory for the KVM engine");
    kvm->engine.ops = &kvm_engine;
    kvm->config = *config;
    kvm->vm_fd = kvm->kvm_fd = -1;
    pthread_mutex_init(&kvm->lock, NULL);
    kvm->config.cpuid = NULL;
    kvm->cpuid = calloc(config->cpus, sizeof(*kvm->cpuid));
    if (!kvm->cpuid) {
        r = error_set(err, ENOMEM, "out of memory for the KVM engine");
        goto failed;
    }
    memcpy(kvm->cpuid, config->cpuid, config->cpus * sizeof(*kvm->cpuid));
    kvm->kvm_fd = r = kvm_open(config->device_fd, err);
    if (r >= 0)
        r = kvm_check_cpuid(kvm->kvm_fd, &config->cpuid[0], err);
    if (r < 0)
        goto failed;
    kvm->vm_fd = KVM_CALL(kvm->kvm_fd, KVM_CREATE_VM, 0ul);
    if (kvm->vm_fd < 0) {
        r = errno == EBUSY
                ? error_set(err, EBUSY, "another hypervisor holds the CPU's virtualization; stop "
                                        "it, or use another --engine")
                : error_system(err, errno, "KVM cannot create a virtual machine");
        goto failed;
    }
    /* emulate.c takes care of what KVM cannot emulate; an older one tells it of CPL 0 only. */
    KVM_CALL(kvm->vm_fd, KVM_ENABLE_CAP, &tell_failures);
    if (KVM_CALL(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        KVM_CALL(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDRESS) < 0) {
        r = error_system(err, errno, "KVM cannot set its real-mode pages");
        goto failed;
    }
    kvm_ring_create(kvm);
    r = config->keep_apics ? kvm_apic_create(kvm, err) : 0;
    if (r == 0)
        r = kvm_filter_msrs(kvm, err);
    for (unsigned i = 0; r == 0 && i < config->cpus; i++)
        r = vcpu_create(kvm, i, err);
    if (r < 0)
        goto failed;
    sigaction(kvm_kick_signal(), &action, NULL);
    *ret_engine = &kvm->engine;
    return 0;

failed:
    kvm_destroy(&kvm->engine);
    return r;
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
    .apic = &kvm_apic_ops,
    .doorbell = kvm_doorbell,
    .track_writes = kvm_track_writes,
    .fetch_writes = kvm_fetch_writes,
    .print_stats = kvm_print_stats,
};
