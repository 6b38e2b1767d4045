/* mounts.c - what --volume and --mount ask for, as entries of a guest's record. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/path.h"
#include "guest/guest-private.h"
#include "guest/volume.h"

enum { IMAGE_VOLUMES_MAX = 64 };

/* A directory or file of the host, or a volume by its name. */
static bool is_path(const char *source)
{
    return source[0] == '.' || strchr(source, '/');
}

/* A volume that is not there is made. */
static int volume_source(const char *name, char path[PATH_MAX], struct error *err)
{
    struct error why;

    if (volume_path(name, path, NULL) < 0 && volume_create(name, NULL, &why) < 0)
        return error_set(err, why.code, "%s", why.text);
    return volume_path(name, path, err);
}

/* source NULL: a volume of the guest's own, with a name that is made up. */
static int add_at(json_t *volumes, size_t index, const char *source, const char *target,
                  bool read_only, bool copies, struct error *err)
{
    char path[PATH_MAX], made_up[2 * sizeof(uint64_t[2]) + 1];
    bool anonymous = !source;
    uint64_t random[2];
    int r = 0;

    if (anonymous) {
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
            return error_system(err, errno, "cannot make up a volume's name");
        snprintf(made_up, sizeof(made_up), "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        source = made_up;
    }
    if (is_path(source)) { /* absolute, so that it means the same at a later start */
        if (!realpath(source, path))
            return error_system(err, errno, "the volume's source %.200s", source);
    } else {
        r = volume_source(source, path, err);
    }
    if (r == 0)
        json_array_insert_new(volumes, index,
                              json_pack("{ss* ss ss sb sb sb}", "name",
                                        is_path(source) ? NULL : source, "source", path, "target",
                                        target, "readOnly", read_only, "copies", copies,
                                        "anonymous", anonymous));
    return r;
}

static int add(json_t *volumes, const char *source, const char *target, bool read_only,
               bool copies, struct error *err)
{
    return add_at(volumes, json_array_size(volumes), source, target, read_only, copies, err);
}

/* --- [SOURCE:]TARGET[:OPTION,...] --- */

/* z and Z are of labels, which are not set anyway. */
static const char *const volume_words[] = {"ro", "rw", "nocopy", "z", "Z"};

static int read_volume_words(char *text, bool *read_only, bool *copies)
{
    for (char *save = NULL, *word = strtok_r(text, ",", &save); word;
         word = strtok_r(NULL, ",", &save)) {
        size_t i = 0;

        while (i < ARRAY_SIZE(volume_words) && strcmp(word, volume_words[i]) != 0)
            i++;
        if (i == ARRAY_SIZE(volume_words))
            return -EINVAL;
        *read_only |= i == 0;
        *copies &= i != 2;
    }
    return 0;
}

int mounts_add_volume(json_t *volumes, const char *text, struct error *err)
{
    AUTO_FREE char *copy = strdup(text);
    char *target = copy ? strchr(copy, ':') : NULL;
    char *words = target ? strchr(target + 1, ':') : NULL;
    bool read_only = false, copies = true;

    if (copy && copy[0] == '/' && !target)
        return add(volumes, NULL, copy, false, true, err);
    if (words)
        *words++ = 0;
    if (target)
        *target++ = 0;
    if (!target || !copy[0] || target[0] != '/' ||
        (words && read_volume_words(words, &read_only, &copies) < 0))
        return error_set(err, EINVAL,
                         "the volume '%.200s' is not SOURCE:/TARGET[:ro], NAME:/TARGET[:ro] nor "
                         "/TARGET",
                         text);
    return add(volumes, copy, target, read_only, copies, err);
}

/* --- type=KIND,NAME=VALUE,... --- */

enum { TYPE, SOURCE, TARGET, READ_ONLY, NO_COPY, SIZE, MODE, PARTS };

/* By podman's names and docker's. */
static const struct {
    const char *name;
    unsigned part;
} mount_parts[] = {
    {"type", TYPE},          {"source", SOURCE},       {"src", SOURCE},
    {"target", TARGET},      {"destination", TARGET},  {"dst", TARGET},
    {"readonly", READ_ONLY}, {"ro", READ_ONLY},        {"volume-nocopy", NO_COPY},
    {"tmpfs-size", SIZE},    {"tmpfs-mode", MODE},
};

static bool is_set(const char *value)
{
    return value && strcmp(value, "false") != 0;
}

static int add_tmpfs(json_t *tmpfs, const char *const parts[PARTS])
{
    AUTO_FREE char *text = NULL;

    if (asprintf(&text, "%s:nosuid,nodev,mode=%s%s%s%s", parts[TARGET],
                 parts[MODE] ? parts[MODE] : "1777", parts[SIZE] ? ",size=" : "",
                 parts[SIZE] ? parts[SIZE] : "", is_set(parts[READ_ONLY]) ? ",ro" : "") < 0)
        return -ENOMEM;
    json_array_append_new(tmpfs, json_string(text));
    return 0;
}

static int add_mount(json_t *volumes, json_t *tmpfs, const char *const parts[PARTS],
                     struct error *err)
{
    const char *type = parts[TYPE] ? parts[TYPE] : "volume", *source = parts[SOURCE];
    bool binds = !strcmp(type, "bind");

    if (!parts[TARGET] || parts[TARGET][0] != '/')
        return error_set(err, EINVAL, "it has no target=/PATH");
    if (!strcmp(type, "tmpfs"))
        return source ? error_set(err, EINVAL, "a tmpfs has no source")
                      : add_tmpfs(tmpfs, parts);
    if (!binds && strcmp(type, "volume") != 0)
        return error_set(err, EINVAL, "the type '%.30s' is not bind, volume or tmpfs", type);
    if (source ? !source[0] || is_path(source) != binds : binds)
        return error_set(err, EINVAL, "source= is not %s",
                         binds ? "the path of a directory or file" : "the name of a volume");
    return add(volumes, source, parts[TARGET], is_set(parts[READ_ONLY]), !is_set(parts[NO_COPY]),
               err);
}

int mounts_add_mount(json_t *volumes, json_t *tmpfs, const char *text, struct error *err)
{
    AUTO_FREE char *copy = strdup(text);
    const char *parts[PARTS] = {NULL};
    int r;

    for (char *save = NULL, *word = copy ? strtok_r(copy, ",", &save) : NULL; word;
         word = strtok_r(NULL, ",", &save)) {
        char *value = strchr(word, '=');
        size_t i = 0;

        if (value)
            *value++ = 0;
        while (i < ARRAY_SIZE(mount_parts) && strcmp(word, mount_parts[i].name) != 0)
            i++;
        if (i == ARRAY_SIZE(mount_parts))
            return error_set(err, EINVAL, "--mount %.200s: '%.30s' is not known", text, word);
        parts[mount_parts[i].part] = value ? value : "true";
    }
    r = add_mount(volumes, tmpfs, parts, err);
    if (r < 0)
        error_prepend(err, "--mount %.200s", text);
    return r;
}

/* --- What the image asks for --- */

/* As config.json has them; what is there is the kernel's. */
static const char *const kernel_paths[] = {"/proc", "/sys", "/dev"};

/* Whether a path is the other one, or below it; slashes at its end do not count. */
static bool is_within(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    while (length > 1 && directory[length - 1] == '/')
        length--;
    return !strncmp(path, directory, length) && (path[length] == '/' || !path[length]);
}

static bool is_same(const char *one, const char *other)
{
    return is_within(one, other) && is_within(other, one);
}

/* Not where it could stand for something else than a directory of the image. */
static bool is_of_use(const char *target)
{
    for (size_t i = 0; i < ARRAY_SIZE(kernel_paths); i++)
        if (is_within(target, kernel_paths[i]))
            return false;
    return target[0] == '/' && target[strspn(target, "/")] && !strstr(target, "//") &&
           !strstr(target, "/.");
}

static bool is_tmpfs(const json_t *tmpfs, const char *target)
{
    json_t *item;
    size_t i;

    json_array_foreach(tmpfs, i, item)
    {
        AUTO_FREE char *path = strdup(json_string_value(item));

        if (path)
            path[strcspn(path, ":")] = 0;
        if (path && is_same(path, target))
            return true;
    }
    return false;
}

int mounts_add_image(json_t *volumes, const json_t *tmpfs, const char *const *targets,
                     struct error *err)
{
    size_t count = 0;
    int r = 0;

    for (; r == 0 && *targets; targets++) {
        size_t place = json_array_size(volumes), i;
        bool taken = !is_of_use(*targets) || is_tmpfs(tmpfs, *targets);
        json_t *volume;

        /* In front of those that are below it. */
        json_array_foreach(volumes, i, volume)
        {
            const char *target = json_string_value(json_object_get(volume, "target"));

            taken |= is_same(target, *targets);
            if (is_within(target, *targets) && i < place)
                place = i;
        }
        if (taken)
            continue;
        if (++count > IMAGE_VOLUMES_MAX)
            return error_set(err, EINVAL, "the image has more than %d volumes", IMAGE_VOLUMES_MAX);
        r = add_at(volumes, place, NULL, *targets, false, true, err);
    }
    return r;
}

int mounts_remove_anonymous(const json_t *record, struct error *err)
{
    json_t *volume;
    size_t i;

    json_array_foreach(json_object_get(record, "volumes"), i, volume)
    {
        int r = 0;

        if (json_is_true(json_object_get(volume, "anonymous")))
            r = volume_remove(json_string_value(json_object_get(volume, "name")), err);
        /* Another guest may use it by its name; or it was removed already. */
        if (r < 0 && r != -EBUSY && r != -ENOENT)
            return r;
    }
    return 0;
}

/* --- At a start --- */

int mounts_fill_volumes(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int root_fd = openat(guest->fd, "rootfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct path_root root = {.fd = root_fd};
    json_t *volume;
    size_t i;

    json_array_foreach(json_object_get(guest->record, "volumes"), i, volume)
    {
        const char *name = json_string_value(json_object_get(volume, "name"));
        const char *target = json_string_value(json_object_get(volume, "target"));
        AUTO_CLOSE int directory = -1;
        int r;

        if (!name || !json_is_true(json_object_get(volume, "copies")))
            continue;
        directory = path_open(&root, target, O_PATH | O_DIRECTORY);
        if (directory < 0) /* the image has nothing there */
            continue;
        r = volume_fill(name, directory, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool is_taken(const json_t *volumes, const char *target)
{
    const json_t *volume;
    size_t i;

    json_array_foreach(volumes, i, volume)
    {
        if (is_same(json_string_value(json_object_get(volume, "target")), target))
            return true;
    }
    return false;
}

int mounts_add_from(json_t *volumes, const char *text, struct error *err)
{
    const char *option = strchrnul(text, ':');
    AUTO_FREE char *name = strndup(text, (size_t)(option - text));
    bool read_only = !strcmp(option, ":ro");
    struct guest other;
    json_t *volume;
    size_t i;
    int r;

    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    if (*option && !read_only && strcmp(option, ":rw") != 0)
        return error_set(err, EINVAL, "--volumes-from '%.100s' is not GUEST, GUEST:ro or GUEST:rw",
                         text);
    r = guest_open(name, &other, err);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(other.record, "volumes"), i, volume)
    {
        json_t *copy = json_deep_copy(volume);

        if (is_taken(volumes, json_string_value(json_object_get(volume, "target")))) {
            json_decref(copy);
            continue;
        }
        json_object_set_new(copy, "anonymous", json_false()); /* it is the other guest's */
        if (read_only)
            json_object_set_new(copy, "readOnly", json_true());
        json_array_append_new(volumes, copy);
    }
    guest_close(&other);
    return 0;
}
