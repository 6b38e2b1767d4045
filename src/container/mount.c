#include "container/mount.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/copy.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

enum { DATA_MAX = 4095 }; /* mount(2) takes one page */

/* config-linux.md and mount(8). A name with an attribute has a recursive form
 * too, with an "r" before it (config.md, Linux mount options). */
static const struct mount_option {
    const char *name;
    unsigned long flag;
    bool off;
    uint64_t attribute;
} mount_options[] = {
    {"ro", MS_RDONLY, false, MOUNT_ATTR_RDONLY},
    {"rw", MS_RDONLY, true, MOUNT_ATTR_RDONLY},
    {"nosuid", MS_NOSUID, false, MOUNT_ATTR_NOSUID},
    {"suid", MS_NOSUID, true, MOUNT_ATTR_NOSUID},
    {"nodev", MS_NODEV, false, MOUNT_ATTR_NODEV},
    {"dev", MS_NODEV, true, MOUNT_ATTR_NODEV},
    {"noexec", MS_NOEXEC, false, MOUNT_ATTR_NOEXEC},
    {"exec", MS_NOEXEC, true, MOUNT_ATTR_NOEXEC},
    {"nodiratime", MS_NODIRATIME, false, MOUNT_ATTR_NODIRATIME},
    {"diratime", MS_NODIRATIME, true, MOUNT_ATTR_NODIRATIME},
    {"noatime", MS_NOATIME, false, MOUNT_ATTR_NOATIME},
    {"atime", MS_NOATIME, true, MOUNT_ATTR_NOATIME},
    {"strictatime", MS_STRICTATIME, false, MOUNT_ATTR_STRICTATIME},
    {"nostrictatime", MS_STRICTATIME, true, MOUNT_ATTR_STRICTATIME},
    {"relatime", MS_RELATIME, false, MOUNT_ATTR__ATIME}, /* MOUNT_ATTR_RELATIME is 0 */
    {"norelatime", MS_RELATIME, true, MOUNT_ATTR__ATIME},
    {"nosymfollow", MS_NOSYMFOLLOW, false, MOUNT_ATTR_NOSYMFOLLOW},
    {"symfollow", MS_NOSYMFOLLOW, true, MOUNT_ATTR_NOSYMFOLLOW},
    {"sync", MS_SYNCHRONOUS, false, 0},
    {"async", MS_SYNCHRONOUS, true, 0},
    {"dirsync", MS_DIRSYNC, false, 0},
    {"mand", MS_MANDLOCK, false, 0},
    {"nomand", MS_MANDLOCK, true, 0},
    {"silent", MS_SILENT, false, 0},
    {"loud", MS_SILENT, true, 0},
    {"acl", MS_POSIXACL, false, 0},
    {"noacl", MS_POSIXACL, true, 0},
    {"iversion", MS_I_VERSION, false, 0},
    {"noiversion", MS_I_VERSION, true, 0},
    {"lazytime", MS_LAZYTIME, false, 0},
    {"nolazytime", MS_LAZYTIME, true, 0},
    {"bind", MS_BIND, false, 0},
    {"rbind", MS_BIND | MS_REC, false, 0},
    {"remount", MS_REMOUNT, false, 0},
    {"defaults", 0, false, 0},
};

static const struct {
    const char *name;
    unsigned long flags;
} propagations[] = {
    {"private", MS_PRIVATE},       {"rprivate", MS_PRIVATE | MS_REC},
    {"shared", MS_SHARED},         {"rshared", MS_SHARED | MS_REC},
    {"slave", MS_SLAVE},           {"rslave", MS_SLAVE | MS_REC},
    {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC},
};

static const char *const switches[] = {"tmpcopyup", "idmap", "ridmap"};

const char *mount_option_name(unsigned n)
{
    if (n < ARRAY_SIZE(mount_options))
        return mount_options[n].name;
    n -= ARRAY_SIZE(mount_options);
    if (n < ARRAY_SIZE(propagations))
        return propagations[n].name;
    n -= ARRAY_SIZE(propagations);
    return n < ARRAY_SIZE(switches) ? switches[n] : NULL;
}

