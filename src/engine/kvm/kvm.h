/* kvm.h - the KVM engine's own structs. Private to src/engine/kvm/.
 *
 * The machine's local APIC, IOAPIC and 8259 serve here as under the other
 * engines: KVM runs without its in-kernel interrupt chips, and interrupts are
 * injected at the window that KVM reports. Source: the kernel's
 * Documentation/virt/kvm/api.rst. */
#ifndef LODGE_ENGINE_KVM_KVM_H
#define LODGE_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"

#define KVM_SLOTS_MAX 32

struct kvm_slot {
    uint64_t address, size; /* size 0: free */
};

struct kvm_engine {
    struct engine engine; /* first */
    struct engine_config config;
    int kvm_fd, vm_fd;
    struct kvm_slot slots[KVM_SLOTS_MAX];
};

struct kvm_vcpu {
    struct vcpu vcpu; /* first */
    struct kvm_engine *kvm;
    int fd;
    struct kvm_run *run; /* shared with the kernel, run_size bytes */
    size_t run_size;
    atomic_uint signals;   /* enum engine_signal */
    atomic_bool in_run;    /* thread is valid and may sit in KVM_RUN */
    pthread_t thread;
    enum x86_activity activity; /* KVM itself would run on after HLT */
    bool incomplete;       /* KVM_RUN must be entered once more, to finish an instruction or to
                            * bring struct kvm_run up to date */
};

/* Open /dev/kvm, or duplicate device_fd (above 0), and check its API. Returns
 * the descriptor, or a negative errno with the reason and the remedy in err. */
int kvm_open(int device_fd, struct error *err);

/* Whether an ordinary 64-bit guest runs at hardware speed. Some hosts' KVM
 * emulates one instruction at a time. -EOPNOTSUPP says so. */
int kvm_trial(int kvm_fd, struct error *err);

/* Copy the architectural state out of and into the kernel. -errno on failure. */
int kvm_get_state(struct kvm_vcpu *vcpu, struct x86_state *ret_state, struct error *err);
int kvm_set_state(struct kvm_vcpu *vcpu, const struct x86_state *state, struct error *err);

/* Give the vCPU its CPUID leaves. */
int kvm_set_cpuid(int vcpu_fd, const struct x86_cpuid *cpuid, struct error *err);
/* Cut cpuid to what KVM_GET_SUPPORTED_CPUID offers. */
void kvm_filter_cpuid(struct x86_cpuid *cpuid);
/* Whether KVM carries out every feature of cpuid; -ENOTSUP names one it lacks. */
int kvm_check_cpuid(int kvm_fd, const struct x86_cpuid *cpuid, struct error *err);

/* engine_ops.run and engine_ops.signal */
int kvm_vcpu_run(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err);
void kvm_vcpu_signal(struct vcpu *vcpu, unsigned signals);

/* Enter KVM_RUN once without running the guest, so that the instruction whose
 * I/O was just carried out is finished and the state is whole. */
void kvm_vcpu_complete(struct kvm_vcpu *vcpu);

/* The host signal that takes a thread out of KVM_RUN. */
int kvm_kick_signal(void);

extern const struct engine_ops kvm_engine;

#endif
