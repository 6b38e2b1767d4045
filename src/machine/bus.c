#include "machine/bus.h"

#include <string.h>

#include "base/bytes.h"

void bus_init(struct bus *bus)
{
    memset(bus, 0, sizeof(*bus));
    pthread_rwlock_init(&bus->lock, NULL);
}

void bus_destroy(struct bus *bus)
{
    pthread_rwlock_destroy(&bus->lock);
}

/* The first region that ends beyond address. */
static unsigned search(const struct bus *bus, uint64_t address)
{
    unsigned low = 0, high = bus->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct bus_region *region = &bus->regions[middle];

        if (region->base + region->size - 1 < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int bus_add(struct bus *bus, const struct bus_region *region, struct error *err)
{
    unsigned at;
    int r = 0;

    pthread_rwlock_wrlock(&bus->lock);
    at = search(bus, region->base);
    if (bus->count == BUS_REGIONS_MAX) {
        r = error_set(err, ENOSPC, "more than %d regions on a bus", BUS_REGIONS_MAX);
    } else if (at < bus->count && bus->regions[at].base <= region->base + region->size - 1) {
        r = error_set(err, EEXIST, "%s at 0x%llx overlaps %s", region->name,
                      (unsigned long long)region->base, bus->regions[at].name);
    } else {
        memmove(&bus->regions[at + 1], &bus->regions[at],
                (bus->count - at) * sizeof(bus->regions[0]));
        bus->regions[at] = *region;
        bus->count++;
    }
    pthread_rwlock_unlock(&bus->lock);
    return r;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    unsigned at;

    pthread_rwlock_wrlock(&bus->lock);
    at = search(bus, base);
    if (at < bus->count && bus->regions[at].base == base) {
        bus->count--;
        memmove(&bus->regions[at], &bus->regions[at + 1],
                (bus->count - at) * sizeof(bus->regions[0]));
    }
    pthread_rwlock_unlock(&bus->lock);
}

/* A copy, so that no lock is held while the device works (it may move a BAR). */
static bool find(struct bus *bus, uint64_t address, struct bus_region *ret_region)
{
    bool found;
    unsigned at;

    pthread_rwlock_rdlock(&bus->lock);
    at = search(bus, address);
    found = at < bus->count && bus->regions[at].base <= address;
    if (found)
        *ret_region = bus->regions[at];
    pthread_rwlock_unlock(&bus->lock);
    return found;
}

static uint64_t mask_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

uint64_t bus_read(struct bus *bus, unsigned cpu, uint64_t address, unsigned size)
{
    struct bus_region region;
    uint64_t value = 0, offset;
    unsigned max;

    if (!find(bus, address, &region))
        return mask_of(size);
    offset = address - region.base;
    max = region.max ? region.max : 8;
    if (size < region.min) {
        uint64_t start = offset & ~(uint64_t)(region.min - 1);

        if (start + region.min > region.size)
            return mask_of(size);
        return region.ops->read(region.owner, cpu, start, region.min) >> (8 * (offset - start)) &
               mask_of(size);
    }
    if (size <= max && offset + size <= region.size)
        return region.ops->read(region.owner, cpu, offset, size) & mask_of(size);
    if (size == 1)
        return mask_of(size);
    for (unsigned half = size / 2, i = 0; i < 2; i++)
        value |= bus_read(bus, cpu, address + i * half, half) << (8 * half * i);
    return value;
}

void bus_write(struct bus *bus, unsigned cpu, uint64_t address, unsigned size, uint64_t value)
{
    struct bus_region region;
    uint64_t offset;
    unsigned max;

    if (!find(bus, address, &region))
        return;
    offset = address - region.base;
    max = region.max ? region.max : 8;
    if (size < region.min)
        return;
    if (size <= max && offset + size <= region.size) {
        region.ops->write(region.owner, cpu, offset, size, value & mask_of(size));
        return;
    }
    if (size == 1)
        return;
    for (unsigned half = size / 2, i = 0; i < 2; i++)
        bus_write(bus, cpu, address + i * half, half, value >> (8 * half * i));
}
