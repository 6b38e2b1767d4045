#include "container/rootfs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/cgroup_mount.h"
#include "container/device.h"
#include "container/namespace.h"

/* MS_ flags of enum propagation, then of its recursive forms. */
static unsigned long propagation_flags(int propagation)
{
    static const unsigned long flags[] = {0, MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE};
    bool recursive = propagation > PROPAGATION_UNBINDABLE;

    return flags[recursive ? propagation - PROPAGATION_UNBINDABLE : propagation] |
           (recursive ? MS_REC : 0);
}

static int propagation_set(int fd, unsigned long type, bool recursive)
{
    struct mount_attr attr = {.propagation = type};

    return mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr,
                         sizeof(attr));
}

/* --- In the runtime --- */

/* root: what root.path is. */
static int place_open(struct rootfs_plan *plan, int bundle_fd, const struct stat *root,
                      struct error *err)
{
    const char *path = plan->config->root->path;
    struct stat top;

    /* What covers "/" is out of everybody's reach, and could not be taken away. */
    if (stat("/", &top) == 0 && top.st_dev == root->st_dev && top.st_ino == root->st_ino)
        return error_set(err, EINVAL, "root.path: \"/\" needs a namespace of type \"mount\"");
    plan->place_fd = openat(bundle_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return plan->place_fd < 0 ? error_system(err, errno, "root.path: cannot open %.256s", path) : 0;
}

/* Where the root is, for another mount namespace. */
static int path_note(struct rootfs_plan *plan, int bundle_fd, struct error *err)
{
    const char *path = plan->config->root->path;
    AUTO_CLOSE int fd = openat(bundle_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    char link[32];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = fd < 0 ? -1 : readlink(link, plan->path, sizeof(plan->path) - 1);
    if (n < 0)
        return error_system(err, errno, "root.path: cannot open %.256s", path);
    plan->path[n] = 0;
    return 0;
}

static int root_open(struct rootfs_plan *plan, int bundle_fd, struct error *err)
{
    const struct namespace *mounts = config_namespace(plan->config, NAMESPACE_MOUNT);
    const char *path = plan->config->root->path;
    struct stat status;
    int r;

    if (fstatat(bundle_fd, path, &status, 0) < 0)
        return error_system(err, errno, "root.path: cannot open %.256s", path);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ENOTDIR, "root.path: %.256s is not a directory", path);
    plan->root.fd = open_tree(bundle_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (plan->root.fd < 0)
        return error_system(err, errno, "root.path: cannot take %.256s", path);
    r = !mounts        ? place_open(plan, bundle_fd, &status, err)
        : mounts->path ? path_note(plan, bundle_fd, err)
                       : 0;
    if (r < 0)
        return r;
    /* What the container mounts stays its own; what the host mounts below arrives. */
    if (propagation_set(plan->root.fd, MS_SLAVE, true) < 0 ||
        propagation_set(plan->root.fd, MS_PRIVATE, false) < 0)
        return error_system(err, errno, "cannot detach the root from its peers");
    return 0;
}

/* An id-mapped mount is by its own mappings, or by those of the container. */
static int id_map_open(const struct rootfs_plan *plan, const struct mount *mount, struct error *err)
{
    const struct linux_config *linux_ = plan->config->linux_;

    if (mount->uid_mappings.count)
        return namespace_make_user(&mount->uid_mappings, &mount->gid_mappings, err);
    if (linux_->uid_mappings.count)
        return namespace_make_user(&linux_->uid_mappings, &linux_->gid_mappings, err);
    return error_set(err, EINVAL, "an id-mapped mount needs uidMappings and gidMappings");
}

static int source_open(struct rootfs_plan *plan, struct mount_plan *mount, int bundle_fd,
                       struct error *err)
{
    int propagation = plan->config->linux_->rootfs_propagation;
    bool root_shared = propagation_flags(propagation) & MS_SHARED;
    AUTO_CLOSE int id_map = -1;

    if (!mount_is_bind(mount))
        return 0;
    if (mount->id_map && (id_map = id_map_open(plan, mount->mount, err)) < 0)
        return id_map;
    if (!mount->propagation && propagation_flags(propagation) & MS_PRIVATE)
        mount->propagation = MS_PRIVATE | MS_REC;
    return mount_open_source(mount, bundle_fd, id_map,
                             root_shared && mount->propagation & MS_SHARED, err);
}

int rootfs_open(struct rootfs_plan *plan, const struct config *config, const struct cgroup *cgroup,
                int bundle_fd, struct error *err)
{
    int r;

    *plan = (struct rootfs_plan){
        .config = config, .cgroup = cgroup, .root = {.fd = -1}, .place_fd = -1};
    plan->mounts = calloc(config->mounts.count + 1, sizeof(*plan->mounts));
    if (!plan->mounts)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < config->mounts.count; i++)
        plan->mounts[i].tree_fd = -1;
    r = root_open(plan, bundle_fd, err);
    for (size_t i = 0; r == 0 && i < config->mounts.count; i++) {
        r = mount_plan_init(&plan->mounts[i], &config->mounts.items[i], config->linux_->mount_label,
                            err);
        if (r == 0 && (r = source_open(plan, &plan->mounts[i], bundle_fd, err)) < 0)
            error_prepend(err, "mount on %.128s", config->mounts.items[i].destination);
    }
    return r;
}

void rootfs_close(struct rootfs_plan *plan)
{
    for (size_t i = 0; plan->mounts && i < plan->config->mounts.count; i++)
        mount_plan_release(&plan->mounts[i]);
    free(plan->mounts);
    plan->mounts = NULL;
    if (plan->root.fd >= 0)
        close(plan->root.fd);
    plan->root.fd = -1;
    if (plan->place_fd >= 0)
        close(plan->place_fd);
    plan->place_fd = -1;
}

static bool mount_id_read(const char *path, uint64_t *ret_id)
{
    struct statx status;

    if (statx(AT_FDCWD, path, 0, STATX_MNT_ID, &status) < 0 || !(status.stx_mask & STATX_MNT_ID))
        return false;
    *ret_id = status.stx_mnt_id;
    return true;
}

uint64_t rootfs_mount_id(const char *path)
{
    uint64_t id = 0;

    return mount_id_read(path, &id) ? id : 0;
}

void rootfs_uncover(const char *path, uint64_t id)
{
    uint64_t now;

    if (id && mount_id_read(path, &now) && now != id)
        umount2(path, MNT_DETACH);
}

/* --- In the new process: putting it together --- */

/* In a mount namespace that others have: its place there, by its path. */
static int place_find(struct rootfs_plan *plan, struct error *err)
{
    const struct namespace *joined = config_namespace(plan->config, NAMESPACE_MOUNT);

    if (!joined || !joined->path)
        return 0;
    plan->place_fd = open(plan->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return plan->place_fd < 0 ? error_system(err, errno,
                                             "root.path: the mount namespace %.256s has no %.256s",
                                             joined->path, plan->path)
                              : 0;
}

/* The root is stacked on the host's "/": no path to it has to be walked, which
 * a user namespace might not be allowed to. In a mount namespace that others have, the
 * host's own or a joined one, it covers its place, and nothing else changes. */
static int root_attach(struct rootfs_plan *plan, struct error *err)
{
    int propagation = plan->config->linux_->rootfs_propagation;
    bool private = propagation_flags(propagation) & MS_PRIVATE;
    int r = place_find(plan, err);

    if (r < 0)
        return r;
    if (plan->place_fd >= 0) {
        if (move_mount(plan->root.fd, "", plan->place_fd, "",
                       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
            return error_system(err, errno, "cannot put the root in place on the host");
        return 0;
    }
    if (mount(NULL, "/", NULL, MS_REC | (private ? MS_PRIVATE : MS_SLAVE), NULL) < 0)
        return error_system(err, errno, "cannot detach the mounts from the host's");
    if (move_mount(plan->root.fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_system(err, errno, "cannot put the root in place");
    return 0;
}

static bool mount_is_cgroup(const struct mount *mount)
{
    return mount->type &&
           (strcmp(mount->type, "cgroup") == 0 || strcmp(mount->type, "cgroup2") == 0);
}

/* A bind mount on /dev is the host's own: nothing is made in it. */
static bool dev_is_bound(const struct rootfs_plan *plan)
{
    for (size_t i = 0; i < plan->config->mounts.count; i++)
        if (strcmp(plan->config->mounts.items[i].destination, "/dev") == 0 &&
            mount_is_bind(&plan->mounts[i]))
            return true;
    return false;
}

int rootfs_build(struct rootfs_plan *plan, struct error *err)
{
    const struct config *config = plan->config;
    int r = root_attach(plan, err);

    for (size_t i = 0; r == 0 && i < config->mounts.count; i++) {
        struct mount_plan *mount = &plan->mounts[i];

        if (mount_is_cgroup(mount->mount) && !mount_is_bind(mount))
            r = cgroup_mount(mount, &plan->root, plan->cgroup,
                             config_namespace(config, NAMESPACE_CGROUP) != NULL, err);
        else
            r = mount_attach(mount, &plan->root, err);
    }
    if (r == 0 && !dev_is_bound(plan))
        r = device_make_all(&plan->root, config->linux_, err);
    return r;
}

/* --- In the new process: closing it --- */

static int read_only_set(int fd)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    return mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

/* /dev is read-only only once it is filled. */
static int late_read_only(struct rootfs_plan *plan, struct error *err)
{
    for (size_t i = 0; i < plan->config->mounts.count; i++) {
        AUTO_CLOSE int fd = -1;
        int r;

        if (!plan->mounts[i].read_only_late)
            continue;
        fd = path_open(&plan->root, plan->config->mounts.items[i].destination, O_PATH);
        r = fd < 0 ? fd : read_only_set(fd);
        if (r < 0)
            return error_system(err, -r, "cannot make %s read-only",
                                plan->config->mounts.items[i].destination);
    }
    return 0;
}

static int read_only_path(struct rootfs_plan *plan, const char *path, struct error *err)
{
    AUTO_CLOSE int fd = path_open(&plan->root, path, O_PATH);
    int r = fd;

    if (r >= 0)
        r = mount_bind(fd, "", fd, MOUNT_ATTR_RDONLY);
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    return r < 0 ? error_system(err, -r, "cannot make %s read-only", path) : 0;
}

static bool is_null_device(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(1, 3);
}

/* Files are covered by the host's /dev/null, checked to be that; directories by
 * one empty read-only tmpfs, whose first place is in *empty. */
static int mask_path(struct rootfs_plan *plan, const char *path, int null_fd, int *empty,
                     struct error *err)
{
    static const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    AUTO_CLOSE int fd = path_open(&plan->root, path, O_PATH);
    struct stat status;
    int r = fd;

    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    if (r < 0 || fstat(fd, &status) < 0)
        return error_system(err, r < 0 ? -r : errno, "cannot mask %s", path);
    if (!S_ISDIR(status.st_mode)) {
        r = mount_bind(null_fd, "", fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    } else if (*empty >= 0) {
        r = mount_bind(*empty, "", fd, 0);
    } else {
        r = mount_filesystem(fd, "tmpfs", "tmpfs", flags, "nr_inodes=1");
        if (r == 0 && (*empty = path_open(&plan->root, path, O_PATH | O_DIRECTORY)) < 0)
            r = *empty;
    }
    return r < 0 ? error_system(err, -r, "cannot mask %s", path) : 0;
}

static int paths_close(struct rootfs_plan *plan, struct error *err)
{
    const struct linux_config *linux_ = plan->config->linux_;
    AUTO_CLOSE int null_fd = -1, empty = -1;
    struct stat status;
    int r = 0;

    FOR_EACH(path, linux_->readonly_paths)
    if (r == 0)
        r = read_only_path(plan, *path, err);
    if (r < 0 || !linux_->masked_paths.count)
        return r;
    null_fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (null_fd < 0 || fstat(null_fd, &status) < 0 || !is_null_device(&status))
        return error_set(err, EINVAL, "the host's /dev/null is not the null device");
    FOR_EACH(path, linux_->masked_paths)
    if (r == 0)
        r = mask_path(plan, *path, null_fd, &empty, err);
    return r;
}

/* pivot_root(2), "pivot_root(., .)": the old root ends up above the new one. */
static int root_pivot(struct rootfs_plan *plan, struct error *err)
{
    AUTO_CLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (old < 0 || fchdir(plan->root.fd) < 0)
        return error_system(err, errno, "cannot enter the root");
    if (plan->no_pivot || plan->place_fd >= 0) {
        /* On a ramdisk there is nothing below "/" that could be pivoted to: the root is stacked
         * over it, so that it cannot be reached. In a mount namespace that others have, their root
         * stays where it is. */
        if (chroot(".") < 0 || chdir("/") < 0)
            return error_system(err, errno, "cannot change the root");
        return 0;
    }
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return error_system(err, errno, "cannot pivot to the root");
    if (fchdir(old) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_system(err, errno, "cannot let go of the host's root");
    return 0;
}

int rootfs_enter(struct rootfs_plan *plan, struct error *err)
{
    const struct config *config = plan->config;
    unsigned long propagation = propagation_flags(config->linux_->rootfs_propagation);
    int r = late_read_only(plan, err);

    if (r == 0)
        r = paths_close(plan, err);
    if (r == 0 && config->root->readonly && (r = read_only_set(plan->root.fd)) < 0)
        return error_system(err, -r, "cannot make the root read-only");
    if (r == 0)
        r = root_pivot(plan, err);
    if (r == 0 && propagation &&
        propagation_set(plan->root.fd, propagation & ~(unsigned long)MS_REC, propagation & MS_REC) <
            0)
        r = error_system(err, errno, "cannot set the propagation of the root");
    return r;
}
