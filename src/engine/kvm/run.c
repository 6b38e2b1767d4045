/* Running a vCPU: KVM_RUN, what it comes back for, and interrupts. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/kvm/kvm.h"

int kvm_kick_signal(void)
{
    return SIGRTMIN;
}

void kvm_vcpu_signal(struct vcpu *base, unsigned signals)
{
    struct kvm_vcpu *vcpu = (struct kvm_vcpu *)base;

    atomic_fetch_or(&vcpu->signals, signals);
    /* Read by the kernel on its way in; the signal takes the thread out. */
    *(volatile uint8_t *)&vcpu->run->immediate_exit = 1;
    if (atomic_load(&vcpu->in_run))
        pthread_kill(vcpu->thread, kvm_kick_signal());
}

void kvm_vcpu_complete(struct kvm_vcpu *vcpu)
{
    if (!vcpu->incomplete)
        return;
    vcpu->run->immediate_exit = 1;
    KVM_CALL(vcpu->fd, KVM_RUN, 0); /* -EINTR, the instruction being finished */
    vcpu->run->immediate_exit = 0;
    vcpu->incomplete = false;
}

static void handle_port(struct kvm_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->kvm->config;
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        uint32_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_IN) {
            value = config->callbacks->port_read(config->opaque, vcpu->vcpu.index, run->io.port,
                                                 run->io.size);
            memcpy(data, &value, run->io.size);
        } else {
            memcpy(&value, data, run->io.size);
            config->callbacks->port_write(config->opaque, vcpu->vcpu.index, run->io.port,
                                          run->io.size, value);
        }
    }
}

static unsigned piece_size(uint64_t address, uint32_t left)
{
    unsigned size = 8;

    while (size > left || (address & (size - 1)))
        size /= 2;
    return size;
}

static void handle_mmio(struct kvm_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->kvm->config;
    struct kvm_run *run = vcpu->run;
    uint32_t length = run->mmio.len < sizeof(run->mmio.data) ? run->mmio.len
                                                             : (uint32_t)sizeof(run->mmio.data);

    for (uint32_t done = 0; done < length;) {
        uint64_t address = run->mmio.phys_addr + done;
        unsigned size = piece_size(address, length - done);
        uint64_t value = 0;

        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + done, size);
            config->callbacks->mmio_write(config->opaque, vcpu->vcpu.index, address, size, value);
        } else {
            value = config->callbacks->mmio_read(config->opaque, vcpu->vcpu.index, address, size);
            memcpy(run->mmio.data + done, &value, size);
        }
        done += size;
    }
}

static void handle_end_of_interrupt(struct kvm_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->kvm->config;

    config->callbacks->end_of_interrupt(config->opaque, vcpu->vcpu.index, vcpu->run->eoi.vector);
}

/* Take NMIs and, when the window is open, one external interrupt. */
static void inject(struct kvm_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->kvm->config;
    struct kvm_run *run = vcpu->run;
    unsigned signals = atomic_load(&vcpu->signals);

    if (signals & ENGINE_SIGNAL_NMI) {
        atomic_fetch_and(&vcpu->signals, ~(unsigned)ENGINE_SIGNAL_NMI);
        kvm_call(vcpu->fd, KVM_NMI, 0);
        vcpu->activity = X86_RUNNING;
    }
    if (!(signals & ENGINE_SIGNAL_INTERRUPT) || vcpu->external >= 0)
        return;
    run->request_interrupt_window = 1;
    if (!run->ready_for_interrupt_injection || !run->if_flag)
        return;
    /* Cleared before asking: a request that comes meanwhile sets it anew. */
    atomic_fetch_and(&vcpu->signals, ~(unsigned)ENGINE_SIGNAL_INTERRUPT);
    int vector = config->callbacks->interrupt_acknowledge(config->opaque, vcpu->vcpu.index);

    if (vector < 0) {
        run->request_interrupt_window = 0;
        return;
    }
    KVM_CALL(vcpu->fd, KVM_INTERRUPT, &(struct kvm_interrupt){.irq = (uint32_t)vector});
    vcpu->activity = X86_RUNNING;
    if (config->keep_apics)
        vcpu->external = vector;
    /* There may be another behind it. */
    atomic_fetch_or(&vcpu->signals, ENGINE_SIGNAL_INTERRUPT);
}

/* Where the CPU is. */
static void describe(struct kvm_vcpu *vcpu, char *text, size_t size)
{
    struct kvm_regs regs = {0};
    struct kvm_sregs sregs = {0};

    KVM_CALL(vcpu->fd, KVM_GET_REGS, &regs);
    KVM_CALL(vcpu->fd, KVM_GET_SREGS, &sregs);
    snprintf(text, size, "at %04x:%llx (CR0 %llx, CR3 %llx, RSP %llx)", sregs.cs.selector, regs.rip,
             sregs.cr0, sregs.cr3, regs.rsp);
}

