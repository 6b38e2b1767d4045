#include "storage/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/file.h"
#include "storage/format.h"
#include "storage/vec.h"

/* Looked at in this order; raw takes what no other wants. */
static const struct disk_format *const formats[] = {&qcow2_format, &vmdk_format, &vdi_format,
                                                    &vhdx_format, &raw_format};
static const struct disk_format *const protocols[] = {&nbd_tcp_protocol, &nbd_unix_protocol,
                                                      &nbd_tls_tcp_protocol, &nbd_tls_unix_protocol,
                                                      &file_protocol};

#define PROBE_LENGTH 4096
#define CHAIN_MAX    64

static const struct disk_options default_options;

uint64_t disk_size(const struct disk *disk)
{
    return disk->size;
}

bool disk_writable(const struct disk *disk)
{
    return disk->writable;
}

const char *disk_path(const struct disk *disk)
{
    return disk->path;
}

const char *disk_format_name(const struct disk *disk)
{
    return disk->format->name;
}

struct storage *disk_storage(const struct disk *disk)
{
    return disk->storage;
}

void disk_on_resize(struct disk *disk, void (*fn)(void *opaque, uint64_t size), void *opaque)
{
    disk->resized = fn;
    disk->resized_opaque = opaque;
}

const struct disk_format *disk_format_find(const char *name, struct error *err)
{
    char names[256] = "";

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        if (!strcmp(formats[i]->name, name))
            return formats[i];
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
                 formats[i]->name);
    }
    error_set(err, EINVAL, "there is no disk format '%s'; there are %s", name, names);
    return NULL;
}

/* --- Requests --- */

static int check_range(const struct disk *disk, uint64_t offset, uint64_t length)
{
    /* A format may write its file beyond the end. */
    if (!disk->file && disk->format->url)
        return length > INT64_MAX || offset > INT64_MAX - length ? -EFBIG : 0;
    return offset > disk->size || length > disk->size - offset ? -EINVAL : 0;
}

int disk_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t length = vec_length(iov, count);
    int r = check_range(disk, offset, length);

    return r < 0 || !length ? r : disk->format->read(disk, offset, iov, count, length);
}

int disk_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t length = vec_length(iov, count);
    int r = check_range(disk, offset, length);

    if (!disk->writable)
        return -EROFS;
    return r < 0 || !length ? r : disk->format->write(disk, offset, iov, count, length);
}

static int do_flush(struct disk *disk)
{
    return disk->writable ? disk->format->flush(disk) : 0;
}

static int do_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    int r = check_range(disk, offset, length);

    if (!disk->writable)
        return -EROFS;
    return r < 0 || !length || !disk->format->discard ? r
                                                      : disk->format->discard(disk, offset, length);
}

static int do_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    int r = check_range(disk, offset, length);

    if (!disk->writable)
        return -EROFS;
    return r < 0 || !length ? r : disk->format->write_zeroes(disk, offset, length, flags);
}

static int execute(struct disk *disk, const struct disk_request *request)
{
    int r = -EINVAL;

    switch (request->op) {
    case DISK_READ:
        return disk_readv(disk, request->offset, request->iov, request->iov_count);
    case DISK_WRITE:
        r = disk_writev(disk, request->offset, request->iov, request->iov_count);
        break;
    case DISK_FLUSH:
        return do_flush(disk);
    case DISK_DISCARD:
        return do_discard(disk, request->offset, request->length);
    case DISK_WRITE_ZEROES:
        r = do_write_zeroes(disk, request->offset, request->length, request->flags);
        break;
    }
    return r == 0 && (request->flags & DISK_FUA) ? do_flush(disk) : r;
}

static void request_main(void *opaque)
{
    struct disk_request *request = opaque;
    struct disk *disk = request->disk;

    request->result = execute(disk, request);
    if (--disk->under_way == 0)
        fiber_queue_wake_all(&disk->drained);
    storage_finished(disk->storage, request);
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    request->disk = disk;
    disk->under_way++;
    if (storage_start(disk->storage, request_main, request) < 0) {
        disk->under_way--;
        request->result = -ENOMEM;
        storage_finished(disk->storage, request);
    }
}

