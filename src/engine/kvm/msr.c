/* MSRs: which ones leave KVM for the machine, and the guest's TSC. */
#include <errno.h>
#include <x86intrin.h>

#include "base/bytes.h"
#include "engine/kvm/kvm.h"

/* KVM's own paravirtual MSRs are the machine's where it offers them: they would tie the guest
 * to this engine (Documentation/virt/kvm/x86/msr.rst). */
#define MSR_KVM_OLD       0x11u
#define MSR_KVM_OLD_COUNT 2
#define MSR_KVM_NEW       0x4b564d00u
#define MSR_KVM_NEW_COUNT 8

#define BOTH (KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)

static const struct {
    uint32_t first, count, flags;
    bool apic; /* only where the machine keeps the APICs */
} machine_msrs[] = {
    {X86_MSR_APIC_BASE, 1, BOTH, true},
    {X86_MSR_TSC_DEADLINE, 1, BOTH, true},
    {X86_MSR_TSC, 1, KVM_MSR_FILTER_WRITE, false}, /* the machine is told when it moves */
    {X86_MSR_TSC_ADJUST, 1, KVM_MSR_FILTER_WRITE, false},
    {MSR_KVM_OLD, MSR_KVM_OLD_COUNT, BOTH, false},
    {MSR_KVM_NEW, MSR_KVM_NEW_COUNT, BOTH, false},
};

/* (The x2APIC range needs no filter: without an in-kernel APIC KVM does not know it.) */
int kvm_filter_msrs(struct kvm_engine *kvm, struct error *err)
{
    static uint8_t none[1]; /* zero bits: not KVM's */
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL |
                 KVM_MSR_EXIT_REASON_FILTER},
    };
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(machine_msrs); i++)
        if (!machine_msrs[i].apic || !kvm->config.keep_apics)
            filter.ranges[n++] = (struct kvm_msr_filter_range){
                .flags = machine_msrs[i].flags,
                .base = machine_msrs[i].first,
                .nmsrs = machine_msrs[i].count,
                .bitmap = none,
            };
    if (KVM_CALL(kvm->vm_fd, KVM_ENABLE_CAP, &cap) < 0 ||
        KVM_CALL(kvm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
        return error_system(err, errno, "KVM does not hand MSRs over");
    return 0;
}

/* --- One MSR --- */

/* struct kvm_msrs ends in an array without a size. */
union one_msr {
    struct kvm_msrs list;
    uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

bool kvm_read_msr(int fd, uint32_t index, uint64_t *ret_value)
{
    union one_msr msr = {.list.nmsrs = 1};

    msr.list.entries[0].index = index;
    if (KVM_CALL(fd, KVM_GET_MSRS, &msr) != 1)
        return false;
    *ret_value = msr.list.entries[0].data;
    return true;
}

bool kvm_write_msr(int fd, uint32_t index, uint64_t value)
{
    union one_msr msr = {.list.nmsrs = 1};

    msr.list.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    return KVM_CALL(fd, KVM_SET_MSRS, &msr) == 1;
}

/* --- The TSC --- */

/* The guest's TSC counts with the host's; offset is the distance. Linux 5.16
 * tells it as it is; before, it comes out of two readings. */
uint64_t kvm_get_tsc_offset(int vcpu_fd)
{
    uint64_t offset, tsc;
    const struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    if (KVM_CALL(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) == 0)
        return offset;
    return kvm_read_msr(vcpu_fd, X86_MSR_TSC, &tsc) ? tsc - __rdtsc() : 0;
}

bool kvm_set_tsc_offset(int vcpu_fd, uint64_t offset)
{
    const struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    return KVM_CALL(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute) == 0 ||
           kvm_write_msr(vcpu_fd, X86_MSR_TSC, __rdtsc() + offset);
}

/* The guest writes IA32_TSC or IA32_TSC_ADJUST: the other moves along (SDM 3B 18.17.3). */
static bool write_tsc(struct kvm_vcpu *vcpu, uint32_t msr, uint64_t value)
{
    const struct engine_config *config = &vcpu->kvm->config;
    const uint64_t before = kvm_get_tsc_offset(vcpu->fd);
    uint64_t adjust, offset;

    if (!kvm_read_msr(vcpu->fd, X86_MSR_TSC_ADJUST, &adjust))
        return false;
    offset = msr == X86_MSR_TSC ? value - __rdtsc() : before + value - adjust;
    if (!kvm_set_tsc_offset(vcpu->fd, offset) ||
        !kvm_write_msr(vcpu->fd, X86_MSR_TSC_ADJUST, adjust + offset - before))
        return false;
    if (config->callbacks->tsc_changed)
        config->callbacks->tsc_changed(config->opaque, vcpu->vcpu.index, offset);
    return true;
}

/* --- Exits --- */

void kvm_handle_msr(struct kvm_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->kvm->config;
    struct kvm_run *run = vcpu->run;
    const uint32_t msr = run->msr.index;
    uint64_t value = run->msr.data;
    bool known;

    if (run->exit_reason == KVM_EXIT_X86_RDMSR)
        known = config->callbacks->msr_read(config->opaque, vcpu->vcpu.index, msr, &value);
    else if (msr == X86_MSR_TSC || msr == X86_MSR_TSC_ADJUST)
        known = write_tsc(vcpu, msr, value);
    else
        known = config->callbacks->msr_write(config->opaque, vcpu->vcpu.index, msr, value);
    run->msr.error = !known;
    run->msr.data = value;
}
