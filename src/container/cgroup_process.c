/* cgroup_process.c - the processes of a control group: who they are, stopped, signalled, and gone
 * with the group. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "container/cgroup-private.h"
#include "container/file.h"

struct pid_list {
    pid_t *pids;
    size_t count, room;
};

static int group_pids(int fd, void *opaque)
{
    struct pid_list *list = opaque;
    AUTO_FREE char *text = NULL;
    char *at, *end;
    int r = file_read(fd, "cgroup.procs", 64 << 20, &text, NULL, NULL);

    if (r < 0) /* removed meanwhile, or a threaded group */
        return 0;
    for (at = text; *at; at = end + (*end == '\n')) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            break;
        if (list->count == list->room) {
            size_t room = list->room ? list->room * 2 : 64;
            pid_t *larger = realloc(list->pids, room * sizeof(*larger));
            if (!larger)
                return -ENOMEM;
            list->pids = larger;
            list->room = room;
        }
        list->pids[list->count++] = (pid_t)pid;
    }
    return 0;
}

int cgroup_check_empty(const struct cgroup *cgroup, struct error *err)
{
    char path[2 * PATH_MAX];

    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_tree *tree = &cgroup->trees[i];
        struct pid_list list = {0};
        AUTO_CLOSE int fd = -1;

        snprintf(path, sizeof(path), "%s%s", tree->mount, tree->path);
        fd = tree->path[0] ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd < 0 || group_pids(fd, &list) < 0 || list.count == 0)
            continue;
        free(list.pids);
        return error_set(err, EBUSY,
                         "the cgroup %.256s has %zu processes already; give linux.cgroupsPath "
                         "another name",
                         path, list.count);
    }
    return 0;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

int cgroup_freeze(struct cgroup *cgroup, bool frozen, struct error *err)
{
    const struct cgroup_tree *v1 = cgroup_find(cgroup, "freezer");
    const struct cgroup_tree *v2 = cgroup_find_v2(cgroup);
    const char *word = frozen ? "FROZEN" : "THAWED";
    int r;

    if (!v1 && !v2)
        return error_set(err, ENOTSUP, "the container has no cgroup that can be frozen");
    for (int tries = 0; tries < 1000; tries++) {
        char line[64] = "";

        if (v1) {
            /* FREEZING may need to be asked for again (freezer-subsystem.txt). */
            if ((r = cgroup_put(v1, "freezer.state", word, err)) < 0)
                return r;
            if (cgroup_get(v1, "freezer.state", line, sizeof(line)) && strcmp(line, word) == 0)
                return 0;
        } else {
            if (tries == 0 && (r = cgroup_put(v2, "cgroup.freeze", frozen ? "1" : "0", err)) < 0)
                return r;
            if (cgroup_is_frozen(cgroup) == frozen)
                return 0;
        }
        pause_ms(tries < 10 ? 1 : 10);
    }
    if (frozen)
        cgroup_freeze(cgroup, false, NULL);
    return error_set(err, ETIMEDOUT, "the processes did not stop within 10 seconds");
}

bool cgroup_is_frozen(const struct cgroup *cgroup)
{
    const struct cgroup_tree *tree = cgroup_find(cgroup, "freezer");
    char line[4096];
    AUTO_CLOSE int fd = -1;
    ssize_t n;

    if (tree)
        return cgroup_get(tree, "freezer.state", line, sizeof(line)) && line[0] == 'F';
    tree = cgroup_find_v2(cgroup);
    fd = tree ? openat(tree->fd, "cgroup.events", O_RDONLY | O_CLOEXEC) : -1;
    n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
    if (n < 0)
        return false;
    line[n] = 0;
    return strstr(line, "frozen 1") != NULL;
}

/* Calls fn on the group at fd and on all below it, the deepest first. */
static int groups_walk(int fd, int (*fn)(int fd, void *opaque), void *opaque)
{
    AUTO_CLOSE int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int r = 0;

    if (!list)
        return -errno;
    copy = -1;
    while (r == 0 && (entry = readdir(list))) {
        AUTO_CLOSE int below = -1;

        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (below >= 0)
            r = groups_walk(below, fn, opaque);
    }
    closedir(list);
    return r < 0 ? r : fn(fd, opaque);
}

int cgroup_pids(const struct cgroup *cgroup, pid_t **ret_pids, size_t *ret_count, struct error *err)
{
    const struct cgroup_tree *tree = cgroup_find_any(cgroup);
    struct pid_list list = {0};
    int r = tree ? groups_walk(tree->fd, group_pids, &list) : 0;

    if (r < 0) {
        free(list.pids);
        return error_system(err, -r, "cannot list the container's processes");
    }
    *ret_pids = list.pids;
    *ret_count = list.count;
    return 0;
}

int cgroup_signal(const struct cgroup *cgroup, int signal, struct error *err)
{
    const struct cgroup_tree *v2 = cgroup_find_v2(cgroup);
    AUTO_FREE pid_t *pids = NULL;
    size_t count;
    int r;

    if (signal == SIGKILL && v2 && file_put(v2->fd, "cgroup.kill", "1", NULL) == 0)
        return 0;
    r = cgroup_pids(cgroup, &pids, &count, err);
    for (size_t i = 0; r == 0 && i < count; i++)
        if (kill(pids[i], signal) < 0 && errno != ESRCH)
            r = error_system(err, errno, "cannot signal the process %d", pids[i]);
    return r;
}

static int group_remove_below(int fd, void *opaque)
{
    DIR *list;
    struct dirent *entry;
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)opaque;
    list = copy < 0 ? NULL : fdopendir(copy);
    if (!list) {
        if (copy >= 0)
            close(copy);
        return 0;
    }
    while ((entry = readdir(list)))
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            unlinkat(fd, entry->d_name, AT_REMOVEDIR);
    closedir(list);
    return 0;
}

static int tree_remove(const struct cgroup_tree *tree)
{
    char path[2 * PATH_MAX];

    if (!tree->path[0]) /* the whole tree is not ours to remove */
        return 0;
    snprintf(path, sizeof(path), "%s%s", tree->mount, tree->path);
    if (rmdir(path) == 0 || errno == ENOENT)
        return 0;
    if (errno == EBUSY || errno == ENOTEMPTY) {
        AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
            groups_walk(fd, group_remove_below, NULL);
        if (rmdir(path) == 0 || errno == ENOENT)
            return 0;
    }
    return -errno;
}

int cgroup_remove(struct cgroup *cgroup, struct error *err)
{
    for (int tries = 0;; tries++) {
        const struct cgroup_tree *stuck = NULL;
        int r = 0;

        for (size_t i = 0; i < cgroup->count; i++) {
            int code = tree_remove(&cgroup->trees[i]);
            if (code < 0 && !(cgroup->unprivileged && code != -EBUSY)) {
                stuck = &cgroup->trees[i];
                r = code;
            }
        }
        if (!stuck) {
            if (cgroup->scope)
                cgroup_scope_stop(cgroup->scope);
            return 0;
        }
        /* Processes leave their group a little after they were killed. */
        if (r != -EBUSY || tries == 400)
            return error_system(err, -r, "cannot remove the cgroup %s%s", stuck->mount,
                                stuck->path);
        if (tries == 3) {
            cgroup_open(cgroup);
            cgroup_freeze(cgroup, false, NULL);
            cgroup_signal(cgroup, SIGKILL, NULL);
        }
        pause_ms(tries < 20 ? 1 : 10);
    }
}