bool mount_option_is_recursive(unsigned n)
{
    return n < ARRAY_SIZE(mount_options) && mount_options[n].attribute;
}

static const struct mount_option *option_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(mount_options); i++)
        if (strcmp(mount_options[i].name, name) == 0)
            return &mount_options[i];
    return NULL;
}

/* Turn an attribute on or off in a pair of masks. The times are one field of
 * three values: setting one of them means clearing the field. */
static void attribute_add(const struct mount_option *option, uint64_t *set, uint64_t *clear)
{
    if (option->attribute & MOUNT_ATTR__ATIME) {
        *clear |= MOUNT_ATTR__ATIME;
        *set &= ~(uint64_t)MOUNT_ATTR__ATIME;
        if (!option->off && option->attribute != MOUNT_ATTR__ATIME)
            *set |= option->attribute;
    } else if (option->off) {
        *clear |= option->attribute;
        *set &= ~option->attribute;
    } else {
        *set |= option->attribute;
        *clear &= ~option->attribute;
    }
}

static bool option_apply(struct mount_plan *plan, const char *name)
{
    const struct mount_option *option = option_find(name);

    if (option) {
        if (option->off) {
            plan->flags &= ~option->flag;
            plan->cleared |= option->flag;
        } else {
            plan->flags |= option->flag;
            plan->cleared &= ~option->flag;
        }
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(propagations); i++) {
        if (strcmp(propagations[i].name, name) == 0) {
            plan->propagation = propagations[i].flags;
            return true;
        }
    }
    if (strcmp(name, "tmpcopyup") == 0) {
        plan->copy_up = true;
    } else if (strcmp(name, "idmap") == 0) {
        plan->id_map = true;
    } else if (strcmp(name, "ridmap") == 0) {
        plan->id_map = plan->id_map_recursive = true;
    } else if (name[0] == 'r' && (option = option_find(name + 1)) && option->attribute) {
        attribute_add(option, &plan->recursive_set, &plan->recursive_clear);
    } else {
        return false;
    }
    return true;
}

static int data_append(struct mount_plan *plan, const char *option, struct error *err)
{
    size_t used = strlen(plan->data), length = strlen(option);

    if (used + length + 2 > DATA_MAX)
        return error_set(err, E2BIG, "the options are longer than %d bytes", DATA_MAX);
    if (used)
        plan->data[used++] = ',';
    memcpy(plan->data + used, option, length + 1);
    return 0;
}

/* SELinux's context= is for filesystems made for the container alone. */
static int label_append(struct mount_plan *plan, const char *label, struct error *err)
{
    static const char *const own[] = {"tmpfs", "mqueue", "devpts", "ramfs"};
    char option[1024];

    if (!label || !label[0] || !plan->mount->type || access("/sys/fs/selinux/enforce", F_OK) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        if (strcmp(plan->mount->type, own[i]) != 0)
            continue;
        if (snprintf(option, sizeof(option), "context=\"%s\"", label) >= (int)sizeof(option))
            return error_set(err, EINVAL, "linux.mountLabel is too long");
        return data_append(plan, option, err);
    }
    return 0;
}

int mount_plan_init(struct mount_plan *plan, const struct mount *mount, const char *label,
                    struct error *err)
{
    int r = 0;

