#include "machine/pci.h"

#include <string.h>

#include "base/bytes.h"
#include "machine/memory_map.h"

#define PORT_ADDRESS 0xcf8
#define PORT_DATA    0xcfc
#define ADDRESS_ENABLE 0x80000000u

#define BAR_IO        0x1
#define BAR_MEMORY64  0x4
#define PCI_IO_FIRST  0xc000u /* I/O BARs are laid out from here */

/* --- BARs --- */

static uint64_t bar_address(const struct pci_function *f, unsigned i)
{
    uint32_t low = load_le32(f->config + PCI_BAR0 + 4 * i);

    if (f->bar[i].kind == PCI_BAR_IO)
        return low & ~3u;
    if (f->bar[i].kind == PCI_BAR_MEMORY32)
        return low & ~15u;
    return (low & ~15u) | (uint64_t)load_le32(f->config + PCI_BAR0 + 4 * i + 4) << 32;
}

static void bar_unmap(struct pci_function *f, struct pci_bar *bar)
{
    if (!bar->mapped)
        return;
    bus_remove(bar->kind == PCI_BAR_IO ? f->host->ports : f->host->memory, bar->region.base);
    bar->mapped = false;
}

/* Map each BAR where configuration space says it is. A place that something
 * else has is not taken: the BAR stays unmapped. The lock is held. */
static void update_bars(struct pci_function *f)
{
    uint16_t command = load_le16(f->config + PCI_COMMAND);

    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &f->bar[i];
        bool on = command & (bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
        uint64_t address;

        if (bar->kind == PCI_BAR_NONE)
            continue;
        address = bar_address(f, i);
        /* Address zero, and the end of the space (a size probe), mean nowhere. */
        on = on && address && address + bar->region.size > address &&
             (bar->kind != PCI_BAR_IO || address + bar->region.size <= 0x10000);
        if (bar->mapped && (!on || bar->region.base != address))
            bar_unmap(f, bar);
        if (on && !bar->mapped) {
            bar->region.base = address;
            bar->mapped = bus_add(bar->kind == PCI_BAR_IO ? f->host->ports : f->host->memory,
                                  &bar->region, NULL) == 0;
        }
    }
}

/* Type bits and write masks of the BAR registers. */
static void prepare_bars(struct pci_function *f)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &f->bar[i];
        unsigned at = PCI_BAR0 + 4 * i;
        uint64_t mask = ~(bar->region.size - 1);

        if (bar->kind == PCI_BAR_NONE)
            continue;
        store_le32(f->config + at, bar->kind == PCI_BAR_IO         ? BAR_IO
                                   : bar->kind == PCI_BAR_MEMORY64 ? BAR_MEMORY64
                                                                   : 0);
        store_le32(f->writable + at, (uint32_t)mask & (bar->kind == PCI_BAR_IO ? ~3u : ~15u));
        if (bar->kind == PCI_BAR_MEMORY64)
            store_le32(f->writable + at + 4, (uint32_t)(mask >> 32));
    }
}

/* Lay all BARs of all functions out, as firmware does. */
static void assign_bars(struct pci_host *host)
{
    uint64_t io = PCI_IO_FIRST, low = MAP_PCI_LOW, high = MAP_PCI_HIGH;

    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned i = 0; host->slots[slot] && i < PCI_BARS; i++) {
            struct pci_function *f = host->slots[slot];
            struct pci_bar *bar = &f->bar[i];
            uint64_t *next = bar->kind == PCI_BAR_IO         ? &io
                             : bar->kind == PCI_BAR_MEMORY64 ? &high
                                                             : &low;
            uint8_t *at = f->config + PCI_BAR0 + 4 * i;

            if (bar->kind == PCI_BAR_NONE)
                continue;
            *next = ALIGN_UP(*next, bar->region.size);
            store_le32(at, load_le32(at) | (uint32_t)*next);
            if (bar->kind == PCI_BAR_MEMORY64)
                store_le32(at + 4, (uint32_t)(*next >> 32));
            *next += bar->region.size;
        }
}

/* --- Configuration space --- */

