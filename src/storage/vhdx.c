/* Hyper-V's VHDX, for reading ([MS-VHDX]): regions with a block allocation table and
 * metadata. What is still in the log of an image is read as if it had been replayed. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/import.h"
#include "storage/vhdx_log.h"

enum {
    HEADER_1 = 64 << 10,
    HEADER_2 = 128 << 10,
    REGIONS_1 = 192 << 10,
    REGIONS_2 = 256 << 10,
    HEADER_LENGTH = 4 << 10,
    REGIONS_LENGTH = 64 << 10,
    METADATA_LENGTH = 64 << 10, /* of its table; the items follow */
};

/* Header: signature, checksum, sequence number, GUIDs; the log's is 0 when it is empty. */
enum {
    AT_CHECKSUM = 4,
    AT_SEQUENCE = 8,
    AT_LOG_GUID = 48,
    AT_LOG_VERSION = 64,
    AT_LOG_LENGTH = 68,
    AT_LOG_OFFSET = 72,
};
/* Both tables have entries of 32 bytes, with a GUID first. */
enum { ENTRY_LENGTH = 32, REGIONS_FIRST = 16, REGIONS_MAX = 2047, METADATA_MAX = 2047 };

enum { PARAMETERS_HAS_PARENT = 1 << 1 };
enum { BLOCK_MIN = 1 << 20, BLOCK_MAX = 256 << 20 };
enum { STATE_FULL = 6, STATE_PARTIAL = 7, STATE_MASK = 7 };
#define BAT_OFFSET_MASK (~((1ull << 20) - 1))

static const uint8_t zero_guid[16];
static const uint8_t bat_guid[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                     0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t metadata_guid[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                          0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
static const uint8_t parameters_guid[16] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                            0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
static const uint8_t size_guid[16] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                      0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
static const uint8_t sector_guid[16] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                        0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};

struct vhdx {
    uint64_t bat_offset, metadata_offset;
    uint32_t bat_length, metadata_length;
    uint32_t block_size, sector_size;
    uint64_t chunk; /* blocks between two entries of sector bitmaps */
    uint8_t *bat;   /* 64-bit entries */
};

static bool vhdx_probe(const uint8_t *head, size_t length)
{
    return length >= 8 && !memcmp(head, "vhdxfile", 8);
}

/* A structure that is there twice: the right copy, and of two the newer one. */
static int read_copy(struct disk *disk, const uint64_t places[2], const char *signature,
                     size_t length, bool sequenced, uint8_t *ret_data, struct error *err)
{
    AUTO_FREE uint8_t *data = malloc(length);
    uint64_t best = 0;
    bool found = false;

    if (!data)
        return error_set(err, ENOMEM, "out of memory for a header");
    for (unsigned i = 0; i < 2; i++) {
        uint64_t sequence;
        int r = disk_read(disk->file, places[i], data, length);

        if (r < 0)
            return error_system(err, -r, "%s: cannot read its headers", disk->path);
        if (memcmp(data, signature, 4) ||
            vhdx_checksum(data, length) != load_le32(data + AT_CHECKSUM))
            continue;
        sequence = sequenced ? load_le64(data + AT_SEQUENCE) : 0;
        if (!found || sequence > best) {
            memcpy(ret_data, data, length);
            best = sequence;
            found = true;
        }
    }
    return found ? 0
                 : error_set(err, EINVAL, "%s: both copies of its header are damaged", disk->path);
}

/* Where there is a log, disk->file becomes the file after it. */
static int replay_log(struct disk *disk, struct error *err)
{
    static const uint64_t places[] = {HEADER_1, HEADER_2};
    AUTO_FREE uint8_t *header = malloc(HEADER_LENGTH);
    int r;

    if (!header)
        return error_set(err, ENOMEM, "out of memory for a header");
    r = read_copy(disk, places, "head", HEADER_LENGTH, true, header, err);
    if (r < 0 || !memcmp(header + AT_LOG_GUID, zero_guid, sizeof(zero_guid)))
        return r;
    if (load_le16(header + AT_LOG_VERSION) != 0)
        return error_set(err, ENOTSUP, "%s: its log's version is not known", disk->path);
    return vhdx_log_replay(disk->file, load_le64(header + AT_LOG_OFFSET),
                           load_le32(header + AT_LOG_LENGTH), header + AT_LOG_GUID, &disk->file,
                           err);
}

static int find_regions(struct disk *disk, struct vhdx *vhdx, struct error *err)
{
    static const uint64_t places[] = {REGIONS_1, REGIONS_2};
    AUTO_FREE uint8_t *table = malloc(REGIONS_LENGTH);
    uint32_t count;
    int r;

    if (!table)
        return error_set(err, ENOMEM, "out of memory for a table");
    r = read_copy(disk, places, "regi", REGIONS_LENGTH, false, table, err);
    if (r < 0)
        return r;
    count = load_le32(table + 8);
    for (uint32_t i = 0; i < MIN(count, REGIONS_MAX); i++) {
        const uint8_t *entry = table + REGIONS_FIRST + i * ENTRY_LENGTH;

        if (!memcmp(entry, bat_guid, 16)) {
            vhdx->bat_offset = load_le64(entry + 16);
            vhdx->bat_length = load_le32(entry + 24);
        } else if (!memcmp(entry, metadata_guid, 16)) {
            vhdx->metadata_offset = load_le64(entry + 16);
            vhdx->metadata_length = load_le32(entry + 24);
        } else if (load_le32(entry + 28) & 1) {
            return error_set(err, ENOTSUP, "%s needs a region that is not known", disk->path);
        }
    }
    if (!vhdx->bat_length || vhdx->metadata_length < METADATA_LENGTH)
        return error_set(err, EINVAL, "%s has no block table or no metadata", disk->path);
    return 0;
}

/* The item of a GUID; length bytes must be there. */
static const uint8_t *find_item(const uint8_t *metadata, uint32_t metadata_length,
                                const uint8_t *guid, uint32_t length)
{
    const uint32_t count = MIN(load_le16(metadata + 10), METADATA_MAX);

    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = metadata + (i + 1) * ENTRY_LENGTH;
        uint32_t at = load_le32(entry + 16);

        if (!memcmp(entry, guid, 16) && at <= metadata_length && length <= metadata_length - at &&
            load_le32(entry + 20) >= length)
            return metadata + at;
    }
    return NULL;
}

