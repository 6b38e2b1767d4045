/* i8042.h - the keyboard controller at ports 0x60 and 0x64, as much of it as a
 * machine without keyboard needs: self-test, command byte, output port with
 * the A20 gate, and the reset pulse that kernels use to reboot. */
#ifndef LODGE_DEVICE_I8042_H
#define LODGE_DEVICE_I8042_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"

struct i8042 {
    pthread_mutex_t lock;
    void (*reset)(void *opaque); /* the reset line was pulsed */
    void *opaque;
    uint8_t command;      /* byte 0 of its RAM */
    uint8_t output_port;
    uint8_t waiting;      /* command that takes the next data byte, or 0 */
    bool full, auxiliary; /* the output buffer */
    uint8_t data;
};

void i8042_init(struct i8042 *kbc, void (*reset)(void *opaque), void *opaque);
void i8042_reset(struct i8042 *kbc);
int i8042_add_ports(struct i8042 *kbc, struct bus *ports, struct error *err);

#endif