static int drain(void *opaque)
{
    struct disk *disk = opaque;

    while (disk->under_way)
        fiber_queue_wait(storage_fibers(disk->storage), &disk->drained);
    return 0;
}

void disk_drain(struct disk *disk)
{
    storage_run(disk->storage, drain, disk);
}

/* --- Calls that wait --- */

/* The arguments of one call, for storage_run. */
struct call {
    struct disk *disk;
    uint64_t offset, length;
    struct iovec iov;
    unsigned flags;
    struct error *err;
    struct disk_extent *ret_extent;
};

static int call_read(void *opaque)
{
    struct call *call = opaque;

    return disk_readv(call->disk, call->offset, &call->iov, 1);
}

int disk_read(struct disk *disk, uint64_t offset, void *buffer, size_t length)
{
    struct call call = {.disk = disk, .offset = offset, .iov = {buffer, length}};

    return storage_run(disk->storage, call_read, &call);
}

static int call_write(void *opaque)
{
    struct call *call = opaque;

    return disk_writev(call->disk, call->offset, &call->iov, 1);
}

int disk_write(struct disk *disk, uint64_t offset, const void *buffer, size_t length)
{
    struct call call = {.disk = disk, .offset = offset, .iov = {(void *)buffer, length}};

    return storage_run(disk->storage, call_write, &call);
}

static int call_flush(void *opaque)
{
    return do_flush(opaque);
}

int disk_flush(struct disk *disk)
{
    return storage_run(disk->storage, call_flush, disk);
}

static int call_discard(void *opaque)
{
    struct call *call = opaque;

    return do_discard(call->disk, call->offset, call->length);
}

int disk_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct call call = {.disk = disk, .offset = offset, .length = length};

    return storage_run(disk->storage, call_discard, &call);
}

static int call_write_zeroes(void *opaque)
{
    struct call *call = opaque;

    return do_write_zeroes(call->disk, call->offset, call->length, call->flags);
}

int disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct call call = {.disk = disk, .offset = offset, .length = length, .flags = flags};

    return storage_run(disk->storage, call_write_zeroes, &call);
}

static int call_resize(void *opaque)
{
    struct call *call = opaque;
    struct disk *disk = call->disk;
    int r;

    if (!disk->writable)
        return error_set(call->err, EROFS, "%s is open for reading only", disk->path);
    if (!disk->format->resize)
        return error_set(call->err, ENOTSUP, "%s: a %s disk cannot be resized", disk->path,
                         disk->format->name);
    if (call->length > INT64_MAX)
        return error_set(call->err, EFBIG, "%s: the size is too large", disk->path);
    drain(disk);
    if (call->length == disk->size)
        return 0;
    r = disk->format->resize(disk, call->length, call->err);
    if (r == 0 && disk->resized)
        disk->resized(disk->resized_opaque, disk->size);
    return r;
}

int disk_resize(struct disk *disk, uint64_t size, struct error *err)
{
    struct call call = {.disk = disk, .length = size, .err = err};

    return storage_run(disk->storage, call_resize, &call);
}

static int call_map(void *opaque)
{
    struct call *call = opaque;
    struct disk *disk = call->disk;
    struct disk_extent extent = {.length = disk->size - call->offset};
    unsigned depth = 0;
    int r;

    for (;; depth++) {
        struct disk_extent here = {0};

        if (call->offset >= disk->size) { /* beyond a shorter backing file's end */
            extent.zero = true;
            break;
        }
        r = disk->format->map(disk, call->offset, &here);
        if (r < 0)
            return r;
        here.length = MIN(here.length, disk->size - call->offset);
        extent.length = MIN(extent.length, here.length);
        if (here.present) {
            here.length = extent.length;
            extent = here;
            break;
        }
        if (!disk->backing) {
            extent.zero = true;
            depth = 0;
            break;
        }
        disk = disk->backing;
    }
    extent.depth = depth;
    *call->ret_extent = extent;
    return 0;
}

