/* Linux bzImage by the boot protocol (Documentation/arch/x86/boot.rst): the
 * 64-bit entry where the kernel has one, else the 32-bit entry. */
#include <string.h>

#include "base/bytes.h"
#include "base/size.h"
#include "machine/loader/flat.h"
#include "machine/loader/loader.h"
#include "machine/memory_map.h"

/* Offsets in the image, and in the zero page, where the header lies too. */
enum {
    HDR_SETUP_SECTS = 0x1f1, HDR_SYSSIZE = 0x1f4, HDR_VID_MODE = 0x1fa, HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200, HDR_MAGIC = 0x202, HDR_VERSION = 0x206, HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211, HDR_CODE32_START = 0x214, HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c, HDR_HEAP_END = 0x224, HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c, HDR_KERNEL_ALIGNMENT = 0x230, HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236, HDR_CMDLINE_SIZE = 0x238, HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260, HDR_END = 0x268,
    HDR_MAX = 0x290, /* how far it can reach */
    /* Zero page only. */
    ZERO_ACPI_RSDP = 0x070, ZERO_E820_ENTRIES = 0x1e8, ZERO_E820_TABLE = 0x2d0,
};

#define MAGIC         0x53726448u /* "HdrS" */
#define BOOT_FLAG     0xaa55
#define LOADED_HIGH   0x01
#define CAN_USE_HEAP  0x80
#define XLF_KERNEL_64 0x01
#define LOADER_OTHER  0xff /* no number of its own */
#define VIDEO_NORMAL  0xffff
#define LOAD_ADDRESS  0x100000u
#define ENTRY_64      0x200

static bool linux_recognizes(const struct boot_image *image)
{
    uint8_t h[HDR_END];

    return boot_file_read(&image->kernel, 0, h, sizeof(h), NULL) == 0 &&
           load_le32(h + HDR_MAGIC) == MAGIC && load_le16(h + HDR_BOOT_FLAG) == BOOT_FLAG;
}

/* Where the kernel goes, and how far it reaches while it unpacks itself. */
struct placement {
    uint64_t payload, payload_size; /* in the file */
    uint64_t address, end;
    bool entry_64;
};

static int place(const struct boot_file *kernel, const uint8_t *h,
                 const struct guest_memory *memory, struct placement *ret, struct error *err)
{
    unsigned version = load_le16(h + HDR_VERSION);
    uint64_t setup = ((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4u) + 1) * 512;
    uint64_t code = (uint64_t)load_le32(h + HDR_SYSSIZE) * 16;
    uint64_t low_end = memory->region[0].size, need;
    char text[32];

    if (version < 0x204 || !(h[HDR_LOADFLAGS] & LOADED_HIGH))
        return error_set(err, ENOEXEC, "%s is a kernel too old to boot (protocol %u.%02u)",
                         kernel->path, version >> 8, version & 0xff);
    if (setup >= kernel->size)
        return error_set(err, ENOEXEC, "%s is truncated: its setup code alone has %llu bytes",
                         kernel->path, (unsigned long long)setup);
    ret->payload = setup;
    ret->payload_size = kernel->size - setup;
    /* syssize (in 16-byte units) tells how long the file must be. */
    if (code > ALIGN_UP(ret->payload_size, 16ull))
        return error_set(err, ENOEXEC, "%s is truncated: it should have %llu bytes, it has %llu",
                         kernel->path, (unsigned long long)(setup + code),
                         (unsigned long long)kernel->size);
    ret->entry_64 = version >= 0x20c && (load_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64);
    ret->address = LOAD_ADDRESS;
    need = ret->payload_size;
    if (version >= 0x20a) {
        uint64_t preferred = load_le64(h + HDR_PREF_ADDRESS);
        uint64_t init_size = load_le32(h + HDR_INIT_SIZE);

        need = MAX(need, init_size);
        if (preferred >= LOAD_ADDRESS && preferred <= low_end && need <= low_end - preferred)
            ret->address = preferred;
        else if (h[HDR_RELOCATABLE])
            ret->address = ALIGN_UP((uint64_t)LOAD_ADDRESS,
                                    (uint64_t)MAX(load_le32(h + HDR_KERNEL_ALIGNMENT), 1u));
        else
            ret->address = preferred;
    }
    if (ret->address > low_end || need > low_end - ret->address)
        return error_set(err, EINVAL, "the kernel %s needs more memory; give it %s or more",
                         kernel->path,
                         size_format(ALIGN_UP(ret->address + need, 1ull << 20), text,
                                     sizeof(text)));
    ret->end = ret->address + need;
    return 0;
}

