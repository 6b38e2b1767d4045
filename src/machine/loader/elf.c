#include "machine/loader/elf.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define NOTES_MAX (64u << 10) /* kernels have a few hundred bytes of them */

struct segment {
    uint32_t type;
    uint64_t offset, physical, file_size, memory_size;
};

/* A 32-bit file's header is shorter; what follows it is not looked at then. */
static bool read_header(const struct boot_file *file, uint8_t header[sizeof(Elf64_Ehdr)])
{
    return boot_file_read(file, 0, header, sizeof(Elf64_Ehdr), NULL) == 0;
}

static bool is_64(const uint8_t *header)
{
    return header[EI_CLASS] == ELFCLASS64;
}

bool elf_recognizes(const struct boot_file *file)
{
    uint8_t h[sizeof(Elf64_Ehdr)];
    uint16_t machine;

    if (!read_header(file, h) || memcmp(h, ELFMAG, SELFMAG) || h[EI_DATA] != ELFDATA2LSB ||
        (h[EI_CLASS] != ELFCLASS32 && h[EI_CLASS] != ELFCLASS64))
        return false;
    machine = load_le16(h + 18);
    return machine == EM_386 || machine == EM_X86_64;
}

uint64_t elf_entry(const struct boot_file *file)
{
    uint8_t h[sizeof(Elf64_Ehdr)];

    if (!read_header(file, h))
        return 0;
    return is_64(h) ? load_le64(h + 24) : load_le32(h + 24);
}

/* The n-th program header; false when there is none, or it lies outside the file. */
static bool segment_at(const struct boot_file *file, unsigned n, struct segment *ret_segment)
{
    uint8_t h[sizeof(Elf64_Ehdr)], p[sizeof(Elf64_Phdr)];
    bool wide;
    uint64_t offset;
    unsigned size, count, least;

    if (!read_header(file, h))
        return false;
    wide = is_64(h);
    offset = wide ? load_le64(h + 32) : load_le32(h + 28);
    size = load_le16(h + (wide ? 54 : 42));
    count = load_le16(h + (wide ? 56 : 44));
    least = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (n >= count || size < least || offset > file->size ||
        boot_file_read(file, offset + (uint64_t)size * n, p, least, NULL) < 0)
        return false;
    if (wide)
        *ret_segment = (struct segment){load_le32(p), load_le64(p + 8), load_le64(p + 24),
                                        load_le64(p + 32), load_le64(p + 40)};
    else
        *ret_segment = (struct segment){load_le32(p), load_le32(p + 4), load_le32(p + 12),
                                        load_le32(p + 16), load_le32(p + 20)};
    return true;
}

int elf_load(const struct boot_file *file, struct guest_memory *memory, uint64_t *ret_end,
             struct error *err)
{
    struct segment s;
    uint64_t end = 0;
    bool any = false;

    for (unsigned n = 0; segment_at(file, n, &s); n++) {
        uint8_t *to;
        int r;

        if (s.type != PT_LOAD || !s.memory_size)
            continue;
        if (s.offset > file->size || s.file_size > file->size - s.offset ||
            s.file_size > s.memory_size)
            return error_set(err, ENOEXEC, "%s is truncated: segment %u ends beyond the file",
                             file->path, n);
        to = guest_memory_at(memory, s.physical, s.memory_size);
        if (!to)
            return error_set(err, EINVAL,
                             "segment %u of %s (%llu bytes at 0x%llx) lies outside the guest's "
                             "memory; give more with --memory",
                             n, file->path, (unsigned long long)s.memory_size,
                             (unsigned long long)s.physical);
        r = boot_file_read(file, s.offset, to, s.file_size, err);
        if (r < 0)
            return r;
        memset(to + s.file_size, 0, s.memory_size - s.file_size);
        end = MAX(end, s.physical + s.memory_size);
        any = true;
    }
    if (!any)
        return error_set(err, ENOEXEC, "%s has nothing to load (no PT_LOAD segment)", file->path);
    *ret_end = end;
    return 0;
}

/* Look through size bytes of notes. */
static bool find_note(const uint8_t *notes, uint64_t size, const char *name, uint32_t type,
                      uint32_t *ret_word)
{
    while (size >= 12) {
        uint64_t name_size = load_le32(notes), length = load_le32(notes + 4);
        uint64_t body = 12 + ALIGN_UP(name_size, 4ull), next = body + ALIGN_UP(length, 4ull);

        if (body + length > size)
            return false;
        if (load_le32(notes + 8) == type && name_size == strlen(name) + 1 &&
            !memcmp(notes + 12, name, name_size) && length >= 4) {
            *ret_word = load_le32(notes + body);
            return true;
        }
        if (next > size)
            return false;
        notes += next;
        size -= next;
    }
    return false;
}

bool elf_note(const struct boot_file *file, const char *name, uint32_t type, uint32_t *ret_word)
{
    AUTO_FREE uint8_t *notes = malloc(NOTES_MAX);
    struct segment s;

    for (unsigned n = 0; notes && segment_at(file, n, &s); n++)
        if (s.type == PT_NOTE && s.file_size <= NOTES_MAX &&
            boot_file_read(file, s.offset, notes, s.file_size, NULL) == 0 &&
            find_note(notes, s.file_size, name, type, ret_word))
            return true;
    return false;
}
