/* memory_map.h - where everything lies in guest physical memory, and the map
 * of it that boot protocols hand to the guest (E820, ACPI 6.4 table 15-2). */
#ifndef LODGE_MACHINE_MEMORY_MAP_H
#define LODGE_MACHINE_MEMORY_MAP_H

#include <stdint.h>

#include "machine/memory.h"

#define MAP_EBDA         0x9fc00u   /* below it conventional memory */
#define MAP_BIOS         0xe0000u   /* ACPI tables live here, RSDP first */
#define MAP_BIOS_END     0x100000u
#define MAP_PCI_LOW      0xc0000000u /* window of 32-bit BARs */
#define MAP_PCI_LOW_END  0xe0000000u
#define MAP_ECAM         0xe0000000u /* 256 buses of 1 MiB */
#define MAP_ECAM_SIZE    0x10000000u
#define MAP_PCI_HIGH     0x4000000000ull /* window of 64-bit BARs */
#define MAP_PCI_HIGH_END 0x6000000000ull

#define MEMORY_MAP_ENTRIES_MAX 8

enum memory_map_type { MEMORY_MAP_USABLE = 1, MEMORY_MAP_RESERVED = 2, MEMORY_MAP_ACPI = 3 };

struct memory_map_entry {
    uint64_t address, size;
    enum memory_map_type type;
};

/* Fill entries in ascending order; returns how many. */
unsigned memory_map_fill(const struct guest_memory *memory,
                         struct memory_map_entry entries[MEMORY_MAP_ENTRIES_MAX]);

#endif
