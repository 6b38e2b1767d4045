/* disk.c - the root filesystem of a guest that is a virtual machine. The image's merged layers
 * become one ext4 filesystem in a sparse file of the store, disks/DIGEST, made once and never
 * changed; what the guest writes goes into a qcow2 disk of its own on top, which stays
 * from one start to the next. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/guest-private.h"
#include "image/program.h"
#include "storage/disk.h"
#include "storage/storage.h"

#define DISK_SIZE "16G" /* room for what the guest writes; holes until then */

/* The merged layers at the guest's rootfs into a new file of the store. */
static int make_base(const struct guest *guest, struct store *store, const char *name,
                     struct error *err)
{
    char temporary[PATH_MAX], file[PATH_MAX], root[PATH_MAX], log[PATH_MAX];
    const char *argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0",
                          "-E", "lazy_itable_init=1,root_owner=0:0", "-J", "size=16",
                          "-d", root, file, DISK_SIZE, NULL};
    AUTO_CLOSE int fd = -1;
    int r;

    store_temporary_name(store, temporary, sizeof(temporary));
    snprintf(file, sizeof(file), "%.2000s/%.2000s", store_path(store), temporary);
    snprintf(root, sizeof(root), "%.4000s/rootfs", guest->path);
    snprintf(log, sizeof(log), "%.4000s/disk.log", guest->path);
    r = program_run(argv, NULL, log, err);
    if (r == 0) {
        fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0 ||
            renameat(store_directory(store), temporary, store_directory(store), name) < 0)
            r = error_system(err, errno, "cannot write %s", file);
    }
    if (r < 0) {
        unlink(file);
        error_prepend(err, "the image as a disk");
    }
    return r;
}

static int make_own(const struct guest *guest, const char *base, struct error *err)
{
    struct disk_create_options options = {.backing = base, .backing_format = "raw"};
    struct storage *storage;
    char path[PATH_MAX];
    int r = storage_create(NULL, NULL, &storage, err);

    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "%.4000s/" ROOT_DISK, guest->path);
    r = disk_create(storage, path, "qcow2", &options, err);
    storage_destroy(storage);
    return r;
}

int root_make_disk(const struct guest *guest, struct store *store,
                   const struct image_config *config, struct error *err)
{
    const json_t *manifest = json_object_get(guest->record, "manifest");
    struct digest digest;
    char name[STORE_DISK_MAX], relative[PATH_MAX], base[PATH_MAX];
    int r;

    if (faccessat(guest->fd, ROOT_DISK, F_OK, 0) == 0)
        return 0;
    r = digest_parse(json_string_value(json_object_get(manifest, "digest")), &digest, err);
    if (r < 0)
        return r;
    store_disk_path(&digest, name);
    if (faccessat(store_directory(store), name, F_OK, 0) < 0) {
        r = root_mount(guest, store, config, err);
        if (r == 0) {
            r = make_base(guest, store, name, err);
            root_unmount(guest, NULL);
        }
    }
    if (r < 0)
        return r;
    snprintf(relative, sizeof(relative), "%.3800s/%s", store_path(store), name);
    if (!realpath(relative, base))
        return error_system(err, errno, "cannot find %s", relative);
    return make_own(guest, base, err);
}
