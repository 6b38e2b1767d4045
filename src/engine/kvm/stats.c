/* How often guests left KVM, and what for. */
#include <inttypes.h>

#include "base/bytes.h"
#include "engine/kvm/kvm.h"

static const char *const reasons[KVM_EXITS] = {
    [KVM_EXIT_IO] = "ports",
    [KVM_EXIT_HLT] = "halts",
    [KVM_EXIT_MMIO] = "memory-mapped registers",
    [KVM_EXIT_IRQ_WINDOW_OPEN] = "interrupt windows",
    [KVM_EXIT_SHUTDOWN] = "triple faults",
    [KVM_EXIT_INTR] = "kicks",
    [KVM_EXIT_INTERNAL_ERROR] = "instructions that KVM lacks",
    [KVM_EXIT_SET_TPR] = "task priorities",
    [KVM_EXIT_DIRTY_RING_FULL] = "rings of written pages full",
    [KVM_EXIT_IOAPIC_EOI] = "ends of interrupts",
    [KVM_EXIT_X86_RDMSR] = "MSRs read",
    [KVM_EXIT_X86_WRMSR] = "MSRs written",
};

void kvm_print_stats(struct engine *engine, FILE *out)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;

    for (unsigned i = 0; i < kvm->config.cpus; i++) {
        const struct kvm_vcpu *vcpu = (const struct kvm_vcpu *)engine->vcpus[i];

        fprintf(out, "kvm cpu %u: %" PRIu64 " entries", i, vcpu->entries);
        for (unsigned reason = 0; reason < KVM_EXITS; reason++)
            if (vcpu->exits[reason] && reasons[reason])
                fprintf(out, ", %" PRIu64 " %s", vcpu->exits[reason], reasons[reason]);
        fprintf(out, "\n");
    }
}
