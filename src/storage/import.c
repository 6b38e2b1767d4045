#include "storage/import.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "storage/vec.h"

int import_check_read_only(const struct disk *disk, struct error *err)
{
    if (!disk->writable)
        return 0;
    return error_set(err, ENOTSUP,
                     "%s: a %s disk can only be read; convert it first: lodge disk "
                     "convert",
                     disk->path, disk->format->name);
}

int import_table(struct disk *disk, uint64_t offset, uint64_t length, void **ret_table,
                 struct error *err)
{
    const uint64_t file_size = disk->file->size;
    void *table;
    int r;

    if (length > IMPORT_TABLE_MAX || offset > file_size || length > file_size - offset)
        return error_set(err, EINVAL, "%s: a table of %llu bytes at %llu is not in the file",
                         disk->path, (unsigned long long)length, (unsigned long long)offset);
    table = malloc(length + 1);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for a table");
    r = disk_read(disk->file, offset, table, length);
    if (r < 0) {
        free(table);
        return error_system(err, -r, "%s: cannot read a table", disk->path);
    }
    *ret_table = table;
    return 0;
}

int import_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                uint64_t length)
{
    struct iovec pieces[VEC_PIECES];
    uint64_t done = 0;
    int r = 0;

    while (done < length && r == 0) {
        struct disk_extent extent = {0};
        uint64_t part;
        unsigned n;

        r = disk->format->map(disk, offset + done, &extent);
        if (r < 0)
            return r;
        part = vec_cut(iov, count, done, MIN(extent.length, length - done), pieces, &n);
        if (extent.data)
            r = disk_readv(disk->file, extent.host_offset, pieces, n);
        else
            vec_fill(pieces, n, 0, 0, part);
        done += part;
    }
    return r;
}
