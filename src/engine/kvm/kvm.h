/* kvm.h - the KVM engine's own structs, and what its files ask of each other.
 * Private to src/engine/kvm/.
 *
 * The local APICs are in the kernel where the machine allows it (the "split"
 * interrupt chips of KVM: IOAPIC, 8259 and PIT stay the machine's), otherwise
 * in the machine; then interrupts are injected at the window that KVM reports.
 * Source: the kernel's Documentation/virt/kvm/api.rst. */
#ifndef LODGE_ENGINE_KVM_KVM_H
#define LODGE_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "engine/kvm/call.h"

#define KVM_SLOTS_MAX 32
#define KVM_PINS      24 /* of the IOAPIC */
#define KVM_LINES_MAX 256 /* sources of messages with an event descriptor; others do without */
#define KVM_EXITS     48 /* reasons that are counted */

struct kvm_slot {
    struct kvm_userspace_memory_region region; /* size 0: free */
    uint64_t *written; /* a bit for each page, as gathered from the rings; lock */
};

/* An interrupt message. */
struct kvm_route {
    uint64_t address;
    uint32_t data; /* of a pin, 0: nothing whose end is to be told */
};

/* Where a source's message goes by a write to fd. */
struct kvm_line {
    unsigned source; /* see engine_apic_ops */
    int fd;
    struct kvm_route route;
};

struct kvm_engine {
    struct engine engine; /* first */
    struct engine_config config;
    struct x86_cpuid *cpuid; /* [config.cpus] */
    int kvm_fd, vm_fd;
    bool rings;    /* tell the writes, instead of the dirty log */
    bool tracking; /* of writes */
    struct kvm_slot slots[KVM_SLOTS_MAX];
    pthread_mutex_t lock; /* what follows, and the rings */
    struct kvm_route pins[KVM_PINS];
    unsigned line_count;
    struct kvm_line lines[KVM_LINES_MAX];
};

struct kvm_vcpu {
    struct vcpu vcpu; /* first */
    struct kvm_engine *kvm;
    int fd;
    struct kvm_run *run; /* shared with the kernel, run_size bytes */
    size_t run_size;
    struct kvm_dirty_gfn *ring; /* shared with the kernel, or NULL; lock of the engine */
    uint32_t ring_next;
    atomic_uint signals;   /* enum engine_signal */
    atomic_bool in_run;    /* thread is valid and may sit in KVM_RUN */
    pthread_t thread;
    enum x86_activity activity; /* where the machine keeps the APICs: KVM itself would run on
                                 * after HLT */
    int external; /* where KVM keeps the APICs: the 8259's vector that it was given and is not seen
                   * to have taken; -1: none */
    bool incomplete;       /* KVM_RUN must be entered once more, to finish an instruction or to
                            * bring struct kvm_run up to date */
    uint64_t entries;          /* of KVM_RUN */
    uint64_t exits[KVM_EXITS]; /* by reason */
};

/* kvm.c: open /dev/kvm, or duplicate device_fd (above 0), and check its API. Returns
 * the descriptor, or a negative errno with the reason and the remedy in err. */
int kvm_open(int device_fd, struct error *err);

/* trial.c: whether an ordinary 64-bit guest runs at hardware speed. Some hosts' KVM
 * emulates one instruction at a time. -EOPNOTSUPP says so. */
int kvm_trial(int kvm_fd, struct error *err);

/* state.c: copy the architectural state out of and into the kernel. -errno on failure. */
int kvm_get_state(struct kvm_vcpu *vcpu, struct x86_state *ret_state, struct error *err);
int kvm_set_state(struct kvm_vcpu *vcpu, const struct x86_state *state, struct error *err);

