/* reset_control.h - the ports by which software resets a PC (0xcf9, the Intel
 * chipsets' reset control register; 0x92, system control port A), and
 * isa-debug-exit at 0xf4, by which a test program ends with a number. */
#ifndef LODGE_DEVICE_RESET_CONTROL_H
#define LODGE_DEVICE_RESET_CONTROL_H

#include <stdint.h>

#include "machine/bus.h"

#define RESET_CONTROL_PORT  0xcf9
#define RESET_CONTROL_VALUE 0x06 /* for the FADT */
#define DEBUG_EXIT_PORT     0xf4

struct reset_control {
    void (*reset)(void *opaque);
    void (*debug_exit)(void *opaque, uint32_t value);
    void *opaque;
    uint8_t control, port_a;
    struct bus_region cf9; /* for the PCI host, which owns the ports around it */
};

void reset_control_init(struct reset_control *rc, void (*reset)(void *opaque),
                        void (*debug_exit)(void *opaque, uint32_t value), void *opaque);

void reset_control_reset(struct reset_control *rc);
int reset_control_add_ports(struct reset_control *rc, struct bus *ports, struct error *err);

#endif
