#include "machine/lapic.h"

#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "base/bytes.h"
#include "x86/registers.h"

/* An interrupt message as the APICs pass it to each other. */
struct interrupt_message {
    uint32_t destination; /* 8 bits; 32 from x2APIC */
    bool logical, level, assert, x2apic;
    uint8_t vector;
    enum lapic_delivery delivery;
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR };

#define LVT_MASKED      (1u << 16)
#define LVT_TIMER_MODE  (3u << 17)
#define LVT_ONE_SHOT    (0u << 17)
#define LVT_PERIODIC    (1u << 17)
#define LVT_DEADLINE    (2u << 17)
#define SVR_ENABLED     (1u << 8)
#define SVR_DEFINED     0x1ffu
#define VERSION         (0x14u | 5u << 16) /* six LVT entries */
#define BASE_BSP        (1ull << 8)
#define BASE_X2APIC     (1ull << 10)
#define BASE_ENABLED    (1ull << 11)
#define ICR_LOGICAL     (1u << 11)
#define ICR_ASSERT      (1u << 14)
#define ICR_LEVEL       (1u << 15)
#define ESR_SEND_VECTOR    (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER       (1u << 7)

/* Writable bits of each LVT entry (SDM 3A figure 10-8). */
static const uint32_t lvt_masks[] = {
    [LVT_TIMER] = 0x700ff,       [LVT_THERMAL] = 0x107ff, [LVT_PERFORMANCE] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff,       [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static unsigned divide_shift(const struct lapic *l)
{
    unsigned code = (l->timer_divide & 3) | (l->timer_divide >> 1 & 4);

    return (code + 1) & 7;
}

static bool enabled(const struct lapic *l)
{
    return (l->base_msr & BASE_ENABLED) && (l->svr & SVR_ENABLED);
}

static bool x2apic(const struct lapic *l)
{
    return l->base_msr & BASE_X2APIC;
}

static int highest(const uint32_t *bits)
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    return -1;
}

static void set_bit(uint32_t *bits, uint8_t vector)
{
    bits[vector / 32] |= 1u << (vector & 31);
}

static void clear_bit(uint32_t *bits, uint8_t vector)
{
    bits[vector / 32] &= ~(1u << (vector & 31));
}

static bool test_bit(const uint32_t *bits, uint8_t vector)
{
    return bits[vector / 32] >> (vector & 31) & 1;
}

/* SDM 3A 10.8.3.1 */
static uint32_t ppr(const struct lapic *l)
{
    int isr = highest(l->isr);
    uint32_t service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

    return (l->tpr & 0xf0) >= service ? l->tpr : service;
}

static int deliverable(const struct lapic *l)
{
    int vector;

    if (!enabled(l))
        return -1;
    vector = highest(l->irr);
    return vector >= 0 && ((uint32_t)vector & 0xf0) > (ppr(l) & 0xf0) ? vector : -1;
}

static void notify(struct lapic *l)
{
    l->set->ops.notify(l->set->ops.opaque, l->cpu);
}

/* Latch a fixed interrupt. The lock is held. True: the CPU is to be told. */
static bool accept(struct lapic *l, uint8_t vector, bool level)
{
    if (!enabled(l))
        return false;
    if (vector < 16) {
        l->esr_pending |= ESR_RECEIVE_VECTOR;
        return false;
    }
    set_bit(l->irr, vector);
    if (level)
        set_bit(l->tmr, vector);
    else
        clear_bit(l->tmr, vector);
    return deliverable(l) >= 0;
}

/* --- Timer --- */

/* The timer counts X86_APIC_TIMER_HZ, so a tick before the divider is a nanosecond. */
static uint64_t period_ns(const struct lapic *l)
{
    return (uint64_t)l->timer_initial << divide_shift(l);
}

static uint32_t timer_mode(const struct lapic *l)
{
    return l->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

/* TSC ticks until the deadline, 0 when it has passed. */
static uint64_t deadline_ticks(const struct lapic *l)
{
    uint64_t tsc = __rdtsc();

    if (l->set->tsc_offset)
        tsc += l->set->tsc_offset(l->set->ops.opaque, l->cpu);
    return (int64_t)(l->tsc_deadline - tsc) > 0 ? l->tsc_deadline - tsc : 0;
}

/* Rounded up: a timer may be late but never early. */
static uint64_t tsc_to_ns(const struct lapic *l, uint64_t ticks)
{
    const uint64_t hz = l->set->timers->tsc_hz;

    return (uint64_t)(((unsigned __int128)ticks * 1000000000 + hz - 1) / hz);
}

/* Let the timer fire at expiry; 0: not at all. */
static void timer_set(struct lapic *l, uint64_t expiry)
{
    l->timer_expiry = expiry;
    if (expiry)
        timer_arm(l->set->timers, &l->timer, expiry);
    else
        timer_disarm(l->set->timers, &l->timer);
}

/* After a write of the deadline. */
static void deadline_start(struct lapic *l)
{
    timer_set(l, l->tsc_deadline
                     ? timers_now(l->set->timers) + tsc_to_ns(l, deadline_ticks(l))
                     : 0);
}

/* After a write of the initial count. */
static void count_start(struct lapic *l)
{
    l->timer_start = timers_now(l->set->timers);
    timer_set(l, l->timer_initial ? l->timer_start + period_ns(l) : 0);
}

static void timer_fired(void *opaque)
{
    struct lapic *l = opaque;
    bool tell = false;
    uint64_t now;

    pthread_mutex_lock(&l->lock);
    now = timers_now(l->set->timers);
    /* What was set anew on the way here fires later, or not at all. */
    if (!l->timer_expiry || now < l->timer_expiry)
        goto out;
    l->timer_expiry = 0;
    if (timer_mode(l) == LVT_DEADLINE) {
        if (deadline_ticks(l)) { /* the two clocks differ a little */
            deadline_start(l);
            goto out;
        }
        l->tsc_deadline = 0;
    } else if (timer_mode(l) == LVT_PERIODIC) {
        uint64_t period = MAX(period_ns(l), 20000);

        /* Ticks that could not be delivered in time are lost, as on hardware. */
        l->timer_start += (now - l->timer_start) / period * period;
        timer_set(l, l->timer_start + period);
    }
    if (!(l->lvt[LVT_TIMER] & LVT_MASKED))
        tell = accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
out:
    pthread_mutex_unlock(&l->lock);
    if (tell)
        notify(l);
}

static uint32_t timer_current(const struct lapic *l)
{
    const uint64_t period = period_ns(l);
    uint64_t elapsed;

    if (!period || timer_mode(l) == LVT_DEADLINE)
        return 0;
    elapsed = timers_now(l->set->timers) - l->timer_start;
    if (timer_mode(l) == LVT_PERIODIC)
        elapsed %= period;
    else if (elapsed >= period)
        return 0;
    return (uint32_t)((period - elapsed) >> divide_shift(l));
}

/* --- Messages --- */

static bool matches(const struct lapic *l, const struct interrupt_message *m)
{
    const bool x2 = x2apic(l);
    uint32_t destination = m->destination;

    if (!(l->base_msr & BASE_ENABLED))
        return false;
    if (m->x2apic ? destination == 0xffffffff : destination == 0xff)
        return true;
    if (!m->logical)
        return destination == (x2 ? l->cpu : l->id);
    if (x2) /* cluster in the upper half */
        return destination >> 16 == l->ldr >> 16 && (destination & l->ldr & 0xffff);
    if ((l->dfr >> 28) == 0xf) /* flat */
        return destination & (l->ldr >> 24);
    return destination >> 4 == l->ldr >> 28 && (destination & (l->ldr >> 24) & 0xf);
}

static void deliver(struct lapic *l, const struct interrupt_message *m)
{
    const struct lapic_ops *ops = &l->set->ops;
    bool tell;

    switch (m->delivery) {
    case LAPIC_FIXED: case LAPIC_LOWEST:
        pthread_mutex_lock(&l->lock);
        tell = accept(l, m->vector, m->level);
        pthread_mutex_unlock(&l->lock);
        if (tell) /* not before: the first that it does is to take the lock */
            notify(l);
        break;
    case LAPIC_NMI:
        ops->nmi(ops->opaque, l->cpu);
        break;
    case LAPIC_INIT:
        /* A level de-assert only sets arbitration IDs: nothing here. */
        if (m->assert || !m->level)
            ops->init(ops->opaque, l->cpu);
        break;
    case LAPIC_STARTUP:
        ops->startup(ops->opaque, l->cpu, m->vector);
        break;
    case LAPIC_EXTINT:
        notify(l);
        break;
    default:
        break; /* no system management mode */
    }
}

static void send(struct lapic_set *set, const struct interrupt_message *message)
{
    for (unsigned i = 0; i < set->cpus; i++) {
        if (!matches(&set->lapics[i], message))
            continue;
        deliver(&set->lapics[i], message);
        /* Lowest priority: any one of them will do (SDM 3A 10.6.2.4). */
        if (message->delivery == LAPIC_LOWEST)
            break;
    }
}

void lapic_message(struct lapic_set *set, unsigned source, uint64_t address, uint32_t data)
{
    const struct interrupt_message message = {
        .destination = address >> MESSAGE_DESTINATION_SHIFT & 0xff,
        .logical = address & MESSAGE_LOGICAL,
        .level = data & MESSAGE_LEVEL,
        .assert = data & MESSAGE_ASSERT,
        .vector = (uint8_t)data,
        .delivery = (enum lapic_delivery)(data >> MESSAGE_DELIVERY_SHIFT & 7),
    };

    if (address >> 20 != LAPIC_BASE >> 20)
        return;
    if (!set->ops.forward || !set->ops.forward(set->ops.opaque, source, address, data))
        send(set, &message);
}

/* The lock is not held: the sender may be its own target. */
static void send_ipi(struct lapic *l, uint32_t low, uint32_t destination)
{
    struct interrupt_message message = {
        .destination = destination,
        .logical = low & ICR_LOGICAL,
        .level = false,
        .assert = low & ICR_ASSERT,
        .x2apic = x2apic(l),
        .vector = (uint8_t)low,
        .delivery = (enum lapic_delivery)(low >> 8 & 7),
    };

    if (message.delivery == LAPIC_INIT)
        message.level = low & ICR_LEVEL;
    if (message.vector < 16 && message.delivery <= LAPIC_LOWEST) {
        l->esr_pending |= ESR_SEND_VECTOR;
        return;
    }
    switch (low >> 18 & 3) { /* shorthand */
    case 0:
        send(l->set, &message);
        break;
    case 1:
        deliver(l, &message);
        break;
    default:
        for (unsigned i = 0; i < l->set->cpus; i++)
            if ((low >> 18 & 3) == 2 || &l->set->lapics[i] != l)
                deliver(&l->set->lapics[i], &message);
        break;
    }
}

/* --- Registers --- */

static uint32_t read_register(struct lapic *l, uint32_t offset)
{
    switch (offset) {
    case X86_APIC_ID: return x2apic(l) ? l->cpu : l->id << 24;
    case X86_APIC_VERSION: return VERSION;
    case X86_APIC_TPR: return l->tpr;
    case X86_APIC_PPR: return ppr(l);
    case X86_APIC_LDR: return l->ldr;
    case X86_APIC_DFR: return l->dfr;
    case X86_APIC_SVR: return l->svr;
    case X86_APIC_ESR: return l->esr;
    case X86_APIC_ICR_LOW: return l->icr_low;
    case X86_APIC_ICR_HIGH: return l->icr_high;
    case X86_APIC_TIMER_INITIAL: return l->timer_initial;
    case X86_APIC_TIMER_CURRENT: return timer_current(l);
    case X86_APIC_TIMER_DIVIDE: return l->timer_divide;
    default:
        if (offset >= X86_APIC_ISR && offset < X86_APIC_ISR + 0x80)
            return l->isr[(offset - X86_APIC_ISR) >> 4];
        if (offset >= X86_APIC_TMR && offset < X86_APIC_TMR + 0x80)
            return l->tmr[(offset - X86_APIC_TMR) >> 4];
        if (offset >= X86_APIC_IRR && offset < X86_APIC_IRR + 0x80)
            return l->irr[(offset - X86_APIC_IRR) >> 4];
        if (offset >= X86_APIC_LVT_TIMER && offset <= X86_APIC_LVT_ERROR)
            return l->lvt[(offset - X86_APIC_LVT_TIMER) >> 4];
        return 0;
    }
}

uint64_t lapic_read(struct lapic *lapic, uint64_t offset)
{
    uint32_t value;

    pthread_mutex_lock(&lapic->lock);
    value = read_register(lapic, offset & 0xff0);
    pthread_mutex_unlock(&lapic->lock);
    return value;
}

static void end_of_interrupt(struct lapic *l)
{
    int vector = highest(l->isr);
    bool level;

    if (vector < 0)
        return;
    clear_bit(l->isr, (uint8_t)vector);
    level = test_bit(l->tmr, (uint8_t)vector);
    if (level) {
        pthread_mutex_unlock(&l->lock);
        l->set->ops.end_of_interrupt(l->set->ops.opaque, (uint8_t)vector);
        pthread_mutex_lock(&l->lock);
    }
    if (deliverable(l) >= 0)
        notify(l);
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t value)
{
    uint32_t old = l->lvt[i];

    value &= lvt_masks[i];
    if (!(l->svr & SVR_ENABLED))
        value |= LVT_MASKED;
    l->lvt[i] = value;
    if (i == LVT_TIMER && ((old ^ value) & LVT_TIMER_MODE)) {
        /* Another mode starts from nothing (SDM 3A 10.5.4.1). */
        l->timer_initial = 0;
        l->tsc_deadline = 0;
        timer_set(l, 0);
    }
    if (i == LVT_LINT0)
        notify(l); /* the 8259 may have been waiting */
}

/* The lock is held. */
static void write_register(struct lapic *l, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case X86_APIC_ID:
        if (!x2apic(l))
            l->id = value >> 24;
        break;
    case X86_APIC_TPR:
        l->tpr = value & 0xff;
        if (deliverable(l) >= 0)
            notify(l);
        break;
    case X86_APIC_EOI:
        end_of_interrupt(l);
        break;
    case X86_APIC_LDR:
        if (!x2apic(l))
            l->ldr = value & 0xff000000;
        break;
    case X86_APIC_DFR:
        l->dfr = value | 0x0fffffff;
        break;
    case X86_APIC_SVR:
        l->svr = value & SVR_DEFINED;
        if (!(value & SVR_ENABLED))
            for (unsigned i = 0; i < ARRAY_SIZE(l->lvt); i++)
                l->lvt[i] |= LVT_MASKED;
        break;
    case X86_APIC_ESR:
        l->esr = l->esr_pending;
        l->esr_pending = 0;
        break;
    case X86_APIC_ICR_LOW:
        l->icr_low = value & ~(1u << 12);
        pthread_mutex_unlock(&l->lock);
        send_ipi(l, value, x2apic(l) ? l->icr_high : l->icr_high >> 24);
        pthread_mutex_lock(&l->lock);
        break;
    case X86_APIC_ICR_HIGH:
        l->icr_high = value;
        break;
    case X86_APIC_TIMER_INITIAL:
        if (timer_mode(l) == LVT_DEADLINE)
            break;
        l->timer_initial = value;
        count_start(l);
        break;
    case X86_APIC_TIMER_DIVIDE:
        l->timer_divide = value & 0xb;
        if (l->timer_expiry && timer_mode(l) != LVT_DEADLINE)
            timer_set(l, l->timer_start + period_ns(l));
        break;
    default:
        if (offset >= X86_APIC_LVT_TIMER && offset <= X86_APIC_LVT_ERROR)
            write_lvt(l, (offset - X86_APIC_LVT_TIMER) >> 4, value);
        else
            l->esr_pending |= ESR_REGISTER;
        break;
    }
}

void lapic_write(struct lapic *lapic, uint64_t offset, uint32_t value)
{
    pthread_mutex_lock(&lapic->lock);
    write_register(lapic, offset & 0xff0, value);
    pthread_mutex_unlock(&lapic->lock);
}

/* --- MSRs --- */

static bool write_base(struct lapic *l, uint64_t value)
{
    const uint64_t mode = BASE_ENABLED | BASE_X2APIC, old = l->base_msr & mode;
    const uint64_t new = value & mode;

    if ((value & ~(mode | BASE_BSP | 0xfffffff000ull)) || new == BASE_X2APIC ||
        (old == mode && new == BASE_ENABLED) || (old == 0 && new == mode))
        return false;
    l->base_msr = (value & ~(uint64_t)BASE_BSP) | (l->base_msr & BASE_BSP);
    if (new == mode && old != mode)
        l->ldr = (l->cpu >> 4) << 16 | 1u << (l->cpu & 15);
    return true;
}

bool lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *ret_value)
{
    bool known = true;
    uint32_t offset = (msr - X86_MSR_X2APIC_FIRST) << 4;

    pthread_mutex_lock(&lapic->lock);
    if (msr == X86_MSR_APIC_BASE) {
        *ret_value = lapic->base_msr;
    } else if (msr == X86_MSR_TSC_DEADLINE) {
        *ret_value = lapic->tsc_deadline;
    } else if (msr < X86_MSR_X2APIC_FIRST || msr > X86_MSR_X2APIC_FIRST + 0x3f ||
               !x2apic(lapic) || offset == X86_APIC_DFR || offset == X86_APIC_ICR_HIGH ||
               offset == X86_APIC_EOI || offset == X86_APIC_SELF_IPI) {
        known = false;
    } else if (offset == X86_APIC_ICR_LOW) {
        *ret_value = (uint64_t)lapic->icr_high << 32 | lapic->icr_low;
    } else {
        *ret_value = read_register(lapic, offset);
    }
    pthread_mutex_unlock(&lapic->lock);
    return known;
}

