#include "no_devices.h"

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t address, unsigned size)
{
    (void)opaque, (void)cpu, (void)address, (void)size;
    return UINT64_MAX;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)opaque, (void)cpu, (void)address, (void)size, (void)value;
}

static uint32_t port_read(void *opaque, unsigned cpu, uint16_t port, unsigned size)
{
    (void)opaque, (void)cpu, (void)port, (void)size;
    return UINT32_MAX;
}

static void port_write(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint32_t value)
{
    (void)opaque, (void)cpu, (void)port, (void)size, (void)value;
}

static int interrupt_acknowledge(void *opaque, unsigned cpu)
{
    (void)opaque, (void)cpu;
    return -1;
}

static uint64_t cr8_read(void *opaque, unsigned cpu)
{
    (void)opaque, (void)cpu;
    return 0;
}

static void cr8_write(void *opaque, unsigned cpu, uint64_t value)
{
    (void)opaque, (void)cpu, (void)value;
}

static bool msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret_value)
{
    (void)opaque, (void)cpu, (void)msr, (void)ret_value;
    return false;
}

static bool msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    (void)opaque, (void)cpu, (void)msr, (void)value;
    return false;
}

const struct engine_callbacks no_devices = {
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .port_read = port_read,
    .port_write = port_write,
    .interrupt_acknowledge = interrupt_acknowledge,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .msr_read = msr_read,
    .msr_write = msr_write,
};
