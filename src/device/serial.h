/* serial.h - the 16550A UART (National Semiconductor PC16550D data sheet) at
 * any port base. Output leaves at once through a callback; input waits in a
 * queue behind the 16-byte FIFO, so that a paste is not lost. */
#ifndef LODGE_DEVICE_SERIAL_H
#define LODGE_DEVICE_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/irq.h"

#define SERIAL_COM1 0x3f8
#define SERIAL_QUEUE 4096 /* a power of two */

/* Where the wire ends. Called on vCPU threads, the UART's lock not held. */
struct serial_wire {
    void (*output)(void *opaque, const uint8_t *bytes, size_t length);
    /* The queue was full and has room again; may be NULL. */
    void (*ready)(void *opaque);
    void *opaque;
};

struct serial {
    pthread_mutex_t lock;
    struct irq_line irq;
    struct serial_wire wire;
    uint8_t ier, fcr, lcr, mcr, scratch;
    uint16_t divisor;
    bool thr_empty_pending; /* the THRE interrupt has not been seen yet */
    bool break_pending;
    bool was_full;
    uint8_t msr_delta;
    unsigned head, tail; /* queue[head % size] is the next byte in */
    uint8_t queue[SERIAL_QUEUE];
};

void serial_init(struct serial *serial, const struct irq_line *irq,
                 const struct serial_wire *wire);
void serial_reset(struct serial *serial);
int serial_add_ports(struct serial *serial, struct bus *ports, uint16_t base, struct error *err);

/* Bytes from the wire; returns how many fit. Any thread. */
size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t length);
/* How many bytes serial_input would take now. */
size_t serial_room(struct serial *serial);

#endif
