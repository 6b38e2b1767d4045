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

/* What a pin sends while it is unmasked and level-triggered; data 0: nothing of that kind. The
 * I/O APIC's lock is held. */
typedef void (*ioapic_route_fn)(void *opaque, unsigned pin, uint64_t address, uint32_t data);

struct ioapic {
    pthread_mutex_t lock;
    struct lapic_set *lapics;
    ioapic_route_fn route;
    void *opaque;
    uint8_t id, select;
    uint64_t redirection[IOAPIC_PINS];
    uint32_t lines; /* level of each pin now */
};

void ioapic_init(struct ioapic *ioapic, struct lapic_set *lapics, uint8_t id,
                 ioapic_route_fn route, void *opaque);
void ioapic_reset(struct ioapic *ioapic);
int ioapic_add(struct ioapic *ioapic, struct bus *memory, struct error *err);
/* Any thread. */
void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level);
/* Call route for every pin. */
void ioapic_announce(struct ioapic *ioapic);
/* A local APIC ended level-triggered vector. */
void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector);

#endif
