#include "container/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/directories.h"
#include "container/cgroup.h"
#include "container/file.h"

const char state_fifo[] = "exec.fifo";
const char state_config[] = "config.json";
const char state_error[] = "error";

static const char state_file[] = "state.json";
static const char oci_version[] = "1.2.0";

enum { STATE_BYTES_MAX = 16 << 20, ID_BYTES_MAX = 255 /* a name of a directory */ };

static const char *const status_names[] = {
    [STATE_CREATING] = "creating", [STATE_CREATED] = "created", [STATE_RUNNING] = "running",
    [STATE_PAUSED] = "paused",     [STATE_STOPPED] = "stopped",
};

const char *state_status_name(enum state_status status)
{
    return status_names[status];
}

int state_id_check(const char *id, struct error *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_+-.";

    if (!id[0] || strlen(id) > ID_BYTES_MAX || id[strspn(id, allowed)] || strcmp(id, ".") == 0 ||
        strcmp(id, "..") == 0)
        return error_set(err, EINVAL,
                         "invalid container ID \"%.64s\": use letters, digits, _ + - and .", id);
    return 0;
}

static void state_clear(struct state *state)
{
    *state = (struct state){.dir_fd = -1};
}

static int directory_path(const char *root, const char *id, char path[PATH_MAX], struct error *err)
{
    int r = state_id_check(id, err);

    if (r == 0 && snprintf(path, PATH_MAX, "%s/%s", root, id) >= PATH_MAX)
        r = error_set(err, ENAMETOOLONG, "the path of the state directory is too long");
    return r;
}

int state_create(struct state *state, const char *root, const char *id, struct error *err)
{
    char path[PATH_MAX], created[64];
    struct timespec now;
    struct tm utc;
    size_t used;
    int r;

    state_clear(state);
    if ((r = directory_path(root, id, path, err)) < 0)
        return r;
    r = mkdir(path, 0711) < 0 ? -errno : 0;
    if (r == -ENOENT) {
        if ((r = directories_make(root, 0711, 0711, err)) < 0)
            return r;
        r = mkdir(path, 0711) < 0 ? -errno : 0;
    }
    if (r == -EEXIST)
        return error_set(err, EEXIST, "container with id %s exists already", id);
    if (r < 0)
        return error_system(err, -r, "cannot make %s", path);
    state->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state->dir_fd < 0 || flock(state->dir_fd, LOCK_EX) < 0) {
        r = error_system(err, errno, "cannot lock %s", path);
        rmdir(path);
        state_release(state);
        return r;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(created + used, sizeof(created) - used, ".%09ldZ", now.tv_nsec);
    state->id = strdup(id);
    state->created = strdup(created);
    state->owner = geteuid();
    return state->id && state->created ? 0 : error_set(err, ENOMEM, "out of memory");
}

static char *copy_string(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return strdup(text ? text : "");
}

static int state_parse(struct state *state, const char *text, size_t length, struct error *err)
{
    json_t *tree = json_loadb(text, length, 0, NULL);

    if (!json_is_object(tree)) {
        json_decref(tree);
        return error_set(err, EINVAL, "the state of container %s is damaged; delete it by --force",
                         state->id);
    }
    state->bundle = copy_string(tree, "bundle");
    state->rootfs = copy_string(tree, "rootfs");
    state->created = copy_string(tree, "created");
    state->pid = (pid_t)json_integer_value(json_object_get(tree, "pid"));
    state->start_time = (uint64_t)json_integer_value(json_object_get(tree, "startTime"));
    state->owner = (uid_t)json_integer_value(json_object_get(tree, "owner"));
    state->has_hooks = json_is_true(json_object_get(tree, "hooks"));
    state->root_mount = (uint64_t)json_integer_value(json_object_get(tree, "rootMount"));
    state->cgroup = json_incref(json_object_get(tree, "cgroup"));
    state->annotations = json_incref(json_object_get(tree, "annotations"));
    json_decref(tree);
    return 0;
}

