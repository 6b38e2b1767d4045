/* The local APICs in the kernel, in KVM's "split" mode: messages go in, the
 * ends of level-triggered interrupts come out (Documentation/virt/kvm/api.rst,
 * KVM_CAP_SPLIT_IRQCHIP). */
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

static void message(struct engine *engine, uint64_t address, uint32_t data)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    struct kvm_msi msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32),
                          .data = data};

    KVM_CALL(kvm->vm_fd, KVM_SIGNAL_MSI, &msi); /* nobody there: as on hardware, nothing happens */
}

/* The kernel reads out of its routes which vectors' ends it must tell. The lock is held. */
static void set_routes(struct kvm_engine *kvm)
{
    union { /* the list ends in an array without a size */
        struct kvm_irq_routing list;
        uint8_t room[sizeof(struct kvm_irq_routing) +
                     KVM_PINS * sizeof(struct kvm_irq_routing_entry)];
    } routes = {.list = {0}};

    for (uint32_t pin = 0; pin < KVM_PINS; pin++)
        if (kvm->pins[pin].data)
            routes.list.entries[routes.list.nr++] = (struct kvm_irq_routing_entry){
                .gsi = pin,
                .type = KVM_IRQ_ROUTING_MSI,
                .u.msi = {.address_lo = (uint32_t)kvm->pins[pin].address,
                          .address_hi = (uint32_t)(kvm->pins[pin].address >> 32),
                          .data = kvm->pins[pin].data},
            };
    if (KVM_CALL(kvm->vm_fd, KVM_SET_GSI_ROUTING, &routes) < 0)
        log_error(kvm->config.log, "KVM does not take the routes of interrupts: %s",
                  strerror(errno));
}

static void route(struct engine *engine, unsigned pin, uint64_t address, uint32_t data)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_pin to = {address, data};

    if (pin >= KVM_PINS)
        return;
    pthread_mutex_lock(&kvm->lock);
    if (kvm->pins[pin].address != to.address || kvm->pins[pin].data != to.data) {
        kvm->pins[pin] = to;
        set_routes(kvm);
    }
    pthread_mutex_unlock(&kvm->lock);
}

const struct engine_apic_ops kvm_apic_ops = {
    .get = get,
    .set = set,
    .message = message,
    .route = route,
};