    *plan = (struct mount_plan){.mount = mount, .tree_fd = -1};
    plan->data = calloc(1, DATA_MAX + 1);
    if (!plan->data)
        return error_set(err, ENOMEM, "out of memory");
    if (mount->type && strcmp(mount->type, "bind") == 0)
        plan->flags |= MS_BIND;
    if (mount->uid_mappings.count)
        plan->id_map = true;
    FOR_EACH(option, mount->options)
    if (r == 0 && !option_apply(plan, *option))
        r = data_append(plan, *option, err);
    if (!mount_is_bind(plan) && plan->flags & MS_RDONLY &&
        strcmp(mount->destination, "/dev") == 0) {
        plan->read_only_late = true;
        plan->flags &= ~(unsigned long)MS_RDONLY;
    }
    if (r == 0)
        r = label_append(plan, label, err);
    if (r == 0 && !mount_is_bind(plan) && !(plan->flags & MS_REMOUNT)) {
        if (!mount->type || !mount->type[0])
            r = error_set(err, EINVAL, "a type is required where nothing is bound");
        else if (plan->id_map)
            r = error_set(err, EINVAL, "only a bind mount can be id-mapped");
    }
    if (r == 0 && mount_is_bind(plan) && (!mount->source || !mount->source[0]))
        r = error_set(err, EINVAL, "a bind mount needs a source");
    if (r < 0) {
        error_prepend(err, "mount on %.128s", mount->destination);
        mount_plan_release(plan);
    }
    return r;
}

void mount_plan_release(struct mount_plan *plan)
{
    free(plan->data);
    plan->data = NULL;
    if (plan->tree_fd >= 0)
        close(plan->tree_fd);
    plan->tree_fd = -1;
}

bool mount_is_bind(const struct mount_plan *plan)
{
    return plan->flags & MS_BIND && !(plan->flags & MS_REMOUNT);
}

static int attributes_set(int fd, uint64_t set, uint64_t clear, bool recursive)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
    unsigned at = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);

    if (!set && !clear)
        return 0;
    if (mount_setattr(fd, "", at, &attr, sizeof(attr)) == 0)
        return 0;
    /* In a user namespace flags of the host's mount are locked on. Leave them on. */
    if (errno != EPERM || !(clear & ~(uint64_t)MOUNT_ATTR__ATIME))
        return -errno;
    attr.attr_clr = set & MOUNT_ATTR__ATIME ? MOUNT_ATTR__ATIME : 0;
    return mount_setattr(fd, "", at, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

static int propagation_set(int fd, unsigned long propagation)
{
    struct mount_attr attr = {.propagation = propagation & ~(unsigned long)MS_REC};
    unsigned at = AT_EMPTY_PATH | (propagation & MS_REC ? AT_RECURSIVE : 0);

    return mount_setattr(fd, "", at, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

/* What the MS_ flags of the options mean for a bind mount. */
static void plan_attributes(const struct mount_plan *plan, uint64_t *set, uint64_t *clear)
{
    *set = *clear = 0;
    for (size_t i = 0; i < ARRAY_SIZE(mount_options); i++) {
        const struct mount_option *option = &mount_options[i];

        if (option->attribute && (option->off ? plan->cleared : plan->flags) & option->flag &&
            !(option->off && option->attribute & MOUNT_ATTR__ATIME))
            attribute_add(option, set, clear);
    }
}

static int source_set_up(struct mount_plan *plan, int fd, int id_map_fd, bool shared,
                         struct error *err)
{
    uint64_t set, clear;
    int r;

    if (id_map_fd >= 0) {
        struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)id_map_fd};
        unsigned at = AT_EMPTY_PATH | (plan->id_map_recursive ? AT_RECURSIVE : 0);

        if (mount_setattr(fd, "", at, &attr, sizeof(attr)) < 0)
            return error_system(err, errno, "cannot id-map the mount of %s", plan->mount->source);
    }
    plan_attributes(plan, &set, &clear);
    if ((r = attributes_set(fd, set, clear, false)) < 0 ||
        (r = attributes_set(fd, plan->recursive_set, plan->recursive_clear, true)) < 0)
        return error_system(err, -r, "cannot set the options of the mount of %s",
                            plan->mount->source);
    /* The host never sees what the container mounts, unless both ask for it. */
    if (!shared && (r = propagation_set(fd, MS_SLAVE | MS_REC)) < 0)
        return error_system(err, -r, "cannot detach %s from its peers", plan->mount->source);
    if (plan->propagation && (r = propagation_set(fd, plan->propagation)) < 0)
        return error_system(err, -r, "cannot set the propagation of %s", plan->mount->source);
    return 0;
}

int mount_open_source(struct mount_plan *plan, int bundle_fd, int id_map_fd, bool shared,
                      struct error *err)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    AUTO_CLOSE int fd = -1;
    int r;

    if (plan->flags & MS_REC)
        flags |= AT_RECURSIVE;
    fd = open_tree(bundle_fd, plan->mount->source, flags);
    if (fd < 0 && errno == EINVAL && !(flags & AT_RECURSIVE)) /* mounts below it are locked */
        fd = open_tree(bundle_fd, plan->mount->source, flags | AT_RECURSIVE);
    if (fd < 0)
        return error_system(err, errno, "cannot bind %s", plan->mount->source);
    r = source_set_up(plan, fd, id_map_fd, shared, err);
    if (r == 0)
        plan->tree_fd = steal_fd(&fd);
    return r;
}

