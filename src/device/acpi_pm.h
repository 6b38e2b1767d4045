/* acpi_pm.h - the fixed ACPI power hardware (ACPI 6.4, 4.8): PM1 event and
 * control registers, the 3.579545 MHz power-management timer, and the sleep
 * register by which a guest powers off. */
#ifndef LODGE_DEVICE_ACPI_PM_H
#define LODGE_DEVICE_ACPI_PM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/irq.h"
#include "machine/timer.h"

#define ACPI_PM_BASE    0x600 /* PM1a event block: status, enable */
#define ACPI_PM_CONTROL 0x604
#define ACPI_PM_TIMER   0x608
#define ACPI_PM_SIZE    0x10
#define ACPI_PM_SLP_TYP_S5 5 /* the DSDT's \_S5 says the same */

struct acpi_pm {
    pthread_mutex_t lock;
    struct timers *timers;
    struct irq_line sci;
    void (*power_off)(void *opaque);
    void *opaque;
    uint16_t status, enable, control;
    uint64_t start; /* ns when the timer was zero */
};

void acpi_pm_init(struct acpi_pm *pm, struct timers *timers, const struct irq_line *sci,
                  void (*power_off)(void *opaque), void *opaque);
void acpi_pm_reset(struct acpi_pm *pm);
int acpi_pm_add_ports(struct acpi_pm *pm, struct bus *ports, struct error *err);
/* Press the power button: the guest is asked to shut down. Any thread. */
void acpi_pm_power_button(struct acpi_pm *pm);

#endif
