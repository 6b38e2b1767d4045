#include "machine/ioapic.h"

#include <string.h>

#include "engine/engine.h"

/* Redirection entry (82093AA 3.2.4). */
#define ENTRY_VECTOR     0xffull
#define ENTRY_DELIVERY   (7ull << 8)
#define ENTRY_LOGICAL    (1ull << 11)
#define ENTRY_PENDING    (1ull << 12)
#define ENTRY_LOW        (1ull << 13)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_READONLY   (ENTRY_PENDING | ENTRY_REMOTE_IRR)
#define ENTRY_DEFINED    0xff0000000001ffffull

enum { INDEX_ID = 0, INDEX_VERSION = 1, INDEX_ARBITRATION = 2, INDEX_ENTRIES = 0x10 };

/* An entry's message: vector, delivery mode and trigger mode lie where the data has them. */
static uint64_t message_address(uint64_t entry)
{
    return LAPIC_BASE | entry >> 56 << MESSAGE_DESTINATION_SHIFT |
           (entry & ENTRY_LOGICAL ? MESSAGE_LOGICAL : 0);
}

static uint32_t message_data(uint64_t entry)
{
    return (uint32_t)(entry & (ENTRY_VECTOR | ENTRY_DELIVERY | ENTRY_LEVEL)) | MESSAGE_ASSERT;
}

/* The pin requests: send its message unless one is already in flight. */
static void request(struct ioapic *io, unsigned pin)
{
    uint64_t *entry = &io->redirection[pin];

    if (*entry & ENTRY_MASKED)
        return;
    if ((*entry & ENTRY_LEVEL) && (*entry & ENTRY_REMOTE_IRR))
        return;
    if (*entry & ENTRY_LEVEL)
        *entry |= ENTRY_REMOTE_IRR;
    lapic_message(io->lapics, ENGINE_NO_SOURCE, message_address(*entry), message_data(*entry));
}

void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level)
{
    const uint32_t bit = 1u << pin;
    bool rose;

    if (pin >= IOAPIC_PINS)
        return;
    pthread_mutex_lock(&ioapic->lock);
    /* Polarity is that of the wire; devices here speak of asserted or not. */
    rose = level && !(ioapic->lines & bit);
    ioapic->lines = level ? ioapic->lines | bit : ioapic->lines & ~bit;
    if (rose || (level && (ioapic->redirection[pin] & ENTRY_LEVEL)))
        request(ioapic, pin);
    pthread_mutex_unlock(&ioapic->lock);
}

void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector)
{
    pthread_mutex_lock(&ioapic->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->redirection[pin];

        if ((uint8_t)*entry != vector || !(*entry & ENTRY_LEVEL) || !(*entry & ENTRY_REMOTE_IRR))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        if (ioapic->lines >> pin & 1)
            request(ioapic, pin);
    }
    pthread_mutex_unlock(&ioapic->lock);
}

static uint32_t read_index(const struct ioapic *io)
{
    unsigned entry = (io->select - INDEX_ENTRIES) / 2u;

    switch (io->select) {
    case INDEX_ID: case INDEX_ARBITRATION:
        return (uint32_t)io->id << 24;
    case INDEX_VERSION:
        return 0x20 | (IOAPIC_PINS - 1) << 16;
    default:
        if (io->select < INDEX_ENTRIES || entry >= IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->redirection[entry] >> (io->select & 1 ? 32 : 0));
    }
}

/* Tell whoever keeps the local APICs which level-triggered interrupts pin sends. */
static void announce(struct ioapic *io, unsigned pin)
{
    const uint64_t entry = io->redirection[pin];
    const bool level = (entry & ENTRY_LEVEL) && !(entry & ENTRY_MASKED);

    io->route(io->opaque, pin, level ? message_address(entry) : 0,
              level ? message_data(entry) : 0);
}

static void write_index(struct ioapic *io, uint32_t value)
{
    unsigned entry = (io->select - INDEX_ENTRIES) / 2u;
    uint64_t *e, old;

    if (io->select == INDEX_ID) {
        io->id = value >> 24 & 0xf;
        return;
    }
    if (io->select < INDEX_ENTRIES || entry >= IOAPIC_PINS)
        return;
    e = &io->redirection[entry];
    old = *e;
    if (io->select & 1)
        *e = (uint32_t)*e | (uint64_t)value << 32;
    else
        *e = (*e & 0xffffffff00000000ull) | value;
    *e = (*e & ENTRY_DEFINED & ~ENTRY_READONLY) | (old & ENTRY_READONLY);
    announce(io, entry);
    if (!(*e & ENTRY_LEVEL))
        *e &= ~ENTRY_REMOTE_IRR;
    else if (io->lines >> entry & 1)
        request(io, entry);
}

static uint64_t ioapic_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct ioapic *io = owner;
    uint64_t value = 0;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&io->lock);
    if (offset == 0)
        value = io->select;
    else if (offset == 0x10)
        value = read_index(io);
    pthread_mutex_unlock(&io->lock);
    return value;
}

static void ioapic_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *io = owner;

    (void)cpu;
    (void)size;
    if (offset == 0x40) { /* the EOI register of version 0x20 */
        ioapic_end_of_interrupt(io, (uint8_t)value);
        return;
    }
    pthread_mutex_lock(&io->lock);
    if (offset == 0)
        io->select = (uint8_t)value;
    else if (offset == 0x10)
        write_index(io, (uint32_t)value);
    pthread_mutex_unlock(&io->lock);
}

static const struct bus_ops ioapic_ops = {ioapic_read, ioapic_write};

int ioapic_add(struct ioapic *ioapic, struct bus *memory, struct error *err)
{
    const struct bus_region region = {"IOAPIC", IOAPIC_BASE, 0x1000, 4, 4, &ioapic_ops, ioapic};

    return bus_add(memory, &region, err);
}

void ioapic_announce(struct ioapic *ioapic)
{
    pthread_mutex_lock(&ioapic->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        announce(ioapic, pin);
    pthread_mutex_unlock(&ioapic->lock);
}

void ioapic_reset(struct ioapic *ioapic)
{
    pthread_mutex_lock(&ioapic->lock);
    ioapic->select = 0;
    ioapic->lines = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
    pthread_mutex_unlock(&ioapic->lock);
    ioapic_announce(ioapic);
}

void ioapic_init(struct ioapic *ioapic, struct lapic_set *lapics, uint8_t id,
                 ioapic_route_fn route, void *opaque)
{
    pthread_mutex_init(&ioapic->lock, NULL);
    ioapic->lapics = lapics;
    ioapic->id = id;
    ioapic->route = route;
    ioapic->opaque = opaque;
    ioapic_reset(ioapic);
}
