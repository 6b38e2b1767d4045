#include "device/serial.h"

#include <string.h>

#include "base/bytes.h"

/* Register offsets; the first two are the divisor while LCR_DLAB is set. */
enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RECEIVED  0x01
#define IER_THR_EMPTY 0x02
#define IER_LINE      0x04
#define IER_MODEM     0x08

#define IIR_NONE      0x01
#define IIR_MODEM     0x00
#define IIR_THR_EMPTY 0x02
#define IIR_RECEIVED  0x04
#define IIR_LINE      0x06
#define IIR_TIMEOUT   0x0c
#define IIR_FIFOS     0xc0

#define FCR_ENABLE      0x01
#define FCR_CLEAR_INPUT 0x02

#define LCR_DLAB 0x80

#define MCR_OUT2     0x08 /* gates the interrupt on a PC */
#define MCR_LOOPBACK 0x10

#define LSR_DATA_READY 0x01
#define LSR_BREAK      0x10
#define LSR_THR_EMPTY  0x20
#define LSR_IDLE       0x40

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI  0x40
#define MSR_DCD 0x80

static unsigned queued(const struct serial *s)
{
    return s->tail - s->head;
}

/* The receive trigger level (FCR bits 6 and 7). */
static unsigned trigger(const struct serial *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* The interrupt of highest priority (data sheet table 5). */
static uint8_t pending(const struct serial *s)
{
    if ((s->ier & IER_LINE) && s->break_pending)
        return IIR_LINE;
    if ((s->ier & IER_RECEIVED) && queued(s))
        return queued(s) >= trigger(s) ? IIR_RECEIVED : IIR_TIMEOUT;
    if ((s->ier & IER_THR_EMPTY) && s->thr_empty_pending)
        return IIR_THR_EMPTY;
    if ((s->ier & IER_MODEM) && s->msr_delta)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct serial *s)
{
    irq_set(&s->irq, pending(s) != IIR_NONE && (s->mcr & MCR_OUT2) && !(s->mcr & MCR_LOOPBACK));
}

static uint8_t modem_status(const struct serial *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;

    /* In loopback the four outputs come back as inputs. */
    if (s->mcr & MCR_LOOPBACK)
        lines = (uint8_t)((s->mcr & 2 ? MSR_CTS : 0) | (s->mcr & 1 ? MSR_DSR : 0) |
                          (s->mcr & 4 ? MSR_RI : 0) | (s->mcr & 8 ? MSR_DCD : 0));
    return lines | s->msr_delta;
}

static uint8_t take_byte(struct serial *s)
{
    return queued(s) ? s->queue[s->head++ % SERIAL_QUEUE] : 0;
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
    uint8_t value;

    switch (reg) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? (uint8_t)s->divisor : take_byte(s);
    case REG_IER:
        return s->lcr & LCR_DLAB ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR:
        value = pending(s);
        if (value == IIR_THR_EMPTY)
            s->thr_empty_pending = false;
        return value | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        value = LSR_THR_EMPTY | LSR_IDLE | (queued(s) ? LSR_DATA_READY : 0) |
                (s->break_pending ? LSR_BREAK : 0);
        s->break_pending = false;
        return value;
    case REG_MSR:
        value = modem_status(s);
        s->msr_delta = 0;
        return value;
    default:
        return s->scratch;
    }
}

static uint64_t serial_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct serial *s = owner;
    uint8_t value;
    bool ready;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&s->lock);
    value = read_register(s, (unsigned)offset);
    update_irq(s);
    ready = s->was_full && queued(s) < SERIAL_QUEUE / 2;
    if (ready)
        s->was_full = false;
    pthread_mutex_unlock(&s->lock);
    if (ready && s->wire.ready)
        s->wire.ready(s->wire.opaque);
    return value;
}

/* A byte to send: out on the wire, or back in loopback. */
static bool transmit(struct serial *s, uint8_t value)
{
    s->thr_empty_pending = true;
    if (!(s->mcr & MCR_LOOPBACK))
        return true;
    if (queued(s) < SERIAL_QUEUE)
        s->queue[s->tail++ % SERIAL_QUEUE] = value;
    return false;
}

static void write_mcr(struct serial *s, uint8_t value)
{
    uint8_t before = modem_status(s) & 0xf0, changed;

    s->mcr = value & 0x1f;
    changed = (modem_status(s) & 0xf0) ^ before;
    if (s->mcr & MCR_LOOPBACK)
        s->msr_delta |= changed >> 4;
}

/* Whether value is to leave on the wire. */
static bool write_register(struct serial *s, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
        if (!(s->lcr & LCR_DLAB))
            return transmit(s, value);
        s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB) {
            s->divisor = (uint16_t)((s->divisor & 0xff) | value << 8);
            break;
        }
        /* Turned on while the register is empty, it fires at once. */
        if ((value & ~s->ier) & IER_THR_EMPTY)
            s->thr_empty_pending = true;
        s->ier = value & 0xf;
        break;
    case REG_IIR_FCR:
        if ((value & FCR_CLEAR_INPUT) || ((value ^ s->fcr) & FCR_ENABLE))
            s->head = s->tail;
        s->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        write_mcr(s, value);
        break;
    case REG_SCRATCH:
        s->scratch = value;
        break;
    default:
        break; /* LSR and MSR are read-only */
    }
    return false;
}

static void serial_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial *s = owner;
    uint8_t byte = (uint8_t)value;
    bool out;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&s->lock);
    out = write_register(s, (unsigned)offset, byte);
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
    if (out && s->wire.output)
        s->wire.output(s->wire.opaque, &byte, 1);
}

static const struct bus_ops serial_bus_ops = {.read = serial_read, .write = serial_write};

void serial_init(struct serial *serial, const struct irq_line *irq, const struct serial_wire *wire)
{
    memset(serial, 0, sizeof(*serial));
    pthread_mutex_init(&serial->lock, NULL);
    serial->irq = *irq;
    serial->wire = *wire;
    serial_reset(serial);
}

void serial_reset(struct serial *serial)
{
    pthread_mutex_lock(&serial->lock);
    serial->ier = serial->fcr = serial->lcr = serial->scratch = serial->msr_delta = 0;
    serial->mcr = MCR_OUT2; /* as firmware leaves it */
    serial->divisor = 1;    /* 115200 baud */
    serial->thr_empty_pending = serial->break_pending = false;
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
}

int serial_add_ports(struct serial *serial, struct bus *ports, uint16_t base, struct error *err)
{
    return bus_add(ports,
                   &(struct bus_region){.name = "16550", .base = base, .size = 8, .min = 1,
                                        .max = 1, .ops = &serial_bus_ops, .owner = serial},
                   err);
}

size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t length)
{
    size_t taken = 0;

    pthread_mutex_lock(&serial->lock);
    while (taken < length && queued(serial) < SERIAL_QUEUE)
        serial->queue[serial->tail++ % SERIAL_QUEUE] = bytes[taken++];
    if (queued(serial) == SERIAL_QUEUE)
        serial->was_full = true;
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
    return taken;
}

size_t serial_room(struct serial *serial)
{
    size_t room;

    pthread_mutex_lock(&serial->lock);
    room = SERIAL_QUEUE - queued(serial);
    if (!room)
        serial->was_full = true;
    pthread_mutex_unlock(&serial->lock);
    return room;
}
