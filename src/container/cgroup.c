#include "container/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/privilege.h"
#include "container/cgroup-private.h"
#include "container/file.h"

static const char cgroup_root[] = "/sys/fs/cgroup";

static bool filesystem_is(const char *path, long magic)
{
    struct statfs status;

    return statfs(path, &status) == 0 && (long)status.f_type == magic;
}

bool cgroup_tree_has(const struct cgroup_tree *tree, const char *controller)
{
    size_t length = strlen(controller);

    for (const char *at = tree->name; *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        if (n == length && memcmp(at, controller, n) == 0)
            return true;
        at += n;
    }
    return false;
}

const struct cgroup_tree *cgroup_find(const struct cgroup *cgroup, const char *controller)
{
    for (size_t i = 0; i < cgroup->count; i++)
        if (cgroup->trees[i].fd >= 0 && cgroup_tree_has(&cgroup->trees[i], controller))
            return &cgroup->trees[i];
    return NULL;
}

const struct cgroup_tree *cgroup_find_v2(const struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++)
        if (cgroup->trees[i].fd >= 0 && !cgroup->trees[i].name[0])
            return &cgroup->trees[i];
    return NULL;
}

const struct cgroup_tree *cgroup_find_any(const struct cgroup *cgroup)
{
    const struct cgroup_tree *tree = cgroup_find_v2(cgroup);

    if (!tree)
        tree = cgroup_find(cgroup, "pids");
    for (size_t i = 0; !tree && i < cgroup->count; i++)
        if (cgroup->trees[i].fd >= 0)
            tree = &cgroup->trees[i];
    return tree;
}

static int tree_add(struct cgroup *cgroup, const char *name, const char *mount, const char *path,
                    struct error *err)
{
    struct cgroup_tree *tree = &cgroup->trees[cgroup->count];

    if (cgroup->count == CGROUP_TREES_MAX)
        return error_set(err, E2BIG, "the host has more than %d cgroup trees", CGROUP_TREES_MAX);
    *tree = (struct cgroup_tree){
        .name = strdup(name), .mount = strdup(mount), .path = strdup(path), .fd = -1};
    cgroup->count++;
    if (!tree->name || !tree->mount || !tree->path)
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

/* A path with no "..", "." or empty names, and one leading slash. */
static int path_clean(const char *path, char *clean, size_t size, struct error *err)
{
    size_t used = 0;

    for (const char *at = path; *at;) {
        size_t n = strcspn(at, "/");
        if (n == 2 && memcmp(at, "..", 2) == 0)
            return error_set(err, EINVAL, "the cgroup path %.128s must not contain \"..\"", path);
        if (n && !(n == 1 && *at == '.')) {
            if (used + n + 2 > size)
                return error_set(err, ENAMETOOLONG, "the cgroup path %.128s... is too long", path);
            clean[used++] = '/';
            memcpy(clean + used, at, n);
            used += n;
        }
        at += n + (at[n] == '/');
    }
    clean[used] = 0;
    return 0;
}

/* One line of /proc/self/cgroup: "9:name=systemd:/own". */
static int line_read(struct cgroup *cgroup, char *line, const char *path, struct error *err)
{
    char mount[PATH_MAX], group[PATH_MAX], whole[PATH_MAX];
    char *name = strchr(line, ':'), *own;
    bool v2;
    int r;

    if (!name || !(own = strchr(++name, ':')))
        return 0;
    *own++ = 0;
    v2 = !name[0];
    if (v2 && filesystem_is(cgroup_root, CGROUP2_SUPER_MAGIC)) {
        snprintf(mount, sizeof(mount), "%s", cgroup_root);
    } else {
        const char *directory = v2 ? "unified" : name;
        if (strncmp(directory, "name=", 5) == 0)
            directory += 5;
        snprintf(mount, sizeof(mount), "%s/%s", cgroup_root, directory);
        if (!filesystem_is(mount, v2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC))
            return 0;
    }
    /* A v2 group with processes can have no controllers below it: use its parent's. */
    if (v2 && path[0] != '/' && own[1]) {
        char *last = strrchr(own, '/');
        *last = 0;
    }
    if (path[0] == '/' || strncmp(own, "/..", 3) == 0)
        own[0] = 0;
    if (snprintf(whole, sizeof(whole), "%s/%s", own, path) >= (int)sizeof(whole))
        return error_set(err, ENAMETOOLONG, "the cgroup path %.128s... is too long", path);
    r = path_clean(whole, group, sizeof(group), err);
    return r < 0 ? r : tree_add(cgroup, name, mount, group, err);
}

static int scope_init(struct cgroup *cgroup, const char *path, const char *id,
                      char scope_path[PATH_MAX], struct error *err)
{
    cgroup->scope = calloc(1, sizeof(*cgroup->scope));
    return cgroup->scope
               ? cgroup_scope_init(cgroup->scope, path, id, cgroup->unprivileged, scope_path, err)
               : error_set(err, ENOMEM, "out of memory");
}

int cgroup_init(struct cgroup *cgroup, const char *path, const char *id, bool unprivileged,
                bool systemd, struct error *err)
{
    AUTO_FREE char *text = NULL;
    char *line, *next, scope_path[PATH_MAX];
    int r = 0;

    *cgroup = (struct cgroup){.unprivileged = unprivileged};
    if (systemd) {
        r = scope_init(cgroup, path, id, scope_path, err);
        path = scope_path;
    } else if (!path || !path[0]) {
        path = id;
    }
    if (r == 0)
        r = file_read(AT_FDCWD, "/proc/self/cgroup", 1 << 20, &text, NULL, err);
    for (line = text; r == 0 && line && *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = 0;
        r = line_read(cgroup, line, path, err);
    }
    if (r == 0 && cgroup->count == 0 && !unprivileged)
        r = error_set(err, ENOENT, "no cgroup tree is mounted below %s", cgroup_root);
    if (r < 0)
        cgroup_release(cgroup);
    return r;
}

void cgroup_release(struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_tree *tree = &cgroup->trees[i];
        free(tree->name);
        free(tree->mount);
        free(tree->path);
        if (tree->fd >= 0)
            close(tree->fd);
    }
    cgroup->count = 0;
    cgroup_settle(cgroup);
    free(cgroup->scope);
    cgroup->scope = NULL;
}