/* As high as the kernel allows. */
static int load_initrd(const struct boot_file *initrd, struct guest_memory *memory, uint8_t *zero,
                       uint64_t kernel_end, struct error *err)
{
    uint64_t top = MIN(memory->region[0].size, (uint64_t)load_le32(zero + HDR_INITRD_ADDR_MAX) + 1);
    uint64_t address;
    char have[32], want[32];
    int r;

    if (!initrd->size)
        return 0;
    address = ALIGN_DOWN(top - MIN(top, initrd->size), 4096ull);
    if (initrd->size > top || address < ALIGN_UP(kernel_end, 4096ull))
        return error_set(err, EINVAL,
                         "the initrd %s (%s) does not fit into %s of memory beside the kernel; "
                         "give more with --memory",
                         initrd->path, size_format(initrd->size, want, sizeof(want)),
                         size_format(memory->size, have, sizeof(have)));
    r = boot_file_read(initrd, 0, guest_memory_at(memory, address, initrd->size), initrd->size,
                       err);
    if (r < 0)
        return r;
    store_le32(zero + HDR_RAMDISK_IMAGE, (uint32_t)address);
    store_le32(zero + HDR_RAMDISK_SIZE, (uint32_t)initrd->size);
    return 0;
}

static void fill_e820(const struct guest_memory *memory, uint8_t *zero)
{
    struct memory_map_entry entries[MEMORY_MAP_ENTRIES_MAX];
    unsigned count = memory_map_fill(memory, entries);

    zero[ZERO_E820_ENTRIES] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = zero + ZERO_E820_TABLE + 20 * (size_t)i;

        store_le64(at, entries[i].address);
        store_le64(at + 8, entries[i].size);
        store_le32(at + 16, entries[i].type);
    }
}

static int linux_load(const struct boot_image *image, struct machine *machine, struct error *err)
{
    struct guest_memory *memory = machine_memory(machine);
    uint8_t h[HDR_MAX] = {0}, zero[4096] = {0};
    struct placement at = {0};
    struct x86_state state;
    size_t header_end; /* where its jump instruction leads */
    int r = boot_file_read(&image->kernel, 0, h, MIN(image->kernel.size, sizeof(h)), err);

    if (r == 0)
        r = place(&image->kernel, h, memory, &at, err);
    if (r < 0)
        return r;
    header_end = MIN((size_t)HDR_MAGIC + h[HDR_JUMP + 1], sizeof(h));
    memcpy(zero + HDR_SETUP_SECTS, h + HDR_SETUP_SECTS, header_end - HDR_SETUP_SECTS);
    zero[HDR_TYPE_OF_LOADER] = LOADER_OTHER;
    zero[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    store_le16(zero + HDR_HEAP_END, 0xfe00);
    store_le16(zero + HDR_VID_MODE, VIDEO_NORMAL);
    store_le32(zero + HDR_CODE32_START, (uint32_t)at.address);
    store_le32(zero + HDR_CMD_LINE_PTR, FLAT_COMMAND);
    store_le64(zero + ZERO_ACPI_RSDP, machine_rsdp(machine));
    fill_e820(memory, zero);
    r = load_initrd(&image->initrd, memory, zero, at.end, err);
    if (r == 0)
        r = flat_write_command_line(
            memory, image->append,
            load_le16(h + HDR_VERSION) >= 0x206 ? load_le32(h + HDR_CMDLINE_SIZE) + 1ull : 256,
            err);
    machine_get_boot_state(machine, &state);
    if (r == 0)
        r = at.entry_64 ? flat_enter_64(memory, &state, err) : flat_enter_32(memory, &state, err);
    if (r == 0)
        r = boot_file_read(&image->kernel, at.payload,
                           guest_memory_at(memory, at.address, at.payload_size),
                           at.payload_size, err);
    if (r < 0)
        return r;
    guest_memory_write(memory, FLAT_BOOT_PARAMS, zero, sizeof(zero));
    state.rip = at.address + (at.entry_64 ? ENTRY_64 : 0);
    state.gpr[X86_RSI] = FLAT_BOOT_PARAMS;
    machine_set_boot_state(machine, &state);
    return 0;
}

const struct loader linux_loader = {
    .name = "Linux bzImage",
    .recognizes = linux_recognizes,
    .load = linux_load,
};