bool lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value)
{
    bool known = true;
    uint32_t offset = (msr - X86_MSR_X2APIC_FIRST) << 4;

    pthread_mutex_lock(&lapic->lock);
    if (msr == X86_MSR_APIC_BASE) {
        known = write_base(lapic, value);
    } else if (msr == X86_MSR_TSC_DEADLINE) {
        if (timer_mode(lapic) == LVT_DEADLINE) {
            lapic->tsc_deadline = value;
            deadline_start(lapic);
        }
    } else if (msr < X86_MSR_X2APIC_FIRST || msr > X86_MSR_X2APIC_FIRST + 0x3f ||
               !x2apic(lapic) || offset == X86_APIC_ID ||
               offset == X86_APIC_VERSION || offset == X86_APIC_PPR || offset == X86_APIC_LDR ||
               offset == X86_APIC_DFR || offset == X86_APIC_ICR_HIGH) {
        known = false;
    } else if (offset == X86_APIC_ICR_LOW) {
        lapic->icr_high = (uint32_t)(value >> 32);
        write_register(lapic, X86_APIC_ICR_LOW, (uint32_t)value);
    } else if (offset == X86_APIC_SELF_IPI) {
        if (accept(lapic, (uint8_t)value, false))
            notify(lapic);
    } else if (value >> 32 || (value && (offset == X86_APIC_EOI || offset == X86_APIC_ESR))) {
        known = false; /* zero only (SDM 3A 10.12.1.2) */
    } else {
        write_register(lapic, offset, (uint32_t)value);
    }
    pthread_mutex_unlock(&lapic->lock);
    return known;
}