void cgroup_settle(struct cgroup *cgroup)
{
    cgroup_scope_let_go(cgroup->holder);
    cgroup->holder = 0;
}

json_t *cgroup_save(const struct cgroup *cgroup)
{
    json_t *trees = json_array();
    const struct cgroup_scope *scope = cgroup->scope;

    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_tree *tree = &cgroup->trees[i];
        json_array_append_new(trees, json_pack("{s:s, s:s, s:s}", "controllers", tree->name,
                                               "mount", tree->mount, "path", tree->path));
    }
    if (!scope)
        return json_pack("{so}", "trees", trees);
    return json_pack("{so ss ss sb}", "trees", trees, "unit", scope->unit, "slice", scope->slice,
                     "user", scope->user);
}

static int scope_load(struct cgroup *cgroup, const json_t *saved, struct error *err)
{
    const char *unit = json_string_value(json_object_get(saved, "unit"));
    const char *slice = json_string_value(json_object_get(saved, "slice"));

    if (!unit || !slice)
        return 0;
    cgroup->scope = calloc(1, sizeof(*cgroup->scope));
    if (!cgroup->scope)
        return error_set(err, ENOMEM, "out of memory");
    cgroup->scope->user = json_is_true(json_object_get(saved, "user"));
    snprintf(cgroup->scope->unit, sizeof(cgroup->scope->unit), "%s", unit);
    snprintf(cgroup->scope->slice, sizeof(cgroup->scope->slice), "%s", slice);
    return 0;
}

int cgroup_load(struct cgroup *cgroup, const json_t *saved, struct error *err)
{
    const json_t *trees = json_object_get(saved, "trees");
    int r;

    *cgroup = (struct cgroup){.unprivileged = !privilege_is_full()};
    r = json_is_array(trees) ? scope_load(cgroup, saved, err)
                             : error_set(err, EINVAL, "the saved cgroup is damaged");
    for (size_t i = 0; i < json_array_size(trees) && r == 0; i++) {
        const json_t *tree = json_array_get(trees, i);
        const char *name = json_string_value(json_object_get(tree, "controllers"));
        const char *mount = json_string_value(json_object_get(tree, "mount"));
        const char *path = json_string_value(json_object_get(tree, "path"));

        if (!name || !mount || !path)
            r = error_set(err, EINVAL, "the saved cgroup is damaged");
        else
            r = tree_add(cgroup, name, mount, path, err);
    }
    if (r < 0)
        cgroup_release(cgroup);
    return r;
}

int cgroup_put(const struct cgroup_tree *tree, const char *file, const char *value,
               struct error *err)
{
    if (!tree)
        return error_set(err, ENOENT, "the host has no cgroup controller for %s", file);
    return file_put(tree->fd, file, value, err);
}

int cgroup_put_number(const struct cgroup_tree *tree, const char *file, int64_t value,
                      struct error *err)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld", (long long)value);
    return cgroup_put(tree, file, text, err);
}

bool cgroup_get(const struct cgroup_tree *tree, const char *file, char *line, size_t size)
{
    AUTO_CLOSE int fd = tree ? openat(tree->fd, file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);

    if (n < 0)
        return false;
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    return true;
}

