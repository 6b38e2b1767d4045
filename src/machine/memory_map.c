#include "machine/memory_map.h"

unsigned memory_map_fill(const struct guest_memory *memory,
                         struct memory_map_entry entries[MEMORY_MAP_ENTRIES_MAX])
{
    const struct guest_memory_region *low = &memory->region[0];
    unsigned n = 0;

    entries[n++] = (struct memory_map_entry){0, MAP_EBDA, MEMORY_MAP_USABLE};
    entries[n++] = (struct memory_map_entry){MAP_EBDA, 0xa0000 - MAP_EBDA, MEMORY_MAP_RESERVED};
    entries[n++] =
        (struct memory_map_entry){MAP_BIOS, MAP_BIOS_END - MAP_BIOS, MEMORY_MAP_RESERVED};
    entries[n++] =
        (struct memory_map_entry){MAP_BIOS_END, low->size - MAP_BIOS_END, MEMORY_MAP_USABLE};
    entries[n++] = (struct memory_map_entry){MAP_ECAM, MAP_ECAM_SIZE, MEMORY_MAP_RESERVED};
    if (memory->region_count > 1)
        entries[n++] = (struct memory_map_entry){memory->region[1].address,
                                                 memory->region[1].size, MEMORY_MAP_USABLE};
    return n;
}
