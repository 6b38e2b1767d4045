/* The header in the first cluster: fixed fields, extensions, the backing file's name. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

#define LENGTH_V2  72
#define LENGTH_V3  104
#define LENGTH_OUR 112 /* with the compression type, padded to 8 */

enum extension_type {
    EXTENSION_END = 0,
    EXTENSION_BACKING_FORMAT = 0xe2792aca,
    EXTENSION_FEATURE_NAMES = 0x6803f857,
    EXTENSION_BITMAPS = 0x23852875,
    EXTENSION_ENCRYPTION = 0x0537be77,
    EXTENSION_DATA_FILE = 0x44415441,
};

/* For the feature name table, so that programs that lack one can say its name. */
static const struct {
    uint8_t kind, bit; /* 0 incompatible, 1 compatible, 2 autoclear */
    const char *name;
} feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

/* Where fixed fields are. The first five and the count of snapshots are in both versions. */
struct field {
    uint8_t at, size;
    size_t to; /* in struct qcow2_header */
};

#define FIELD(at, member)                                                                          \
    {                                                                                              \
        at, sizeof(((struct qcow2_header *)0)->member), offsetof(struct qcow2_header, member)      \
    }

static const struct field fields[] = {
    FIELD(4, version),           FIELD(20, cluster_bits),      FIELD(24, size),
    FIELD(32, encryption),       FIELD(36, l1_size),           FIELD(40, l1_offset),
    FIELD(48, reftable_offset),  FIELD(56, reftable_clusters), FIELD(60, snapshot_count),
    FIELD(64, snapshots_offset), FIELD(72, incompatible),      FIELD(80, compatible),
    FIELD(88, autoclear),        FIELD(96, refcount_order),    FIELD(100, length),
};

static void load_fields(const uint8_t *raw, unsigned end, struct qcow2_header *header)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields) && fields[i].at < end; i++) {
        void *to = (uint8_t *)header + fields[i].to;

        if (fields[i].size == 8)
            *(uint64_t *)to = load_be64(raw + fields[i].at);
        else
            *(uint32_t *)to = load_be32(raw + fields[i].at);
    }
}

static void store_fields(uint8_t *raw, unsigned end, const struct qcow2_header *header)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields) && fields[i].at < end; i++) {
        const void *from = (const uint8_t *)header + fields[i].to;

        if (fields[i].size == 8)
            store_be64(raw + fields[i].at, *(const uint64_t *)from);
        else
            store_be32(raw + fields[i].at, *(const uint32_t *)from);
    }
}

bool qcow2_probe(const uint8_t *head, size_t length)
{
    return length >= 8 && load_be32(head) == QCOW2_MAGIC && load_be32(head + 4) >= 2;
}

/* --- Reading --- */

static int check_fields(const char *path, const struct qcow2_header *h, struct error *err)
{
    const uint64_t mask = (1ull << h->cluster_bits) - 1;

    if (h->encryption)
        return error_set(err, ENOTSUP, "%s is encrypted, which is not supported", path);
    if (h->refcount_order > 6)
        return error_set(err, EINVAL, "%s: refcounts of 2^%u bits; there are at most 64", path,
                         h->refcount_order);
    if (h->size > INT64_MAX)
        return error_set(err, EFBIG, "%s: a disk of %llu bytes is too large", path,
                         (unsigned long long)h->size);
    if (h->l1_size > QCOW2_L1_MAX / 8 || (h->l1_offset & mask) || h->l1_offset > INT64_MAX)
        return error_set(err, EINVAL, "%s: its L1 table cannot be where the header says", path);
    if (h->reftable_clusters > QCOW2_REFTABLE_MAX >> h->cluster_bits || !h->reftable_clusters ||
        (h->reftable_offset & mask) || !h->reftable_offset || h->reftable_offset > INT64_MAX)
        return error_set(err, EINVAL, "%s: its refcount table cannot be where the header says",
                         path);
    if (h->snapshot_count > QCOW2_SNAPSHOTS_MAX || (h->snapshots_offset & mask) ||
        h->snapshots_offset > INT64_MAX)
        return error_set(err, EINVAL, "%s: its snapshots cannot be where the header says", path);
    return 0;
}

static int check_features(const char *path, const struct qcow2_header *h, struct error *err)
{
    uint64_t unknown = h->incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE |
                                           QCOW2_COMPRESSION_TYPE | QCOW2_EXTENDED_L2);

    if (h->incompatible & QCOW2_DATA_FILE)
        return error_set(err, ENOTSUP,
                         "%s keeps its data in another file (external data file), "
                         "which is not supported; convert it with qemu-img",
                         path);
    if (unknown)
        return error_set(err, ENOTSUP, "%s uses features of qcow2 that are not known (0x%llx)",
                         path, (unsigned long long)unknown);
    if ((h->incompatible & QCOW2_EXTENDED_L2) && h->cluster_bits < 14)
        return error_set(err, EINVAL, "%s: extended L2 entries need clusters of 16K or more", path);
    return 0;
}