int disk_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    struct call call = {.disk = disk, .offset = offset, .ret_extent = ret_extent};

    return offset < disk->size ? storage_run(disk->storage, call_map, &call) : -EINVAL;
}

/* --- Opening and closing --- */

struct disk *disk_new(struct storage *storage, const struct disk_format *format, const char *path,
                      bool writable)
{
    struct disk *disk = calloc(1, sizeof(*disk));

    if (!disk)
        return NULL;
    disk->format = format;
    disk->storage = storage;
    disk->writable = writable;
    fiber_queue_init(&disk->drained);
    disk->path = strdup(path);
    if (!disk->path) {
        free(disk);
        return NULL;
    }
    return disk;
}

void disk_free(struct disk *disk)
{
    if (!disk)
        return;
    free(disk->path);
    free(disk);
}

struct closing {
    struct disk *disk;
    struct error *err;
};

static int close_chain(void *opaque)
{
    const struct closing *closing = opaque;
    struct disk *disk = closing->disk;
    struct closing next = {NULL, closing->err};
    int r, first;

    drain(disk);
    first = disk->format->close(disk, closing->err);
    for (unsigned i = 0; i < 2; i++) {
        next.disk = i ? disk->backing : disk->file;
        next.err = first < 0 ? NULL : closing->err;
        r = next.disk ? close_chain(&next) : 0;
        first = first < 0 ? first : r;
    }
    disk_free(disk);
    return first;
}

int disk_close(struct disk *disk, struct error *err)
{
    struct closing closing = {disk, err};

    return disk ? storage_run(disk->storage, close_chain, &closing) : 0;
}

int disk_open_in(struct disk *file, const struct disk_format *format,
                 const struct disk_options *options, struct disk **ret_disk, struct error *err)
{
    struct disk *disk = disk_new(file->storage, format, file->path, file->writable);
    int r;

    if (!disk) {
        disk_close(file, NULL);
        return error_set(err, ENOMEM, "out of memory for a disk");
    }
    disk->file = file;
    disk->depth = file->depth;
    r = format->open(disk, options ? options : &default_options, err);
    if (r < 0) {
        disk_close(disk->backing, NULL);
        disk_close(file, NULL);
        disk_free(disk);
        return r;
    }
    *ret_disk = disk;
    return 0;
}

static int open_protocol(struct storage *storage, const char *path,
                         const struct disk_options *options, struct disk **ret_disk,
                         struct error *err)
{
    const struct disk_format *protocol = NULL;
    struct disk *disk;
    int r;

    /* The last takes any path. */
    for (unsigned i = 0; !protocol; i++)
        if (!strncmp(path, protocols[i]->url, strlen(protocols[i]->url)))
            protocol = protocols[i];
    disk = disk_new(storage, protocol, path, options->writable);
    if (!disk)
        return error_set(err, ENOMEM, "out of memory for a disk");
    r = protocol->open(disk, options, err);
    if (r < 0) {
        disk_free(disk);
        return r;
    }
    *ret_disk = disk;
    return 0;
}

static int probe_format(struct disk *file, const struct disk_format **ret_format, struct error *err)
{
    uint8_t head[PROBE_LENGTH] = {0};
    size_t length = MIN(file->size, sizeof(head));
    int r = disk_read(file, 0, head, length);

    if (r < 0)
        return error_system(err, -r, "%s: cannot read its beginning", file->path);
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (!formats[i]->probe || formats[i]->probe(head, length)) {
            *ret_format = formats[i];
            return 0;
        }
    return error_set(err, EINVAL, "%s has no known disk format", file->path);
}

static int open_at_depth(struct storage *storage, const char *path, unsigned depth,
                         const struct disk_options *options, struct disk **ret_disk,
                         struct error *err)
{
    const struct disk_format *format = NULL;
    struct disk *file;
    int r;

