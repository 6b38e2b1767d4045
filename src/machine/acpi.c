#include "machine/acpi.h"

#include <string.h>

#include "base/bytes.h"
#include "device/acpi_pm.h"
#include "device/reset_control.h"
#include "device/rtc.h"
#include "machine/dsdt.h"
#include "machine/ioapic.h"
#include "machine/lapic.h"
#include "machine/memory_map.h"

/* ACPI 6.4, 5.2.6 */
struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));

/* 5.2.5.3 */
struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

/* Generic address structure, 5.2.3.2 */
struct gas {
    uint8_t space, width, offset, access;
    uint64_t address;
} __attribute__((packed));
#define GAS_IO 1

/* 5.2.9 */
struct fadt {
    struct header header;
    uint32_t firmware_control, dsdt;
    uint8_t reserved1, preferred_profile;
    uint16_t sci_interrupt;
    uint32_t smi_command;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length, gpe0_length,
        gpe1_length, gpe1_base, cstate;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_architecture;
    uint8_t reserved2;
    uint32_t flags;
    struct gas reset_register;
    uint8_t reset_value;
    uint16_t arm_boot;
    uint8_t minor_revision;
    uint64_t x_firmware_control, x_dsdt;
    struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control,
        x_pm_timer, x_gpe0, x_gpe1, sleep_control, sleep_status;
    uint64_t hypervisor;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "ACPI 6.4, table 5.9");

#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_SLEEP_BUTTON  (1u << 5) /* no fixed sleep button */
#define FADT_RESET         (1u << 10)
#define BOOT_LEGACY        (1u << 0)
#define BOOT_NO_VGA        (1u << 2)
#define PROFILE_SERVER     4

/* 5.2.10 */
struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct facs) == 64, "ACPI 6.4, table 5.12");

/* 5.2.12 */
struct madt {
    struct header header;
    uint32_t lapic, flags;
} __attribute__((packed));
#define MADT_PCAT_COMPAT 1

struct madt_lapic {
    uint8_t type, length, processor, apic_id;
    uint32_t flags;
} __attribute__((packed));

struct madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address, gsi_base;
} __attribute__((packed));

struct madt_override {
    uint8_t type, length, bus, source;
    uint32_t gsi;
    uint16_t flags;
} __attribute__((packed));

struct madt_nmi {
    uint8_t type, length, processor;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));

/* PCI Firmware 3.2, 4.1.2 */
struct mcfg {
    struct header header;
    uint8_t reserved[8];
    uint64_t base;
    uint16_t segment;
    uint8_t first_bus, last_bus;
    uint32_t reserved2;
} __attribute__((packed));

/* Where the next table goes, in a buffer that becomes guest memory. */
struct builder {
    uint8_t bytes[MAP_BIOS_END - MAP_BIOS];
    size_t used;
};

static void checksum(void *table, size_t length, uint8_t *field)
{
    const uint8_t *p = table;
    uint8_t sum = 0;

    *field = 0;
    for (size_t i = 0; i < length; i++)
        sum += p[i];
    *field = (uint8_t)-sum;
}

static void *reserve(struct builder *b, size_t size, size_t alignment)
{
    void *at;

    b->used = ALIGN_UP(b->used, alignment);
    at = b->bytes + b->used;
    b->used += size;
    return at;
}

static uint32_t address_of(const struct builder *b, const void *at)
{
    return ACPI_RSDP + (uint32_t)((const uint8_t *)at - b->bytes);
}

static void *begin(struct builder *b, const char *signature, uint8_t revision, size_t size)
{
    struct header *h = reserve(b, size, 16);

    memset(h, 0, size);
    memcpy(h->signature, signature, 4);
    h->revision = revision;
    memcpy(h->oem_id, "LODGE ", 6);
    memcpy(h->oem_table_id, "LODGEPC ", 8);
    h->oem_revision = 1;
    memcpy(h->creator_id, "LODG", 4);
    h->creator_revision = 1;
    return h;
}

static uint32_t finish(struct builder *b, struct header *h)
{
    h->length = (uint32_t)(b->bytes + b->used - (uint8_t *)h);
    checksum(h, h->length, &h->checksum);
    return address_of(b, h);
}

static struct gas io(uint16_t port, uint8_t bits)
{
    return (struct gas){.space = GAS_IO, .width = bits, .access = (uint8_t)(bits / 16 + 1),
                        .address = port};
}

static uint32_t add_dsdt(struct builder *b)
{
    uint8_t *at = reserve(b, sizeof(dsdt_aml), 16);

    memcpy(at, dsdt_aml, sizeof(dsdt_aml));
    return address_of(b, at);
}

static uint32_t add_facs(struct builder *b)
{
    struct facs *facs = reserve(b, sizeof(*facs), 64);

    *facs = (struct facs){.signature = "FACS", .length = sizeof(*facs), .version = 2};
    return address_of(b, facs);
}

