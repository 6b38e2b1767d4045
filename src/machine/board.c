/* The board: which devices there are, and how their lines are wired. */
#include "base/bytes.h"
#include "machine/acpi.h"
#include "machine/machine-private.h"

enum { IRQ_TIMER = 0, IRQ_SERIAL = 4, IRQ_RTC = 8 };

/* An ISA or PCI line: the 8259 pair and the I/O APIC both see it. The PIT
 * comes in at the I/O APIC's pin 2 (the MADT tells). */
static void set_line(void *opaque, unsigned number, bool level)
{
    struct machine *m = opaque;

    if (number < 16)
        pic_set_irq(&m->pic, number, level);
    ioapic_set_pin(&m->ioapic, number == IRQ_TIMER ? 2 : number, level);
}

static struct irq_line line(struct machine *m, unsigned number)
{
    return (struct irq_line){.set = set_line, .opaque = m, .number = number};
}

/* INTR of the 8259: whoever has LINT0 as ExtINT takes it. */
static void pic_output(void *opaque, bool level)
{
    struct machine *m = opaque;

    if (!level)
        return;
    for (unsigned i = 0; i < m->config.cpus; i++)
        machine_cpu_request(&m->cpus[i], CPU_REQUEST_WAKE);
}

static void power_off(void *opaque)
{
    machine_end(opaque, MACHINE_POWERED_OFF, 0, NULL);
}

static void reboot(void *opaque)
{
    machine_end(opaque, MACHINE_REBOOT, 0, NULL);
}

static void debug_exit(void *opaque, uint32_t value)
{
    machine_end(opaque, MACHINE_DEBUG_EXIT, value, NULL);
}

static void console_output(void *opaque, const uint8_t *bytes, size_t length)
{
    struct machine *m = opaque;

    if (m->config.console.output)
        m->config.console.output(m->config.console.opaque, bytes, length);
}

static void console_ready(void *opaque)
{
    struct machine *m = opaque;

    if (m->config.console.ready)
        m->config.console.ready(m->config.console.opaque);
}

/* --- The table of devices --- */

static int add_pic(struct machine *m, struct error *err)
{
    pic_init(&m->pic, pic_output, m);
    return pic_add_ports(&m->pic, &m->ports, err);
}

static void reset_pic(struct machine *m)
{
    pic_reset(&m->pic);
}

/* An engine that keeps the local APICs must tell the ends of these interrupts. */
static void set_route(void *opaque, unsigned pin, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;

    pthread_rwlock_rdlock(&m->engine_lock);
    if (machine_engine_keeps_apics(m))
        m->engine->ops->apic->route(m->engine, pin, address, data);
    pthread_rwlock_unlock(&m->engine_lock);
}

static int add_ioapic(struct machine *m, struct error *err)
{
    ioapic_init(&m->ioapic, &m->lapics, (uint8_t)m->config.cpus, set_route, m);
    return ioapic_add(&m->ioapic, &m->mmio, err);
}

static void reset_ioapic(struct machine *m)
{
    ioapic_reset(&m->ioapic);
}

static int add_pit(struct machine *m, struct error *err)
{
    const struct irq_line irq = line(m, IRQ_TIMER);

    pit_init(&m->pit, &m->timers, &irq);
    return pit_add_ports(&m->pit, &m->ports, err);
}

static void reset_pit(struct machine *m)
{
    pit_reset(&m->pit);
}

static int add_rtc(struct machine *m, struct error *err)
{
    const struct irq_line irq = line(m, IRQ_RTC);

    rtc_init(&m->rtc, &m->timers, &irq);
    return rtc_add_ports(&m->rtc, &m->ports, err);
}

static void reset_rtc(struct machine *m)
{
    rtc_reset(&m->rtc);
}

static int add_serial(struct machine *m, struct error *err)
{
    const struct irq_line irq = line(m, IRQ_SERIAL);
    const struct serial_wire wire = {console_output, console_ready, m};

    serial_init(&m->serial, &irq, &wire);
    return serial_add_ports(&m->serial, &m->ports, SERIAL_COM1, err);
}

static void reset_serial(struct machine *m)
{
    serial_reset(&m->serial);
}

static int add_i8042(struct machine *m, struct error *err)
{
    i8042_init(&m->i8042, reboot, m);
    return i8042_add_ports(&m->i8042, &m->ports, err);
}

