/* ioapic.h - the 82093AA I/O APIC: 24 pins at 0xfec00000. */
#ifndef LODGE_MACHINE_IOAPIC_H
#define LODGE_MACHINE_IOAPIC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/lapic.h"

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24

struct ioapic {
    pthread_mutex_t lock;
    struct lapic_set *lapics;
    uint8_t id, select;
    uint64_t redirection[IOAPIC_PINS];
    uint32_t lines; /* level of each pin now */
};

void ioapic_init(struct ioapic *ioapic, struct lapic_set *lapics, uint8_t id);
void ioapic_reset(struct ioapic *ioapic);
int ioapic_add(struct ioapic *ioapic, struct bus *memory, struct error *err);
/* Any thread. */
void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level);
/* A local APIC ended level-triggered vector. */
void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector);

#endif
