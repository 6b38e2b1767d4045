#include "device/reset_control.h"

#include "base/bytes.h"

#define CONTROL_RESET   0x04 /* a change from 0 to 1 resets */
#define PORT_A_RESET    0x01
#define PORT_A_A20      0x02

static uint64_t control_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct reset_control *rc = owner;

    (void)cpu;
    (void)offset;
    (void)size;
    return rc->control;
}

static void control_write(void *owner, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct reset_control *rc = owner;
    const uint8_t old = rc->control;

    (void)cpu;
    (void)offset;
    (void)size;
    rc->control = (uint8_t)value & 0x0e;
    if ((value & CONTROL_RESET) && !(old & CONTROL_RESET))
        rc->reset(rc->opaque);
}

static uint64_t port_a_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct reset_control *rc = owner;

    (void)cpu;
    (void)offset;
    (void)size;
    return rc->port_a;
}

static void port_a_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_control *rc = owner;

    (void)cpu;
    (void)offset;
    (void)size;
    rc->port_a = (uint8_t)value & ~PORT_A_RESET; /* A20 is always open */
    if (value & PORT_A_RESET)
        rc->reset(rc->opaque);
}

static uint64_t debug_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    (void)owner;
    (void)cpu;
    (void)offset;
    (void)size;
    return 0;
}

static void debug_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_control *rc = owner;

    (void)cpu;
    (void)offset;
    (void)size;
    rc->debug_exit(rc->opaque, (uint32_t)value);
}

void reset_control_init(struct reset_control *rc, void (*reset)(void *opaque),
                        void (*debug_exit)(void *opaque, uint32_t value), void *opaque)
{
    static const struct bus_ops control_ops = {control_read, control_write};

    rc->reset = reset;
    rc->debug_exit = debug_exit;
    rc->opaque = opaque;
    rc->cf9 = (struct bus_region){"reset control", RESET_CONTROL_PORT, 1, 1, 1, &control_ops, rc};
    reset_control_reset(rc);
}

void reset_control_reset(struct reset_control *rc)
{
    rc->control = 0;
    rc->port_a = PORT_A_A20;
}

int reset_control_add_ports(struct reset_control *rc, struct bus *ports, struct error *err)
{
    static const struct bus_ops port_a_ops = {port_a_read, port_a_write};
    static const struct bus_ops debug_ops = {debug_read, debug_write};
    const struct bus_region regions[] = {
        {"system control A", 0x92, 1, 1, 1, &port_a_ops, rc},
        {"isa-debug-exit", DEBUG_EXIT_PORT, 4, 1, 4, &debug_ops, rc},
    };

    for (size_t i = 0; i < ARRAY_SIZE(regions); i++) {
        int r = bus_add(ports, &regions[i], err);

        if (r < 0)
            return r;
    }
    return 0;
}