static int read_metadata(struct disk *disk, struct vhdx *vhdx, struct error *err)
{
    AUTO_FREE void *metadata = NULL;
    const uint8_t *parameters, *size, *sector;
    int r = import_table(disk, vhdx->metadata_offset, vhdx->metadata_length, &metadata, err);

    if (r < 0)
        return r;
    if (memcmp(metadata, "metadata", 8) != 0)
        return error_set(err, EINVAL, "%s: its metadata is damaged", disk->path);
    parameters = find_item(metadata, vhdx->metadata_length, parameters_guid, 8);
    size = find_item(metadata, vhdx->metadata_length, size_guid, 8);
    sector = find_item(metadata, vhdx->metadata_length, sector_guid, 4);
    if (!parameters || !size || !sector)
        return error_set(err, EINVAL, "%s: its metadata does not tell its size", disk->path);
    if (load_le32(parameters + 4) & PARAMETERS_HAS_PARENT)
        return error_set(err, ENOTSUP, "%s rests on another VHDX image, which is not supported",
                         disk->path);
    vhdx->block_size = load_le32(parameters);
    vhdx->sector_size = load_le32(sector);
    disk->size = load_le64(size);
    if (vhdx->block_size < BLOCK_MIN || vhdx->block_size > BLOCK_MAX ||
        (vhdx->block_size & (vhdx->block_size - 1)) ||
        (vhdx->sector_size != 512 && vhdx->sector_size != 4096) || disk->size > INT64_MAX)
        return error_set(err, EINVAL, "%s: the sizes in its metadata do not fit together",
                         disk->path);
    return 0;
}

static int read_tables(struct disk *disk, struct vhdx *vhdx, struct error *err)
{
    uint64_t blocks, entries;
    void *bat;
    int r = find_regions(disk, vhdx, err);

    if (r == 0)
        r = read_metadata(disk, vhdx, err);
    if (r < 0)
        return r;
    vhdx->chunk = (1ull << 23) * vhdx->sector_size / vhdx->block_size;
    blocks = disk->size / vhdx->block_size + (disk->size % vhdx->block_size != 0);
    entries = blocks ? blocks + (blocks - 1) / vhdx->chunk : 0;
    if (entries > vhdx->bat_length / 8)
        return error_set(err, EINVAL, "%s: its block table is shorter than its disk", disk->path);
    r = import_table(disk, vhdx->bat_offset, entries * 8, &bat, err);
    if (r == 0)
        vhdx->bat = bat;
    return r;
}

static int vhdx_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    AUTO_FREE struct vhdx *vhdx = calloc(1, sizeof(*vhdx));
    struct disk *file = disk->file;
    int r = import_check_read_only(disk, err);

    (void)options;
    if (r == 0 && !vhdx)
        r = error_set(err, ENOMEM, "out of memory for a disk");
    if (r == 0)
        r = replay_log(disk, err);
    if (r == 0)
        r = read_tables(disk, vhdx, err);
    if (r < 0 && disk->file != file) {
        vhdx_log_forget(disk->file);
        disk->file = file;
    }
    if (r < 0)
        return r;
    disk->state = steal_pointer(&vhdx);
    return 0;
}

static int vhdx_close(struct disk *disk, struct error *err)
{
    struct vhdx *vhdx = disk->state;

    (void)err;
    free(vhdx->bat);
    free(vhdx);
    return 0;
}

static int vhdx_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    const struct vhdx *vhdx = disk->state;
    const uint64_t block = offset / vhdx->block_size, inside = offset % vhdx->block_size;
    const uint64_t entry = load_le64(vhdx->bat + (block + block / vhdx->chunk) * 8);

    *ret_extent = (struct disk_extent){.length = vhdx->block_size - inside, .present = true};
    if ((entry & STATE_MASK) == STATE_PARTIAL || (entry & BAT_OFFSET_MASK) > INT64_MAX - BLOCK_MAX)
        return -EIO;
    ret_extent->zero = (entry & STATE_MASK) != STATE_FULL;
    ret_extent->data = ret_extent->has_host_offset = !ret_extent->zero;
    ret_extent->host_offset = ret_extent->data ? (entry & BAT_OFFSET_MASK) + inside : 0;
    return 0;
}

const struct disk_format vhdx_format = {
    .name = "vhdx",
    .summary = "Hyper-V's, for reading",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .read = import_read,
    .map = vhdx_map,
};
