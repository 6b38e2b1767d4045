#include "device/i8042.h"

#include <string.h>

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM      0x04
#define STATUS_UNLOCKED    0x10
#define STATUS_AUXILIARY   0x20

enum {
    COMMAND_READ = 0x20, COMMAND_WRITE = 0x60, COMMAND_AUX_DISABLE = 0xa7,
    COMMAND_AUX_ENABLE = 0xa8, COMMAND_AUX_TEST = 0xa9, COMMAND_SELF_TEST = 0xaa,
    COMMAND_KEYBOARD_TEST = 0xab, COMMAND_KEYBOARD_DISABLE = 0xad, COMMAND_KEYBOARD_ENABLE = 0xae,
    COMMAND_OUTPUT_READ = 0xd0, COMMAND_OUTPUT_WRITE = 0xd1, COMMAND_AUX_LOOP = 0xd3,
    COMMAND_AUX_WRITE = 0xd4, COMMAND_PULSE = 0xf0,
};

#define OUTPUT_NO_RESET 0x01
#define OUTPUT_A20      0x02

static void answer(struct i8042 *kbc, uint8_t value, bool auxiliary)
{
    kbc->data = value;
    kbc->full = true;
    kbc->auxiliary = auxiliary;
}

/* Whether the reset line was pulsed. */
static bool command(struct i8042 *kbc, uint8_t value)
{
    kbc->waiting = 0;
    switch (value) {
    case COMMAND_READ: answer(kbc, kbc->command, false); break;
    case COMMAND_SELF_TEST: answer(kbc, 0x55, false); break;
    case COMMAND_KEYBOARD_TEST: case COMMAND_AUX_TEST: answer(kbc, 0, false); break;
    case COMMAND_AUX_DISABLE: kbc->command |= 0x20; break;
    case COMMAND_AUX_ENABLE: kbc->command &= ~0x20; break;
    case COMMAND_KEYBOARD_DISABLE: kbc->command |= 0x10; break;
    case COMMAND_KEYBOARD_ENABLE: kbc->command &= ~0x10; break;
    case COMMAND_OUTPUT_READ: answer(kbc, kbc->output_port, false); break;
    case COMMAND_WRITE: case COMMAND_OUTPUT_WRITE: case COMMAND_AUX_LOOP: case COMMAND_AUX_WRITE:
        kbc->waiting = value;
        break;
    default: /* 0xf0 to 0xff pulse the output lines whose bit is clear */
        return (value & 0xf0) == COMMAND_PULSE && !(value & OUTPUT_NO_RESET);
    }
    return false;
}

static bool data(struct i8042 *kbc, uint8_t value)
{
    uint8_t waiting = kbc->waiting;

    kbc->waiting = 0;
    switch (waiting) {
    case COMMAND_WRITE: kbc->command = value; break;
    case COMMAND_AUX_LOOP: answer(kbc, value, true); break;
    case COMMAND_OUTPUT_WRITE:
        kbc->output_port = value;
        return !(value & OUTPUT_NO_RESET);
    default: break; /* nobody is plugged in */
    }
    return false;
}

static uint64_t i8042_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct i8042 *kbc = owner;
    uint8_t value;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&kbc->lock);
    if (offset == 0) {
        value = kbc->data;
        kbc->full = kbc->auxiliary = false;
    } else {
        value = STATUS_UNLOCKED | STATUS_SYSTEM | (kbc->full ? STATUS_OUTPUT_FULL : 0) |
                (kbc->auxiliary ? STATUS_AUXILIARY : 0);
    }
    pthread_mutex_unlock(&kbc->lock);
    return value;
}

static void i8042_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *kbc = owner;
    bool reset;

    (void)cpu;
    (void)size;
    pthread_mutex_lock(&kbc->lock);
    reset = offset == 0 ? data(kbc, (uint8_t)value) : command(kbc, (uint8_t)value);
    pthread_mutex_unlock(&kbc->lock);
    if (reset)
        kbc->reset(kbc->opaque);
}

static const struct bus_ops i8042_bus_ops = {.read = i8042_read, .write = i8042_write};

/* Two ports apart: each is a region of one byte, told apart by its owner's offset. */
static uint64_t status_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    return i8042_read(owner, cpu, offset + 4, size);
}

static void command_write(void *owner, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    i8042_write(owner, cpu, offset + 4, size, value);
}

static const struct bus_ops i8042_command_ops = {.read = status_read, .write = command_write};

void i8042_init(struct i8042 *kbc, void (*reset)(void *opaque), void *opaque)
{
    memset(kbc, 0, sizeof(*kbc));
    pthread_mutex_init(&kbc->lock, NULL);
    kbc->reset = reset;
    kbc->opaque = opaque;
    i8042_reset(kbc);
}

void i8042_reset(struct i8042 *kbc)
{
    pthread_mutex_lock(&kbc->lock);
    kbc->command = 0x74; /* translation on, both ports off */
    kbc->output_port = OUTPUT_NO_RESET | OUTPUT_A20;
    kbc->waiting = 0;
    kbc->full = kbc->auxiliary = false;
    pthread_mutex_unlock(&kbc->lock);
}

int i8042_add_ports(struct i8042 *kbc, struct bus *ports, struct error *err)
{
    int r = bus_add(ports,
                    &(struct bus_region){.name = "i8042 data", .base = 0x60, .size = 1, .min = 1,
                                         .max = 1, .ops = &i8042_bus_ops, .owner = kbc},
                    err);

    if (r == 0)
        r = bus_add(ports,
                    &(struct bus_region){.name = "i8042 command", .base = 0x64, .size = 1,
                                         .min = 1, .max = 1, .ops = &i8042_command_ops,
                                         .owner = kbc},
                    err);
    return r;
}
