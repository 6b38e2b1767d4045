/* VMware's VMDK, for reading: one sparse file, or a descriptor, which is a text that names
 * the files of a disk. "Virtual Disk Format 5.0". */
#include "storage/vmdk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/import.h"
#include "storage/vec.h"

#define DESCRIPTOR_MAX (1 << 20) /* bytes */
#define EXTENTS_MAX    1024

/* A part of the disk, one behind the other. */
struct extent {
    uint64_t start, length; /* bytes of the disk */
    uint64_t skip;          /* where it begins in its file */
    struct disk *disk;      /* NULL: zeroes */
};

struct extents {
    unsigned count;
    struct extent list[EXTENTS_MAX];
};

static bool is_descriptor(const uint8_t *head, size_t length)
{
    static const char text[] = "# Disk DescriptorFile";

    return length >= sizeof(text) - 1 && !memcmp(head, text, sizeof(text) - 1);
}

static bool vmdk_probe(const uint8_t *head, size_t length)
{
    return is_descriptor(head, length) || vmdk_sparse_probe(head, length);
}

int vmdk_check_parent(const struct disk *disk, const char *descriptor, struct error *err)
{
    const char *parent = strstr(descriptor, "parentCID=");

    if (parent && strncasecmp(parent + 10, "ffffffff", 8) != 0)
        return error_set(err, ENOTSUP, "%s rests on another VMDK image, which is not supported",
                         disk->path);
    return 0;
}

/* --- The descriptor --- */

/* The file of an extent lies beside the descriptor: a path in an image of others could
 * name what is not theirs. */
static int open_extent(const struct disk *disk, const struct disk_options *options,
                       const char *name, bool sparse, struct disk **ret_disk, struct error *err)
{
    const struct disk_options raw = {.format = "raw", .no_lock = options->no_lock};
    AUTO_FREE char *path = NULL;
    int r;

    if (!*name || strpbrk(name, "/:") || strstr(disk->path, "://"))
        return error_set(err, ENOTSUP, "%s: its part '%s' is not a file beside it", disk->path,
                         name);
    path = disk_backing_path(disk->path, name);
    if (!path)
        return error_set(err, ENOMEM, "out of memory for a path");
    r = disk_open(disk->storage, path, &raw, ret_disk, err);
    if (r == 0 && sparse) /* owns the file, also when it fails */
        r = disk_open_in(*ret_disk, &vmdk_sparse_format, options, ret_disk, err);
    if (r < 0)
        *ret_disk = NULL;
    return r;
}

/* A line: how it may be used, its length in sectors, its kind, a file's name and, for some, the
 * sector of the file where it begins. */
static int take_extent(struct disk *disk, const struct disk_options *options, const char *line,
                       struct error *err)
{
    struct extents *extents = disk->state;
    struct extent *extent = &extents->list[extents->count];
    unsigned long long sectors, skip = 0;
    char kind[16], name[256] = "";
    int n = sscanf(line, "%*15s %llu %15s \"%255[^\"]\" %llu", &sectors, kind, name, &skip);
    bool sparse, zero, flat;

    if (n < 2)
        return error_set(err, EINVAL, "%s: its line '%.60s' is not understood", disk->path, line);
    sparse = !strcmp(kind, "SPARSE");
    flat = !strcmp(kind, "FLAT") || !strcmp(kind, "VMFS");
    zero = !strcmp(kind, "ZERO");
    if (!sparse && !flat && !zero)
        return error_set(err, ENOTSUP, "%s: parts of the kind %s are not supported", disk->path,
                         kind);
    if (extents->count == EXTENTS_MAX || sectors > INT64_MAX / DISK_SECTOR ||
        skip > INT64_MAX / DISK_SECTOR || sectors * DISK_SECTOR > INT64_MAX - disk->size)
        return error_set(err, EINVAL, "%s has too many or too large parts", disk->path);
    *extent = (struct extent){.start = disk->size, .length = sectors * DISK_SECTOR};
    if (!zero) {
        int r = open_extent(disk, options, name, sparse, &extent->disk, err);

        if (r < 0)
            return r;
    }
    extents->count++;
    disk->size += extent->length;
    extent->skip = flat ? skip * DISK_SECTOR : 0;
    if (!zero && (extent->skip > disk_size(extent->disk) ||
                  extent->length > disk_size(extent->disk) - extent->skip))
        return error_set(err, EINVAL, "%s: its part '%s' is shorter than it says", disk->path,
                         name);
    return 0;
}