void lapic_tsc_moved(struct lapic *lapic)
{
    pthread_mutex_lock(&lapic->lock);
    if (lapic->tsc_deadline)
        deadline_start(lapic);
    pthread_mutex_unlock(&lapic->lock);
}

/* --- The CPU's side --- */

int lapic_acknowledge(struct lapic *lapic)
{
    int vector;

    pthread_mutex_lock(&lapic->lock);
    vector = deliverable(lapic);
    if (vector >= 0) {
        clear_bit(lapic->irr, (uint8_t)vector);
        set_bit(lapic->isr, (uint8_t)vector);
    }
    pthread_mutex_unlock(&lapic->lock);
    return vector;
}

bool lapic_pending(struct lapic *lapic)
{
    bool pending;

    pthread_mutex_lock(&lapic->lock);
    pending = deliverable(lapic) >= 0;
    pthread_mutex_unlock(&lapic->lock);
    return pending;
}

bool lapic_accepts_extint(struct lapic *lapic)
{
    bool accepts;

    pthread_mutex_lock(&lapic->lock);
    /* With the APIC off by its base MSR, LINT0 is the CPU's INTR pin. */
    if (!(lapic->base_msr & BASE_ENABLED))
        accepts = lapic->cpu == 0;
    else
        accepts = !(lapic->lvt[LVT_LINT0] & LVT_MASKED) &&
                  (lapic->lvt[LVT_LINT0] >> 8 & 7) == LAPIC_EXTINT;
    pthread_mutex_unlock(&lapic->lock);
    return accepts;
}

