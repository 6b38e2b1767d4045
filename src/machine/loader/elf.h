/* elf.h - ELF executables as kernels: program headers into guest memory, and
 * the notes in them (System V ABI, chapter 5). 32 and 64 bit, little-endian. */
#ifndef LODGE_MACHINE_LOADER_ELF_H
#define LODGE_MACHINE_LOADER_ELF_H

#include <stdbool.h>

#include "machine/loader/loader.h"
#include "machine/memory.h"

struct elf_segment {
    uint32_t type;
    uint64_t offset, physical, file_size, memory_size;
};

/* Whether the file is ELF for x86 at all. */
bool elf_recognizes(const struct boot_image *image);
uint64_t elf_entry(const struct boot_image *image);
/* The n-th program header; false when there is none, or it lies outside the file. */
bool elf_segment_at(const struct boot_image *image, unsigned n, struct elf_segment *ret_segment);
/* Put all PT_LOAD segments at their physical addresses; ret_end is the end of the highest. */
int elf_load(const struct boot_image *image, struct guest_memory *memory, uint64_t *ret_end,
             struct error *err);
/* The description of the note (name, type) in PT_NOTE segments, or NULL. */
const uint8_t *elf_note(const struct boot_image *image, const char *name, uint32_t type,
                        uint32_t *ret_size);

#endif
