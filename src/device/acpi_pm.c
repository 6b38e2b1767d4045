#include "device/acpi_pm.h"

#include <string.h>

enum { REG_STATUS = 0, REG_ENABLE = 2, REG_CONTROL = 4, REG_TIMER = 8 };

#define PM1_POWER_BUTTON (1u << 8) /* in both status and enable (ACPI 6.4, 4.8.3.1) */
#define CONTROL_SCI_EN   (1u << 0)
#define CONTROL_SLP_EN   (1u << 13)
#define CONTROL_SLP_TYP(value) ((value) >> 10 & 7)

#define TIMER_HZ 3579545u
#define SECOND_NS 1000000000ull

static void update_sci(struct acpi_pm *pm)
{
    irq_set(&pm->sci, pm->status & pm->enable & PM1_POWER_BUTTON);
}

/* 24 bits: the FADT does not set TMR_VAL_EXT. */
static uint32_t timer_value(const struct acpi_pm *pm)
{
    uint64_t elapsed = timers_now(pm->timers) - pm->start;

    return (uint32_t)((unsigned __int128)elapsed * TIMER_HZ / SECOND_NS) & 0xffffff;
}

static uint64_t pm_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = owner;
    uint64_t value = 0;

    (void)cpu;
    pthread_mutex_lock(&pm->lock);
    switch (offset & ~1ull) {
    case REG_STATUS: value = pm->status | (uint32_t)pm->enable << 16; break;
    case REG_ENABLE: value = pm->enable; break;
    case REG_CONTROL: value = pm->control; break;
    case REG_TIMER: value = timer_value(pm); break;
    case REG_TIMER + 2: value = timer_value(pm) >> 16; break;
    default: break;
    }
    pthread_mutex_unlock(&pm->lock);
    value >>= 8 * (offset & 1);
    return size < 4 ? value & ((1u << (8 * size)) - 1) : value;
}

static void pm_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = owner;
    bool off = false;

    (void)cpu;
    pthread_mutex_lock(&pm->lock);
    switch (offset) {
    case REG_STATUS: /* ones clear */
        pm->status &= (uint16_t)~value;
        if (size == 4)
            pm->enable = (uint16_t)(value >> 16);
        break;
    case REG_ENABLE:
        pm->enable = (uint16_t)value;
        break;
    case REG_CONTROL:
        pm->control = (uint16_t)((value & ~(uint64_t)CONTROL_SLP_EN) | CONTROL_SCI_EN);
        off = (value & CONTROL_SLP_EN) && CONTROL_SLP_TYP(value) == ACPI_PM_SLP_TYP_S5;
        break;
    default:
        break;
    }
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
    if (off)
        pm->power_off(pm->opaque);
}

static const struct bus_ops pm_bus_ops = {.read = pm_read, .write = pm_write};

void acpi_pm_init(struct acpi_pm *pm, struct timers *timers, const struct irq_line *sci,
                  void (*power_off)(void *opaque), void *opaque)
{
    memset(pm, 0, sizeof(*pm));
    pthread_mutex_init(&pm->lock, NULL);
    pm->timers = timers;
    pm->sci = *sci;
    pm->power_off = power_off;
    pm->opaque = opaque;
    acpi_pm_reset(pm);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    pm->status = pm->enable = 0;
    pm->control = CONTROL_SCI_EN; /* no SMM: ACPI mode always */
    pm->start = timers_now(pm->timers);
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}

int acpi_pm_add_ports(struct acpi_pm *pm, struct bus *ports, struct error *err)
{
    return bus_add(ports,
                   &(struct bus_region){.name = "acpi pm", .base = ACPI_PM_BASE,
                                        .size = ACPI_PM_SIZE, .min = 1, .max = 4,
                                        .ops = &pm_bus_ops, .owner = pm},
                   err);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    pm->status |= PM1_POWER_BUTTON;
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}
