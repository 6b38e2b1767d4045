#include "machine/pit.h"

#include <string.h>

#include "base/bytes.h"

#define PIT_HZ 1193182ull
#define NS_PER_S 1000000000ull

static uint64_t ticks_since(const struct pit *pit, const struct pit_channel *c)
{
    uint64_t ns = timers_now(pit->timers) - c->start;

    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

static uint64_t ns_of(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

/* Modes 6 and 7 are 2 and 3. */
static bool periodic(const struct pit_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static uint32_t current(const struct pit *pit, const struct pit_channel *c)
{
    uint64_t ticks = ticks_since(pit, c);

    switch (c->mode) {
    case 2:
        return (uint32_t)(c->count - ticks % c->count);
    case 3: /* counts down by two */
        return (uint32_t)(c->count - (ticks * 2) % c->count);
    default:
        return (uint32_t)(c->count - ticks) & 0xffff;
    }
}

static bool output(const struct pit *pit, const struct pit_channel *c)
{
    uint64_t ticks = ticks_since(pit, c);

    switch (c->mode) {
    case 0: case 1:
        return ticks >= c->count;
    case 2:
        return ticks % c->count != c->count - 1;
    case 3:
        return ticks % c->count < (c->count + 1) / 2;
    default:
        return ticks != c->count;
    }
}

/* Arm the timer for channel 0's next rising edge. */
static void schedule(struct pit *pit)
{
    struct pit_channel *c = &pit->channel[0];
    uint64_t ticks = ticks_since(pit, c), next;

    pit->next = 0;
    if (!c->count) {
        timer_disarm(pit->timers, &pit->timer);
        return;
    }
    if (periodic(c))
        next = (ticks / c->count + 1) * c->count;
    else if (ticks < c->count)
        next = c->count;
    else
        return;
    pit->next = c->start + ns_of(next);
    timer_arm(pit->timers, &pit->timer, pit->next);
}

static void fired(void *opaque)
{
    struct pit *pit = opaque;
    struct irq_line irq;
    bool rising;

    pthread_mutex_lock(&pit->lock);
    irq = pit->irq;
    /* A count that was loaded on the way here ends later. */
    rising = pit->next && timers_now(pit->timers) >= pit->next;
    if (rising && periodic(&pit->channel[0]))
        schedule(pit);
    else if (rising)
        pit->next = 0;
    pthread_mutex_unlock(&pit->lock);
    if (rising) {
        irq_set(&irq, false);
        irq_set(&irq, true);
    }
}

static void load(struct pit *pit, unsigned channel, uint16_t value)
{
    struct pit_channel *c = &pit->channel[channel];

    if (c->bcd)
        value = (uint16_t)((value & 15) + (value >> 4 & 15) * 10 + (value >> 8 & 15) * 100 +
                           (value >> 12) * 1000);
    c->count = value ? value : c->bcd ? 10000 : 65536;
    c->start = timers_now(pit->timers);
    c->null_count = false;
    if (channel == 0)
        schedule(pit);
}

static void write_count(struct pit *pit, unsigned channel, uint8_t value)
{
    struct pit_channel *c = &pit->channel[channel];

    if (c->access == 1) {
        load(pit, channel, value);
    } else if (c->access == 2) {
        load(pit, channel, (uint16_t)(value << 8));
    } else if (!c->write_high) {
        c->write_low = value;
        c->write_high = true;
    } else {
        c->write_high = false;
        load(pit, channel, (uint16_t)(value << 8 | c->write_low));
    }
}

static uint8_t read_count(struct pit *pit, unsigned channel)
{
    struct pit_channel *c = &pit->channel[channel];
    uint16_t value;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->latched_status;
    }
    value = c->count_latched ? c->latched_count : (uint16_t)current(pit, c);
    high = c->access == 2 || (c->access == 3 && c->read_high);
    if (c->access == 3)
        c->read_high = !c->read_high;
    if (c->access != 3 || high)
        c->count_latched = false;
    return (uint8_t)(high ? value >> 8 : value);
}

static void latch_count(struct pit *pit, struct pit_channel *c)
{
    if (c->count_latched)
        return;
    c->latched_count = (uint16_t)current(pit, c);
    c->count_latched = true;
}

static void write_control(struct pit *pit, uint8_t value)
{
    const unsigned channel = value >> 6;
    struct pit_channel *c = &pit->channel[channel];

    if (channel == 3) { /* read-back */
        for (unsigned i = 0; i < 3; i++) {
            c = &pit->channel[i];
            if (!(value >> (i + 1) & 1))
                continue;
            if (!(value & 0x20))
                latch_count(pit, c);
            if (!(value & 0x10) && !c->status_latched) {
                c->latched_status = (uint8_t)(output(pit, c) << 7 | c->null_count << 6 |
                                              c->access << 4 | c->mode << 1 | c->bcd);
                c->status_latched = true;
            }
        }
    } else if (!(value >> 4 & 3)) {
        latch_count(pit, c);
    } else {
        c->access = value >> 4 & 3;
        c->mode = value >> 1 & 7;
        if (c->mode > 5)
            c->mode -= 4;
        c->bcd = value & 1;
        c->write_high = c->read_high = c->count_latched = c->status_latched = false;
        c->null_count = true;
        c->count = 0;
        if (channel == 0)
            schedule(pit);
        if (channel != 0)
            c->count = 65536;
        c->start = timers_now(pit->timers);
    }
}

static uint64_t port_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pit *pit = owner;
    uint64_t value = 0xff;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&pit->lock);
    if (offset < 3)
        value = read_count(pit, (unsigned)offset);
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void port_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = owner;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&pit->lock);
    if (offset < 3)
        write_count(pit, (unsigned)offset, (uint8_t)value);
    else
        write_control(pit, (uint8_t)value);
    pthread_mutex_unlock(&pit->lock);
}

