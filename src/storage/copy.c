/* Copying whole disks, several pieces at a time; and comparing, committing and rebasing,
 * which are copies of a kind. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/format.h"
#include "storage/image.h"

#define PIECE   (1u << 20) /* bytes that one worker handles at once */
#define WORKERS 8
#define GRANULE 4096u /* zeroes shorter than this are copied as data */

/* What a worker does with one piece, [offset, offset + length). */
struct copy;
typedef int piece_fn(struct copy *copy, uint64_t offset, size_t length, uint8_t *buffer);

struct copy {
    struct disk *from, *to;
    piece_fn *piece;
    uint64_t next, end; /* where the next piece begins, and the last ends */
    uint32_t unit;      /* zeroes are looked for in units of it */
    bool compress;
    bool target_zero; /* the target reads as zeroes where nothing is written */
    unsigned workers; /* running */
    struct fiber *main;
    const struct image_progress *progress;
    uint64_t done;
    int result; /* the first error, or a difference that was found: 1 */
    uint64_t where;
};

static bool all_zero(const uint8_t *p, size_t length)
{
    return !*p && !memcmp(p, p + 1, length - 1);
}

static int report(struct copy *copy, uint64_t length)
{
    const struct image_progress *progress = copy->progress;

    copy->done += length;
    return progress ? progress->fn(progress->opaque, copy->done, copy->end) : 0;
}

static void worker_main(void *opaque)
{
    struct copy *copy = opaque;
    AUTO_FREE uint8_t *buffer = malloc(2 * PIECE);
    int r = buffer ? 0 : -ENOMEM;

    while (r == 0 && copy->result == 0 && copy->next < copy->end) {
        uint64_t offset = copy->next, piece = MAX(PIECE, copy->unit);
        size_t length = (size_t)MIN(copy->end - offset, piece);

        copy->next += length;
        r = copy->piece(copy, offset, length, buffer);
        if (r == 0)
            r = report(copy, length);
    }
    if (copy->result == 0)
        copy->result = r;
    if (--copy->workers == 0)
        fiber_wake(copy->main);
}

/* Run the workers over [0, end). Returns their first error. */
static int run_workers(struct copy *copy, unsigned workers)
{
    struct fibers *fibers = storage_fibers(copy->from->storage);

    copy->main = fiber_self(fibers);
    for (unsigned i = 0; i < workers; i++) {
        if (fiber_start(fibers, worker_main, copy) < 0)
            break;
        copy->workers++;
    }
    if (!copy->workers)
        return -ENOMEM;
    fiber_wait(fibers);
    return copy->result;
}

/* --- Copying --- */

static int write_zeroes(struct copy *copy, uint64_t offset, uint64_t length)
{
    return copy->target_zero ? 0 : disk_write_zeroes(copy->to, offset, length, DISK_MAY_UNMAP);
}

static int write_compressed(struct copy *copy, uint64_t offset, const uint8_t *data, size_t length)
{
    int r = copy->to->format->image->write_compressed(copy->to, offset, data, length);

    return r == -ENOSPC ? disk_write(copy->to, offset, data, length) : r;
}

/* Write data, leaving units of zeroes out. Compressed units go one by one. */
static int write_data(struct copy *copy, uint64_t offset, const uint8_t *data, size_t length)
{
    size_t done = 0;
    int r = 0;

    while (done < length && r == 0) {
        size_t run = MIN(copy->unit, length - done);
        bool zero = all_zero(data + done, run);

        while (done + run < length && !copy->compress) {
            size_t more = MIN(copy->unit, length - done - run);

            if (all_zero(data + done + run, more) != zero)
                break;
            run += more;
        }
        if (zero)
            r = write_zeroes(copy, offset + done, run);
        else if (copy->compress)
            r = write_compressed(copy, offset + done, data + done, run);
        else
            r = disk_write(copy->to, offset + done, data + done, run);
        done += run;
    }
    return r;
}

/* A part that the source says is zeroes is not read. Compressing needs whole units. */
static int copy_piece(struct copy *copy, uint64_t offset, size_t length, uint8_t *buffer)
{
    const uint64_t end = offset + length;
    int r = 0;

    while (r == 0 && offset < end) {
        struct disk_extent extent;
        size_t part;

        r = disk_map(copy->from, offset, &extent);
        if (r < 0)
            return r;
        part = (size_t)MIN(extent.length, end - offset);
        if (copy->compress && part < end - offset) { /* cut at a unit's border */
            part = ALIGN_DOWN(part, copy->unit);
            if (!part) {
                part = (size_t)MIN(copy->unit, end - offset);
                extent.zero = false;
            }
        }
        if (extent.zero) {
            r = write_zeroes(copy, offset, part);
        } else {
            r = disk_read(copy->from, offset, buffer, part);
            if (r == 0)
                r = write_data(copy, offset, buffer, part);
        }
        offset += part;
    }
    return r;
}

