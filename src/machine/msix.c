#include "machine/msix.h"

#include <string.h>

#include "base/bytes.h"

#define CAPABILITY_ID   0x11
#define CAPABILITY_SIZE 12

/* Offsets in the capability (PCI 3.0, 6.8.2.3). */
enum { REG_CONTROL = 2, REG_TABLE = 4, REG_PENDING = 8 };

#define CONTROL_ENABLE 0x8000
#define CONTROL_MASK   0x4000
#define ENTRY_MASKED   0x1u

/* The table is at the start of the BAR, the pending array in its second half. */
#define PENDING_OFFSET 0x800u
_Static_assert(MSIX_VECTORS_MAX * sizeof(struct msix_entry) <= PENDING_OFFSET, "table too long");

static bool may_send(const struct msix *msix, unsigned vector)
{
    return msix->enabled && !msix->masked && !(msix->table[vector].control & ENTRY_MASKED);
}

static uint64_t message_address(const struct msix_entry *entry)
{
    return (uint64_t)entry->address_high << 32 | entry->address_low;
}

/* A number that no other vector of the bus has. */
static unsigned message_source(const struct msix *msix, unsigned vector)
{
    return msix->function->slot * MSIX_VECTORS_MAX + vector;
}

/* Send vector's message or keep it. The lock is held. */
static void send(struct msix *msix, unsigned vector)
{
    const struct msix_entry *entry = &msix->table[vector];
    const struct pci_message_sink *sink = &msix->function->host->messages;

    if (!may_send(msix, vector)) {
        msix->pending |= 1ull << vector;
        return;
    }
    msix->pending &= ~(1ull << vector);
    if (sink->send)
        sink->send(sink->opaque, message_source(msix, vector), message_address(entry),
                   entry->data);
}

/* The vector's mask or message has changed: tell of it, and send what waited. The lock is held. */
static void update(struct msix *msix, unsigned vector)
{
    const struct msix_entry *entry = &msix->table[vector];
    const struct pci_message_sink *sink = &msix->function->host->messages;

    if (!may_send(msix, vector))
        return;
    if (sink->prepare)
        sink->prepare(sink->opaque, message_source(msix, vector), message_address(entry),
                      entry->data);
    if (msix->pending >> vector & 1)
        send(msix, vector);
}

static void update_all(struct msix *msix)
{
    for (unsigned i = 0; i < msix->vectors; i++)
        update(msix, i);
}

void msix_announce(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    update_all(msix);
    pthread_mutex_unlock(&msix->lock);
}

void msix_raise(struct msix *msix, unsigned vector)
{
    pthread_mutex_lock(&msix->lock);
    if (msix->enabled && vector < msix->vectors)
        send(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

bool msix_enabled(struct msix *msix)
{
    bool enabled;

    pthread_mutex_lock(&msix->lock);
    enabled = msix->enabled;
    pthread_mutex_unlock(&msix->lock);
    return enabled;
}

void msix_config_written(struct msix *msix)
{
    uint16_t control = load_le16(msix->function->config + msix->capability + REG_CONTROL);

    pthread_mutex_lock(&msix->lock);
    msix->enabled = control & CONTROL_ENABLE;
    msix->masked = control & CONTROL_MASK;
    update_all(msix);
    pthread_mutex_unlock(&msix->lock);
}

static uint64_t table_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct msix *msix = owner;
    uint64_t value = 0;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&msix->lock);
    if (offset < msix->vectors * sizeof(struct msix_entry))
        value = load_le32((const uint8_t *)msix->table + (offset & ~3ull));
    else if (offset >= PENDING_OFFSET && offset < PENDING_OFFSET + sizeof(msix->pending))
        value = msix->pending >> (8 * (offset & 4)) & UINT32_MAX;
    pthread_mutex_unlock(&msix->lock);
    return value;
}

static void table_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct msix *msix = owner;
    unsigned vector = (unsigned)(offset / sizeof(struct msix_entry));

    (void)cpu;
    (void)size;
    if (vector >= msix->vectors || (offset & 3))
        return;
    pthread_mutex_lock(&msix->lock);
    store_le32((uint8_t *)msix->table + offset, (uint32_t)value);
    update(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

static const struct bus_ops table_ops = {.read = table_read, .write = table_write};

void msix_init(struct msix *msix, struct pci_function *function, unsigned bar, unsigned vectors)
{
    uint8_t *capability;

    memset(msix, 0, sizeof(*msix));
    pthread_mutex_init(&msix->lock, NULL);
    msix->function = function;
    msix->vectors = MIN(vectors, MSIX_VECTORS_MAX);
    msix->capability = pci_add_capability(function, CAPABILITY_ID, CAPABILITY_SIZE);
    capability = function->config + msix->capability;
    store_le16(capability + REG_CONTROL, (uint16_t)(msix->vectors - 1));
    store_le32(capability + REG_TABLE, bar);
    store_le32(capability + REG_PENDING, PENDING_OFFSET | bar);
    store_le16(function->writable + msix->capability + REG_CONTROL, CONTROL_ENABLE | CONTROL_MASK);
    function->bar[bar].kind = PCI_BAR_MEMORY32;
    function->bar[bar].region = (struct bus_region){
        .name = function->name, .size = MSIX_BAR_SIZE, .min = 4, .max = 4, .ops = &table_ops,
        .owner = msix};
    msix_reset(msix);
}

void msix_destroy(struct msix *msix)
{
    pthread_mutex_destroy(&msix->lock);
}

void msix_reset(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    memset(msix->table, 0, sizeof(msix->table));
    for (unsigned i = 0; i < msix->vectors; i++)
        msix->table[i].control = ENTRY_MASKED;
    msix->enabled = msix->masked = false;
    msix->pending = 0;
    pthread_mutex_unlock(&msix->lock);
}
