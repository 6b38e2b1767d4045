/* acpi.h - the ACPI tables (ACPI 6.4): RSDP, XSDT, FADT, MADT, MCFG, FACS and
 * the DSDT, which iasl makes from dsdt.asl at build time. */
#ifndef LODGE_MACHINE_ACPI_H
#define LODGE_MACHINE_ACPI_H

#include "machine/memory.h"

#define ACPI_RSDP    0xe0000u /* MAP_BIOS: found by scanning, too */
#define ACPI_SCI_IRQ 9

/* Write all tables to guest memory from ACPI_RSDP on. */
int acpi_write_tables(struct guest_memory *memory, unsigned cpus, struct error *err);

#endif
