/* transfer.c - files into a guest, and out of it. Paths there are resolved within its
 * root; what it changes meanwhile leads nowhere else. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/copy.h"
#include "container/path.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "guest/rootless.h"
#include "image/tree.h"

/* A name in a directory. */
struct place {
    int directory; /* owned */
    char name[NAME_MAX + 1];
};

/* root NULL: of the host. */
static int open_path(struct path_root *root, const char *path, int flags)
{
    int fd = root ? path_open(root, path, flags) : open(path, flags | O_CLOEXEC);

    return fd >= 0 || root ? fd : -errno;
}

/* The directory of a path, and the last name in it. */
static int open_place(struct path_root *root, const char *path, struct place *ret_place,
                      struct error *err)
{
    AUTO_FREE char *copy = strdup(path);
    size_t length = copy ? strlen(copy) : 0;
    char *slash;
    int fd;

    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    slash = copy ? strrchr(copy, '/') : NULL;
    snprintf(ret_place->name, sizeof(ret_place->name), "%s", slash ? slash + 1 : copy ? copy : "");
    if (!ret_place->name[0] || !strcmp(ret_place->name, ".") || !strcmp(ret_place->name, ".."))
        return error_set(err, EINVAL, "'%.200s' does not end in a name", path);
    if (slash)
        slash[slash == copy] = 0; /* "/" stays */
    fd = open_path(root, slash ? copy : root ? "/" : ".", O_PATH | O_DIRECTORY);
    if (fd < 0)
        return error_system(err, -fd, "cannot find %.300s", path);
    ret_place->directory = fd;
    return 0;
}

/* Where something called name goes that is to be copied to path. */
static int open_target(struct path_root *root, const char *path, const char *name,
                       struct place *ret_place, struct error *err)
{
    int fd = open_path(root, path, O_PATH | O_DIRECTORY);

    if (fd < 0 && path[0] && path[strlen(path) - 1] == '/')
        return error_system(err, -fd, "the directory %.300s", path);
    if (fd < 0)
        return open_place(root, path, ret_place, err);
    ret_place->directory = fd;
    snprintf(ret_place->name, sizeof(ret_place->name), "%s", name);
    return 0;
}

/* Whole, or not at all. */
static int copy(const struct place *from, const struct place *to, struct error *err)
{
    char temporary[32];
    unsigned random = 0;
    int r;

    getrandom(&random, sizeof(random), 0);
    snprintf(temporary, sizeof(temporary), ".lodge-cp-%08x", random);
    r = copy_entry(from->directory, from->name, to->directory, temporary, err);
    if (r == 0 && renameat(to->directory, temporary, to->directory, to->name) < 0)
        r = error_system(err, errno, "cannot put %s there", to->name);
    if (r < 0) {
        AUTO_CLOSE int directory = openat(to->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (directory >= 0)
            tree_remove(directory, temporary);
    }
    return r;
}

static int transfer(struct path_root *from_root, const char *from, struct path_root *to_root,
                    const char *to, struct error *err)
{
    struct place source = {.directory = -1}, target = {.directory = -1};
    int r = open_place(from_root, from, &source, err);

    if (r == 0)
        r = open_target(to_root, to, source.name, &target, err);
    if (r == 0)
        r = copy(&source, &target, err);
    if (source.directory >= 0)
        close(source.directory);
    if (target.directory >= 0)
        close(target.directory);
    return r;
}

/* --- The guest's root --- */

int guest_prepare_copy(struct error *err)
{
    int r = rootless_enter(err);

    if (r == 0 && (unshare(CLONE_NEWNS) < 0 ||
                   mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
        r = error_system(err, errno, "cannot make a mount namespace");
    return r;
}

static bool is_live(const struct guest_status *status)
{
    return status->state == GUEST_RUNNING || status->state == GUEST_PAUSED;
}

static int mount_root(struct guest *guest, struct store *store, struct error *err)
{
    struct guest_status status;
    int r = guest_lock(guest, true, err); /* who waited for it may still be cleaning up */

    if (r == 0)
        r = guest_status(guest, &status, err);
    if (r == 0 && (!store || is_live(&status) || guest_is_gone(guest)))
        r = error_set(err, EBUSY, "the guest %s has just been started or removed", guest->name);
    if (r == 0)
        r = guest_end(guest, -1, err);
    return r < 0 ? r : isolation_of(guest)->mount_root(guest, store, err);
}

static int open_root(struct guest *guest, struct store *store, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    if (r < 0)
        return r;
    if (!isolation_of(guest)->open_root)
        return error_set(err, ENOTSUP,
                         "nothing is copied into virtual machines, or out of them: share a "
                         "--volume, or 'lodge exec -i' tar");
    return is_live(&status) ? isolation_of(guest)->open_root(guest, &status, err)
                            : mount_root(guest, store, err);
}

int guest_copy_in(struct guest *guest, struct store *store, const char *from, const char *to,
                  struct error *err)
{
    AUTO_CLOSE int fd = open_root(guest, store, err);
    struct path_root root = {.fd = fd};

    return fd < 0 ? fd : transfer(NULL, from, &root, to, err);
}

int guest_copy_out(struct guest *guest, struct store *store, const char *from, const char *to,
                   struct error *err)
{
    AUTO_CLOSE int fd = open_root(guest, store, err);
    struct path_root root = {.fd = fd};

    return fd < 0 ? fd : transfer(&root, from, NULL, to, err);
}