/* Drive the shared line of the function's pin. The INTx lock is held. */
static void drive_pin(struct pci_function *f)
{
    struct pci_host *host = f->host;
    unsigned line = f->slot % 4;
    bool level = f->intx && !f->intx_off;

    if (level == f->intx_driven)
        return;
    f->intx_driven = level;
    host->intx_count[line] += level ? 1 : -1u;
    irq_set(&host->irq[line], host->intx_count[line] != 0);
}

void pci_set_intx(struct pci_function *function, bool level)
{
    pthread_mutex_lock(&function->host->intx_lock);
    function->intx = level;
    drive_pin(function);
    pthread_mutex_unlock(&function->host->intx_lock);
}

/* What the command register says of the pin. */
static void update_pin(struct pci_function *f)
{
    pthread_mutex_lock(&f->host->intx_lock);
    f->intx_off = load_le16(f->config + PCI_COMMAND) & PCI_COMMAND_INTX_OFF;
    drive_pin(f);
    pthread_mutex_unlock(&f->host->intx_lock);
}

static uint32_t config_read(struct pci_host *host, unsigned device, unsigned function,
                            unsigned offset, unsigned size)
{
    struct pci_function *f = host->slots[device];
    uint32_t value = 0;

    if (!f || function)
        return size == 4 ? UINT32_MAX : (1u << (8 * size)) - 1;
    if (offset + size > PCI_CONFIG_SIZE) /* no extended capabilities */
        return 0;
    pthread_mutex_lock(&host->intx_lock);
    f->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    if (f->intx)
        f->config[PCI_STATUS] |= PCI_STATUS_INTX;
    pthread_mutex_unlock(&host->intx_lock);
    if (f->ops && f->ops->config_reading)
        f->ops->config_reading(f, offset, size);
    memcpy(&value, f->config + offset, size);
    return value;
}

static void config_write(struct pci_host *host, unsigned device, unsigned function,
                         unsigned offset, unsigned size, uint32_t value)
{
    struct pci_function *f = host->slots[device];

    if (!f || function || offset + size > PCI_CONFIG_SIZE)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = f->writable[offset + i];

        f->config[offset + i] =
            (uint8_t)((f->config[offset + i] & ~mask) | ((value >> (8 * i)) & mask));
    }
    update_bars(f);
    update_pin(f);
    if (f->ops && f->ops->config_written)
        f->ops->config_written(f, offset, size);
}

static uint64_t port_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pci_host *host = owner;
    uint32_t address;
    uint64_t value;

    if (offset == 1 && size == 1 && host->port_cf9)
        return host->port_cf9->ops->read(host->port_cf9->owner, cpu, 0, 1);
    pthread_mutex_lock(&host->lock);
    address = host->address;
    if (offset < 4) {
        value = (uint64_t)address >> (8 * offset);
    } else if (!(address & ADDRESS_ENABLE) || (address >> 16 & 0xff)) {
        value = UINT64_MAX; /* bus 0 only */
    } else {
        value = config_read(host, address >> 11 & 31, address >> 8 & 7,
                            (address & 0xfc) | (offset & 3), size);
    }
    pthread_mutex_unlock(&host->lock);
    return value;
}

static void port_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = owner;
    uint32_t address;

    if (offset == 1 && size == 1 && host->port_cf9) {
        host->port_cf9->ops->write(host->port_cf9->owner, cpu, 0, 1, value);
        return;
    }
    pthread_mutex_lock(&host->lock);
    address = host->address;
    if (offset < 4) {
        if (offset == 0 && size == 4)
            host->address = (uint32_t)value & 0x80fffffc;
    } else if ((address & ADDRESS_ENABLE) && !(address >> 16 & 0xff)) {
        config_write(host, address >> 11 & 31, address >> 8 & 7, (address & 0xfc) | (offset & 3),
                     size, (uint32_t)value);
    }
    pthread_mutex_unlock(&host->lock);
}

/* ECAM: bus, device, function, register from the address (PCIe 7.2.2). */
static uint64_t ecam_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pci_host *host = owner;
    uint64_t value = UINT64_MAX;

    (void)cpu;
    pthread_mutex_lock(&host->lock);
    if (!(offset >> 20))
        value = config_read(host, offset >> 15 & 31, offset >> 12 & 7, offset & 0xfff, size);
    pthread_mutex_unlock(&host->lock);
    return value;
}

