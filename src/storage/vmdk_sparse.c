/* One sparse file of VMware's VMDK, for reading, also with compressed grains
 * (streamOptimized). "Virtual Disk Format 5.0". */
#include "storage/vmdk.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/import.h"
#include "storage/vec.h"

#define VMDK_MAGIC       0x564d444bu /* "KDMV" */
#define DIRECTORY_AT_END UINT64_MAX  /* the header's copy at the end knows */

/* Offsets in the header, which is little-endian; sizes and places are in sectors. */
enum {
    AT_VERSION = 4,
    AT_FLAGS = 8,
    AT_CAPACITY = 12,
    AT_GRAIN = 20,
    AT_DESCRIPTOR = 28,
    AT_DESCRIPTOR_LENGTH = 36,
    AT_TABLE_ENTRIES = 44,
    AT_DIRECTORY = 56,
    AT_COMPRESSION = 77,
    HEADER_LENGTH = 512,
    FOOTER_FROM_END = 1024,
};

enum { FLAG_ZEROED_GRAINS = 1 << 2, FLAG_COMPRESSED = 1 << 16 };
enum { GRAIN_NONE = 0, GRAIN_ZEROED = 1 };
enum { GRAIN_MAX = 1 << 20, TABLE_ENTRIES_MAX = 4096, MARKER_LENGTH = 12 };
enum { COMPRESSION_DEFLATE = 1 };

struct vmdk {
    uint32_t flags, grain_size; /* bytes */
    uint32_t table_entries;
    uint64_t directory_entries;
    uint8_t *directory; /* 32-bit sectors of tables */
    uint8_t *table;     /* the one that was used last */
    uint64_t table_at;  /* its sector, 0: none */
};

bool vmdk_sparse_probe(const uint8_t *head, size_t length)
{
    return length >= HEADER_LENGTH && load_le32(head) == VMDK_MAGIC;
}

/* The text in the file says whether it is all of the disk. */
static int check_descriptor(struct disk *disk, const uint8_t *header, struct error *err)
{
    const uint64_t at = load_le64(header + AT_DESCRIPTOR);
    const uint64_t length = load_le64(header + AT_DESCRIPTOR_LENGTH);
    char text[20 * 512 + 1] = "";
    int r;

    if (!at || at > INT64_MAX / DISK_SECTOR)
        return 0;
    r = disk_read(disk->file, at * DISK_SECTOR, text, MIN(length, 20) * DISK_SECTOR);
    if (r < 0)
        return error_system(err, -r, "%s: cannot read its descriptor", disk->path);
    return vmdk_check_parent(disk, text, err);
}

static int parse_header(struct disk *disk, struct vmdk *vmdk, const uint8_t *header,
                        struct error *err)
{
    const uint64_t capacity = load_le64(header + AT_CAPACITY), grain = load_le64(header + AT_GRAIN);
    const uint64_t directory = load_le64(header + AT_DIRECTORY);
    uint64_t per_table;
    void *table;
    int r;

    if (load_le32(header) != VMDK_MAGIC)
        return error_set(err, EINVAL, "%s is no VMDK image", disk->path);
    if (load_le32(header + AT_VERSION) < 1 || load_le32(header + AT_VERSION) > 3)
        return error_set(err, ENOTSUP, "%s: version %u of VMDK is not supported", disk->path,
                         load_le32(header + AT_VERSION));
    vmdk->flags = load_le32(header + AT_FLAGS);
    vmdk->table_entries = load_le32(header + AT_TABLE_ENTRIES);
    if (capacity > INT64_MAX / DISK_SECTOR || !grain || grain > GRAIN_MAX / DISK_SECTOR ||
        (grain & (grain - 1)) || !vmdk->table_entries || vmdk->table_entries > TABLE_ENTRIES_MAX ||
        directory > INT64_MAX / DISK_SECTOR)
        return error_set(err, EINVAL, "%s: the sizes in its header do not fit together",
                         disk->path);
    if ((vmdk->flags & FLAG_COMPRESSED) &&
        load_le16(header + AT_COMPRESSION) != COMPRESSION_DEFLATE)
        return error_set(err, ENOTSUP, "%s: its way of compression is not known", disk->path);
    vmdk->grain_size = (uint32_t)grain * DISK_SECTOR;
    disk->size = capacity * DISK_SECTOR;
    per_table = (uint64_t)vmdk->table_entries * vmdk->grain_size;
    vmdk->directory_entries = disk->size / per_table + (disk->size % per_table != 0);
    r = check_descriptor(disk, header, err);
    if (r == 0)
        r = import_table(disk, directory * DISK_SECTOR, vmdk->directory_entries * 4, &table, err);
    if (r == 0)
        vmdk->directory = table;
    return r;
}