int state_open(struct state *state, const char *root, const char *id, bool lock, struct error *err)
{
    AUTO_FREE char *text = NULL;
    char path[PATH_MAX];
    size_t length;
    int r;

    state_clear(state);
    if ((r = directory_path(root, id, path, err)) < 0)
        return r;
    state->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state->dir_fd < 0)
        return errno == ENOENT ? error_set(err, ENOENT, "container \"%s\" does not exist", id)
                               : error_system(err, errno, "cannot open %s", path);
    if (lock && flock(state->dir_fd, LOCK_EX) < 0) {
        r = error_system(err, errno, "cannot lock %s", path);
        state_release(state);
        return r;
    }
    state->id = strdup(id);
    r = state->id ? file_read(state->dir_fd, state_file, STATE_BYTES_MAX, &text, &length, NULL)
                  : -ENOMEM;
    if (r == 0)
        r = state_parse(state, text, length, err);
    else if (r == -ENOENT && faccessat(AT_FDCWD, path, F_OK, 0) == 0)
        r = 0; /* its maker died early */
    else
        r = error_set(err, ENOENT, "container \"%s\" does not exist", id);
    if (r == 0 && !state->bundle) {
        state->bundle = strdup("");
        state->rootfs = strdup("");
        state->created = strdup("");
    }
    if (r < 0)
        state_release(state);
    return r;
}

int state_save(const struct state *state, struct error *err)
{
    AUTO_FREE char *text = NULL;
    json_t *tree = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:b, s:I, s:O?, s:O?}", "ociVersion", oci_version,
        "id", state->id, "bundle", state->bundle ? state->bundle : "", "rootfs",
        state->rootfs ? state->rootfs : "", "created", state->created, "pid", (int)state->pid,
        "startTime", (json_int_t)state->start_time, "owner", (int)state->owner, "hooks",
        (int)state->has_hooks, "rootMount", (json_int_t)state->root_mount, "cgroup", state->cgroup,
        "annotations", state->annotations);

    text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;
    json_decref(tree);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    return file_replace(state->dir_fd, state_file, text, strlen(text), err);
}

