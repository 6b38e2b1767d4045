/* pic.h - the pair of 8259A interrupt controllers (Intel 8259A data sheet):
 * ports 0x20, 0x21, 0xa0, 0xa1, and the edge/level registers 0x4d0, 0x4d1. */
#ifndef LODGE_MACHINE_PIC_H
#define LODGE_MACHINE_PIC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"

struct pic_chip {
    uint8_t irr, imr, isr;
    uint8_t lines;    /* level of each input now */
    uint8_t elcr;     /* 1: level-triggered */
    uint8_t base;     /* vector of input 0 */
    uint8_t priority; /* the input of lowest priority + 1 */
    uint8_t step;     /* of the initialization: 0 done, 2 to 4 next ICW */
    bool icw4, single, auto_eoi, rotate_auto, special_mask, special_nested, read_isr, poll;
};

struct pic {
    pthread_mutex_t lock;
    struct pic_chip chip[2]; /* master, slave on its input 2 */
    /* INTR goes up or down; called with the lock held. */
    void (*output)(void *opaque, bool level);
    void *opaque;
    bool output_level;
};

void pic_init(struct pic *pic, void (*output)(void *opaque, bool level), void *opaque);
void pic_reset(struct pic *pic);
int pic_add_ports(struct pic *pic, struct bus *ports, struct error *err);
/* irq 0 to 15; 2 is the cascade and ignored. Any thread. */
void pic_set_irq(struct pic *pic, unsigned irq, bool level);
/* The acknowledge cycle. A spurious request gives IRQ 7's (or 15's) vector. */
uint8_t pic_acknowledge(struct pic *pic);
bool pic_pending(struct pic *pic);

#endif
