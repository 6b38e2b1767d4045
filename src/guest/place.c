#include "guest/place.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/tree.h"

static int open_path(struct path_root *root, const char *path, int flags)
{
    int fd = root ? path_open(root, path, flags) : open(path, flags | O_CLOEXEC);

    return fd >= 0 || root ? fd : -errno;
}

/* The last name of a path, and how much of it is before that. */
static int name_find(const char *path, char name[NAME_MAX + 1], size_t *ret_before,
                     struct error *err)
{
    size_t end = strlen(path), begin;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    if (end - begin > NAME_MAX)
        return error_system(err, ENAMETOOLONG, "cannot find %.300s", path);
    memcpy(name, path + begin, end - begin);
    name[end - begin] = 0;
    if (!name[0] || !strcmp(name, ".") || !strcmp(name, ".."))
        return error_set(err, EINVAL, "'%.200s' does not end in a name", path);
    *ret_before = begin;
    return 0;
}

int place_name(const char *path, char name[NAME_MAX + 1], struct error *err)
{
    size_t before;

    return name_find(path, name, &before, err);
}

int place_open(struct path_root *root, const char *path, struct place *ret_place,
               struct error *err)
{
    AUTO_FREE char *parent = NULL;
    size_t before;
    int fd, r = name_find(path, ret_place->name, &before, err);

    if (r < 0)
        return r;
    parent = strndup(before ? path : root ? "/" : ".", before ? before : 1);
    if (!parent)
        return error_set(err, ENOMEM, "out of memory");
    fd = open_path(root, parent, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return error_system(err, -fd, "cannot find %.300s", path);
    ret_place->directory = fd;
    return 0;
}

int place_open_target(struct path_root *root, const char *path, const char *name,
                      struct place *ret_place, struct error *err)
{
    int fd = open_path(root, path, O_PATH | O_DIRECTORY);

    if (fd < 0 && path[0] && path[strlen(path) - 1] == '/')
        return error_system(err, -fd, "the directory %.300s", path);
    if (fd < 0)
        return place_open(root, path, ret_place, err);
    ret_place->directory = fd;
    snprintf(ret_place->name, sizeof(ret_place->name), "%s", name);
    return 0;
}

void place_close(struct place *place)
{
    if (place->directory >= 0)
        close(place->directory);
    place->directory = -1;
}

int place_fill(const struct place *place,
               int (*fn)(int directory, const char *name, void *opaque, struct error *err),
               void *opaque, struct error *err)
{
    char temporary[32];
    unsigned random = 0;
    int r;

    getrandom(&random, sizeof(random), 0);
    snprintf(temporary, sizeof(temporary), ".lodge-cp-%08x", random);
    r = fn(place->directory, temporary, opaque, err);
    if (r == 0 && renameat(place->directory, temporary, place->directory, place->name) < 0)
        r = error_system(err, errno, "cannot put %s there", place->name);
    if (r < 0) {
        AUTO_CLOSE int directory =
            openat(place->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (directory >= 0)
            tree_remove(directory, temporary);
    }
    return r;
}
