#include "guest/volume.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/directories.h"
#include "base/privilege.h"
#include "container/copy.h"
#include "container/file.h"
#include "guest/guest.h"
#include "image/tree.h"

enum { NAME_MAX_ = 128, RECORD_MAX = 1 << 20 };

static int check_name(const char *name, struct error *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-.";

    /* One that begins with a dot is a hidden file, or a way up. "lock" is none's. */
    return !name[0] || strchr("_-.", name[0]) || strlen(name) > NAME_MAX_ ||
                   name[strspn(name, allowed)] || !strcmp(name, "lock")
               ? error_set(err, EINVAL,
                           "'%.60s' is no name of a volume: letters, digits, _ - and .", name)
               : 0;
}

/* The directory of all volumes; made where missing. */
static int open_volumes(struct error *err)
{
    char path[PATH_MAX];
    int r, fd;

    if (!privilege_data_path("volumes", path, sizeof(path)))
        return error_set(err, ENOENT, "there is no place for volumes: set HOME or XDG_DATA_HOME");
    r = directories_make(path, 0711, 0711, err);
    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_system(err, errno, "cannot open %s", path) : fd;
}

/* That of one, which may be half made or half removed. */
static int open_volume(const char *name, struct error *err)
{
    int r = check_name(name, err);
    AUTO_CLOSE int volumes = r < 0 ? -1 : open_volumes(err);
    int fd;

    if (volumes < 0)
        return r < 0 ? r : volumes;
    fd = openat(volumes, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && faccessat(fd, "data", F_OK, 0) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return error_set(err, ENOENT, "there is no volume %s; 'lodge volume ls' lists them", name);
}

int volume_lock(struct error *err)
{
    AUTO_CLOSE int volumes = open_volumes(err), fd = -1;

    if (volumes < 0)
        return volumes;
    fd = openat(volumes, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock the volumes");
    return steal_fd(&fd);
}

/* --- Making --- */

static int write_record(int fd, const char *name, json_t *labels, struct error *err)
{
    AUTO_FREE char *text = NULL;
    char created[32];
    time_t now = time(NULL);
    struct tm utc;
    json_t *tree;

    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    tree = json_pack("{ss ss sO*}", "name", name, "created", created, "labels", labels);
    text = json_dumps(tree, JSON_INDENT(2));
    json_decref(tree);
    return text ? file_replace(fd, "volume.json", text, strlen(text), err)
                : error_set(err, ENOMEM, "out of memory");
}

int volume_create(const char *name, json_t *labels, struct error *err)
{
    int r = check_name(name, err);
    AUTO_CLOSE int volumes = r < 0 ? -1 : open_volumes(err), fd = -1, fresh = -1;

    if (volumes < 0)
        return r < 0 ? r : volumes;
    fd = open_volume(name, NULL);
    if (fd >= 0)
        return error_set(err, EEXIST, "there is a volume %s already", name);
    tree_remove(volumes, name); /* what was not finished, or not removed in whole */
    if (mkdirat(volumes, name, 0711) < 0 ||
        (fd = openat(volumes, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        (fresh = openat(fd, "fresh", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        return error_system(err, errno, "cannot make the volume %s", name);
    r = write_record(fd, name, labels, err);
    if (r == 0 && mkdirat(fd, "data", 0755) < 0)
        r = error_system(err, errno, "cannot make the volume %s", name);
    return r;
}

int volume_path(const char *name, char path[PATH_MAX], struct error *err)
{
    AUTO_CLOSE int fd = open_volume(name, err);
    char volumes[PATH_MAX];

    if (fd < 0)
        return fd;
    if (!privilege_data_path("volumes", volumes, sizeof(volumes)) ||
        snprintf(path, PATH_MAX, "%s/%s/data", volumes, name) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path of the volume %s is too long", name);
    return 0;
}

int volume_fill(const char *name, int directory_fd, struct error *err)
{
    AUTO_CLOSE int fd = open_volume(name, err), fresh = -1, filling = -1;
    int r;

    if (fd < 0)
        return fd;
    fresh = openat(fd, "fresh", O_RDWR | O_CLOEXEC);
    if (fresh < 0)
        return 0;
    if (flock(fresh, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock the volume %s", name);
    if (faccessat(fd, "fresh", F_OK, 0) < 0) /* another one has filled it meanwhile */
        return 0;
    tree_remove(fd, "filling");
    if (mkdirat(fd, "filling", 0755) < 0 ||
        (filling = openat(fd, "filling", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        return error_system(err, errno, "cannot fill the volume %s", name);
    r = copy_tree(directory_fd, filling, err);
    /* It takes the place of an empty directory only (rename(2)). */
    if (r == 0 && renameat(fd, "filling", fd, "data") < 0 && errno != ENOTEMPTY && errno != EEXIST)
        r = error_system(err, errno, "cannot fill the volume %s", name);
    tree_remove(fd, "filling");
    if (r == 0)
        unlinkat(fd, "fresh", 0);
    else
        error_prepend(err, "the volume %s", name);
    return r;
}

/* --- Looking --- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int volume_list(int (*fn)(const char *name, void *opaque), void *opaque, struct error *err)
{
    AUTO_CLOSE int volumes = open_volumes(err);
    struct dirent **names;
    int count, r = 0;

    if (volumes < 0)
        return volumes;
    count = scandirat(volumes, ".", &names, NULL, by_name);
    if (count < 0)
        return error_system(err, errno, "cannot list the volumes");
    for (int i = 0; i < count; i++) {
        AUTO_CLOSE int fd = r < 0 ? -1 : open_volume(names[i]->d_name, NULL);

        if (fd >= 0)
            r = fn(names[i]->d_name, opaque);
        free(names[i]);
    }
    free(names);
    return r;
}

struct users {
    const char *volume;
    json_t *guests;
};

static int add_user(struct guest *guest, void *opaque)
{
    struct users *users = opaque;
    json_t *volume;
    size_t i;

    json_array_foreach(json_object_get(guest->record, "volumes"), i, volume)
    {
        const char *name = json_string_value(json_object_get(volume, "name"));

        if (name && !strcmp(name, users->volume)) {
            json_array_append_new(users->guests, json_string(guest->name));
            break;
        }
    }
    return 0;
}

int volume_describe(const char *name, json_t **ret_tree, struct error *err)
{
    AUTO_CLOSE int fd = open_volume(name, err);
    struct users users = {name, json_array()};
    AUTO_FREE char *text = NULL;
    char path[PATH_MAX];
    json_t *tree = NULL;
    int r = fd < 0 ? fd : volume_path(name, path, err);

    if (r == 0)
        r = file_read(fd, "volume.json", RECORD_MAX, &text, NULL, err);
    if (r == 0) {
        tree = json_loads(text, 0, NULL);
        if (!json_is_object(tree))
            r = error_set(err, EINVAL, "the volume.json of %s is damaged", name);
    }
    if (r == 0)
        r = guest_list(add_user, &users, err);
    if (r == 0) {
        json_object_set_new(tree, "path", json_string(path));
        json_object_set(tree, "guests", users.guests);
        *ret_tree = tree;
    } else {
        json_decref(tree);
    }
    json_decref(users.guests);
    return r;
}

int volume_remove(const char *name, struct error *err)
{
    AUTO_CLOSE int fd = open_volume(name, err), volumes = fd < 0 ? -1 : open_volumes(err);
    struct users users = {name, json_array()};
    int r = fd < 0 ? fd : volumes < 0 ? volumes : guest_list(add_user, &users, err);

    if (r == 0 && json_array_size(users.guests))
        r = error_set(err, EBUSY, "the volume %s is used by the guest %s: 'lodge rm' removes it",
                      name, json_string_value(json_array_get(users.guests, 0)));
    json_decref(users.guests);
    if (r < 0)
        return r;
    /* Without data it is none, however far this comes. */
    tree_remove(fd, "filling");
    if (renameat(fd, "data", fd, "filling") < 0)
        return error_system(err, errno, "cannot remove the volume %s", name);
    r = tree_remove(volumes, name);
    return r < 0 ? error_system(err, -r, "cannot remove the volume %s", name) : 0;
}