static int parse_descriptor(struct disk *disk, const struct disk_options *options, char *text,
                            struct error *err)
{
    const struct extents *extents = disk->state;
    char *rest = text, *line;
    int r = vmdk_check_parent(disk, text, err);

    while (r == 0 && (line = strsep(&rest, "\r\n")))
        if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) ||
            !strncmp(line, "NOACCESS ", 9))
            r = take_extent(disk, options, line, err);
    if (r == 0 && !extents->count)
        r = error_set(err, EINVAL, "%s names no file of the disk", disk->path);
    return r;
}

/* --- A disk of several files --- */

static int extents_close(struct disk *disk, struct error *err)
{
    struct extents *extents = disk->state;

    (void)err; /* nothing was written */
    for (unsigned i = 0; i < extents->count; i++)
        disk_close(extents->list[i].disk, NULL);
    free(extents);
    return 0;
}

/* The extent that has a byte of the disk. */
static const struct extent *find_extent(const struct extents *extents, uint64_t offset)
{
    unsigned low = 0, high = extents->count;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;

        if (extents->list[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &extents->list[low];
}

static int extents_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                        uint64_t length)
{
    struct iovec pieces[VEC_PIECES];
    uint64_t done = 0;
    int r = 0;

    while (done < length && r == 0) {
        const struct extent *extent = find_extent(disk->state, offset + done);
        const uint64_t inside = offset + done - extent->start;
        unsigned n;
        size_t part =
            vec_cut(iov, count, done, MIN(length - done, extent->length - inside), pieces, &n);

        if (extent->disk)
            r = disk_readv(extent->disk, extent->skip + inside, pieces, n);
        else
            vec_fill(pieces, n, 0, 0, part);
        done += part;
    }
    return r;
}

static int extents_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    const struct extent *extent = find_extent(disk->state, offset);
    const uint64_t inside = offset - extent->start, left = extent->length - inside;
    int r;

    if (!extent->disk) {
        *ret_extent = (struct disk_extent){.length = left, .present = true, .zero = true};
        return 0;
    }
    r = disk_map(extent->disk, extent->skip + inside, ret_extent);
    if (r < 0)
        return r;
    ret_extent->length = MIN(ret_extent->length, left);
    ret_extent->present = true;
    ret_extent->has_host_offset = false; /* it would not say in which file */
    return 0;
}

static const struct disk_format extents_format = {
    .name = "vmdk",
    .summary = "VMware's, of several files",
    .close = extents_close,
    .read = extents_read,
    .map = extents_map,
};

static int extents_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    AUTO_FREE void *text = NULL;
    const uint64_t length = MIN(disk->file->size, DESCRIPTOR_MAX);
    int r = import_table(disk, 0, length, &text, err); /* with room for one more byte */

    if (r < 0)
        return r;
    ((char *)text)[length] = 0;
    disk->state = calloc(1, sizeof(struct extents));
    if (!disk->state)
        return error_set(err, ENOMEM, "out of memory for a disk");
    r = parse_descriptor(disk, options, text, err);
    if (r < 0)
        extents_close(disk, NULL);
    return r;
}

/* --- Either --- */

static int vmdk_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    uint8_t head[DISK_SECTOR] = {0};
    int r = import_check_read_only(disk, err);

    if (r < 0)
        return r;
    r = disk_read(disk->file, 0, head, MIN(disk->file->size, sizeof(head)));
    if (r < 0)
        return error_system(err, -r, "%s: cannot read its header", disk->path);
    disk->format = is_descriptor(head, sizeof(head)) ? &extents_format : &vmdk_sparse_format;
    return disk->format == &extents_format ? extents_open(disk, options, err)
                                           : vmdk_sparse_format.open(disk, options, err);
}

const struct disk_format vmdk_format = {
    .name = "vmdk",
    .summary = "VMware's, for reading",
    .probe = vmdk_probe,
    .open = vmdk_open,
};