int mount_bind(int source_fd, const char *source_path, int target_fd, uint64_t attributes)
{
    AUTO_CLOSE int fd = open_tree(source_fd, source_path,
                                  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE |
                                      (source_path[0] ? 0 : AT_EMPTY_PATH));
    int r;

    if (fd < 0)
        return -errno;
    r = attributes_set(fd, attributes, 0, true);
    if (r == 0 &&
        move_mount(fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        r = -errno;
    return r;
}

int mount_filesystem(int dir_fd, const char *source, const char *type, unsigned long flags,
                     const char *data)
{
    if (fchdir(dir_fd) < 0 || mount(source, ".", type, flags, data) < 0)
        return -errno;
    return 0;
}

static int bind_attach(struct mount_plan *plan, struct path_root *root, struct error *err)
{
    AUTO_CLOSE int target = -1;
    struct stat status;

    if (fstat(plan->tree_fd, &status) < 0)
        return error_system(err, errno, "cannot read what %s is", plan->mount->source);
    target = S_ISDIR(status.st_mode)
                 ? path_make_directory(root, plan->mount->destination, 0755, err)
                 : path_make_file(root, plan->mount->destination, err);
    if (target < 0)
        return target;
    if (move_mount(plan->tree_fd, "", target, "",
                   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return error_system(err, errno, "cannot put %s in place", plan->mount->source);
    return 0;
}

/* proc and sysfs carry the runtime's own trust: a link in their place could be
 * turned round later, away from the paths that are masked. */
static int target_check_ordinary(struct path_root *root, const char *path, struct error *err)
{
    AUTO_CLOSE int fd = path_open(root, path, O_PATH | O_NOFOLLOW);
    struct stat status;

    if (fd < 0) /* it is made, or fails with better words, later */
        return 0;
    if (fstat(fd, &status) < 0)
        return error_system(err, errno, "cannot read what %s is", path);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ENOTDIR, "the target must be a directory, and not a link");
    return 0;
}

static bool type_is(const struct mount_plan *plan, const char *type)
{
    return plan->mount->type && strcmp(plan->mount->type, type) == 0;
}

static bool data_has(const char *data, const char *name)
{
    size_t length = strlen(name);

    for (; data; data = strchr(data, ',')) {
        data += *data == ',';
        if (strncmp(data, name, length) == 0 && data[length] == '=')
            return true;
    }
    return false;
}

/* Of the directory itself the options say more than what it covers. */
static int copy_up(const struct mount_plan *plan, int lower, int fd, struct error *err)
{
    AUTO_CLOSE int top = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat given;
    int r;

    if (top < 0 || fstat(top, &given) < 0)
        return error_system(err, errno, "cannot open the new mount");
    r = copy_tree(lower, fd, err);
    if (r < 0)
        return r;
    if (fchown(top, data_has(plan->data, "uid") ? given.st_uid : (uid_t)-1,
               data_has(plan->data, "gid") ? given.st_gid : (gid_t)-1) < 0 ||
        (data_has(plan->data, "mode") && fchmod(top, given.st_mode & 07777) < 0))
        return error_system(err, errno, "cannot set the owner and mode of the new mount");
    return 0;
}

/* The options that a filesystem only takes once it is in place. lower: what it covers, to be
 * copied up; or -1. */
static int filesystem_finish(struct mount_plan *plan, struct path_root *root, int lower,
                             bool read_only_later, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    int r = 0;

    if (!plan->propagation && !plan->recursive_set && !plan->recursive_clear && lower < 0)
        return 0;
    fd = path_open(root, plan->mount->destination, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return error_system(err, -fd, "cannot open the new mount");
    if (lower >= 0 && (r = copy_up(plan, lower, fd, err)) < 0)
        return r;
    if (read_only_later)
        r = attributes_set(fd, MOUNT_ATTR_RDONLY, 0, false);
    if (r == 0)
        r = attributes_set(fd, plan->recursive_set, plan->recursive_clear, true);
    if (r == 0 && plan->propagation)
        r = propagation_set(fd, plan->propagation);
    if (r < 0)
        return error_system(err, -r, "cannot set the options of the new mount");
    return 0;
}

static int filesystem_attach(struct mount_plan *plan, struct path_root *root, struct error *err)
{
    const struct mount *mount = plan->mount;
    bool trusted = type_is(plan, "proc") || type_is(plan, "sysfs");
    /* A directory that is only made for it has nothing to copy. */
    AUTO_CLOSE int lower =
        plan->copy_up ? path_open(root, mount->destination, O_PATH | O_DIRECTORY) : -1;
    bool read_only_later = lower >= 0 && plan->flags & MS_RDONLY;
    unsigned long flags = plan->flags & ~(read_only_later ? (unsigned long)MS_RDONLY : 0);
    AUTO_CLOSE int target = -1;
    int r;

    if (trusted && (r = target_check_ordinary(root, mount->destination, err)) < 0)
        return r;
    target = path_make_directory(root, mount->destination, 0755, err);
    if (target < 0)
        return target;
    if (plan->copy_up && !type_is(plan, "tmpfs"))
        return error_set(err, EINVAL, "tmpcopyup is for tmpfs only");
    r = mount_filesystem(target, mount->source ? mount->source : mount->type, mount->type, flags,
                         plan->data);
    /* Without a network namespace of its own a user namespace may not mount sysfs, only
     * bind the host's; its files check the caller themselves. */
    if (r == -EPERM && type_is(plan, "sysfs"))
        r = mount_bind(AT_FDCWD, "/sys", target,
                       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                           MOUNT_ATTR_NOEXEC);
    if (r < 0)
        return error_system(err, -r, "cannot mount %s", mount->type);
    return filesystem_finish(plan, root, lower, read_only_later, err);
}

static int remount(struct mount_plan *plan, struct path_root *root, struct error *err)
{
    AUTO_CLOSE int target = path_open(root, plan->mount->destination, O_PATH | O_DIRECTORY);
    int r;

    if (target < 0)
        return error_system(err, -target, "cannot open the mount");
    r = mount_filesystem(target, NULL, NULL, plan->flags, plan->data);
    if (r < 0)
        return error_system(err, -r, "cannot remount");
    return filesystem_finish(plan, root, -1, false, err);
}

int mount_attach(struct mount_plan *plan, struct path_root *root, struct error *err)
{
    int r;

    if (plan->flags & MS_REMOUNT)
        r = remount(plan, root, err);
    else if (mount_is_bind(plan))
        r = bind_attach(plan, root, err);
    else
        r = filesystem_attach(plan, root, err);
    if (r < 0)
        error_prepend(err, "mount on %.128s", plan->mount->destination);
    return r;
}