/* Port 0x61: bits 0 and 1 written; bit 4 toggles with refresh, bit 5 is the
 * output of channel 2. */
static uint64_t speaker_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pit *pit = owner;
    uint64_t value;

    (void)cpu;
    (void)offset;
    (void)size;
    pthread_mutex_lock(&pit->lock);
    value = pit->speaker | (timers_now(pit->timers) / 15085 & 1) << 4 |
            (uint64_t)output(pit, &pit->channel[2]) << 5;
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void speaker_write(void *owner, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct pit *pit = owner;

    (void)cpu;
    (void)offset;
    (void)size;
    pthread_mutex_lock(&pit->lock);
    /* A rising gate starts channel 2 anew. */
    if ((value & 1) && !(pit->speaker & 1))
        pit->channel[2].start = timers_now(pit->timers);
    pit->speaker = value & 3;
    pthread_mutex_unlock(&pit->lock);
}

static const struct bus_ops port_ops = {port_read, port_write};
static const struct bus_ops speaker_ops = {speaker_read, speaker_write};

int pit_add_ports(struct pit *pit, struct bus *ports, struct error *err)
{
    const struct bus_region timer = {"8254", 0x40, 4, 1, 1, &port_ops, pit};
    const struct bus_region speaker = {"speaker", 0x61, 1, 1, 1, &speaker_ops, pit};
    int r = bus_add(ports, &timer, err);

    return r < 0 ? r : bus_add(ports, &speaker, err);
}

void pit_reset(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    timer_disarm(pit->timers, &pit->timer);
    memset(pit->channel, 0, sizeof(pit->channel));
    for (unsigned i = 0; i < 3; i++)
        pit->channel[i].access = 3;
    pit->channel[1].count = pit->channel[2].count = 65536;
    pit->speaker = 0;
    pthread_mutex_unlock(&pit->lock);
}

void pit_init(struct pit *pit, struct timers *timers, const struct irq_line *irq)
{
    pthread_mutex_init(&pit->lock, NULL);
    pit->timers = timers;
    pit->irq = *irq;
    pit->timer = (struct timer){.fn = fired, .opaque = pit};
    pit_reset(pit);
}