uint64_t lapic_cr8(struct lapic *lapic)
{
    return lapic->tpr >> 4;
}

void lapic_set_cr8(struct lapic *lapic, uint64_t value)
{
    lapic_write(lapic, X86_APIC_TPR, (uint32_t)(value << 4));
}

/* --- Moving --- */

static void save_bits(struct x86_apic *apic, unsigned offset, const uint32_t bits[8])
{
    memcpy(&apic->reg[offset >> 4], bits, 8 * sizeof(bits[0]));
}

static void load_bits(uint32_t bits[8], const struct x86_apic *apic, unsigned offset)
{
    memcpy(bits, &apic->reg[offset >> 4], 8 * sizeof(bits[0]));
}

void lapic_save(struct lapic *lapic, struct x86_apic *ret_apic)
{
    struct x86_apic apic = {0};

    pthread_mutex_lock(&lapic->lock);
    apic.base = lapic->base_msr;
    apic.tsc_deadline = lapic->tsc_deadline;
    x86_apic_set(&apic, X86_APIC_ID, (x2apic(lapic) ? lapic->cpu : lapic->id) << 24);
    x86_apic_set(&apic, X86_APIC_VERSION, VERSION);
    x86_apic_set(&apic, X86_APIC_TPR, lapic->tpr);
    x86_apic_set(&apic, X86_APIC_PPR, ppr(lapic));
    x86_apic_set(&apic, X86_APIC_LDR, lapic->ldr);
    x86_apic_set(&apic, X86_APIC_DFR, lapic->dfr);
    x86_apic_set(&apic, X86_APIC_SVR, lapic->svr);
    x86_apic_set(&apic, X86_APIC_ESR, lapic->esr);
    x86_apic_set(&apic, X86_APIC_ICR_LOW, lapic->icr_low);
    x86_apic_set(&apic, X86_APIC_ICR_HIGH, lapic->icr_high);
    for (unsigned i = 0; i < ARRAY_SIZE(lapic->lvt); i++)
        x86_apic_set(&apic, X86_APIC_LVT_TIMER + 16 * i, lapic->lvt[i]);
    x86_apic_set(&apic, X86_APIC_TIMER_INITIAL, lapic->timer_initial);
    x86_apic_set(&apic, X86_APIC_TIMER_CURRENT, timer_current(lapic));
    x86_apic_set(&apic, X86_APIC_TIMER_DIVIDE, lapic->timer_divide);
    save_bits(&apic, X86_APIC_ISR, lapic->isr);
    save_bits(&apic, X86_APIC_TMR, lapic->tmr);
    save_bits(&apic, X86_APIC_IRR, lapic->irr);
    pthread_mutex_unlock(&lapic->lock);
    *ret_apic = apic;
}

