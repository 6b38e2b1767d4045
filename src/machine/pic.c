#include "machine/pic.h"

#include <string.h>

/* ICW1 and OCW bits (8259A data sheet). */
#define ICW1_INIT   0x10
#define ICW1_LEVEL  0x08
#define ICW1_SINGLE 0x02
#define ICW1_ICW4   0x01
#define ICW4_AEOI   0x02
#define ICW4_SFNM   0x10
#define OCW3        0x08

/* The unmasked request of highest priority that is above all in service, or -1. */
static int pending_input(const struct pic_chip *c)
{
    uint8_t requests = c->irr & ~c->imr;
    uint8_t service = c->isr;

    /* In special mask mode only masked-in service blocks (its own level). */
    if (c->special_mask)
        service &= ~c->imr;
    for (unsigned i = 0; i < 8; i++) {
        unsigned input = (c->priority + i) & 7;

        if ((service >> input & 1) && !(c->special_nested && (requests >> input & 1)))
            return -1;
        if (requests >> input & 1)
            return (int)input;
    }
    return -1;
}

static void set_input(struct pic_chip *c, unsigned input, bool level)
{
    const uint8_t bit = (uint8_t)(1u << input);

    if (c->elcr & bit) {
        c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
    } else if (level) {
        if (!(c->lines & bit))
            c->irr |= bit;
    } else {
        c->irr &= (uint8_t)~bit;
    }
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
}

static void update(struct pic *pic)
{
    bool level;

    set_input(&pic->chip[0], 2, pending_input(&pic->chip[1]) >= 0);
    level = pending_input(&pic->chip[0]) >= 0;
    if (level || level != pic->output_level) {
        pic->output_level = level;
        pic->output(pic->opaque, level);
    }
}

static void end(struct pic_chip *c, unsigned input, bool rotate)
{
    c->isr &= (uint8_t) ~(1u << input);
    if (rotate)
        c->priority = (input + 1) & 7;
}

static int in_service(const struct pic_chip *c)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned input = (c->priority + i) & 7;

        if (c->isr >> input & 1)
            return (int)input;
    }
    return -1;
}

static void take(struct pic_chip *c, unsigned input)
{
    const uint8_t bit = (uint8_t)(1u << input);

    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_auto)
        c->priority = (input + 1) & 7;
}

static uint8_t acknowledge_locked(struct pic *pic)
{
    struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    int input = pending_input(master);
    uint8_t vector;

    if (input < 0)
        return master->base + 7;
    take(master, (unsigned)input);
    if (input != 2) {
        vector = master->base + (uint8_t)input;
    } else {
        input = pending_input(slave);
        if (input >= 0)
            take(slave, (unsigned)input);
        vector = slave->base + (input >= 0 ? (uint8_t)input : 7);
    }
    update(pic);
    return vector;
}

uint8_t pic_acknowledge(struct pic *pic)
{
    uint8_t vector;

    pthread_mutex_lock(&pic->lock);
    vector = acknowledge_locked(pic);
    pthread_mutex_unlock(&pic->lock);
    return vector;
}

bool pic_pending(struct pic *pic)
{
    bool pending;

    pthread_mutex_lock(&pic->lock);
    pending = pending_input(&pic->chip[0]) >= 0;
    pthread_mutex_unlock(&pic->lock);
    return pending;
}