int state_remove(const struct state *state, const char *root, struct error *err)
{
    char path[PATH_MAX];
    DIR *list;
    struct dirent *entry;
    int copy;

    snprintf(path, sizeof(path), "%s/%s", root, state->id);
    unlinkat(state->dir_fd, state_fifo, 0);
    unlinkat(state->dir_fd, state_config, 0);
    unlinkat(state->dir_fd, state_error, 0);
    unlinkat(state->dir_fd, state_file, 0);
    if (rmdir(path) == 0 || errno == ENOENT)
        return 0;
    /* Half-written files of a command that was killed. */
    copy = openat(state->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    list = copy < 0 ? NULL : fdopendir(copy);
    while (list && (entry = readdir(list)))
        if (entry->d_name[0] != '.')
            unlinkat(state->dir_fd, entry->d_name, 0);
    if (list)
        closedir(list);
    if (rmdir(path) < 0 && errno != ENOENT)
        return error_system(err, errno, "cannot remove %s", path);
    return 0;
}

int state_destroy(const char *root, const char *id, struct error *err)
{
    char path[PATH_MAX];
    struct state state = {.id = (char *)(uintptr_t)id, .dir_fd = -1};
    int r;

    if (snprintf(path, sizeof(path), "%s/%s", root, id) >= (int)sizeof(path))
        return error_set(err, ENAMETOOLONG, "the path of the state directory is too long");
    state.dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state.dir_fd < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot open %s", path);
    r = state_remove(&state, root, err);
    close(state.dir_fd);
    return r;
}

void state_release(struct state *state)
{
    free(state->id);
    free(state->bundle);
    free(state->rootfs);
    free(state->created);
    json_decref(state->cgroup);
    json_decref(state->annotations);
    if (state->dir_fd >= 0)
        close(state->dir_fd);
    state_clear(state);
}

/* Fields 3 (state) and 22 (start time) of /proc/PID/stat (proc(5)). */
static int process_stat(pid_t pid, char *ret_state, uint64_t *ret_start)
{
    char path[64], line[1024];
    const char *at;
    int fd, field;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (n <= 0)
        return -ESRCH;
    line[n] = 0;
    at = strrchr(line, ')'); /* the name before it can hold anything */
    if (!at || at[1] != ' ')
        return -ESRCH;
    at += 2;
    *ret_state = *at;
    for (field = 3; field < 22 && (at = strchr(at, ' ')); field++)
        at++;
    *ret_start = at ? strtoull(at, NULL, 10) : 0;
    return 0;
}

int state_set_pid(struct state *state, pid_t pid, struct error *err)
{
    char letter;
    int r = process_stat(pid, &letter, &state->start_time);

    if (r < 0)
        return error_system(err, -r, "cannot read what process %d does", pid);
    state->pid = pid;
    return 0;
}

bool state_is_alive(const struct state *state)
{
    uint64_t start;
    char letter;

    return state->pid > 0 && process_stat(state->pid, &letter, &start) == 0 &&
           start == state->start_time && letter != 'Z' && letter != 'X';
}

static bool state_is_frozen(const struct state *state)
{
    struct cgroup cgroup;
    bool frozen;

    if (!state->cgroup || cgroup_load(&cgroup, state->cgroup, NULL) < 0)
        return false;
    cgroup_open(&cgroup);
    frozen = cgroup_is_frozen(&cgroup);
    cgroup_release(&cgroup);
    return frozen;
}

enum state_status state_status(const struct state *state)
{
    int fd;

    if (!state_is_alive(state)) {
        if (state->pid)
            return STATE_STOPPED;
        /* Whoever makes it holds the lock. */
        if (flock(state->dir_fd, LOCK_SH | LOCK_NB) < 0)
            return STATE_CREATING;
        flock(state->dir_fd, LOCK_UN);
        return STATE_STOPPED;
    }
    /* Only a first process that waits for `start` has the fifo open. */
    fd = openat(state->dir_fd, state_fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return STATE_CREATED;
    }
    return state_is_frozen(state) ? STATE_PAUSED : STATE_RUNNING;
}

static json_t *state_tree(const struct state *state, enum state_status status)
{
    json_t *tree =
        json_pack("{s:s, s:s, s:s, s:i, s:s}", "ociVersion", oci_version, "id", state->id, "status",
                  status_names[status], "pid", status == STATE_STOPPED ? 0 : (int)state->pid,
                  "bundle", state->bundle ? state->bundle : "");

    if (tree && state->annotations && json_object_size(state->annotations))
        json_object_set(tree, "annotations", state->annotations);
    return tree;
}

char *state_json(const struct state *state, enum state_status status)
{
    json_t *tree = state_tree(state, status);
    char *text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;

    json_decref(tree);
    return text;
}

json_t *state_json_runc(const struct state *state, enum state_status status)
{
    json_t *tree = state_tree(state, status);
    char owner[16];

    if (!tree)
        return NULL;
    json_object_set_new(tree, "rootfs", json_string(state->rootfs));
    json_object_set_new(tree, "created", json_string(state->created));
    snprintf(owner, sizeof(owner), "%u", state->owner);
    json_object_set_new(tree, "owner", json_string(state->owner == 0 ? "root" : owner));
    return tree;
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int state_list(const char *root, int (*fn)(struct state *state, void *opaque), void *opaque,
               struct error *err)
{
    struct dirent **entries;
    int count = scandir(root, &entries, not_hidden, alphasort), r = 0;

    if (count < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot list %s", root);
    for (int i = 0; i < count; i++) {
        struct state state;

        /* One that is removed meanwhile is not there. */
        if (r == 0 && state_open(&state, root, entries[i]->d_name, false, NULL) == 0) {
            r = fn(&state, opaque);
            state_release(&state);
        }
        free(entries[i]);
    }
    free(entries);
    return r;
}
