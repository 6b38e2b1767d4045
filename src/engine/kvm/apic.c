/* The local APICs in the kernel, in KVM's "split" mode: messages go in
 * (route.c), the ends of level-triggered interrupts come out
 * (Documentation/virt/kvm/api.rst, KVM_CAP_SPLIT_IRQCHIP). */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/kvm/kvm.h"

int kvm_apic_create(struct kvm_engine *kvm, struct error *err)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {KVM_PINS}};

    if (KVM_CALL(kvm->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
        return error_system(err, errno, "KVM does not keep the local APICs");
    return 0;
}

/* Registers are 16 bytes apart, 32 bits each. */
static int get(struct vcpu *base, struct x86_apic *ret_apic, struct error *err)
{
    struct kvm_vcpu *vcpu = (struct kvm_vcpu *)base;
    struct x86_apic apic = {0};
    struct kvm_lapic_state lapic;
    struct kvm_sregs sregs;

    kvm_drain_lines(vcpu->kvm); /* what the kernel has yet to deliver is delivered then */
    if (KVM_CALL(vcpu->fd, KVM_GET_LAPIC, &lapic) < 0 ||
        KVM_CALL(vcpu->fd, KVM_GET_SREGS, &sregs) < 0 ||
        !kvm_read_msr(vcpu->fd, X86_MSR_TSC_DEADLINE, &apic.tsc_deadline))
        return error_system(err, errno, "KVM does not give the local APIC of CPU %u", base->index);
    apic.base = sregs.apic_base;
    for (unsigned i = 0; i < X86_APIC_REGISTERS; i++)
        apic.reg[i] = load_le32(lapic.regs + 16 * i);
    *ret_apic = apic;
    return 0;
}

static int set(struct vcpu *base, const struct x86_apic *apic, struct error *err)
{
    struct kvm_vcpu *vcpu = (struct kvm_vcpu *)base;
    struct kvm_lapic_state lapic = {0};
    struct kvm_sregs sregs;

    for (unsigned i = 0; i < X86_APIC_REGISTERS; i++)
        store_le32(lapic.regs + 16 * i, apic->reg[i]);
    if (KVM_CALL(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        goto failed;
    sregs.apic_base = apic->base;
    sregs.cr8 = x86_apic_get(apic, X86_APIC_TPR) >> 4;
    /* An interrupt that KVM has taken is set by kvm_set_state alone. */
    memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
    /* The base says which mode the registers are in; the deadline counts in the timer's mode. */
    if (KVM_CALL(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 ||
        KVM_CALL(vcpu->fd, KVM_SET_LAPIC, &lapic) < 0 ||
        !kvm_write_msr(vcpu->fd, X86_MSR_TSC_DEADLINE, apic->tsc_deadline))
        goto failed;
    return 0;

failed:
    return error_system(err, errno, "KVM does not take the local APIC of CPU %u", base->index);
}

const struct engine_apic_ops kvm_apic_ops = {
    .get = get,
    .set = set,
    .message = kvm_apic_message,
    .prepare = kvm_apic_prepare,
    .route = kvm_apic_route,
};
