#include "container/device.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/mount.h"

#define N(n)                                                                                       \
    {                                                                                              \
        .value = n, .given = true                                                                  \
    }

static const struct device defaults[] = {
    {"/dev/null", "c", N(1), N(3)},    {"/dev/zero", "c", N(1), N(5)},
    {"/dev/full", "c", N(1), N(7)},    {"/dev/random", "c", N(1), N(8)},
    {"/dev/urandom", "c", N(1), N(9)}, {"/dev/tty", "c", N(5), N(0)},
};

static const struct {
    const char *name, *target;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},       {"/dev/stdin", "/proc/self/fd/0"},
    {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
    {"/dev/ptmx", "pts/ptmx"},
};

static mode_t device_type(const struct device *device)
{
    return device->type[0] == 'b' ? S_IFBLK : device->type[0] == 'p' ? S_IFIFO : S_IFCHR;
}

static dev_t device_number(const struct device *device)
{
    return device->type[0] == 'p'
               ? 0
               : makedev((unsigned)device->major.value, (unsigned)device->minor.value);
}

/* Without the right to make devices: the host's own, if it is the same one. */
static int device_bind(struct path_root *root, const struct device *device, struct error *err)
{
    AUTO_CLOSE int target = path_make_file(root, device->path, err);
    struct stat status;
    int r;

    if (target < 0)
        return target;
    if (stat(device->path, &status) < 0)
        return error_system(err, errno, "cannot bind the device %s", device->path);
    if ((status.st_mode & S_IFMT) != device_type(device) || status.st_rdev != device_number(device))
        return error_set(err, EPERM,
                         "the host has another device at %s, and making one is not "
                         "allowed",
                         device->path);
    r = mount_bind(AT_FDCWD, device->path, target, 0);
    return r < 0 ? error_system(err, -r, "cannot bind the device %s", device->path) : 0;
}

static int device_make(struct path_root *root, const struct device *device, struct error *err)
{
    mode_t mode = device->file_mode.given ? (mode_t)device->file_mode.value & 07777 : 0666;
    const char *name;
    AUTO_CLOSE int dir = path_open_parent(root, device->path, &name, err);
    struct stat status;

    if (dir < 0)
        return dir;
    if (mknodat(dir, name, mode | device_type(device), device_number(device)) < 0) {
        if (errno == EPERM)
            return device_bind(root, device, err);
        if (errno != EEXIST || fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return error_system(err, errno, "cannot make the device %s", device->path);
        /* config-linux.md: an error where something else is there already. */
        if ((status.st_mode & S_IFMT) != device_type(device) ||
            status.st_rdev != device_number(device))
            return error_set(err, EEXIST, "%s exists, and is another file than the device",
                             device->path);
        return 0;
    }
    if ((device->uid.value || device->gid.value) &&
        fchownat(dir, name, (uid_t)device->uid.value, (gid_t)device->gid.value,
                 AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot give %s to its owner", device->path);
    return 0;
}

static int links_make(struct path_root *root, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        const char *name;
        AUTO_CLOSE int dir = path_open_parent(root, links[i].name, &name, err);

        if (dir < 0)
            return dir;
        if (symlinkat(links[i].target, dir, name) < 0 && errno != EEXIST)
            return error_system(err, errno, "cannot make the link %s", links[i].name);
    }
    return 0;
}

int device_make_all(struct path_root *root, const struct linux_config *linux_, struct error *err)
{
    mode_t before = umask(0);
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(defaults); i++) {
        bool given = false;

        FOR_EACH(device, linux_->devices)
        given |= strcmp(device->path, defaults[i].path) == 0;
        if (!given)
            r = device_make(root, &defaults[i], err);
    }
    FOR_EACH(device, linux_->devices)
    if (r == 0)
        r = device_make(root, device, err);
    if (r == 0)
        r = links_make(root, err);
    umask(before);
    return r;
}

static bool is_terminal_master(int fd)
{
    struct statfs filesystem;
    struct stat status;

    return fstat(fd, &status) == 0 && fstatfs(fd, &filesystem) == 0 &&
           filesystem.f_type == DEVPTS_SUPER_MAGIC && S_ISCHR(status.st_mode) &&
           status.st_rdev == makedev(5, 2);
}

int device_open_terminal(struct path_root *root, int *ret_master, int *ret_slave, struct error *err)
{
    AUTO_CLOSE int node = path_open(root, "/dev/pts/ptmx", O_PATH);
    AUTO_CLOSE int master = -1, slave = -1;
    int unlock = 0;

    if (node < 0)
        return error_system(err, -node, "a terminal needs a devpts on /dev/pts");
    if (!is_terminal_master(node))
        return error_set(err, EINVAL, "/dev/pts/ptmx is not that of a devpts");
    master = path_open(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY);
    if (master < 0 || !is_terminal_master(master))
        return error_system(err, master < 0 ? -master : EINVAL, "cannot open /dev/pts/ptmx");
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return error_system(err, errno, "cannot unlock the terminal");
    /* By the master, not by a path. */
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return error_system(err, errno, "cannot open the terminal");
    *ret_master = steal_fd(&master);
    *ret_slave = steal_fd(&slave);
    return 0;
}

int device_bind_console(struct path_root *root, int slave, struct error *err)
{
    const char *name;
    AUTO_CLOSE int dir = path_open_parent(root, "/dev/console", &name, err), target = -1;
    struct stat status;
    int r;

    if (dir < 0)
        return dir;
    target = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 && errno == ENOENT) {
        AUTO_CLOSE int made = openat(dir, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        if (made >= 0)
            target = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (target < 0 || fstat(target, &status) < 0)
        return error_system(err, errno, "cannot open /dev/console");
    /* A link of the image's could lead to a file of /proc (CVE-2025-52565). */
    if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode))
        return error_set(err, EINVAL,
                         "/dev/console is a link, and not a file to put the terminal on");
    r = mount_bind(slave, "", target, 0);
    return r < 0 ? error_system(err, -r, "cannot put the terminal on /dev/console") : 0;
}
