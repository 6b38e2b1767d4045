#include "device/rtc.h"

#include <string.h>
#include <time.h>

#include "base/bytes.h"

enum {
    REG_SECONDS = 0, REG_SECONDS_ALARM = 1, REG_MINUTES = 2, REG_MINUTES_ALARM = 3, REG_HOURS = 4,
    REG_HOURS_ALARM = 5, REG_WEEKDAY = 6, REG_DAY = 7, REG_MONTH = 8, REG_YEAR = 9, REG_A = 10,
    REG_B = 11, REG_C = 12, REG_D = 13,
};

#define A_UPDATE_IN_PROGRESS 0x80
#define B_24_HOURS  0x02
#define B_BINARY    0x04
#define B_UPDATE_INTERRUPT   0x10
#define B_ALARM_INTERRUPT    0x20
#define B_PERIODIC_INTERRUPT 0x40
#define B_SET       0x80
#define C_REQUEST   0x80
#define D_VALID     0x80

#define SECOND_NS     1000000000ull
#define UPDATE_NS     244000ull /* UIP is set this long before the update */
#define ALARM_ANY     0xc0

static const uint8_t time_registers[] = {
    REG_SECONDS, REG_MINUTES, REG_HOURS, REG_WEEKDAY, REG_DAY, REG_MONTH, REG_YEAR, RTC_CENTURY,
};

static bool is_time(uint8_t index)
{
    return memchr(time_registers, index, sizeof(time_registers)) != NULL;
}

static int64_t wall_ns(const struct rtc *rtc)
{
    return (int64_t)timers_wall_clock(rtc->timers) + rtc->offset;
}

static uint8_t encode(const struct rtc *rtc, int value)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, uint8_t value)
{
    return rtc->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct rtc *rtc, int hour)
{
    if (rtc->cmos[REG_B] & B_24_HOURS)
        return encode(rtc, hour);
    return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *rtc, uint8_t value)
{
    if (rtc->cmos[REG_B] & B_24_HOURS)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Fill the time registers with the time now. */
static void latch_time(struct rtc *rtc)
{
    time_t seconds = (time_t)(wall_ns(rtc) / (int64_t)SECOND_NS);
    struct tm tm;
    uint8_t *r = rtc->cmos;

    gmtime_r(&seconds, &tm);
    r[REG_SECONDS] = encode(rtc, tm.tm_sec);
    r[REG_MINUTES] = encode(rtc, tm.tm_min);
    r[REG_HOURS] = encode_hour(rtc, tm.tm_hour);
    r[REG_WEEKDAY] = encode(rtc, tm.tm_wday + 1);
    r[REG_DAY] = encode(rtc, tm.tm_mday);
    r[REG_MONTH] = encode(rtc, tm.tm_mon + 1);
    r[REG_YEAR] = encode(rtc, tm.tm_year % 100);
    r[RTC_CENTURY] = encode(rtc, tm.tm_year / 100 + 19);
}

/* The time registers are the time from now on. */
static void adopt_time(struct rtc *rtc)
{
    const uint8_t *r = rtc->cmos;
    struct tm tm = {
        .tm_sec = decode(rtc, r[REG_SECONDS]),
        .tm_min = decode(rtc, r[REG_MINUTES]),
        .tm_hour = decode_hour(rtc, r[REG_HOURS]),
        .tm_mday = decode(rtc, r[REG_DAY]),
        .tm_mon = decode(rtc, r[REG_MONTH]) - 1,
        .tm_year = decode(rtc, r[RTC_CENTURY]) * 100 + decode(rtc, r[REG_YEAR]) - 1900,
    };

    rtc->offset += (int64_t)timegm(&tm) * (int64_t)SECOND_NS - wall_ns(rtc);
}

static bool alarm_matches(const struct rtc *rtc)
{
    static const uint8_t pairs[][2] = {
        {REG_SECONDS, REG_SECONDS_ALARM}, {REG_MINUTES, REG_MINUTES_ALARM},
        {REG_HOURS, REG_HOURS_ALARM},
    };

    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        uint8_t alarm = rtc->cmos[pairs[i][1]];

        if ((alarm & ALARM_ANY) != ALARM_ANY && alarm != rtc->cmos[pairs[i][0]])
            return false;
    }
    return true;
}

/* Period of the rate selector (data sheet table 5), with the 32.768 kHz crystal. */
static uint64_t period_ns(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & 15;

    if (!rate)
        return 0;
    if (rate <= 2)
        rate += 7;
    return (SECOND_NS << (rate - 1)) / 32768;
}

static void update_irq(struct rtc *rtc)
{
    uint8_t *c = &rtc->cmos[REG_C];

    if (*c & rtc->cmos[REG_B] & 0x70)
        *c |= C_REQUEST;
    irq_set(&rtc->irq, *c & C_REQUEST);
}