static int read_extensions(const char *path, const uint8_t *raw, uint32_t at, uint32_t end,
                           struct qcow2_header *h, struct error *err)
{
    while (at + 8 <= end) {
        uint32_t type = load_be32(raw + at), length = load_be32(raw + at + 4);
        uint32_t whole;

        if (type == EXTENSION_END)
            return 0;
        if (length > end - at - 8)
            return error_set(err, EINVAL, "%s: a header extension is longer than its room", path);
        whole = MIN(8 + ALIGN_UP(length, 8), end - at);
        if (type == EXTENSION_BACKING_FORMAT) {
            if (length >= sizeof(h->backing_format))
                return error_set(err, EINVAL, "%s: its backing file's format has a long name",
                                 path);
            memcpy(h->backing_format, raw + at + 8, length);
        } else if (type != EXTENSION_FEATURE_NAMES) {
            memcpy(h->kept + h->kept_length, raw + at, whole);
            h->kept_length += whole;
        }
        at += whole;
    }
    return 0;
}

static int read_backing(const char *path, const uint8_t *raw, struct qcow2_header *h,
                        struct error *err)
{
    uint64_t offset = load_be64(raw + 8);
    uint32_t length = load_be32(raw + 16);

    if (!offset || !length)
        return 0;
    if (length > QCOW2_BACKING_MAX || offset > (1u << h->cluster_bits) - length)
        return error_set(err, EINVAL, "%s: its backing file's name is not in its header", path);
    memcpy(h->backing, raw + offset, length);
    return 0;
}

/* What follows the first 72 bytes, with the whole first cluster at hand. */
static int read_rest(struct disk *file, const uint8_t *raw, struct qcow2_header *h,
                     struct error *err)
{
    const uint32_t cluster = 1u << h->cluster_bits;
    const char *path = file->path;
    uint64_t backing_at = load_be64(raw + 8);
    int r;

    h->refcount_order = 4;
    h->length = LENGTH_V2;
    if (h->version >= 3)
        load_fields(raw, LENGTH_V3, h);
    if (h->length < (h->version >= 3 ? LENGTH_V3 : LENGTH_V2) || h->length > cluster)
        return error_set(err, EINVAL, "%s: its header says that it is %u bytes long", path,
                         h->length);
    r = check_features(path, h, err);
    if (r == 0)
        r = check_fields(path, h, err);
    if (r < 0)
        return r;
    if (h->length > LENGTH_V3)
        h->compression = raw[LENGTH_V3];
    if (h->compression > QCOW2_ZSTD ||
        (h->compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION_TYPE))
        return error_set(err, ENOTSUP, "%s: its way of compression (%d) is not known", path,
                         h->compression);
    h->kept = malloc(cluster);
    if (!h->kept)
        return error_set(err, ENOMEM, "out of memory for a header");
    if (!backing_at || backing_at > cluster)
        backing_at = cluster;
    r = read_extensions(path, raw, h->length, (uint32_t)backing_at, h, err);
    return r < 0 ? r : read_backing(path, raw, h, err);
}

int qcow2_header_read(struct disk *file, struct qcow2_header *ret_header, struct error *err)
{
    struct qcow2_header h = {0};
    uint8_t start[LENGTH_V2];
    AUTO_FREE uint8_t *raw = NULL;
    int r = disk_read(file, 0, start, sizeof(start));

    if (r < 0)
        return error_system(err, -r, "%s: cannot read its header", file->path);
    load_fields(start, LENGTH_V2, &h);
    if (load_be32(start) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "%s is no qcow2 image", file->path);
    if (h.version != 2 && h.version != 3)
        return error_set(err, ENOTSUP, "%s: version %u of qcow2 is not supported", file->path,
                         h.version);
    if (h.cluster_bits < QCOW2_CLUSTER_BITS_MIN || h.cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, EINVAL, "%s: clusters of 2^%u bytes; they have 512 to 2M", file->path,
                         h.cluster_bits);
    raw = malloc(1u << h.cluster_bits);
    if (!raw)
        return error_set(err, ENOMEM, "out of memory for a header");
    r = disk_read(file, 0, raw, 1u << h.cluster_bits);
    if (r < 0)
        return error_system(err, -r, "%s: cannot read its header", file->path);
    r = read_rest(file, raw, &h, err);
    if (r < 0) {
        qcow2_header_free(&h);
        return r;
    }
    *ret_header = h;
    return 0;
}

void qcow2_header_free(struct qcow2_header *header)
{
    free(header->kept);
    header->kept = NULL;
}

