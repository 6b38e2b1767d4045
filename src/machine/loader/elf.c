#include "machine/loader/elf.h"

#include <elf.h>
#include <string.h>

#include "base/bytes.h"

static bool is_64(const struct boot_image *image)
{
    return image->kernel[EI_CLASS] == ELFCLASS64;
}

bool elf_recognizes(const struct boot_image *image)
{
    const uint8_t *k = image->kernel;
    uint16_t machine;

    if (image->kernel_size < sizeof(Elf64_Ehdr) || memcmp(k, ELFMAG, SELFMAG) ||
        k[EI_DATA] != ELFDATA2LSB || (k[EI_CLASS] != ELFCLASS32 && k[EI_CLASS] != ELFCLASS64))
        return false;
    machine = load_le16(k + 18);
    return machine == EM_386 || machine == EM_X86_64;
}

uint64_t elf_entry(const struct boot_image *image)
{
    return is_64(image) ? load_le64(image->kernel + 24) : load_le32(image->kernel + 24);
}

bool elf_segment_at(const struct boot_image *image, unsigned n, struct elf_segment *ret_segment)
{
    const uint8_t *k = image->kernel, *p;
    const bool wide = is_64(image);
    uint64_t offset = wide ? load_le64(k + 32) : load_le32(k + 28);
    unsigned size = load_le16(k + (wide ? 54 : 42)), count = load_le16(k + (wide ? 56 : 44));
    unsigned least = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

    if (n >= count || size < least || offset > image->kernel_size ||
        (uint64_t)size * (n + 1) > image->kernel_size - offset)
        return false;
    p = k + offset + (size_t)size * n;
    if (wide)
        *ret_segment = (struct elf_segment){load_le32(p), load_le64(p + 8), load_le64(p + 24),
                                            load_le64(p + 32), load_le64(p + 40)};
    else
        *ret_segment = (struct elf_segment){load_le32(p), load_le32(p + 4), load_le32(p + 12),
                                            load_le32(p + 16), load_le32(p + 20)};
    return true;
}

int elf_load(const struct boot_image *image, struct guest_memory *memory, uint64_t *ret_end,
             struct error *err)
{
    struct elf_segment s;
    uint64_t end = 0;
    bool any = false;

    for (unsigned n = 0; elf_segment_at(image, n, &s); n++) {
        uint8_t *to;

        if (s.type != PT_LOAD || !s.memory_size)
            continue;
        if (s.offset > image->kernel_size || s.file_size > image->kernel_size - s.offset ||
            s.file_size > s.memory_size)
            return error_set(err, ENOEXEC, "%s is truncated: segment %u ends beyond the file",
                             image->kernel_path, n);
        to = guest_memory_at(memory, s.physical, s.memory_size);
        if (!to)
            return error_set(err, EINVAL,
                             "segment %u of %s (%llu bytes at 0x%llx) lies outside the guest's "
                             "memory; give more with --memory",
                             n, image->kernel_path, (unsigned long long)s.memory_size,
                             (unsigned long long)s.physical);
        memcpy(to, image->kernel + s.offset, s.file_size);
        memset(to + s.file_size, 0, s.memory_size - s.file_size);
        end = MAX(end, s.physical + s.memory_size);
        any = true;
    }
    if (!any)
        return error_set(err, ENOEXEC, "%s has nothing to load (no PT_LOAD segment)",
                         image->kernel_path);
    *ret_end = end;
    return 0;
}

const uint8_t *elf_note(const struct boot_image *image, const char *name, uint32_t type,
                        uint32_t *ret_size)
{
    struct elf_segment s;

    for (unsigned n = 0; elf_segment_at(image, n, &s); n++) {
        uint64_t at = 0;

        if (s.type != PT_NOTE || s.offset > image->kernel_size ||
            s.file_size > image->kernel_size - s.offset)
            continue;
        while (s.file_size - at >= 12) {
            const uint8_t *note = image->kernel + s.offset + at;
            uint64_t name_size = load_le32(note), size = load_le32(note + 4);
            uint64_t body = 12 + ALIGN_UP(name_size, 4ull), next = body + ALIGN_UP(size, 4ull);

            if (body + size > s.file_size - at)
                break;
            if (load_le32(note + 8) == type && name_size == strlen(name) + 1 &&
                !memcmp(note + 12, name, name_size)) {
                *ret_size = (uint32_t)size;
                return note + body;
            }
            if (next > s.file_size - at)
                break;
            at += next;
        }
    }
    return NULL;
}