static int sparse_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    AUTO_FREE struct vmdk *vmdk = calloc(1, sizeof(*vmdk));
    uint8_t header[HEADER_LENGTH] = {0};
    int r = disk_read(disk->file, 0, header, MIN(disk->file->size, sizeof(header)));

    (void)options;
    if (r == 0 && load_le64(header + AT_DIRECTORY) == DIRECTORY_AT_END &&
        disk->file->size >= FOOTER_FROM_END)
        r = disk_read(disk->file, disk->file->size - FOOTER_FROM_END, header, sizeof(header));
    if (r < 0)
        return error_system(err, -r, "%s: cannot read its header", disk->path);
    if (!vmdk)
        return error_set(err, ENOMEM, "out of memory for a disk");
    r = parse_header(disk, vmdk, header, err);
    if (r < 0)
        return r;
    vmdk->table = malloc(vmdk->table_entries * 4ull);
    if (!vmdk->table) {
        free(vmdk->directory);
        return error_set(err, ENOMEM, "out of memory for a table");
    }
    disk->state = steal_pointer(&vmdk);
    return 0;
}

static int sparse_close(struct disk *disk, struct error *err)
{
    struct vmdk *vmdk = disk->state;

    (void)err;
    free(vmdk->directory);
    free(vmdk->table);
    free(vmdk);
    return 0;
}

/* The grain's sector in the file, GRAIN_NONE or GRAIN_ZEROED. */
static int find_grain(struct disk *disk, uint64_t offset, uint32_t *ret_sector)
{
    struct vmdk *vmdk = disk->state;
    const uint64_t grain = offset / vmdk->grain_size;
    const uint64_t at = load_le32(vmdk->directory + grain / vmdk->table_entries * 4);
    const size_t length = vmdk->table_entries * 4ull;
    uint8_t *table;
    int r;

    *ret_sector = GRAIN_NONE;
    if (!at)
        return 0;
    if (at != vmdk->table_at) { /* others may ask meanwhile: exchange the tables at once */
        table = malloc(length);
        r = table ? disk_read(disk->file, at * DISK_SECTOR, table, length) : -ENOMEM;
        if (r < 0) {
            free(table);
            return r;
        }
        free(vmdk->table);
        vmdk->table = table;
        vmdk->table_at = at;
    }
    *ret_sector = load_le32(vmdk->table + grain % vmdk->table_entries * 4);
    if (*ret_sector == GRAIN_ZEROED && !(vmdk->flags & FLAG_ZEROED_GRAINS))
        *ret_sector = GRAIN_NONE;
    return 0;
}

static int sparse_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    const struct vmdk *vmdk = disk->state;
    const uint64_t inside = offset % vmdk->grain_size;
    uint32_t sector;
    int r = find_grain(disk, offset, &sector);

    *ret_extent = (struct disk_extent){.length = vmdk->grain_size - inside, .present = true};
    if (r < 0)
        return r;
    if (sector <= GRAIN_ZEROED) {
        ret_extent->zero = true;
        return 0;
    }
    ret_extent->data = true;
    ret_extent->compressed = vmdk->flags & FLAG_COMPRESSED;
    ret_extent->has_host_offset = !ret_extent->compressed;
    ret_extent->host_offset =
        (uint64_t)sector * DISK_SECTOR + (ret_extent->compressed ? 0 : inside);
    return 0;
}

/* A marker (which grain, how long), then a zlib stream. */
static int inflate_grain(struct disk *disk, uint64_t at, uint8_t *grain)
{
    const struct vmdk *vmdk = disk->state;
    uint8_t marker[MARKER_LENGTH];
    AUTO_FREE uint8_t *in = NULL;
    uLongf length = vmdk->grain_size;
    uint32_t in_length;
    int r = disk_read(disk->file, at, marker, sizeof(marker));

    if (r < 0)
        return r;
    in_length = load_le32(marker + 8);
    if (in_length > 2 * vmdk->grain_size + 1024)
        return -EIO;
    in = malloc(in_length + 1);
    if (!in)
        return -ENOMEM;
    r = disk_read(disk->file, at + sizeof(marker), in, in_length);
    if (r < 0)
        return r;
    memset(grain, 0, vmdk->grain_size); /* the last one may be short */
    return uncompress(grain, &length, in, in_length) == Z_OK ? 0 : -EIO;
}

static int sparse_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                       uint64_t length)
{
    const struct vmdk *vmdk = disk->state;
    AUTO_FREE uint8_t *grain = NULL;
    uint64_t done = 0;
    int r = 0;

    if (!(vmdk->flags & FLAG_COMPRESSED))
        return import_read(disk, offset, iov, count, length);
    grain = malloc(vmdk->grain_size);
    if (!grain)
        return -ENOMEM;
    while (done < length && r == 0) {
        struct disk_extent extent;
        uint64_t part;

        r = sparse_map(disk, offset + done, &extent);
        if (r < 0)
            return r;
        part = MIN(extent.length, length - done);
        if (extent.zero) {
            vec_fill(iov, count, done, 0, part);
        } else {
            r = inflate_grain(disk, extent.host_offset, grain);
            if (r == 0)
                vec_from(iov, count, done, grain + (offset + done) % vmdk->grain_size, part);
        }
        done += part;
    }
    return r;
}

const struct disk_format vmdk_sparse_format = {
    .name = "vmdk",
    .summary = "VMware's, one sparse file",
    .probe = vmdk_sparse_probe,
    .open = sparse_open,
    .close = sparse_close,
    .read = sparse_read,
    .map = sparse_map,
};
