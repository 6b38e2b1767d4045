/* fake_kvm.h - a stand-in for the kernel behind engine/kvm/call.h: it says what a missing, closed,
 * old, busy or odd KVM would, and keeps what it was asked. */
#ifndef LODGE_TESTS_FAKE_KVM_H
#define LODGE_TESTS_FAKE_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "engine/kvm/kvm.h"

#define FAKE_MSRS_MAX    64
#define FAKE_RING_SIZE   0x10000u
#define FAKE_RING_LENGTH (FAKE_RING_SIZE / sizeof(struct kvm_dirty_gfn))

struct fake_kvm {
    int open_errno, version, lacks, create_errno;
    struct stat device;
    bool knows_no_cpuid;
    /* What KVM_RUN says, in turn; the last is repeated. */
    uint32_t exits[4], suberror;
    unsigned exit_count, runs;
    int run_errno;
    struct kvm_run *run;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_mp_state activity;
    /* What was asked. */
    struct kvm_userspace_memory_region region;
    struct kvm_msi message;
    struct kvm_ioeventfd bell;
    struct kvm_irqfd line;
    unsigned routings, messages;
    bool refuses_routes;
    /* State, as it was set. */
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    uint8_t xsave[sizeof(struct kvm_xsave)]; /* whose array has no size */
    struct kvm_xcrs xcrs;
    struct kvm_sregs2 sregs2;
    uint64_t tsc_offset;
    struct kvm_msr_entry msrs[FAKE_MSRS_MAX];
    unsigned msr_count;
    uint64_t dirty;
    int ring_bytes; /* the most for a ring of written pages; 0: there are none */
    struct kvm_dirty_gfn *ring;
    uint64_t ring_size; /* that was asked for */
    unsigned ring_resets;
    union {
        struct kvm_irq_routing list;
        uint8_t room[sizeof(struct kvm_irq_routing) +
                     (KVM_PINS + KVM_LINES_MAX) * sizeof(struct kvm_irq_routing_entry)];
    } routes; /* last: its array has no size */
};

extern struct fake_kvm fake;

/* As a KVM that has all that the engine needs, and nothing that it can do without. */
void fake_kvm_reset(void);

#endif