/* The count goes on from what was left of it. */
static void resume_timer(struct lapic *l, const struct x86_apic *apic)
{
    const uint64_t period = period_ns(l);
    const uint64_t left =
        (uint64_t)x86_apic_get(apic, X86_APIC_TIMER_CURRENT) << divide_shift(l);

    timer_set(l, 0);
    if (timer_mode(l) == LVT_DEADLINE) {
        deadline_start(l);
    } else if (left && left <= period) {
        l->timer_start = timers_now(l->set->timers) - (period - left);
        timer_set(l, l->timer_start + period);
    }
}

void lapic_load(struct lapic *lapic, const struct x86_apic *apic)
{
    pthread_mutex_lock(&lapic->lock);
    lapic->base_msr = apic->base;
    lapic->tsc_deadline = apic->tsc_deadline;
    if (!x2apic(lapic))
        lapic->id = x86_apic_get(apic, X86_APIC_ID) >> 24;
    lapic->tpr = x86_apic_get(apic, X86_APIC_TPR) & 0xff;
    lapic->ldr = x86_apic_get(apic, X86_APIC_LDR);
    lapic->dfr = x86_apic_get(apic, X86_APIC_DFR);
    lapic->svr = x86_apic_get(apic, X86_APIC_SVR) & SVR_DEFINED;
    lapic->esr = x86_apic_get(apic, X86_APIC_ESR);
    lapic->icr_low = x86_apic_get(apic, X86_APIC_ICR_LOW);
    lapic->icr_high = x86_apic_get(apic, X86_APIC_ICR_HIGH);
    for (unsigned i = 0; i < ARRAY_SIZE(lapic->lvt); i++)
        lapic->lvt[i] = x86_apic_get(apic, X86_APIC_LVT_TIMER + 16 * i) & lvt_masks[i];
    lapic->timer_initial = x86_apic_get(apic, X86_APIC_TIMER_INITIAL);
    lapic->timer_divide = x86_apic_get(apic, X86_APIC_TIMER_DIVIDE) & 0xb;
    load_bits(lapic->isr, apic, X86_APIC_ISR);
    load_bits(lapic->tmr, apic, X86_APIC_TMR);
    load_bits(lapic->irr, apic, X86_APIC_IRR);
    resume_timer(lapic, apic);
    pthread_mutex_unlock(&lapic->lock);
}

