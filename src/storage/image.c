#include "storage/image.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "storage/file.h"
#include "storage/format.h"

/* The arguments of one call, for storage_run. */
struct call {
    struct disk *disk;
    const char *name;
    unsigned repair;
    void *ret;
    void *ret_more;
    struct error *err;
};

static int not_offered(const struct disk *disk, const char *what, struct error *err)
{
    return error_set(err, ENOTSUP, "%s: a %s disk has no %s", disk->path, disk->format->name, what);
}

static int call_info(void *opaque)
{
    const struct call *call = opaque;
    const struct disk *disk = call->disk;
    struct image_info info = {.size = disk->size};
    int r = 0;

    if (disk->file) {
        info.file_size = disk->file->size;
        info.allocated = file_allocated(disk->file);
    }
    if (disk->format->image && disk->format->image->info)
        r = disk->format->image->info(call->disk, &info, call->err);
    if (r == 0)
        *(struct image_info *)call->ret = info;
    return r;
}

int image_info(struct disk *disk, struct image_info *ret_info, struct error *err)
{
    struct call call = {.disk = disk, .ret = ret_info, .err = err};

    return storage_run(disk->storage, call_info, &call);
}

/* --- Snapshots --- */

static int call_snapshot_create(void *opaque)
{
    const struct call *call = opaque;

    return call->disk->format->image->snapshot_create(call->disk, call->name, call->err);
}

int image_snapshot_create(struct disk *disk, const char *name, struct error *err)
{
    struct call call = {.disk = disk, .name = name, .err = err};

    if (!disk->format->image || !disk->format->image->snapshot_create)
        return not_offered(disk, "snapshots", err);
    return storage_run(disk->storage, call_snapshot_create, &call);
}

static int call_snapshot_apply(void *opaque)
{
    const struct call *call = opaque;

    return call->disk->format->image->snapshot_apply(call->disk, call->name, call->err);
}

int image_snapshot_apply(struct disk *disk, const char *name, struct error *err)
{
    struct call call = {.disk = disk, .name = name, .err = err};
    const uint64_t before = disk->size;
    int r;

    if (!disk->format->image || !disk->format->image->snapshot_apply)
        return not_offered(disk, "snapshots", err);
    r = storage_run(disk->storage, call_snapshot_apply, &call);
    if (disk->size != before && disk->resized)
        disk->resized(disk->resized_opaque, disk->size);
    return r;
}

static int call_snapshot_delete(void *opaque)
{
    const struct call *call = opaque;

    return call->disk->format->image->snapshot_delete(call->disk, call->name, call->err);
}

int image_snapshot_delete(struct disk *disk, const char *name, struct error *err)
{
    struct call call = {.disk = disk, .name = name, .err = err};

    if (!disk->format->image || !disk->format->image->snapshot_delete)
        return not_offered(disk, "snapshots", err);
    return storage_run(disk->storage, call_snapshot_delete, &call);
}

static int call_snapshot_list(void *opaque)
{
    const struct call *call = opaque;

    return call->disk->format->image->snapshot_list(call->disk, call->ret, call->ret_more,
                                                    call->err);
}

int image_snapshot_list(struct disk *disk, struct image_snapshot **ret_snapshots,
                        unsigned *ret_count, struct error *err)
{
    struct call call = {.disk = disk, .ret = ret_snapshots, .ret_more = ret_count, .err = err};

    if (!disk->format->image || !disk->format->image->snapshot_list)
        return not_offered(disk, "snapshots", err);
    return storage_run(disk->storage, call_snapshot_list, &call);
}

/* --- Checking --- */

static int call_check(void *opaque)
{
    const struct call *call = opaque;

    return call->disk->format->image->check(call->disk, call->repair, call->ret, call->err);
}

int image_check(struct disk *disk, unsigned repair, struct image_check *ret_check,
                struct error *err)
{
    struct call call = {.disk = disk, .repair = repair, .ret = ret_check, .err = err};

    if (!disk->format->image || !disk->format->image->check)
        return not_offered(disk, "consistency that could be checked", err);
    return storage_run(disk->storage, call_check, &call);
}