static int unexpected(struct kvm_vcpu *vcpu, struct error *err)
{
    const struct kvm_run *run = vcpu->run;
    char where[192];

    describe(vcpu, where, sizeof(where));
    switch (run->exit_reason) {
    case KVM_EXIT_FAIL_ENTRY:
        return error_set(err, EIO,
                         "KVM cannot enter CPU %u %s: hardware reason 0x%llx; try another --engine",
                         vcpu->vcpu.index, where,
                         (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR:
        return error_set(err, EIO,
                         "KVM cannot go on with CPU %u %s (internal error %u); try another "
                         "--engine",
                         vcpu->vcpu.index, where, run->internal.suberror);
    default:
        return error_set(err, EIO, "CPU %u left KVM %s for a reason that is not known (%u)",
                         vcpu->vcpu.index, where, run->exit_reason);
    }
}

static int emulate(struct kvm_vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    int r = kvm_emulate(vcpu, err);

    if (r < 0 || vcpu->activity != X86_SHUTDOWN)
        return r;
    *ret_exit = ENGINE_EXIT_SHUTDOWN;
    return 1;
}

/* One round: enter the guest, serve what it came back for.
 * 1: left for ret_exit; 0: go on; negative errno. */
static int enter(struct kvm_vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    const struct engine_config *config = &vcpu->kvm->config;
    struct kvm_run *run = vcpu->run;
    uint64_t cr8 = 0;
    int r;

    if (!config->keep_apics)
        run->cr8 = cr8 = config->callbacks->cr8_read(config->opaque, vcpu->vcpu.index);
    r = kvm_call(vcpu->fd, KVM_RUN, 0);
    vcpu->incomplete = false;
    vcpu->entries++;
    if (r == 0 || !run->if_flag) /* the guest got as far as taking it */
        vcpu->external = -1;
    if (!config->keep_apics && run->cr8 != cr8)
        config->callbacks->cr8_write(config->opaque, vcpu->vcpu.index, run->cr8);
    if (r < 0) {
        if (errno == EINTR || errno == EAGAIN)
            return 0;
        return error_system(err, errno, "KVM cannot run CPU %u", vcpu->vcpu.index);
    }
    if (run->exit_reason < KVM_EXITS)
        vcpu->exits[run->exit_reason]++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_port(vcpu);
        vcpu->incomplete = true;
        return 0;
    case KVM_EXIT_MMIO:
        handle_mmio(vcpu);
        vcpu->incomplete = true;
        return 0;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        kvm_handle_msr(vcpu);
        vcpu->incomplete = true;
        return 0;
    case KVM_EXIT_HLT:
        vcpu->activity = X86_HALTED;
        return 0;
    case KVM_EXIT_INTERNAL_ERROR:
        if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
            return unexpected(vcpu, err);
        return emulate(vcpu, ret_exit, err);
    case KVM_EXIT_IOAPIC_EOI:
        handle_end_of_interrupt(vcpu);
        return 0;
    case KVM_EXIT_DIRTY_RING_FULL:
        r = kvm_ring_gather(vcpu->kvm);
        return r < 0 ? error_system(err, -r, "KVM does not go on telling what CPU %u writes",
                                    vcpu->vcpu.index)
                     : 0;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
        return 0;
    case KVM_EXIT_SHUTDOWN:
        vcpu->activity = X86_SHUTDOWN;
        *ret_exit = ENGINE_EXIT_SHUTDOWN;
        return 1;
    default:
        return unexpected(vcpu, err);
    }
}

static int run_until_exit(struct kvm_vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    int r = 0;

    while (r == 0) {
        /* In this order: a signal that comes after the check finds the flag
         * zero, sets it, and KVM_RUN returns at once. */
        *(volatile uint8_t *)&vcpu->run->immediate_exit = 0;
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load(&vcpu->signals) & ENGINE_SIGNAL_KICK) {
            atomic_fetch_and(&vcpu->signals, ~(unsigned)ENGINE_SIGNAL_KICK);
            *ret_exit = ENGINE_EXIT_KICK;
            break;
        }
        /* The state that injection looks at is that of a finished instruction; KVM's own APIC
         * looks for itself. */
        if (atomic_load(&vcpu->signals) && vcpu->incomplete && !vcpu->kvm->config.keep_apics) {
            kvm_vcpu_complete(vcpu);
            continue;
        }
        inject(vcpu);
        if (vcpu->activity == X86_HALTED) {
            *ret_exit = ENGINE_EXIT_HALT;
            break;
        }
        r = enter(vcpu, ret_exit, err);
    }
    kvm_vcpu_complete(vcpu);
    return r < 0 ? r : 0;
}

int kvm_vcpu_run(struct vcpu *base, enum engine_exit *ret_exit, struct error *err)
{
    struct kvm_vcpu *vcpu = (struct kvm_vcpu *)base;
    int r;

    vcpu->thread = pthread_self();
    atomic_store(&vcpu->in_run, true);
    r = run_until_exit(vcpu, ret_exit, err);
    atomic_store(&vcpu->in_run, false);
    return r;
}
