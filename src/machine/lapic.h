/* lapic.h - the local APIC of one CPU: xAPIC registers at 0xfee00000 and the
 * x2APIC MSRs (SDM 3A chapter 10). Interrupts come in from the IOAPIC, MSIs
 * and other CPUs from any thread; each APIC has a lock of its own. */
#ifndef LODGE_MACHINE_LAPIC_H
#define LODGE_MACHINE_LAPIC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/timer.h"
#include "x86/apic.h"

#define LAPIC_BASE 0xfee00000u
#define LAPIC_SIZE 0x1000u

enum lapic_delivery {
    LAPIC_FIXED = 0, LAPIC_LOWEST = 1, LAPIC_SMI = 2, LAPIC_NMI = 4, LAPIC_INIT = 5,
    LAPIC_STARTUP = 6, LAPIC_EXTINT = 7,
};

/* An interrupt message is a write of data to an address in the APICs' window (SDM 3A 10.11.1,
 * 10.11.2): of a device, or of the IOAPIC. */
#define MESSAGE_LOGICAL  (1u << 2)  /* of the address */
#define MESSAGE_ASSERT   (1u << 14) /* of the data, as the next */
#define MESSAGE_LEVEL    (1u << 15)
#define MESSAGE_DESTINATION_SHIFT 12
#define MESSAGE_DELIVERY_SHIFT    8

struct lapic_set;

/* What an APIC asks of the board. */
struct lapic_ops {
    /* Tell the CPU that its APIC has something for it. Any thread. */
    void (*notify)(void *opaque, unsigned cpu);
    void (*nmi)(void *opaque, unsigned cpu);
    void (*init)(void *opaque, unsigned cpu);
    void (*startup)(void *opaque, unsigned cpu, uint8_t vector);
    /* The guest ended a level-triggered interrupt: tell the IOAPIC. */
    void (*end_of_interrupt)(void *opaque, uint8_t vector);
    /* Whether the engine keeps the APICs, and has taken the message. May be NULL. */
    bool (*forward)(void *opaque, unsigned source, uint64_t address, uint32_t data);
    void *opaque;
};

struct lapic {
    struct lapic_set *set;
    unsigned cpu; /* index and initial APIC ID */
    pthread_mutex_t lock;
    uint64_t base_msr; /* IA32_APIC_BASE */
    uint32_t id, tpr, ldr, dfr, svr, esr, esr_pending;
    uint32_t icr_low, icr_high;
    uint32_t lvt[6]; /* timer, thermal, performance, LINT0, LINT1, error */
    uint32_t isr[8], tmr[8], irr[8];
    uint32_t timer_initial, timer_divide;
    uint64_t timer_start;  /* ns when the count was loaded */
    uint64_t timer_expiry; /* ns when it fires next; 0: it is not running */
    uint64_t tsc_deadline;
    struct timer timer;
};

struct lapic_set {
    struct timers *timers;
    struct lapic_ops ops;
    unsigned cpus;
    struct lapic *lapics; /* [cpus] */
    uint64_t (*tsc_offset)(void *opaque, unsigned cpu); /* of the guest's TSC */
};

int lapic_set_init(struct lapic_set *set, unsigned cpus, struct timers *timers,
                   const struct lapic_ops *ops, struct error *err);
void lapic_set_destroy(struct lapic_set *set);
void lapic_reset(struct lapic *lapic);
/* As after an INIT message: all but the ID and the base. */
void lapic_init_reset(struct lapic *lapic);

/* MMIO; offset within the page. */
uint64_t lapic_read(struct lapic *lapic, uint64_t offset);
void lapic_write(struct lapic *lapic, uint64_t offset, uint32_t value);
/* IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC. False: #GP. */
bool lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *ret_value);
bool lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value);

/* The CPU's TSC was moved: what waits for a time of it is set anew. */
void lapic_tsc_moved(struct lapic *lapic);

/* Take a message to whom it may concern; source as in engine_apic_ops. Any thread. */
void lapic_message(struct lapic_set *set, unsigned source, uint64_t address, uint32_t data);

/* What an APIC is made of, out of it and into it; then its timer goes on. */
void lapic_save(struct lapic *lapic, struct x86_apic *ret_apic);
void lapic_load(struct lapic *lapic, const struct x86_apic *apic);

/* The acknowledge cycle: the vector to deliver, now in service, or -1. */
int lapic_acknowledge(struct lapic *lapic);
/* Whether there is one, without taking it. */
bool lapic_pending(struct lapic *lapic);
/* Whether the 8259's line reaches this CPU (LINT0 as ExtINT, or APIC off). */
bool lapic_accepts_extint(struct lapic *lapic);
/* The task priority as CR8 shows it. */
uint64_t lapic_cr8(struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, uint64_t value);

#endif
