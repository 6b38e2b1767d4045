/* elf.h - ELF executables as kernels: program headers into guest memory, and
 * the notes in them (System V ABI, chapter 5). 32 and 64 bit, little-endian. */
#ifndef LODGE_MACHINE_LOADER_ELF_H
#define LODGE_MACHINE_LOADER_ELF_H

#include <stdbool.h>

#include "machine/loader/boot_file.h"
#include "machine/memory.h"

/* Whether the file is ELF for x86 at all. */
bool elf_recognizes(const struct boot_file *file);
uint64_t elf_entry(const struct boot_file *file);
/* Put all PT_LOAD segments at their physical addresses; ret_end is the end of the highest. */
int elf_load(const struct boot_file *file, struct guest_memory *memory, uint64_t *ret_end,
             struct error *err);
/* The first 4 bytes of what the note (name, type) of a PT_NOTE segment says; false: none. */
bool elf_note(const struct boot_file *file, const char *name, uint32_t type, uint32_t *ret_word);

#endif
