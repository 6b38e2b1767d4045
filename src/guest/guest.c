#include "guest/guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/directories.h"
#include "base/privilege.h"
#include "container/file.h"
#include "container/state.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "guest/volume.h"
#include "image/tree.h"

enum { RECORD_MAX = 1 << 20, LOCK_POLL_MS = 20 };

const char *guest_text(const struct guest *guest, const char *name)
{
    const char *text = json_string_value(json_object_get(guest->record, name));

    return text ? text : "";
}

bool guest_flag(const struct guest *guest, const char *name)
{
    return json_is_true(json_object_get(guest->record, name));
}

/* --- The directory --- */

int guest_write(const struct guest *guest, const char *name, const char *text, struct error *err)
{
    return file_replace(guest->fd, name, text, strlen(text), err);
}

int guest_lock(struct guest *guest, bool wait, struct error *err)
{
    AUTO_CLOSE int fd = openat(guest->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
        return error_system(err, errno, "cannot lock the guest %s", guest->name);
    guest->lock_fd = steal_fd(&fd);
    return 0;
}

bool guest_is_gone(const struct guest *guest)
{
    struct stat status;

    return fstat(guest->fd, &status) == 0 && status.st_nlink == 0;
}

static bool guests_path(char path[PATH_MAX])
{
    return privilege_data_path("guests", path, PATH_MAX);
}

/* The user's runtime directory goes when they log out, as their processes do. */
static int states_path(char **ret_path, struct error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[PATH_MAX];

    if (privilege_is_full())
        snprintf(path, sizeof(path), "/run/lodge/guests");
    else if (runtime && runtime[0] == '/')
        snprintf(path, sizeof(path), "%.3000s/lodge/guests", runtime);
    else if (!privilege_data_path("run", path, sizeof(path)))
        return error_set(err, ENOENT, "there is no place for states: set XDG_RUNTIME_DIR");
    *ret_path = strdup(path);
    return *ret_path ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int set_path(struct guest *guest, const char *name, struct error *err)
{
    char directory[PATH_MAX];

    guest->fd = guest->lock_fd = -1;
    guest->record = NULL;
    guest->path = guest->states = NULL;
    guest->name = strdup(name);
    if (!guest->name || !guests_path(directory) ||
        asprintf(&guest->path, "%s/%s", directory, name) < 0) {
        guest->path = NULL;
        return error_set(err, ENOENT, "there is no place for guests: set HOME or XDG_DATA_HOME");
    }
    return states_path(&guest->states, err);
}

/* What a process that was killed left of a guest: a directory without a record that nobody has
 * locked. True when it was that, and is gone. */
static bool remove_remains(const char *path)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), lock = -1;

    if (fd < 0 || faccessat(fd, "guest.json", F_OK, 0) == 0)
        return false;
    lock = openat(fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    /* Again: it may just have been made. */
    return lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0 &&
           faccessat(fd, "guest.json", F_OK, 0) < 0 && tree_remove(AT_FDCWD, path) == 0;
}

static int make_directory(struct guest *guest, struct error *err)
{
    static const char *const parts[] = {"upper", "work", "rootfs"};
    char guests[PATH_MAX] = "";
    int r;

    guests_path(guests);
    r = directories_make(guests, 0711, 0700, err);
    if (r < 0)
        return r;
    if (mkdir(guest->path, 0700) < 0 && errno == EEXIST &&
        (!remove_remains(guest->path) || mkdir(guest->path, 0700) < 0))
        return error_set(err, EEXIST, "there is a guest %s already; 'lodge rm %s' removes it",
                         guest->name, guest->name);
    guest->fd = open(guest->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (guest->fd < 0)
        return error_system(err, errno, "cannot make the directory %s", guest->path);
    r = guest_lock(guest, false, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (mkdirat(guest->fd, parts[i], 0755) < 0)
            return error_system(err, errno, "cannot make the directory %s", parts[i]);
    return mkfifoat(guest->fd, "input", 0600) < 0
               ? error_system(err, errno, "cannot make a fifo in %s", guest->path)
               : 0;
}

static int write_record(struct guest *guest, struct error *err)
{
    AUTO_FREE char *text = json_dumps(guest->record, JSON_INDENT(2));

    return text ? guest_write(guest, "guest.json", text, err)
                : error_set(err, ENOMEM, "out of memory");
}

static void make_up_name(char *name, size_t size)
{
    unsigned random = 0;

    getrandom(&random, sizeof(random), 0);
    snprintf(name, size, "guest-%08x", random);
}

int guest_create(const struct guest_options *options, struct store *store, struct guest *ret_guest,
                 struct error *err)
{
    struct descriptor image;
    struct guest guest = {.fd = -1, .lock_fd = -1};
    struct manifest manifest = {0};
    struct image_config config = {0};
    char made_up[32];
    const char *name = options->name;
    AUTO_CLOSE int volumes = -1; /* locked until the record says that the guest uses them */
    json_t *record = NULL;
    int r;

    if (!name) {
        make_up_name(made_up, sizeof(made_up));
        name = made_up;
    }
    r = state_id_check(name, err);
    if (r == 0)
        r = store_resolve(store, options->image, &image, err);
    if (r == 0)
        r = store_read_image(store, &image, &manifest, &config, err);
    if (r == 0 && ((options->volumes && options->volumes[0]) ||
                   (options->mounts && options->mounts[0]) || config.volumes[0]))
        r = volumes = volume_lock(err);
    if (r >= 0)
        r = record_make(options, name, &image, &config, &record, err);
    image_config_release(&config);
    manifest_release(&manifest);
    if (r == 0)
        r = set_path(&guest, name, err);
    guest.record = record;
    if (r == 0)
        r = make_directory(&guest, err);
    if (r == 0)
        r = store_hold(store, name, &image, err);
    if (r == 0)
        r = write_record(&guest, err);
    if (r < 0) {
        if (guest.fd >= 0 && !guest_is_gone(&guest)) {
            tree_remove(AT_FDCWD, guest.path);
            store_release(store, name, NULL);
        }
        mounts_remove_anonymous(record, NULL);
        guest_close(&guest);
        return r;
    }
    *ret_guest = guest;
    return 0;
}

int guest_open(const char *name, struct guest *ret_guest, struct error *err)
{
    struct guest guest = {.fd = -1, .lock_fd = -1};
    AUTO_FREE char *text = NULL;
    size_t length;
    int r = state_id_check(name, err);

    if (r == 0)
        r = set_path(&guest, name, err);
    if (r == 0) {
        guest.fd = open(guest.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (guest.fd < 0)
            r = errno == ENOENT
                    ? error_set(err, ENOENT, "there is no guest %s; 'lodge ls' lists them", name)
                    : error_system(err, errno, "cannot open %s", guest.path);
    }
    if (r == 0 && faccessat(guest.fd, "guest.json", F_OK, 0) < 0)
        r = error_set(err, ENOENT, "there is no guest %s: it is being made, or removed", name);
    if (r == 0)
        r = file_read(guest.fd, "guest.json", RECORD_MAX, &text, &length, err);
    if (r == 0) {
        guest.record = json_loadb(text, length, 0, NULL);
        if (!json_is_object(guest.record))
            r = error_set(err, EINVAL, "%s/guest.json is damaged", guest.path);
        else /* who renamed it may have been killed */
            json_object_set_new(guest.record, "name", json_string(name));
    }
    if (r < 0) {
        guest_close(&guest);
        return r;
    }
    *ret_guest = guest;
    return 0;
}

void guest_close(struct guest *guest)
{
    if (guest->lock_fd >= 0)
        close(guest->lock_fd);
    if (guest->fd >= 0)
        close(guest->fd);
    json_decref(guest->record);
    free(guest->name);
    free(guest->path);
    free(guest->states);
    *guest = (struct guest){.fd = -1, .lock_fd = -1};
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* True also when that cannot be told. */
static bool is_there(const char *name)
{
    struct guest guest;
    bool there = set_path(&guest, name, NULL) < 0 || access(guest.path, F_OK) == 0 ||
                 errno != ENOENT;

    guest_close(&guest);
    return there;
}

/* The image by the digest in the record. */
static int read_descriptor(const struct guest *guest, struct descriptor *ret_image,
                           struct error *err)
{
    const json_t *manifest = json_object_get(guest->record, "manifest");
    const char *digest = json_string_value(json_object_get(manifest, "digest"));

    *ret_image = (struct descriptor){
        .size = (uint64_t)json_integer_value(json_object_get(manifest, "size"))};
    return digest_parse(digest ? digest : "", &ret_image->digest, err);
}

/* A rename that was killed may have left it under its old name only. */
static int hold_again(struct guest *guest, void *opaque)
{
    struct store *store = opaque;
    struct manifest manifest;
    struct descriptor image;

    if (store_is_held(store, guest->name) || read_descriptor(guest, &image, NULL) < 0 ||
        store_read_image(store, &image, &manifest, NULL, NULL) < 0) /* it is of another store */
        return 0;
    manifest_release(&manifest);
    return store_hold(store, guest->name, &image, NULL);
}

int guest_remove_remains(struct store *store, struct error *err)
{
    char directory[PATH_MAX] = "", path[PATH_MAX];
    struct dirent **names;
    int count;

    guests_path(directory);
    count = scandir(directory, &names, NULL, by_name);
    if (count < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot read %s", directory);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.' &&
            snprintf(path, sizeof(path), "%s/%s", directory, names[i]->d_name) < (int)sizeof(path))
            remove_remains(path);
        free(names[i]);
    }
    free(names);
    count = guest_list(hold_again, store, err);
    return count < 0 ? count : store_release_others(store, is_there, err);
}

int guest_list(int (*fn)(struct guest *guest, void *opaque), void *opaque, struct error *err)
{
    struct dirent **names;
    char directory[PATH_MAX] = "";
    int count, r = 0;

    guests_path(directory);
    count = scandir(directory, &names, NULL, by_name);
    if (count < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot read %s", directory);
    for (int i = 0; i < count; i++) {
        struct guest guest;

        /* One that is just being made or removed has no record. */
        if (r >= 0 && names[i]->d_name[0] != '.' &&
            guest_open(names[i]->d_name, &guest, NULL) == 0) {
            r = fn(&guest, opaque);
            guest_close(&guest);
        }
        free(names[i]);
    }
    free(names);
    return r;
}

/* --- Status --- */

const char *guest_state_name(enum guest_state state)
{
    static const char *const names[] = {"created", "running", "paused", "exited"};

    return names[state];
}

int guest_status(const struct guest *guest, struct guest_status *ret_status, struct error *err)
{
    struct guest_status status = {.state = GUEST_CREATED, .exit_status = -1};
    AUTO_FREE char *text = NULL;

    (void)err;
    if (file_read(guest->fd, "status", 64, &text, NULL, NULL) == 0) {
        status.state = GUEST_EXITED;
        status.exit_status = atoi(text);
    } else {
        isolation_of(guest)->status(guest, &status);
    }
    *ret_status = status;
    return 0;
}

int guest_read_image(const struct guest *guest, const struct store *store,
                     struct manifest *ret_manifest, struct image_config *ret_config,
                     struct error *err)
{
    struct descriptor descriptor;
    int r = read_descriptor(guest, &descriptor, err);

    return r < 0 ? r : store_read_image(store, &descriptor, ret_manifest, ret_config, err);
}

static int remove_anonymous(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int lock = volume_lock(err);

    return lock < 0 ? lock : mounts_remove_anonymous(guest->record, err);
}

/* Who waited for it may still be cleaning up, or remove it, as was asked for; or somebody is just
 * starting it. */
static int lock_ended(struct guest *guest, struct error *err)
{
    for (;;) {
        struct guest_status status;
        int r = guest_status(guest, &status, err); /* first: one's own lock looks like a run */

        if (r == 0 && (status.state == GUEST_RUNNING || status.state == GUEST_PAUSED))
            r = error_set(err, EBUSY, "the guest %s runs: 'lodge stop %s' first, or --force",
                          guest->name, guest->name);
        if (r < 0 || guest->lock_fd >= 0)
            return r;
        r = guest_lock(guest, false, err);
        if (r != -EWOULDBLOCK)
            return r;
        poll(NULL, 0, LOCK_POLL_MS);
    }
}

int guest_remove(struct guest *guest, struct store *store, bool volumes, struct error *err)
{
    int r = lock_ended(guest, err);

    if (guest_is_gone(guest))
        return 0;
    if (r == 0)
        r = guest_end(guest, -1, err);
    if (r == 0) {
        r = tree_remove(AT_FDCWD, guest->path);
        if (r < 0)
            r = error_system(err, -r, "cannot remove %s", guest->path);
    }
    if (r == 0 && (volumes || guest_flag(guest, "remove")))
        r = remove_anonymous(guest, err);
    return r < 0 ? r : store_release(store, guest->name, err);
}

/* --- Another name --- */

/* Move the directory to another's path, unless a guest is there. */
static int move_directory(const struct guest *guest, const struct guest *to, struct error *err)
{
    int r = renameat2(AT_FDCWD, guest->path, AT_FDCWD, to->path, RENAME_NOREPLACE);

    if (r < 0 && errno == EEXIST && remove_remains(to->path))
        r = renameat2(AT_FDCWD, guest->path, AT_FDCWD, to->path, RENAME_NOREPLACE);
    if (r < 0 && errno == EEXIST)
        return error_set(err, EEXIST, "there is a guest %s already; 'lodge rm %s' removes it",
                         to->name, to->name);
    return r < 0 ? error_system(err, errno, "cannot move %s", guest->path) : 0;
}

/* Its lock and that of the volumes are held. */
static int rename_to(struct guest *guest, const struct guest *to, struct store *store,
                     struct error *err)
{
    struct descriptor image;
    int r = read_descriptor(guest, &image, err);

    if (r == 0)
        r = move_directory(guest, to, err);
    if (r < 0)
        return r;
    r = store_hold(store, to->name, &image, err);
    if (r < 0) {
        rename(to->path, guest->path);
        return r;
    }
    if (!strcmp(guest_text(guest, "hostname"), guest->name))
        json_object_set_new(guest->record, "hostname", json_string(to->name));
    json_object_set_new(guest->record, "name", json_string(to->name));
    r = write_record(guest, err);
    if (r == 0)
        r = store_release(store, guest->name, err);
    return r;
}

/* Its name is in mounts, in control groups and in its networks while it runs. */
static int check_ended(const struct guest *guest, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    if (r == 0 && (status.state == GUEST_RUNNING || status.state == GUEST_PAUSED))
        r = error_set(err, EBUSY, "the guest %s runs: 'lodge stop %s' first", guest->name,
                      guest->name);
    return r;
}

int guest_rename(struct guest *guest, const char *name, struct store *store, struct error *err)
{
    AUTO_CLOSE int volumes = -1; /* who looks for their users finds the guest under one name */
    struct guest to = {.fd = -1, .lock_fd = -1};
    int r = state_id_check(name, err);

    if (r == 0)
        r = set_path(&to, name, err);
    if (r == 0)
        r = check_ended(guest, err);
    /* Who waited for it may still be cleaning up, remove it, or run it again. */
    if (r == 0)
        r = guest_lock(guest, true, err);
    if (r == 0 && guest_is_gone(guest))
        r = error_set(err, ENOENT, "the guest %s was removed meanwhile", guest->name);
    if (r == 0)
        r = check_ended(guest, err);
    if (r == 0)
        r = volumes = volume_lock(err);
    if (r >= 0) /* what nobody cleaned up when it ended has the name in it */
        r = guest_end(guest, -1, err);
    if (r == 0)
        r = rename_to(guest, &to, store, err);
    guest_close(&to);
    return r;
}