/* --- Life --- */

void lapic_init_reset(struct lapic *lapic)
{
    pthread_mutex_lock(&lapic->lock);
    timer_set(lapic, 0);
    lapic->tpr = lapic->ldr = lapic->esr = lapic->esr_pending = 0;
    lapic->dfr = 0xffffffff;
    lapic->svr = 0xff;
    lapic->icr_low = lapic->icr_high = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(lapic->lvt); i++)
        lapic->lvt[i] = LVT_MASKED;
    memset(lapic->isr, 0, sizeof(lapic->isr));
    memset(lapic->tmr, 0, sizeof(lapic->tmr));
    memset(lapic->irr, 0, sizeof(lapic->irr));
    lapic->timer_initial = lapic->timer_divide = 0;
    lapic->tsc_deadline = 0;
    pthread_mutex_unlock(&lapic->lock);
}

void lapic_reset(struct lapic *lapic)
{
    lapic_init_reset(lapic);
    pthread_mutex_lock(&lapic->lock);
    lapic->id = lapic->cpu;
    lapic->base_msr = LAPIC_BASE | BASE_ENABLED | (lapic->cpu == 0 ? BASE_BSP : 0);
    /* Virtual wire, as firmware leaves the boot CPU (MP specification 3.6.2.2):
     * the 8259 through LINT0, NMI through LINT1. */
    if (lapic->cpu == 0) {
        lapic->svr = 0x1ff;
        lapic->lvt[LVT_LINT0] = LAPIC_EXTINT << 8;
    }
    lapic->lvt[LVT_LINT1] = LAPIC_NMI << 8;
    pthread_mutex_unlock(&lapic->lock);
}

int lapic_set_init(struct lapic_set *set, unsigned cpus, struct timers *timers,
                   const struct lapic_ops *ops, struct error *err)
{
    set->lapics = calloc(cpus, sizeof(*set->lapics));
    if (!set->lapics)
        return error_set(err, ENOMEM, "out of memory for local APICs");
    set->cpus = cpus;
    set->timers = timers;
    set->ops = *ops;
    for (unsigned i = 0; i < cpus; i++) {
        struct lapic *lapic = &set->lapics[i];

        lapic->set = set;
        lapic->cpu = i;
        lapic->timer = (struct timer){.fn = timer_fired, .opaque = lapic};
        pthread_mutex_init(&lapic->lock, NULL);
        lapic_reset(lapic);
    }
    return 0;
}

void lapic_set_destroy(struct lapic_set *set)
{
    for (unsigned i = 0; set->lapics && i < set->cpus; i++)
        pthread_mutex_destroy(&set->lapics[i].lock);
    free(set->lapics);
}
