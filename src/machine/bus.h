/* bus.h - the port and memory buses. A region is a value: where it lies, which
 * access sizes its device understands, and who answers. The bus enforces the
 * sizes; a device sees an offset, never its base. Overlap is an error.
 *
 * Regions come and go under the bus's lock (a guest moves a BAR while others
 * run); an access holds it for reading, and the device guards itself. */
#ifndef LODGE_MACHINE_BUS_H
#define LODGE_MACHINE_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct bus_ops {
    /* size is within the region's sizes; offset + size within its size.
     * cpu is the index of the vCPU that accesses. */
    uint64_t (*read)(void *owner, unsigned cpu, uint64_t offset, unsigned size);
    void (*write)(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_region {
    const char *name;
    uint64_t base, size;
    /* Access sizes in bytes; 0 for max means any up to 8. A wider access is
     * split, a narrower read is cut from a min-sized one, a narrower write is
     * dropped. */
    unsigned min, max;
    const struct bus_ops *ops;
    void *owner;
};

#define BUS_REGIONS_MAX 128

struct bus {
    pthread_rwlock_t lock;
    unsigned count;
    struct bus_region regions[BUS_REGIONS_MAX]; /* by base */
};

void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);
/* -EEXIST when it overlaps another, -ENOSPC when the bus is full. */
int bus_add(struct bus *bus, const struct bus_region *region, struct error *err);
/* The region that begins at base; nothing happens when there is none. */
void bus_remove(struct bus *bus, uint64_t base);

/* size 1, 2, 4 or 8. Unclaimed reads give all ones, unclaimed writes nothing. */
uint64_t bus_read(struct bus *bus, unsigned cpu, uint64_t address, unsigned size);
void bus_write(struct bus *bus, unsigned cpu, uint64_t address, unsigned size, uint64_t value);

#endif