static uint32_t add_fadt(struct builder *b, uint32_t dsdt, uint32_t facs)
{
    struct fadt *f = begin(b, "FACP", 6, sizeof(*f));

    f->firmware_control = facs;
    f->dsdt = dsdt;
    f->x_dsdt = dsdt;
    f->preferred_profile = PROFILE_SERVER;
    f->sci_interrupt = ACPI_SCI_IRQ;
    f->pm1a_event = ACPI_PM_BASE;
    f->pm1a_control = ACPI_PM_CONTROL;
    f->pm_timer = ACPI_PM_TIMER;
    f->pm1_event_length = 4;
    f->pm1_control_length = 2;
    f->pm_timer_length = 4;
    f->c2_latency = 0xffff; /* none */
    f->c3_latency = 0xffff;
    f->century = RTC_CENTURY;
    /* No keyboard controller is told of: who looks for what is plugged into it waits for
     * a quarter of a second. Its reset line works all the same. */
    f->boot_architecture = BOOT_LEGACY | BOOT_NO_VGA;
    f->flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLEEP_BUTTON | FADT_RESET;
    f->reset_register = io(RESET_CONTROL_PORT, 8);
    f->reset_value = RESET_CONTROL_VALUE;
    f->minor_revision = 4;
    f->x_pm1a_event = io(ACPI_PM_BASE, 32);
    f->x_pm1a_control = io(ACPI_PM_CONTROL, 16);
    f->x_pm_timer = io(ACPI_PM_TIMER, 32);
    return finish(b, &f->header);
}

static uint32_t add_madt(struct builder *b, unsigned cpus)
{
    /* The PIT's line is pin 2; the SCI is level-triggered, active high. */
    static const struct madt_override overrides[] = {
        {2, sizeof(struct madt_override), 0, 0, 2, 0},
        {2, sizeof(struct madt_override), 0, ACPI_SCI_IRQ, ACPI_SCI_IRQ, 0xd},
    };
    struct madt *m = begin(b, "APIC", 4, sizeof(*m));

    m->lapic = LAPIC_BASE;
    m->flags = MADT_PCAT_COMPAT;
    for (unsigned i = 0; i < cpus; i++)
        *(struct madt_lapic *)reserve(b, sizeof(struct madt_lapic), 1) = (struct madt_lapic){
            .length = sizeof(struct madt_lapic), .processor = (uint8_t)i, .apic_id = (uint8_t)i,
            .flags = 1};
    *(struct madt_ioapic *)reserve(b, sizeof(struct madt_ioapic), 1) =
        (struct madt_ioapic){.type = 1, .length = sizeof(struct madt_ioapic), .id = (uint8_t)cpus,
                             .address = IOAPIC_BASE};
    memcpy(reserve(b, sizeof(overrides), 1), overrides, sizeof(overrides));
    *(struct madt_nmi *)reserve(b, sizeof(struct madt_nmi), 1) = (struct madt_nmi){
        .type = 4, .length = sizeof(struct madt_nmi), .processor = 0xff, .lint = 1};
    return finish(b, &m->header);
}

static uint32_t add_mcfg(struct builder *b)
{
    struct mcfg *m = begin(b, "MCFG", 1, sizeof(*m));

    m->base = MAP_ECAM;
    m->last_bus = 0;
    return finish(b, &m->header);
}

static uint32_t add_xsdt(struct builder *b, const uint32_t *tables, size_t count)
{
    struct header *h = begin(b, "XSDT", 1, sizeof(*h));

    for (size_t i = 0; i < count; i++)
        store_le64(reserve(b, 8, 1), tables[i]);
    return finish(b, h);
}

static void fill_rsdp(struct rsdp *rsdp, uint32_t xsdt)
{
    memcpy(rsdp->signature, "RSD PTR ", 8);
    memcpy(rsdp->oem_id, "LODGE ", 6);
    rsdp->revision = 2;
    rsdp->length = sizeof(*rsdp);
    rsdp->xsdt = xsdt;
    checksum(rsdp, 20, &rsdp->checksum);
    checksum(rsdp, sizeof(*rsdp), &rsdp->extended_checksum);
}

int acpi_write_tables(struct guest_memory *memory, unsigned cpus, struct error *err)
{
    struct builder b = {.used = 0};
    struct rsdp *rsdp = reserve(&b, sizeof(*rsdp), 16);
    uint32_t tables[3], dsdt = add_dsdt(&b), facs = add_facs(&b);

    tables[0] = add_fadt(&b, dsdt, facs);
    tables[1] = add_madt(&b, cpus);
    tables[2] = add_mcfg(&b);
    fill_rsdp(rsdp, add_xsdt(&b, tables, ARRAY_SIZE(tables)));
    if (guest_memory_write(memory, ACPI_RSDP, b.bytes, b.used) < 0)
        return error_set(err, EINVAL, "memory is too small for the ACPI tables; give at least 2M");
    return 0;
}