static void ecam_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = owner;

    (void)cpu;
    pthread_mutex_lock(&host->lock);
    if (!(offset >> 20))
        config_write(host, offset >> 15 & 31, offset >> 12 & 7, offset & 0xfff, size,
                     (uint32_t)value);
    pthread_mutex_unlock(&host->lock);
}

/* --- Functions --- */

void pci_function_init(struct pci_function *function, const char *name, uint16_t vendor,
                       uint16_t device, uint32_t class_code)
{
    memset(function, 0, sizeof(*function));
    function->name = name;
    store_le16(function->config + PCI_VENDOR, vendor);
    store_le16(function->config + PCI_DEVICE, device);
    store_le32(function->config + PCI_REVISION, class_code << 8);
    store_le16(function->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
                                                     PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF);
    function->writable[PCI_INTERRUPT_LINE] = 0xff;
}

unsigned pci_add_capability(struct pci_function *function, uint8_t id, unsigned size)
{
    uint8_t *config = function->config;
    unsigned at = function->capabilities_end ? function->capabilities_end : PCI_CONFIG_HEADER;
    uint8_t *link = &config[PCI_CAPABILITIES];

    while (*link)
        link = &config[*link + 1u];
    *link = (uint8_t)at;
    config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    config[at] = id;
    function->capabilities_end = ALIGN_UP(at + size, 4u);
    return at;
}

int pci_host_add(struct pci_host *host, struct pci_function *function, struct error *err)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        if (host->slots[slot])
            continue;
        function->host = host;
        function->slot = slot;
        if (function->config[PCI_INTERRUPT_PIN])
            function->config[PCI_INTERRUPT_LINE] = (uint8_t)(PCI_IRQ_FIRST + slot % 4);
        prepare_bars(function);
        host->slots[slot] = function;
        return 0;
    }
    return error_set(err, ENOSPC, "no PCI slot is free for %s: there are %d", function->name,
                     PCI_SLOTS);
}

void pci_host_reset(struct pci_host *host)
{
    pthread_mutex_lock(&host->lock);
    host->address = 0;
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *f = host->slots[slot];

        if (!f)
            continue;
        store_le16(f->config + PCI_COMMAND, 0);
        pci_set_intx(f, false);
        update_pin(f);
        update_bars(f);
        prepare_bars(f);
        /* The device sees that its capabilities' registers are clear again. */
        for (unsigned i = PCI_CONFIG_HEADER; i < PCI_CONFIG_SIZE; i++)
            f->config[i] &= (uint8_t)~f->writable[i];
        if (f->ops && f->ops->config_written)
            f->ops->config_written(f, PCI_CONFIG_HEADER, PCI_CONFIG_SIZE - PCI_CONFIG_HEADER);
    }
    assign_bars(host);
    pthread_mutex_unlock(&host->lock);
}

int pci_host_init(struct pci_host *host, struct bus *ports, struct bus *memory,
                  const struct irq_line irq[4], struct error *err)
{
    static const struct bus_ops port_ops = {port_read, port_write};
    static const struct bus_ops ecam_ops = {ecam_read, ecam_write};
    const struct bus_region address = {"pci address", PORT_ADDRESS, 8, 1, 4, &port_ops, host};
    const struct bus_region ecam = {"pci ecam", MAP_ECAM, MAP_ECAM_SIZE, 1, 4, &ecam_ops, host};
    int r;

    memset(host, 0, sizeof(*host));
    pthread_mutex_init(&host->lock, NULL);
    pthread_mutex_init(&host->intx_lock, NULL);
    host->ports = ports;
    host->memory = memory;
    memcpy(host->irq, irq, sizeof(host->irq));
    /* A host bridge of its own kind; class 06 00 00. */
    pci_function_init(&host->bridge, "host bridge", 0x1b36, 0x0008, 0x060000);
    r = pci_host_add(host, &host->bridge, err);
    if (r == 0)
        r = bus_add(ports, &address, err);
    if (r == 0)
        r = bus_add(memory, &ecam, err);
    return r;
}
