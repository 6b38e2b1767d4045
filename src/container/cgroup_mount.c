#include "container/cgroup_mount.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* The attributes of a bind mount for the MS_ flags of the configuration. */
static uint64_t plan_attributes(const struct mount_plan *plan)
{
    return (plan->flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0) | MOUNT_ATTR_NOSUID |
           MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
}

/* The directory of a tree below the mount: "cpu,cpuacct", "systemd", "unified". */
static const char *tree_directory(const struct cgroup_tree *tree)
{
    if (!tree->name[0])
        return "unified";
    return strncmp(tree->name, "name=", 5) == 0 ? tree->name + 5 : tree->name;
}

/* By the path, not by tree->fd: that one is of the runtime's mount namespace. */
static int tree_bind(const struct mount_plan *plan, const struct cgroup_tree *tree, int target,
                     struct error *err)
{
    char path[2 * PATH_MAX];
    int r;

    snprintf(path, sizeof(path), "%s%s", tree->mount, tree->path);
    r = mount_bind(AT_FDCWD, path, target, plan_attributes(plan));
    return r < 0 ? error_system(err, -r, "cannot mount the cgroup %s", path) : 0;
}

static int unified_mount(const struct mount_plan *plan, struct path_root *root,
                         const struct cgroup_tree *tree, bool own_namespace, struct error *err)
{
    AUTO_CLOSE int target = path_make_directory(root, plan->mount->destination, 0755, err);

    if (target < 0)
        return target;
    if (own_namespace &&
        mount_filesystem(target, "cgroup", "cgroup2",
                         plan->flags | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
        return 0;
    return tree_bind(plan, tree, target, err);
}

static int link_make(int dir, const char *controller, const char *directory, struct error *err)
{
    if (strcmp(controller, directory) == 0 || symlinkat(directory, dir, controller) == 0 ||
        errno == EEXIST)
        return 0;
    return error_system(err, errno, "cannot make the link %s", controller);
}

/* A tree in its directory, and a link for each controller of it that is not alone. */
static int tree_place(const struct mount_plan *plan, struct path_root *root,
                      const struct cgroup_tree *tree, struct error *err)
{
    const char *directory = tree_directory(tree);
    AUTO_CLOSE int base = path_open(root, plan->mount->destination, O_PATH | O_DIRECTORY);
    AUTO_CLOSE int target = -1;
    char name[NAME_MAX + 1];
    int r = 0;

    if (base < 0 || mkdirat(base, directory, 0755) < 0)
        return error_system(err, base < 0 ? -base : errno, "cannot make a place for the cgroup %s",
                            directory);
    target = openat(base, directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0)
        return error_system(err, errno, "cannot open %s", directory);
    if ((r = tree_bind(plan, tree, target, err)) < 0 || !strchr(tree->name, ','))
        return r;
    for (const char *at = tree->name; r == 0 && *at; at += *at == ',') {
        size_t length = strcspn(at, ",");

        snprintf(name, sizeof(name), "%.*s", (int)length, at);
        r = link_make(base, name, directory, err);
        at += length;
    }
    return r;
}

static int trees_mount(const struct mount_plan *plan, struct path_root *root,
                       const struct cgroup *cgroup, struct error *err)
{
    AUTO_CLOSE int target = path_make_directory(root, plan->mount->destination, 0755, err), fd = -1;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int r;

    if (target < 0)
        return target;
    r = mount_filesystem(target, "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755");
    if (r < 0)
        return error_system(err, -r, "cannot mount a tmpfs");
    for (size_t i = 0; i < cgroup->count; i++)
        if (cgroup->trees[i].fd >= 0 && (r = tree_place(plan, root, &cgroup->trees[i], err)) < 0)
            return r;
    fd = path_open(root, plan->mount->destination, O_PATH | O_DIRECTORY);
    if (fd < 0 ||
        (plan->flags & MS_RDONLY && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0))
        return error_system(err, fd < 0 ? -fd : errno, "cannot make the cgroups read-only");
    return 0;
}

int cgroup_mount(struct mount_plan *plan, struct path_root *root, const struct cgroup *cgroup,
                 bool own_namespace, struct error *err)
{
    const struct cgroup_tree *v2 = cgroup_find_v2(cgroup);
    bool unified = strcmp(plan->mount->type, "cgroup2") == 0 || (v2 && cgroup->count == 1);
    int r;

    if (unified && !v2)
        r = error_set(err, ENOENT, "the host has no cgroup v2 tree");
    else if (unified)
        r = unified_mount(plan, root, v2, own_namespace, err);
    else
        r = trees_mount(plan, root, cgroup, err);
    if (r < 0)
        error_prepend(err, "mount on %.128s", plan->mount->destination);
    return r;
}