void pic_set_irq(struct pic *pic, unsigned irq, bool level)
{
    if (irq == 2 || irq > 15)
        return;
    pthread_mutex_lock(&pic->lock);
    set_input(&pic->chip[irq / 8], irq & 7, level);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static void write_command(struct pic_chip *c, uint8_t value)
{
    int input;

    if (value & ICW1_INIT) {
        const uint8_t lines = c->lines, elcr = c->elcr;

        *c = (struct pic_chip){.lines = lines, .elcr = elcr, .step = 2};
        c->icw4 = value & ICW1_ICW4;
        c->single = value & ICW1_SINGLE;
        /* Level inputs that are up request anew. */
        c->irr = lines & elcr;
    } else if (value & OCW3) {
        if (value & 0x04)
            c->poll = true;
        if (value & 0x02)
            c->read_isr = value & 0x01;
        if (value & 0x40)
            c->special_mask = value & 0x20;
    } else {
        switch (value >> 5) { /* OCW2: R, SL, EOI */
        case 0: case 4:
            c->rotate_auto = value >> 7;
            break;
        case 1: case 5:
            input = in_service(c);
            if (input >= 0)
                end(c, (unsigned)input, value & 0x80);
            break;
        case 3: case 7:
            end(c, value & 7, value & 0x80);
            break;
        case 6:
            c->priority = ((value & 7) + 1) & 7;
            break;
        default:
            break;
        }
    }
}

static void write_data(struct pic_chip *c, uint8_t value)
{
    switch (c->step) {
    case 2:
        c->base = value & 0xf8;
        c->step = c->single ? (c->icw4 ? 4 : 0) : 3;
        break;
    case 3:
        c->step = c->icw4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = value & ICW4_AEOI;
        c->special_nested = value & ICW4_SFNM;
        c->step = 0;
        break;
    default:
        c->imr = value;
        break;
    }
}

/* --- Ports; the owner is the pic, chip by region --- */

static uint64_t port_read(struct pic *pic, unsigned chip, uint64_t offset)
{
    struct pic_chip *c = &pic->chip[chip];
    uint64_t value;

    pthread_mutex_lock(&pic->lock);
    if (c->poll) {
        int input = pending_input(c);

        c->poll = false;
        value = input >= 0 ? 0x80u | (unsigned)input : 0;
        if (input >= 0)
            take(c, (unsigned)input);
        update(pic);
    } else {
        value = offset ? c->imr : c->read_isr ? c->isr : c->irr;
    }
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static void port_write(struct pic *pic, unsigned chip, uint64_t offset, uint64_t value)
{
    pthread_mutex_lock(&pic->lock);
    if (offset)
        write_data(&pic->chip[chip], (uint8_t)value);
    else
        write_command(&pic->chip[chip], (uint8_t)value);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static uint64_t master_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    (void)cpu;
    (void)size;
    return port_read(owner, 0, offset);
}

static void master_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    (void)cpu;
    (void)size;
    port_write(owner, 0, offset, value);
}

static uint64_t slave_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    (void)cpu;
    (void)size;
    return port_read(owner, 1, offset);
}

static void slave_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    (void)cpu;
    (void)size;
    port_write(owner, 1, offset, value);
}

static uint64_t elcr_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pic *pic = owner;

    (void)cpu;
    (void)size;
    return pic->chip[offset].elcr;
}

static void elcr_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    static const uint8_t allowed[] = {0xf8, 0xde}; /* not the timer, keyboard, cascade, RTC, FPU */
    struct pic *pic = owner;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&pic->lock);
    pic->chip[offset].elcr = (uint8_t)value & allowed[offset];
    pthread_mutex_unlock(&pic->lock);
}

static const struct bus_ops master_ops = {master_read, master_write};
static const struct bus_ops slave_ops = {slave_read, slave_write};
static const struct bus_ops elcr_ops = {elcr_read, elcr_write};

int pic_add_ports(struct pic *pic, struct bus *ports, struct error *err)
{
    const struct bus_region regions[] = {
        {"8259 master", 0x20, 2, 1, 1, &master_ops, pic},
        {"8259 slave", 0xa0, 2, 1, 1, &slave_ops, pic},
        {"8259 edge/level", 0x4d0, 2, 1, 1, &elcr_ops, pic},
    };
    int r = 0;

    for (unsigned i = 0; r == 0 && i < 3; i++)
        r = bus_add(ports, &regions[i], err);
    return r;
}

void pic_reset(struct pic *pic)
{
    pthread_mutex_lock(&pic->lock);
    memset(pic->chip, 0, sizeof(pic->chip));
    /* As firmware leaves them: vectors at 8 and 0x70, all masked. */
    pic->chip[0].base = 0x08;
    pic->chip[1].base = 0x70;
    pic->chip[0].imr = pic->chip[1].imr = 0xff;
    pic->output_level = false;
    pthread_mutex_unlock(&pic->lock);
}

void pic_init(struct pic *pic, void (*output)(void *opaque, bool level), void *opaque)
{
    pthread_mutex_init(&pic->lock, NULL);
    pic->output = output;
    pic->opaque = opaque;
    pic_reset(pic);
}