struct call {
    struct copy *copy;
    unsigned workers;
};

static int call_copy(void *opaque)
{
    const struct call *call = opaque;

    return run_workers(call->copy, call->workers);
}

static uint32_t cluster_size_of(struct disk *disk)
{
    struct image_info info;

    return image_info(disk, &info, NULL) == 0 ? info.cluster_size : 0;
}

int image_copy(struct disk *from, struct disk *to, const struct image_copy_options *options,
               const struct image_progress *progress, struct error *err)
{
    struct copy copy = {.from = from, .to = to, .piece = copy_piece, .end = from->size};
    struct call call = {&copy, WORKERS};
    int r;

    copy.progress = progress;
    copy.compress = options->compress;
    copy.target_zero = options->target_zero;
    copy.unit = MAX(cluster_size_of(to), GRANULE);
    if (options->compress && (!to->format->image || !to->format->image->write_compressed))
        return error_set(err, ENOTSUP, "%s: a %s disk has no compressed clusters", to->path,
                         to->format->name);
    if (to->size < from->size)
        return error_set(err, ENOSPC, "%s is smaller than %s", to->path, from->path);
    r = storage_run(from->storage, call_copy, &call);
    return r < 0 ? error_system(err, -r, "cannot copy %s to %s", from->path, to->path) : 0;
}

/* --- Comparing --- */

/* Beyond its end a disk reads as zeroes. */
static int read_padded(struct disk *disk, uint64_t offset, uint8_t *buffer, size_t length)
{
    size_t there = offset < disk->size ? (size_t)MIN(length, disk->size - offset) : 0;

    memset(buffer + there, 0, length - there);
    return there ? disk_read(disk, offset, buffer, there) : 0;
}

static bool both_zero(struct copy *copy, uint64_t offset, size_t length)
{
    struct disk *disks[] = {copy->from, copy->to};

    for (unsigned i = 0; i < 2; i++) {
        struct disk_extent extent;

        if (offset >= disks[i]->size)
            continue;
        if (disk_map(disks[i], offset, &extent) < 0 || !extent.zero ||
            extent.length < MIN(length, disks[i]->size - offset))
            return false;
    }
    return true;
}

static int compare_piece(struct copy *copy, uint64_t offset, size_t length, uint8_t *buffer)
{
    size_t half = length / 2 + 1, at = 0;
    int r;

    if (both_zero(copy, offset, length))
        return 0;
    for (size_t done = 0; done < length; done += half) {
        size_t part = MIN(half, length - done);

        r = read_padded(copy->from, offset + done, buffer, part);
        if (r == 0)
            r = read_padded(copy->to, offset + done, buffer + PIECE, part);
        if (r < 0)
            return r;
        if (!memcmp(buffer, buffer + PIECE, part))
            continue;
        while (buffer[at] == buffer[PIECE + at])
            at++;
        copy->where = offset + done + at;
        return 1;
    }
    return 0;
}

int image_compare(struct disk *a, struct disk *b, const struct image_progress *progress,
                  uint64_t *ret_offset, struct error *err)
{
    struct copy copy = {.from = a, .to = b, .piece = compare_piece, .progress = progress};
    struct call call = {&copy, 1}; /* one, so that the first difference is found */
    int r;

    copy.end = MAX(a->size, b->size);
    r = storage_run(a->storage, call_copy, &call);
    if (r < 0)
        return error_system(err, -r, "cannot compare %s with %s", a->path, b->path);
    if (r == 1)
        *ret_offset = copy.where;
    return r;
}

/* --- Committing --- */

/* What the image itself has goes into its backing file. */
static int commit_piece(struct copy *copy, uint64_t offset, size_t length, uint8_t *buffer)
{
    const uint64_t end = offset + length;
    int r = 0;

    while (r == 0 && offset < end) {
        struct disk_extent extent = {0};
        uint64_t part;

        r = copy->from->format->map(copy->from, offset, &extent);
        part = MIN(extent.length, end - offset);
        if (r == 0 && extent.present && extent.zero)
            r = disk_write_zeroes(copy->to, offset, part, DISK_MAY_UNMAP);
        else if (r == 0 && extent.present) {
            r = disk_read(copy->from, offset, buffer, part);
            if (r == 0)
                r = disk_write(copy->to, offset, buffer, part);
        }
        offset += part;
    }
    return r;
}

