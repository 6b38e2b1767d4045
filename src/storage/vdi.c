/* VirtualBox's VDI, for reading: a header, a table of blocks, the blocks. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/import.h"

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION   0x00010001u

/* Offsets in the header, which is little-endian. */
enum {
    AT_SIGNATURE = 0x40,
    AT_VERSION = 0x44,
    AT_TYPE = 0x4c,
    AT_TABLE = 0x154,
    AT_DATA = 0x158,
    AT_SECTOR_SIZE = 0x168,
    AT_SIZE = 0x170,
    AT_BLOCK_SIZE = 0x178,
    AT_BLOCK_EXTRA = 0x17c,
    AT_BLOCKS = 0x180,
    HEADER_LENGTH = 0x200,
};

enum { TYPE_DYNAMIC = 1, TYPE_FIXED = 2 };
enum { BLOCK_FREE = 0xfffffffe }; /* this and above: reads as zeroes */

struct vdi {
    uint32_t block_size, block_extra, blocks, data;
    uint8_t *table; /* 32-bit numbers of blocks in the file */
};

static bool vdi_probe(const uint8_t *head, size_t length)
{
    return length >= HEADER_LENGTH && load_le32(head + AT_SIGNATURE) == VDI_SIGNATURE;
}

static int vdi_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    AUTO_FREE struct vdi *vdi = calloc(1, sizeof(*vdi));
    uint8_t header[HEADER_LENGTH];
    uint32_t type;
    uint64_t size;
    void *table;
    int r = import_check_read_only(disk, err);

    (void)options;
    if (r < 0)
        return r;
    if (!vdi)
        return error_set(err, ENOMEM, "out of memory for a disk");
    r = disk_read(disk->file, 0, header, sizeof(header));
    if (r < 0)
        return error_system(err, -r, "%s: cannot read its header", disk->path);
    type = load_le32(header + AT_TYPE);
    size = load_le64(header + AT_SIZE);
    vdi->block_size = load_le32(header + AT_BLOCK_SIZE);
    vdi->block_extra = load_le32(header + AT_BLOCK_EXTRA);
    vdi->blocks = load_le32(header + AT_BLOCKS);
    vdi->data = load_le32(header + AT_DATA);
    if (load_le32(header + AT_SIGNATURE) != VDI_SIGNATURE)
        return error_set(err, EINVAL, "%s is no VDI image", disk->path);
    if (load_le32(header + AT_VERSION) != VDI_VERSION)
        return error_set(err, ENOTSUP, "%s: only version 1.1 of VDI is supported", disk->path);
    if (type != TYPE_DYNAMIC && type != TYPE_FIXED)
        return error_set(err, ENOTSUP, "%s: a VDI image that rests on another is not supported",
                         disk->path);
    if (load_le32(header + AT_SECTOR_SIZE) != DISK_SECTOR || !vdi->block_size ||
        vdi->block_size % DISK_SECTOR || vdi->block_extra || size > INT64_MAX ||
        (size + vdi->block_size - 1) / vdi->block_size > vdi->blocks)
        return error_set(err, EINVAL, "%s: the sizes in its header do not fit together",
                         disk->path);
    r = import_table(disk, load_le32(header + AT_TABLE), vdi->blocks * 4ull, &table, err);
    if (r < 0)
        return r;
    vdi->table = table;
    disk->size = size;
    disk->state = steal_pointer(&vdi);
    return 0;
}

static int vdi_close(struct disk *disk, struct error *err)
{
    struct vdi *vdi = disk->state;

    (void)err;
    free(vdi->table);
    free(vdi);
    return 0;
}

static int vdi_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    const struct vdi *vdi = disk->state;
    const uint64_t inside = offset % vdi->block_size;
    const uint32_t block = load_le32(vdi->table + offset / vdi->block_size * 4);

    *ret_extent = (struct disk_extent){.length = vdi->block_size - inside, .present = true};
    if (block >= BLOCK_FREE) {
        ret_extent->zero = true;
        return 0;
    }
    ret_extent->data = ret_extent->has_host_offset = true;
    ret_extent->host_offset = vdi->data + (uint64_t)block * vdi->block_size + inside;
    return 0;
}

const struct disk_format vdi_format = {
    .name = "vdi",
    .summary = "VirtualBox's, for reading",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .read = import_read,
    .map = vdi_map,
};
