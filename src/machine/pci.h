/* pci.h - PCI: the host bridge with its two ways to configuration space (ports
 * 0xcf8 and 0xcfc, and the memory-mapped ECAM), the functions on bus 0, their
 * BARs and interrupt pins (PCI Local Bus 3.0, PCI Express 2.2 7.2.2). */
#ifndef LODGE_MACHINE_PCI_H
#define LODGE_MACHINE_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/irq.h"

#define PCI_SLOTS       32
#define PCI_BARS        6
#define PCI_CONFIG_SIZE 256
#define PCI_CONFIG_HEADER 64 /* the registers every function has; capabilities follow */
#define PCI_IRQ_FIRST   16 /* INTA to INTD of slot s: IOAPIC pin 16 + (s + pin) % 4 */

/* Configuration registers (PCI 3.0, 6.1). */
enum pci_register {
    PCI_VENDOR = 0x00, PCI_DEVICE = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06,
    PCI_REVISION = 0x08, PCI_CLASS = 0x09, PCI_HEADER_TYPE = 0x0e, PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c, PCI_SUBSYSTEM = 0x2e, PCI_ROM = 0x30, PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c, PCI_INTERRUPT_PIN = 0x3d,
};

#define PCI_COMMAND_IO        0x0001
#define PCI_COMMAND_MEMORY    0x0002
#define PCI_COMMAND_MASTER    0x0004
#define PCI_COMMAND_INTX_OFF  0x0400
#define PCI_STATUS_INTX       0x0008
#define PCI_STATUS_CAPABILITIES 0x0010

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEMORY32, PCI_BAR_MEMORY64 };

struct pci_bar {
    enum pci_bar_kind kind;
    struct bus_region region; /* size a power of two; base is where it is mapped now */
    bool mapped;
};

struct pci_function;

/* Called with the host's lock held; a function's own locks come after it. */
struct pci_function_ops {
    /* Before the guest reads [offset, offset + size) of configuration space; may be NULL. */
    void (*config_reading)(struct pci_function *function, unsigned offset, unsigned size);
    /* After the guest wrote [offset, offset + size) of configuration space; may be NULL. */
    void (*config_written)(struct pci_function *function, unsigned offset, unsigned size);
};

/* One function; the device embeds it. */
struct pci_function {
    const char *name;
    const struct pci_function_ops *ops; /* or NULL */
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* mask of bits that the guest may change */
    struct pci_bar bar[PCI_BARS];      /* a 64-bit BAR takes two; the second is NONE */
    struct pci_host *host;
    unsigned slot;
    unsigned capabilities_end; /* where the next capability goes */
    bool intx;                 /* what the device wants of its pin */
    bool intx_off;             /* the command register disables the pin */
    bool intx_driven;          /* whether the pin holds its line up now */
};

/* A message-signalled interrupt: a write of data to address, as devices make
 * it on the bus (PCI 3.0, 6.8). source tells the messages of different vectors
 * apart. Any thread. */
struct pci_message_sink {
    void (*send)(void *opaque, unsigned source, uint64_t address, uint32_t data);
    /* That this is what source sends from now on, to shorten its way; may be NULL. */
    void (*prepare)(void *opaque, unsigned source, uint64_t address, uint32_t data);
    void *opaque;
};

/* Let writes to address signal the event descriptor fd and reach the function no more, where that
 * can be; or no longer (doorbell.h). Any thread. */
struct pci_doorbell_sink {
    void (*set)(void *opaque, uint64_t address, int fd, bool on);
    void *opaque;
};

struct pci_host {
    pthread_mutex_t lock; /* configuration space of all functions */
    struct bus *ports, *memory;
    pthread_mutex_t intx_lock; /* the pins; innermost */
    struct irq_line irq[4];    /* the four interrupt lines that the pins share */
    unsigned intx_count[4];    /* functions that hold each line up */
    struct pci_message_sink messages;
    struct pci_doorbell_sink doorbells;
    uint32_t address;       /* port 0xcf8 */
    /* Byte accesses to 0xcf9, in the middle of the address register, go here:
     * the chipsets' reset control register. */
    const struct bus_region *port_cf9;
    struct pci_function *slots[PCI_SLOTS];
    struct pci_function bridge; /* slot 0 */
};

int pci_host_init(struct pci_host *host, struct bus *ports, struct bus *memory,
                  const struct irq_line irq[4], struct error *err);
void pci_host_reset(struct pci_host *host);

/* Fill the registers every function has. class is base class, sub-class, interface. */
void pci_function_init(struct pci_function *function, const char *name, uint16_t vendor,
                       uint16_t device, uint32_t class_code);
/* Plug it into the first free slot, and give its BARs addresses as firmware would. */
int pci_host_add(struct pci_host *host, struct pci_function *function, struct error *err);

/* A new capability of size bytes (its two-byte header included); returns its
 * offset. Before pci_host_add. */
unsigned pci_add_capability(struct pci_function *function, uint8_t id, unsigned size);
/* The level of the function's INTA pin. Any thread. */
void pci_set_intx(struct pci_function *function, bool level);

#endif