static int call_commit(void *opaque)
{
    const struct call *call = opaque;
    struct disk *to = call->copy->to, *from = call->copy->from;
    int r = run_workers(call->copy, call->workers);

    /* The backing file has it for good before the image forgets it. */
    if (r == 0)
        r = disk_flush(to);
    return r == 0 ? from->format->image->empty(from, NULL) : r;
}

int image_commit(struct disk *disk, const struct image_progress *progress, struct error *err)
{
    struct disk_options options = {.writable = true};
    struct copy copy = {.from = disk, .piece = commit_piece, .end = disk->size};
    struct call call = {&copy, WORKERS};
    AUTO_FREE char *path = NULL;
    struct image_info info;
    struct disk *to;
    int r = image_info(disk, &info, err), r2;

    if (r < 0)
        return r;
    if (!*info.backing || !disk->format->image || !disk->format->image->empty)
        return error_set(err, EINVAL, "%s has no backing file", disk->path);
    path = disk_backing_path(disk->path, info.backing);
    if (!path)
        return error_set(err, ENOMEM, "out of memory for a path");
    options.format = *info.backing_format ? info.backing_format : NULL;
    /* The image has it open for reading, which would refuse a writer: let go of it. */
    r = disk_close(disk->backing, err);
    disk->backing = NULL;
    if (r == 0)
        r = disk_open(disk->storage, path, &options, &to, err);
    if (r < 0)
        return r;
    copy.to = to;
    copy.progress = progress;
    if (to->size < disk->size)
        r = disk_resize(to, disk->size, err);
    if (r == 0 && (r = storage_run(disk->storage, call_commit, &call)) < 0)
        error_system(err, -r, "cannot commit %s to %s", disk->path, path);
    r2 = disk_close(to, r < 0 ? NULL : err);
    return r < 0 ? r : r2;
}

/* --- Rebasing --- */

/* Where the image has nothing and the backing files differ, it gets what the old one says. */
static int rebase_piece(struct copy *copy, uint64_t offset, size_t length, uint8_t *buffer)
{
    const uint64_t end = offset + length;
    int r = 0;

    while (r == 0 && offset < end) {
        struct disk *old = copy->from->backing;
        struct disk_extent extent = {0};
        size_t part;

        r = copy->from->format->map(copy->from, offset, &extent);
        part = (size_t)MIN(MIN(extent.length, end - offset), copy->unit - offset % copy->unit);
        if (r == 0 && !extent.present) {
            memset(buffer, 0, part);
            if (old)
                r = read_padded(old, offset, buffer, part);
            memset(buffer + PIECE, 0, part);
            if (r == 0 && copy->to)
                r = read_padded(copy->to, offset, buffer + PIECE, part);
            if (r == 0 && memcmp(buffer, buffer + PIECE, part))
                r = disk_write(copy->from, offset, buffer, part);
        }
        offset += part;
    }
    return r;
}

int image_rebase(struct disk *disk, const char *backing, const char *format, bool only_name,
                 const struct image_progress *progress, struct error *err)
{
    const struct disk_options options = {.format = *format ? format : NULL};
    struct copy copy = {.from = disk, .piece = rebase_piece, .end = disk->size};
    struct call call = {&copy, 1};
    AUTO_FREE char *path = NULL;
    struct disk *to = NULL;
    int r = 0;

    if (!disk->format->image || !disk->format->image->set_backing)
        return error_set(err, ENOTSUP, "%s: a %s disk has no backing file", disk->path,
                         disk->format->name);
    if (*backing) {
        path = disk_backing_path(disk->path, backing);
        if (!path)
            return error_set(err, ENOMEM, "out of memory for a path");
    }
    if (path && !only_name) {
        r = disk_open(disk->storage, path, &options, &to, err);
        if (r == 0)
            format = disk_format_name(to);
    }
    copy.to = to;
    copy.progress = progress;
    copy.unit = MIN(MAX(cluster_size_of(disk), GRANULE), PIECE);
    if (r == 0 && !only_name) {
        r = storage_run(disk->storage, call_copy, &call);
        if (r == 0)
            r = disk_flush(disk);
        if (r < 0)
            error_system(err, -r, "cannot rebase %s", disk->path);
    }
    if (r == 0)
        r = disk->format->image->set_backing(disk, backing, format, err);
    disk_close(to, NULL);
    return r;
}