/* --- Writing --- */

static uint32_t put_extension(uint8_t *raw, uint32_t at, uint32_t type, const void *data,
                              uint32_t length)
{
    store_be32(raw + at, type);
    store_be32(raw + at + 4, length);
    memcpy(raw + at + 8, data, length);
    return at + 8 + ALIGN_UP(length, 8);
}

static uint32_t put_feature_names(uint8_t *raw, uint32_t at)
{
    uint8_t names[ARRAY_SIZE(feature_names)][48] = {0};

    for (unsigned i = 0; i < ARRAY_SIZE(feature_names); i++) {
        names[i][0] = feature_names[i].kind;
        names[i][1] = feature_names[i].bit;
        memcpy(names[i] + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    return put_extension(raw, at, EXTENSION_FEATURE_NAMES, names, sizeof(names));
}

int qcow2_header_write(struct disk *file, const struct qcow2_header *header, struct error *err)
{
    const uint32_t cluster = 1u << header->cluster_bits;
    const uint32_t backing = (uint32_t)strlen(header->backing);
    AUTO_FREE uint8_t *raw = calloc(1, cluster + 4096);
    uint32_t at = header->version >= 3 ? LENGTH_OUR : LENGTH_V2;
    struct qcow2_header h = *header;
    int r;

    if (!raw)
        return error_set(err, ENOMEM, "out of memory for a header");
    h.length = at;
    store_be32(raw, QCOW2_MAGIC);
    store_fields(raw, h.version >= 3 ? LENGTH_V3 : LENGTH_V2, &h);
    if (h.version >= 3)
        raw[LENGTH_V3] = (uint8_t)h.compression;
    if (*h.backing_format)
        at = put_extension(raw, at, EXTENSION_BACKING_FORMAT, h.backing_format,
                           (uint32_t)strlen(h.backing_format));
    if (h.kept_length && at + h.kept_length <= cluster) {
        memcpy(raw + at, h.kept, h.kept_length);
        at += h.kept_length;
    }
    /* The names are a courtesy: left out when there is no room. */
    if (h.version >= 3 && at + 8 + ARRAY_SIZE(feature_names) * 48 + 8 + backing <= cluster)
        at = put_feature_names(raw, at);
    at += 8; /* the end of extensions, all zeroes */
    if (backing) {
        if (at + backing > cluster)
            return error_set(err, EINVAL,
                             "%s: a cluster of %u bytes has no room for the backing "
                             "file's name",
                             file->path, cluster);
        store_be64(raw + 8, at);
        store_be32(raw + 16, backing);
        memcpy(raw + at, h.backing, backing);
    }
    r = disk_write(file, 0, raw, cluster);
    return r < 0 ? error_system(err, -r, "%s: cannot write its header", file->path) : 0;
}

int qcow2_header_update(struct qcow2 *q)
{
    uint8_t raw[QCOW2_SECTOR];
    unsigned end = q->header.version >= 3 ? 96 : LENGTH_V2;
    int r = disk_read(q->file, 0, raw, sizeof(raw));

    if (r < 0)
        return r;
    store_fields(raw, end, &q->header);
    return disk_write(q->file, 0, raw, sizeof(raw));
}

/* --- Creating --- */

static int check_options(const struct disk *file, const struct disk_create_options *o,
                         struct error *err)
{
    uint32_t cluster = o->cluster_size ? o->cluster_size : 65536;
    unsigned bits = o->refcount_bits ? o->refcount_bits : 16;
    const char *path = file->path;

    if ((cluster & (cluster - 1)) || cluster < 512 || cluster > (2u << 20))
        return error_set(err, EINVAL, "%s: a cluster has 512 bytes to 2M, a power of two", path);
    if ((bits & (bits - 1)) || bits > 64)
        return error_set(err, EINVAL, "%s: refcounts have 1, 2, 4, 8, 16, 32 or 64 bits", path);
    if (o->version && o->version != 2 && o->version != 3)
        return error_set(err, EINVAL, "%s: qcow2 has the versions 2 and 3", path);
    if (o->version == 2 && (o->lazy_refcounts || o->extended_l2 || bits != 16 ||
                            (o->compression && strcmp(o->compression, "zlib"))))
        return error_set(err, EINVAL,
                         "%s: version 2 has no lazy refcounts, extended L2 entries, "
                         "zstd nor other refcounts than of 16 bits",
                         path);
    if (o->extended_l2 && cluster < 16384)
        return error_set(err, EINVAL, "%s: extended L2 entries need clusters of 16K or more", path);
    if (o->compression && strcmp(o->compression, "zlib") && strcmp(o->compression, "zstd"))
        return error_set(err, EINVAL, "%s: there are the compressions zlib and zstd", path);
    if (o->backing && strlen(o->backing) > QCOW2_BACKING_MAX)
        return error_set(err, ENAMETOOLONG, "%s: the backing file's name is longer than %d", path,
                         QCOW2_BACKING_MAX);
    return 0;
}

/* The backing file must be there; it gives the size and the format that were not said. */
static int look_at_backing(struct disk *file, struct qcow2_header *h,
                           const struct disk_create_options *o, struct error *err)
{
    const struct disk_options options = {.format = o->backing_format, .no_lock = true};
    AUTO_FREE char *path = disk_backing_path(file->path, o->backing);
    struct disk *backing;
    int r;

    if (!path)
        return error_set(err, ENOMEM, "out of memory for a path");
    r = disk_open(file->storage, path, &options, &backing, err);
    if (r < 0) {
        error_prepend(err, "backing file of %s", file->path);
        return r;
    }
    snprintf(h->backing, sizeof(h->backing), "%s", o->backing);
    snprintf(h->backing_format, sizeof(h->backing_format), "%s", disk_format_name(backing));
    if (!h->size)
        h->size = backing->size;
    return disk_close(backing, err);
}

/* Lay the empty tables out behind the header: refcount table, refcount blocks, L1 table. */
static int write_tables(struct disk *file, struct qcow2_header *h)
{
    const uint64_t cluster = 1ull << h->cluster_bits;
    const uint64_t per_block = cluster * 8 >> h->refcount_order;
    const uint64_t l1 = MAX((h->l1_size * 8ull + cluster - 1) / cluster, 1);
    uint64_t blocks = 1, table = 1, used, before;
    AUTO_FREE uint8_t *buffer = NULL;
    int r;

    do { /* the blocks count themselves too */
        before = blocks;
        used = 1 + table + blocks + l1;
        blocks = (used + per_block - 1) / per_block;
        table = (blocks * 8 + cluster - 1) / cluster;
        blocks = MAX(blocks, before);
    } while (blocks != before || used != 1 + table + blocks + l1);
    if (table * cluster > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    h->reftable_offset = cluster;
    h->reftable_clusters = (uint32_t)table;
    h->l1_offset = (1 + table + blocks) * cluster;
    buffer = calloc(table + blocks, cluster);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t i = 0; i < blocks; i++)
        store_be64(buffer + i * 8, (1 + table + i) * cluster);
    for (uint64_t i = 0; i < used; i++)
        refcount_write(buffer + (table + i / per_block) * cluster, h->refcount_order, i % per_block,
                       1);
    r = disk_write(file, cluster, buffer, (table + blocks) * cluster);
    return r < 0 ? r : disk_write_zeroes(file, h->l1_offset, l1 * cluster, DISK_MAY_UNMAP);
}

int qcow2_create(struct disk *file, const struct disk_create_options *o, struct error *err)
{
    struct qcow2_header h = {.version = o->version ? o->version : 3, .size = o->size};
    uint32_t cluster = o->cluster_size ? o->cluster_size : 65536;
    unsigned bits = o->refcount_bits ? o->refcount_bits : 16;
    uint64_t per_l2, l1;
    int r = check_options(file, o, err);

    if (r == 0 && o->backing)
        r = look_at_backing(file, &h, o, err);
    if (r < 0)
        return r;
    h.size = ALIGN_UP(h.size, (uint64_t)DISK_SECTOR);
    h.cluster_bits = (unsigned)__builtin_ctz(cluster);
    h.refcount_order = (unsigned)__builtin_ctz(bits);
    if (o->lazy_refcounts)
        h.compatible |= QCOW2_LAZY_REFCOUNTS;
    if (o->extended_l2)
        h.incompatible |= QCOW2_EXTENDED_L2;
    if (o->compression && !strcmp(o->compression, "zstd")) {
        h.compression = QCOW2_ZSTD;
        h.incompatible |= QCOW2_COMPRESSION_TYPE;
    }
    per_l2 = (uint64_t)cluster * (cluster / (o->extended_l2 ? 16 : 8));
    l1 = (h.size + per_l2 - 1) / per_l2;
    if (l1 > QCOW2_L1_MAX / 8)
        return error_set(err, EFBIG, "%s: too large for clusters of %u bytes; take larger ones",
                         file->path, cluster);
    h.l1_size = (uint32_t)l1;
    r = write_tables(file, &h);
    if (r == -EFBIG)
        return error_set(err, EFBIG, "%s: too large for clusters of %u bytes; take larger ones",
                         file->path, cluster);
    if (r < 0)
        return error_system(err, -r, "cannot write %s", file->path);
    r = qcow2_header_write(file, &h, err);
    if (r == 0 && (r = disk_flush(file)) < 0)
        error_system(err, -r, "cannot write %s", file->path);
    return r;
}