    if (options->format) {
        format = disk_format_find(options->format, err);
        if (!format)
            return -EINVAL;
    }
    r = open_protocol(storage, path, options, &file, err);
    if (r < 0)
        return r;
    file->depth = depth;
    if (!format)
        r = probe_format(file, &format, err);
    if (r < 0) {
        disk_close(file, NULL);
        return r;
    }
    return disk_open_in(file, format, options, ret_disk, err);
}

struct opening {
    struct storage *storage;
    const char *path;
    const struct disk_options *options;
    struct disk **ret_disk;
    struct error *err;
};

static int call_open(void *opaque)
{
    const struct opening *o = opaque;

    return open_at_depth(o->storage, o->path, 0, o->options, o->ret_disk, o->err);
}

int disk_open(struct storage *storage, const char *path, const struct disk_options *options,
              struct disk **ret_disk, struct error *err)
{
    struct opening opening = {storage, path, options ? options : &default_options, ret_disk, err};

    return storage_run(storage, call_open, &opening);
}

/* --- Backing files --- */

static bool has_scheme(const char *name)
{
    size_t length = strcspn(name, ":/");

    return name[length] == ':';
}

char *disk_backing_path(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *joined;

    if (!strncmp(name, "file:", 5))
        name += 5;
    if (*name == '/' || has_scheme(name) || !slash || has_scheme(path))
        return strdup(name);
    if (asprintf(&joined, "%.*s/%s", (int)(slash - path), path, name) < 0)
        return NULL;
    return joined;
}

int disk_open_backing(struct disk *disk, const char *name, const char *format,
                      const struct disk_options *options, struct error *err)
{
    struct disk_options backing_options = {.format = format, .no_lock = options->no_lock};
    AUTO_FREE char *path = disk_backing_path(disk->path, name);
    int r;

    if (!path)
        return error_set(err, ENOMEM, "out of memory for a path");
    if (!strncmp(path, "json:", 5))
        return error_set(err, ENOTSUP, "%s: a backing file described by json: is not supported",
                         disk->path);
    if (disk->depth >= CHAIN_MAX)
        return error_set(err, ELOOP,
                         "%s: more than %d backing files behind one another; do they form a loop?",
                         disk->path, CHAIN_MAX);
    r = open_at_depth(disk->storage, path, disk->depth + 1, &backing_options, &disk->backing, err);
    if (r < 0 && r != -ELOOP)
        error_prepend(err, "backing file of %s", disk->path);
    return r;
}

/* --- Making --- */

struct creating {
    struct storage *storage;
    const char *path;
    const struct disk_format *format;
    const struct disk_create_options *options;
    struct error *err;
};

static int call_create(void *opaque)
{
    const struct creating *c = opaque;
    const struct disk_options options = {.writable = true};
    struct disk *file;
    int r, r2;

    r = open_protocol(c->storage, c->path, &options, &file, c->err);
    if (r < 0)
        return r;
    r = file->size ? file->format->resize(file, 0, c->err) : 0;
    if (r == 0)
        r = c->format->create(file, c->options, c->err);
    r2 = disk_close(file, r < 0 ? NULL : c->err);
    return r < 0 ? r : r2;
}

int disk_create(struct storage *storage, const char *path, const char *format,
                const struct disk_create_options *options, struct error *err)
{
    struct creating creating = {storage, path, NULL, options, err};
    bool made = false;
    int r;

    creating.format = disk_format_find(format, err);
    if (!creating.format)
        return -EINVAL;
    if (!creating.format->create)
        return error_set(err, ENOTSUP, "a %s disk can only be read, not made", format);
    if (options->size > INT64_MAX)
        return error_set(err, EFBIG, "%s: the size is too large", path);
    r = has_scheme(path) ? 0 : file_make(path, options->overwrite, &made, err);
    if (r == 0)
        r = storage_run(storage, call_create, &creating);
    if (r < 0 && made)
        unlink(path);
    return r;
}
