/* flat.h - the flat CPU states that boot protocols start a kernel in. */
#ifndef LODGE_MACHINE_LOADER_FLAT_H
#define LODGE_MACHINE_LOADER_FLAT_H

#include <stdint.h>

#include "machine/machine.h"
#include "machine/memory.h"

/* Low memory that loaders use for their own structures. */
#define FLAT_GDT         0x01000u
#define FLAT_BOOT_PARAMS 0x10000u /* Linux's zero page, PVH's and multiboot's information */
#define FLAT_COMMAND     0x20000u /* the command line */
#define FLAT_PAGE_TABLES 0x30000u /* 6 pages */
#define FLAT_STACK       0x3f000u /* below it */

#define FLAT_CODE 0x10
#define FLAT_DATA 0x18

/* 32-bit protected mode, no paging, segments of 4 GiB from 0, interrupts off
 * (SDM 3A 3.2.1). Writes the GDT. */
int flat_enter_32(struct guest_memory *memory, struct x86_state *state, struct error *err);
/* 64-bit mode with the first 4 GiB mapped to themselves. Writes GDT and page tables. */
int flat_enter_64(struct guest_memory *memory, struct x86_state *state, struct error *err);

/* Write the command line at FLAT_COMMAND; limit counts its terminating zero. */
int flat_write_command_line(struct guest_memory *memory, const char *text, uint64_t limit,
                            struct error *err);

#endif