static void reset_i8042(struct machine *m)
{
    i8042_reset(&m->i8042);
}

static int add_pm(struct machine *m, struct error *err)
{
    const struct irq_line sci = line(m, ACPI_SCI_IRQ);

    acpi_pm_init(&m->pm, &m->timers, &sci, power_off, m);
    return acpi_pm_add_ports(&m->pm, &m->ports, err);
}

static void reset_pm(struct machine *m)
{
    acpi_pm_reset(&m->pm);
}

static int add_reset_control(struct machine *m, struct error *err)
{
    reset_control_init(&m->reset_control, reboot, debug_exit, m);
    return reset_control_add_ports(&m->reset_control, &m->ports, err);
}

static void reset_reset_control(struct machine *m)
{
    reset_control_reset(&m->reset_control);
}

static void send_message(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;

    lapic_message(&m->lapics, source, address, data);
}

static void prepare_message(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;

    pthread_rwlock_rdlock(&m->engine_lock);
    if (machine_engine_keeps_apics(m))
        m->engine->ops->apic->prepare(m->engine, source, address, data);
    pthread_rwlock_unlock(&m->engine_lock);
}

static void set_doorbell(void *opaque, uint64_t address, int fd, bool on)
{
    struct machine *m = opaque;

    pthread_rwlock_rdlock(&m->engine_lock);
    doorbells_set(&m->doorbells, m->engine, address, fd, on);
    pthread_rwlock_unlock(&m->engine_lock);
}

static int add_pci(struct machine *m, struct error *err)
{
    struct irq_line irq[4];
    int r;

    for (unsigned i = 0; i < ARRAY_SIZE(irq); i++)
        irq[i] = line(m, PCI_IRQ_FIRST + i);
    r = pci_host_init(&m->pci, &m->ports, &m->mmio, irq, err);
    m->pci.port_cf9 = &m->reset_control.cf9;
    m->pci.messages = (struct pci_message_sink){send_message, prepare_message, m};
    m->pci.doorbells = (struct pci_doorbell_sink){set_doorbell, m};
    return r;
}

static void reset_pci(struct machine *m)
{
    for (unsigned i = 0; i < m->virtio_count; i++)
        virtio_pci_reset(m->virtio[i]);
    pci_host_reset(&m->pci);
}

int machine_add_virtio(struct machine *machine, struct virtio_device *device, struct error *err)
{
    struct virtio_pci *pci;
    int r;

    device->sandbox = machine->config.sandbox;
    r = virtio_pci_create(device, &machine->pci, machine->memory, &pci, err);

    if (r < 0)
        return r;
    machine->virtio[machine->virtio_count++] = pci;
    pci_host_reset(&machine->pci); /* lays the BARs out anew */
    return 0;
}

struct virtio_device *machine_virtio(struct machine *machine, int id, unsigned n)
{
    for (unsigned i = 0; i < machine->virtio_count; i++) {
        struct virtio_device *device = machine->virtio[i]->device;

        if ((int)device->ops->id == id && n-- == 0)
            return device;
    }
    return NULL;
}

static const struct board_device {
    int (*add)(struct machine *machine, struct error *err);
    void (*reset)(struct machine *machine);
} board[] = {
    {add_pic, reset_pic},
    {add_ioapic, reset_ioapic},
    {add_pit, reset_pit},
    {add_rtc, reset_rtc},
    {add_serial, reset_serial},
    {add_i8042, reset_i8042},
    {add_pm, reset_pm},
    {add_reset_control, reset_reset_control},
    {add_pci, reset_pci},
};

int board_create(struct machine *machine, struct error *err)
{
    int r = 0;

    bus_init(&machine->ports);
    bus_init(&machine->mmio);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(board); i++)
        r = board[i].add(machine, err);
    return r;
}

void board_destroy(struct machine *machine)
{
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_pci_destroy(machine->virtio[i]);
    bus_destroy(&machine->ports);
    bus_destroy(&machine->mmio);
}

void board_reset(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config.cpus; i++)
        lapic_reset(&machine->lapics.lapics[i]);
    for (size_t i = 0; i < ARRAY_SIZE(board); i++)
        board[i].reset(machine);
}
