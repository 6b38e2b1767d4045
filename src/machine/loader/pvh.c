/* ELF kernels by the PVH boot protocol of the Xen project (x86/HVM direct
 * boot ABI): a note names a 32-bit entry; EBX points to hvm_start_info. */
#include <string.h>

#include "base/bytes.h"
#include "machine/loader/elf.h"
#include "machine/loader/flat.h"
#include "machine/loader/loader.h"
#include "machine/memory_map.h"

#define NOTE_NAME         "Xen"
#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC       0x336ec578u

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t modules_address, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};

struct module_entry {
    uint64_t address, size, command_line, reserved;
};

struct map_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

/* As they lie in memory from FLAT_BOOT_PARAMS on. */
struct layout {
    struct start_info start;
    struct module_entry module;
    struct map_entry map[MEMORY_MAP_ENTRIES_MAX];
};

static bool pvh_recognizes(const struct boot_image *image)
{
    uint32_t entry;

    return elf_recognizes(&image->kernel) &&
           elf_note(&image->kernel, NOTE_NAME, NOTE_PHYS32_ENTRY, &entry);
}

static int load_module(const struct boot_file *initrd, struct guest_memory *memory, uint64_t end,
                       struct layout *layout, struct error *err)
{
    uint64_t top = memory->region[0].size;

    if (!initrd->size)
        return 0;
    if (initrd->size > top || ALIGN_DOWN(top - initrd->size, 4096ull) < end)
        return error_set(err, EINVAL,
                         "the initrd %s does not fit into memory beside the kernel; give more "
                         "with --memory",
                         initrd->path);
    layout->module.address = ALIGN_DOWN(top - initrd->size, 4096ull);
    layout->module.size = initrd->size;
    layout->start.modules = 1;
    layout->start.modules_address = FLAT_BOOT_PARAMS + offsetof(struct layout, module);
    return boot_file_read(initrd, 0, guest_memory_at(memory, layout->module.address, initrd->size),
                          initrd->size, err);
}

static int pvh_load(const struct boot_image *image, struct machine *machine, struct error *err)
{
    struct guest_memory *memory = machine_memory(machine);
    struct memory_map_entry map[MEMORY_MAP_ENTRIES_MAX];
    struct layout layout = {
        .start = {
            .magic = START_MAGIC, .version = 1, .command_line = FLAT_COMMAND,
            .rsdp = machine_rsdp(machine),
            .memory_map = FLAT_BOOT_PARAMS + offsetof(struct layout, map),
            .memory_map_entries = memory_map_fill(memory, map),
        },
    };
    struct x86_state state;
    uint32_t entry = 0;
    uint64_t end = 0;
    int r;

    for (unsigned i = 0; i < layout.start.memory_map_entries; i++)
        layout.map[i] = (struct map_entry){map[i].address, map[i].size, map[i].type, 0};
    r = elf_load(&image->kernel, memory, &end, err);
    if (r == 0)
        r = load_module(&image->initrd, memory, end, &layout, err);
    if (r == 0)
        r = flat_write_command_line(memory, image->append, 4096, err);
    machine_get_boot_state(machine, &state);
    if (r == 0)
        r = flat_enter_32(memory, &state, err);
    if (r < 0)
        return r;
    guest_memory_write(memory, FLAT_BOOT_PARAMS, &layout, sizeof(layout));
    elf_note(&image->kernel, NOTE_NAME, NOTE_PHYS32_ENTRY, &entry);
    state.rip = entry;
    state.gpr[X86_RBX] = FLAT_BOOT_PARAMS;
    machine_set_boot_state(machine, &state);
    return 0;
}

const struct loader pvh_loader = {
    .name = "PVH ELF",
    .recognizes = pvh_recognizes,
    .load = pvh_load,
};
