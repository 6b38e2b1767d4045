/* Multiboot 1 (the Multiboot Specification, version 0.6.96): a header in the
 * first 8 KiB, loaded as ELF or by the addresses in the header. */
#include <string.h>

#include "base/bytes.h"
#include "machine/loader/elf.h"
#include "machine/loader/flat.h"
#include "machine/loader/loader.h"
#include "machine/memory_map.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define SEARCH       8192

#define FLAG_REFUSED   0xfffcu /* required features from bit 2 on: none is known */
#define FLAG_ADDRESSES (1u << 16)

#define INFO_MEMORY     (1u << 0)
#define INFO_COMMAND    (1u << 2)
#define INFO_MODULES    (1u << 3)
#define INFO_MEMORY_MAP (1u << 6)
#define INFO_LOADER     (1u << 9)

static const char loader_name[] = "lodge";

struct header {
    uint32_t magic, flags, checksum, header_address, load_address, load_end, bss_end, entry;
};

struct info {
    uint32_t flags, memory_lower, memory_upper, boot_device, command_line, modules,
        modules_address, symbols[4], map_length, map_address, drives_length, drives_address,
        config_table, loader_name, apm_table;
};

struct module {
    uint32_t start, end, text, reserved;
};

struct map_entry {
    uint32_t size; /* of what follows */
    uint64_t address, length;
    uint32_t type;
} __attribute__((packed));

struct layout {
    struct info info;
    struct module module;
    struct map_entry map[MEMORY_MAP_ENTRIES_MAX];
    char name[sizeof(loader_name)];
};

/* Offset of the header, or -1. */
static long find_header(const struct boot_file *file, struct header *ret_header)
{
    uint8_t bytes[SEARCH];
    size_t end = MIN(file->size, (uint64_t)SEARCH);

    if (boot_file_read(file, 0, bytes, end, NULL) < 0)
        return -1;

    for (size_t at = 0; at + 12 <= end; at += 4) {
        struct header h = {0};

        memcpy(&h, bytes + at, MIN(sizeof(h), end - at));
        if (h.magic == HEADER_MAGIC && (uint32_t)(h.magic + h.flags + h.checksum) == 0) {
            *ret_header = h;
            return (long)at;
        }
    }
    return -1;
}

static bool multiboot_recognizes(const struct boot_image *image)
{
    struct header h;

    return find_header(&image->kernel, &h) >= 0;
}

/* By the addresses in the header: the "a.out kludge" of the specification. */
static int load_flat(const struct boot_file *file, struct guest_memory *memory,
                     const struct header *h, size_t header_offset, uint64_t *ret_end,
                     struct error *err)
{
    uint64_t before = (uint64_t)h->header_address - h->load_address, size, end;
    uint8_t *to;

    if (h->load_address > h->header_address || before > header_offset)
        return error_set(err, ENOEXEC, "%s has a multiboot header with wrong addresses",
                         file->path);
    size = file->size - (header_offset - before);
    if (h->load_end) {
        if (h->load_end < h->load_address || h->load_end - h->load_address > size)
            return error_set(err, ENOEXEC, "%s is truncated: its multiboot header wants %u bytes",
                             file->path, h->load_end - h->load_address);
        size = h->load_end - h->load_address;
    }
    end = MAX(h->load_address + size, (uint64_t)h->bss_end);
    to = guest_memory_at(memory, h->load_address, end - h->load_address);
    if (!to)
        return error_set(err, EINVAL, "%s does not fit into memory; give more with --memory",
                         file->path);
    memset(to + size, 0, end - h->load_address - size);
    *ret_end = end;
    return boot_file_read(file, header_offset - before, to, size, err);
}

/* An initrd is the one module. */
static int load_module(const struct boot_file *initrd, struct guest_memory *memory, uint64_t end,
                       struct layout *layout, struct error *err)
{
    uint64_t address = ALIGN_UP(end, 4096ull);
    int r;

    if (!initrd->size)
        return 0;
    if (address + initrd->size > memory->region[0].size)
        return error_set(err, EINVAL,
                         "the initrd %s does not fit into memory beside the kernel; give more "
                         "with --memory",
                         initrd->path);
    r = boot_file_read(initrd, 0, guest_memory_at(memory, address, initrd->size), initrd->size,
                       err);
    if (r < 0)
        return r;
    layout->module.start = (uint32_t)address;
    layout->module.end = (uint32_t)(address + initrd->size);
    layout->info.flags |= INFO_MODULES;
    layout->info.modules = 1;
    layout->info.modules_address = FLAT_BOOT_PARAMS + offsetof(struct layout, module);
    return 0;
}

static void fill_map(const struct guest_memory *memory, struct layout *layout)
{
    struct memory_map_entry map[MEMORY_MAP_ENTRIES_MAX];
    unsigned count = memory_map_fill(memory, map);

    for (unsigned i = 0; i < count; i++)
        layout->map[i] = (struct map_entry){sizeof(struct map_entry) - 4, map[i].address,
                                            map[i].size, map[i].type};
    layout->info.map_length = (uint32_t)(count * sizeof(struct map_entry));
    layout->info.map_address = FLAT_BOOT_PARAMS + offsetof(struct layout, map);
    layout->info.memory_lower = MAP_EBDA / 1024;
    layout->info.memory_upper = (uint32_t)((memory->region[0].size - (1u << 20)) / 1024);
}

static int multiboot_load(const struct boot_image *image, struct machine *machine,
                          struct error *err)
{
    struct guest_memory *memory = machine_memory(machine);
    struct layout layout = {
        .info = {.flags = INFO_MEMORY | INFO_COMMAND | INFO_MEMORY_MAP | INFO_LOADER,
                 .command_line = FLAT_COMMAND,
                 .loader_name = FLAT_BOOT_PARAMS + offsetof(struct layout, name)},
    };
    struct header h = {0};
    struct x86_state state;
    size_t offset = (size_t)find_header(&image->kernel, &h);
    uint64_t end = 0;
    int r;

    if (h.flags & FLAG_REFUSED)
        return error_set(err, ENOTSUP, "%s demands multiboot features that there are not (0x%x)",
                         image->kernel.path, h.flags & FLAG_REFUSED);
    if (h.flags & FLAG_ADDRESSES)
        r = load_flat(&image->kernel, memory, &h, offset, &end, err);
    else if (elf_recognizes(&image->kernel))
        r = elf_load(&image->kernel, memory, &end, err);
    else
        r = error_set(err, ENOEXEC, "%s has a multiboot header, but neither addresses nor ELF",
                      image->kernel.path);
    if (r == 0)
        r = load_module(&image->initrd, memory, end, &layout, err);
    if (r == 0)
        r = flat_write_command_line(memory, image->append, 4096, err);
    machine_get_boot_state(machine, &state);
    if (r == 0)
        r = flat_enter_32(memory, &state, err);
    if (r < 0)
        return r;
    memcpy(layout.name, loader_name, sizeof(loader_name));
    fill_map(memory, &layout);
    guest_memory_write(memory, FLAT_BOOT_PARAMS, &layout, sizeof(layout));
    state.rip = h.flags & FLAG_ADDRESSES ? h.entry : elf_entry(&image->kernel);
    state.gpr[X86_RAX] = LOADER_MAGIC;
    state.gpr[X86_RBX] = FLAT_BOOT_PARAMS;
    machine_set_boot_state(machine, &state);
    return 0;
}

const struct loader multiboot_loader = {
    .name = "multiboot",
    .recognizes = multiboot_recognizes,
    .load = multiboot_load,
};