/* Arm the timer for the next second and period that an interrupt waits for. */
static void schedule(struct rtc *rtc)
{
    const uint8_t b = rtc->cmos[REG_B];
    uint64_t now = timers_now(rtc->timers), next;

    if (!(b & (B_UPDATE_INTERRUPT | B_ALARM_INTERRUPT)) || (b & B_SET))
        rtc->next_second = 0;
    else if (!rtc->next_second)
        rtc->next_second = now + SECOND_NS - (uint64_t)wall_ns(rtc) % SECOND_NS;
    if (!(b & B_PERIODIC_INTERRUPT) || !period_ns(rtc))
        rtc->next_period = 0;
    else if (!rtc->next_period)
        rtc->next_period = now + period_ns(rtc);
    next = rtc->next_second;
    if (rtc->next_period && (!next || rtc->next_period < next))
        next = rtc->next_period;
    if (next)
        timer_arm(rtc->timers, &rtc->timer, next);
    else
        timer_disarm(rtc->timers, &rtc->timer);
}

static void fired(void *opaque)
{
    struct rtc *rtc = opaque;
    uint64_t now;

    pthread_mutex_lock(&rtc->lock);
    now = timers_now(rtc->timers);
    if (rtc->next_second && now >= rtc->next_second) {
        rtc->next_second = 0;
        latch_time(rtc);
        rtc->cmos[REG_C] |= B_UPDATE_INTERRUPT;
        if (alarm_matches(rtc))
            rtc->cmos[REG_C] |= B_ALARM_INTERRUPT;
    }
    if (rtc->next_period && now >= rtc->next_period) {
        uint64_t period = period_ns(rtc);

        rtc->cmos[REG_C] |= B_PERIODIC_INTERRUPT;
        rtc->next_period += period ? ((now - rtc->next_period) / period + 1) * period : 0;
    }
    update_irq(rtc);
    schedule(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static uint8_t read_register(struct rtc *rtc, uint8_t index)
{
    uint8_t value;

    if (is_time(index) && !(rtc->cmos[REG_B] & B_SET))
        latch_time(rtc);
    switch (index) {
    case REG_A:
        value = rtc->cmos[REG_A];
        if (!(rtc->cmos[REG_B] & B_SET) &&
            (uint64_t)wall_ns(rtc) % SECOND_NS >= SECOND_NS - UPDATE_NS)
            value |= A_UPDATE_IN_PROGRESS;
        return value;
    case REG_C: /* reading acknowledges */
        value = rtc->cmos[REG_C];
        rtc->cmos[REG_C] = 0;
        update_irq(rtc);
        return value;
    case REG_D:
        return D_VALID;
    default:
        return rtc->cmos[index];
    }
}

static void write_register(struct rtc *rtc, uint8_t index, uint8_t value)
{
    uint8_t old = rtc->cmos[index];

    switch (index) {
    case REG_A:
        rtc->cmos[REG_A] = value & 0x7f;
        rtc->next_period = 0;
        break;
    case REG_B:
        if ((value & B_SET) && !(old & B_SET))
            latch_time(rtc);
        rtc->cmos[REG_B] = value;
        if (!(value & B_SET) && (old & B_SET))
            adopt_time(rtc);
        update_irq(rtc);
        break;
    case REG_C: case REG_D:
        return;
    default:
        if (is_time(index) && !(rtc->cmos[REG_B] & B_SET)) {
            latch_time(rtc);
            rtc->cmos[index] = value;
            adopt_time(rtc);
        } else {
            rtc->cmos[index] = value;
        }
        return;
    }
    schedule(rtc);
}

static uint64_t rtc_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct rtc *rtc = owner;
    uint8_t value;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&rtc->lock);
    value = offset == 0 ? 0xff : read_register(rtc, rtc->index);
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

static void rtc_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = owner;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&rtc->lock);
    if (offset == 0)
        rtc->index = value & 0x7f; /* bit 7 would mask NMI */
    else
        write_register(rtc, rtc->index, (uint8_t)value);
    pthread_mutex_unlock(&rtc->lock);
}

static const struct bus_ops rtc_bus_ops = {.read = rtc_read, .write = rtc_write};

void rtc_init(struct rtc *rtc, struct timers *timers, const struct irq_line *irq)
{
    memset(rtc, 0, sizeof(*rtc));
    pthread_mutex_init(&rtc->lock, NULL);
    rtc->timers = timers;
    rtc->irq = *irq;
    rtc->timer = (struct timer){.fn = fired, .opaque = rtc};
    rtc_reset(rtc);
}

void rtc_reset(struct rtc *rtc)
{
    pthread_mutex_lock(&rtc->lock);
    rtc->cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz */
    rtc->cmos[REG_B] = B_24_HOURS;
    rtc->cmos[REG_C] = 0;
    update_irq(rtc);
    schedule(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

int rtc_add_ports(struct rtc *rtc, struct bus *ports, struct error *err)
{
    return bus_add(ports,
                   &(struct bus_region){.name = "rtc", .base = 0x70, .size = 2, .min = 1, .max = 1,
                                        .ops = &rtc_bus_ops, .owner = rtc},
                   err);
}