/* Each missing directory of the tree's path, from the top. */
static int tree_create(struct cgroup_tree *tree, struct error *err)
{
    AUTO_CLOSE int dir = open(tree->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char name[NAME_MAX + 1];
    int r;

    if (dir < 0)
        return error_system(err, errno, "cannot open %s", tree->mount);
    for (const char *at = tree->path; *at;) {
        size_t n = strcspn(++at, "/");
        int next;

        if (n > NAME_MAX)
            return error_set(err, ENAMETOOLONG, "a name in the cgroup path %.128s is too long",
                             tree->path);
        memcpy(name, at, n);
        name[n] = 0;
        at += n;
        /* On each level: a controller reaches the group only if all above it pass it on. */
        if (!tree->name[0])
            cgroup_v2_prepare(dir);
        next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0 && errno == ENOENT) {
            if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
                return error_system(err, errno, "cannot make the cgroup %s%s", tree->mount,
                                    tree->path);
            next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            tree->fd = next;
            if (next >= 0 && tree->name[0] && (r = cgroup_v1_prepare(tree, dir, err)) < 0)
                return r;
            tree->fd = -1;
        }
        if (next < 0)
            return error_system(err, errno, "cannot open the cgroup %s%s", tree->mount, tree->path);
        close(dir);
        dir = next;
    }
    tree->fd = steal_fd(&dir);
    return 0;
}

static int files_set(struct cgroup *cgroup, const struct resources *resources, struct error *err)
{
    const struct cgroup_tree *v2 = cgroup_find_v2(cgroup);
    bool whole = v2 && cgroup->count == 1;
    int r = 0;

    if (!whole && (!cgroup->unprivileged || cgroup->count))
        r = cgroup_v1_set(cgroup, resources, err);
    if (r == 0 && v2)
        r = cgroup_v2_set(cgroup, v2, resources, err);
    return r;
}

int cgroup_create(struct cgroup *cgroup, const struct resources *resources, struct error *err)
{
    int r = cgroup->scope ? cgroup_scope_start(cgroup->scope, resources, &cgroup->holder, err) : 0;

    if (r < 0)
        return r;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct error why = {0};

        r = tree_create(&cgroup->trees[i], &why);
        if (r == 0 || (cgroup->unprivileged && (r == -EACCES || r == -EPERM || r == -EROFS)))
            continue;
        if (err)
            *err = why;
        return r;
    }
    return resources ? files_set(cgroup, resources, err) : 0;
}

void cgroup_open(struct cgroup *cgroup)
{
    char path[2 * PATH_MAX];

    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_tree *tree = &cgroup->trees[i];

        if (tree->fd >= 0)
            continue;
        snprintf(path, sizeof(path), "%s%s", tree->mount, tree->path);
        tree->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
}

int cgroup_descend(struct cgroup *cgroup, const char *group, struct error *err)
{
    const char *colon = strchr(group, ':');
    const char *below = colon ? colon + 1 : group;
    char controller[64], clean[PATH_MAX];
    int r = path_clean(below, clean, sizeof(clean), err);

    snprintf(controller, sizeof(controller), "%.*s", colon ? (int)(colon - group) : 0, group);
    for (size_t i = 0; r == 0 && i < cgroup->count; i++) {
        struct cgroup_tree *tree = &cgroup->trees[i];
        char *path;
        int fd;

        if (tree->fd < 0 || !clean[0] || (controller[0] && !cgroup_tree_has(tree, controller)))
            continue;
        fd = openat(tree->fd, clean + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return error_system(err, errno, "cannot open the cgroup %s below that of the container",
                                clean + 1);
        close(tree->fd);
        tree->fd = fd;
        if (asprintf(&path, "%s%s", tree->path, clean) < 0)
            return error_set(err, ENOMEM, "out of memory");
        free(tree->path);
        tree->path = path;
    }
    return r;
}

int cgroup_birth_fd(const struct cgroup *cgroup)
{
    const struct cgroup_tree *tree = cgroup_find_v2(cgroup);

    return tree ? tree->fd : -1;
}

int cgroup_open_entries(const struct cgroup *cgroup, int ret_fds[CGROUP_TREES_MAX],
                        struct error *err)
{
    int count = 0;

    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_tree *tree = &cgroup->trees[i];
        int fd;

        if (tree->fd < 0 || !tree->name[0])
            continue;
        fd = openat(tree->fd, "tasks", O_WRONLY | O_CLOEXEC);
        if (fd < 0 && cgroup->unprivileged)
            continue;
        if (fd < 0) {
            error_system(err, errno, "cannot open %s%s/tasks", tree->mount, tree->path);
            while (count > 0)
                close(ret_fds[--count]);
            return err ? -err->code : -EINVAL;
        }
        ret_fds[count++] = fd;
    }
    return count;
}

int cgroup_enter(int fds[], int count, struct error *err)
{
    int r = 0;

    for (int i = 0; i < count; i++) {
        if (r == 0 && write(fds[i], "0", 1) < 0)
            r = error_system(err, errno, "cannot enter the container's cgroup");
        close(fds[i]);
    }
    return r;
}

int cgroup_set(struct cgroup *cgroup, const struct resources *resources, struct error *err)
{
    int r = cgroup->scope ? cgroup_scope_set(cgroup->scope, resources, err) : 0;

    return r < 0 ? r : files_set(cgroup, resources, err);
}