/* msr.c: hand to the machine the MSRs that are its own, and those that KVM does not know. */
int kvm_filter_msrs(struct kvm_engine *kvm, struct error *err);
/* The guest reads or writes one of them: answer in vcpu->run. */
void kvm_handle_msr(struct kvm_vcpu *vcpu);
/* One MSR of the guest's; false: KVM does not know it. */
bool kvm_read_msr(int vcpu_fd, uint32_t index, uint64_t *ret_value);
bool kvm_write_msr(int vcpu_fd, uint32_t index, uint64_t value);
/* How far the guest's TSC is from the host's. */
uint64_t kvm_get_tsc_offset(int vcpu_fd);
bool kvm_set_tsc_offset(int vcpu_fd, uint64_t offset);

/* cpuid.c: give the vCPU its CPUID leaves. */
int kvm_set_cpuid(int vcpu_fd, const struct x86_cpuid *cpuid, struct error *err);
/* Cut cpuid to what KVM_GET_SUPPORTED_CPUID offers. */
void kvm_filter_cpuid(struct x86_cpuid *cpuid);
/* Whether KVM carries out every feature of cpuid; -ENOTSUP names one it lacks. */
int kvm_check_cpuid(int kvm_fd, const struct x86_cpuid *cpuid, struct error *err);

/* apic.c: the local APICs in the kernel. */
int kvm_apic_create(struct kvm_engine *kvm, struct error *err);
extern const struct engine_apic_ops kvm_apic_ops;

/* route.c: engine_apic_ops.message, prepare and route. */
void kvm_apic_message(struct engine *engine, unsigned source, uint64_t address, uint32_t data);
void kvm_apic_prepare(struct engine *engine, unsigned source, uint64_t address, uint32_t data);
void kvm_apic_route(struct engine *engine, unsigned pin, uint64_t address, uint32_t data);
/* Take down what kvm_apic_prepare has put up; what was sent has arrived afterwards. */
void kvm_drain_lines(struct kvm_engine *kvm);

/* memory.c: engine_ops of the same names. */
int kvm_map(struct engine *engine, uint64_t address, uint64_t size, void *host, unsigned flags,
            struct error *err);
int kvm_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err);
int kvm_doorbell(struct engine *engine, uint64_t address, int fd, bool on);
/* The slot that begins at address, or NULL. */
struct kvm_slot *kvm_find_slot(struct kvm_engine *kvm, uint64_t address);
/* Set the slot of region's number to it; -errno. */
int kvm_set_slot(struct kvm_engine *kvm, const struct kvm_userspace_memory_region *region);

/* writes.c: ask for rings; before the first vCPU. */
void kvm_ring_create(struct kvm_engine *kvm);
int kvm_ring_map(struct kvm_vcpu *vcpu, struct error *err);
void kvm_ring_unmap(struct kvm_vcpu *vcpu);
/* Empty all rings into their slots. Any thread; -errno. */
int kvm_ring_gather(struct kvm_engine *kvm);
int kvm_track_slot(struct kvm_engine *kvm, struct kvm_slot *slot, bool on);
/* engine_ops of the same names. */
int kvm_track_writes(struct engine *engine, bool on, struct error *err);
int kvm_fetch_writes(struct engine *engine, uint64_t address, uint64_t *bitmap,
                     struct error *err);

/* emulate.c: carry out the one instruction that KVM could not. */
int kvm_emulate(struct kvm_vcpu *vcpu, struct error *err);

/* run.c: engine_ops.run and engine_ops.signal */
int kvm_vcpu_run(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err);
void kvm_vcpu_signal(struct vcpu *vcpu, unsigned signals);
/* Enter KVM_RUN once without running the guest, so that the instruction whose
 * I/O was just carried out is finished and the state is whole. */
void kvm_vcpu_complete(struct kvm_vcpu *vcpu);
/* The host signal that takes a thread out of KVM_RUN. */
int kvm_kick_signal(void);

/* stats.c: engine_ops.print_stats */
void kvm_print_stats(struct engine *engine, FILE *out);

extern const struct engine_ops kvm_engine;

#endif
