/* root.c - a guest's root filesystem: the image's layers below, its own writes on top. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/privilege.h"
#include "guest/guest-private.h"

enum { OPTIONS_MAX = 4096 }; /* mount(2) takes a page */

/* Descriptors of the layers. Named through /proc/self/fd, many fit into the options. */
struct layers {
    int fds[LAYERS_MAX];
    size_t count;
};

static int open_layers(const struct store *store, const struct image_config *config,
                       struct layers *layers, struct error *err)
{
    char path[LAYER_PATH_MAX];

    while (layers->count < config->diff_count) {
        int fd;

        layer_path(config->diff_ids + layers->count, path);
        fd = openat(store_directory(store), path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return error_system(err, errno, "cannot open the layer %s", path);
        layers->fds[layers->count++] = fd;
    }
    return 0;
}

static int mount_overlay(const struct guest *guest, const struct layers *layers, struct error *err)
{
    char options[OPTIONS_MAX], target[64];
    AUTO_CLOSE int upper = openat(guest->fd, "upper", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int work = openat(guest->fd, "work", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int root = openat(guest->fd, "rootfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int length =
        snprintf(options, sizeof(options),
                 "%supperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d,lowerdir=",
                 privilege_is_full() ? "" : "userxattr,", upper, work);

    if (upper < 0 || work < 0 || root < 0)
        return error_system(err, errno, "cannot open the directories of the guest %s", guest->name);
    for (size_t i = layers->count; i-- > 0;) { /* the topmost comes first */
        length += snprintf(options + length, sizeof(options) - (size_t)length, "/proc/self/fd/%d%s",
                           layers->fds[i], i ? ":" : "");
        if (length >= (int)sizeof(options))
            return error_set(err, E2BIG, "the image has too many layers (%zu)", layers->count);
    }
    snprintf(target, sizeof(target), "/proc/self/fd/%d", root);
    if (mount("overlay", target, "overlay", 0, options) < 0)
        return error_system(err, errno, "cannot mount the root of the guest %s", guest->name);
    return 0;
}

int root_mount(const struct guest *guest, const struct store *store,
               const struct image_config *config, struct error *err)
{
    struct layers layers = {.count = 0};
    int r = config->diff_count ? open_layers(store, config, &layers, err)
                               : error_set(err, EINVAL, "the image has no layers");

    if (r == 0)
        r = mount_overlay(guest, &layers, err);
    while (layers.count > 0)
        close(layers.fds[--layers.count]);
    return r;
}

int root_unmount(const struct guest *guest, struct error *err)
{
    char target[4096];

    snprintf(target, sizeof(target), "%s/rootfs", guest->path);
    /* EINVAL: it is not mounted. What a user mounts is gone with the namespace it was in. */
    if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT &&
        !(errno == EPERM && geteuid() != 0))
        return error_system(err, errno, "cannot unmount %s", target);
    return 0;
}
