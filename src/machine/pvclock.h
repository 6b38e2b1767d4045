/* pvclock.h - the clock that guests of KVM know ("kvm-clock"): a page for each
 * CPU that says how its TSC becomes nanoseconds, and the time of day at which
 * those began (the kernel's Documentation/virt/kvm/x86/msr.rst and cpuid.rst).
 *
 * The machine keeps it, not the engine, so a guest has it under every engine
 * and takes it along. A guest that finds it also knows the TSC's rate exactly,
 * trusts the x2APIC mode, and leaves out delays and tests of old hardware,
 * each of which would be exits. */
#ifndef LODGE_MACHINE_PVCLOCK_H
#define LODGE_MACHINE_PVCLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "machine/memory.h"
#include "machine/timer.h"
#include "x86/cpuid.h"

struct pvclock {
    struct guest_memory *memory;
    struct timers *timers;
    pthread_mutex_t lock;
    uint64_t started;    /* the clock's zero, in ns of timers_now, */
    uint64_t tsc_offset; /* and the CPUs' offset then: guest TSC = host TSC + this */
    uint64_t wall_page;  /* as the guest wrote the MSR */
    uint64_t pages[ENGINE_CPUS_MAX];
};

void pvclock_init(struct pvclock *clock, struct guest_memory *memory, struct timers *timers);
void pvclock_destroy(struct pvclock *clock);
/* All CPUs start now, with that offset of their TSC. */
void pvclock_reset(struct pvclock *clock, uint64_t tsc_offset);

/* Its MSRs; offset is that of the CPU's TSC now. False: not one of them, or an address outside
 * of memory. */
bool pvclock_msr_read(struct pvclock *clock, unsigned cpu, uint32_t msr, uint64_t *ret_value);
bool pvclock_msr_write(struct pvclock *clock, unsigned cpu, uint32_t msr, uint64_t value,
                       uint64_t offset);
/* The CPU's TSC was moved. */
void pvclock_tsc_moved(struct pvclock *clock, unsigned cpu, uint64_t offset);

/* The CPUID leaves that tell of it. */
#define PVCLOCK_LEAVES 2
extern const struct x86_cpuid_leaf pvclock_leaves[PVCLOCK_LEAVES];

#endif
