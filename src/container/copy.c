#include "container/copy.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"

enum { DEPTH_MAX = 128 };

static int content_copy(int from, int to)
{
    char buffer[65536];
    ssize_t n;

    for (;;) {
        n = copy_file_range(from, NULL, to, NULL, 1 << 30, 0);
        if (n == 0)
            return 0;
        if (n < 0)
            break;
    }
    while ((n = read(from, buffer, sizeof(buffer))) > 0) {
        for (ssize_t done = 0, w; done < n; done += w) {
            w = write(to, buffer + done, (size_t)(n - done));
            if (w < 0)
                return -errno;
        }
    }
    return n < 0 ? -errno : 0;
}

/* Attributes that the target does not take (security labels) are left out. */
static void attributes_copy(int from, int to)
{
    char names[4096], value[4096];
    ssize_t length = flistxattr(from, names, sizeof(names));

    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1) {
        ssize_t size = fgetxattr(from, names + at, value, sizeof(value));
        if (size >= 0)
            fsetxattr(to, names + at, value, (size_t)size, 0);
    }
}

static int file_copy(int from_dir, const char *name, int to_dir, const char *to_name,
                     const struct stat *status)
{
    AUTO_CLOSE int from =
        openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    AUTO_CLOSE int to = -1;
    int r;

    if (from < 0)
        return -errno;
    to = openat(to_dir, to_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return -errno;
    r = content_copy(from, to);
    if (r < 0)
        return r;
    if (fchown(to, status->st_uid, status->st_gid) < 0)
        return -errno;
    attributes_copy(from, to);
    return fchmod(to, status->st_mode & 07777) < 0 ? -errno : 0;
}

static int link_copy(int from_dir, const char *name, int to_dir, const char *to_name,
                     const struct stat *status)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from_dir, name, target, sizeof(target) - 1);

    if (n < 0)
        return -errno;
    target[n] = 0;
    if (symlinkat(target, to_dir, to_name) < 0 ||
        fchownat(to_dir, to_name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

static int special_copy(int to_dir, const char *name, const struct stat *status)
{
    if (mknodat(to_dir, name, status->st_mode, status->st_rdev) < 0 ||
        fchownat(to_dir, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(to_dir, name, status->st_mode & 07777, 0) < 0)
        return -errno;
    return 0;
}

static int directory_copy(int from, int to, unsigned depth, dev_t device, struct error *err);

static int entry_copy(int from_dir, const char *name, int to_dir, const char *to_name,
                      unsigned depth, dev_t device, struct error *err)
{
    struct stat status;
    struct timespec times[2];
    int r = 0;

    if (fstatat(from_dir, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot read what %s is", name);
    if (S_ISDIR(status.st_mode)) {
        AUTO_CLOSE int from = -1, to = -1;

        if (status.st_dev != device)
            return 0;
        from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (from < 0 || mkdirat(to_dir, to_name, 0700) < 0)
            return error_system(err, errno, "cannot copy the directory %s", name);
        to = openat(to_dir, to_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (to < 0)
            return error_system(err, errno, "cannot copy the directory %s", name);
        r = directory_copy(from, to, depth + 1, device, err);
        if (r < 0)
            return r;
    } else if (S_ISREG(status.st_mode)) {
        r = file_copy(from_dir, name, to_dir, to_name, &status);
    } else if (S_ISLNK(status.st_mode)) {
        r = link_copy(from_dir, name, to_dir, to_name, &status);
    } else {
        r = special_copy(to_dir, to_name, &status);
    }
    if (r < 0)
        return error_system(err, -r, "cannot copy %s", name);
    times[0] = status.st_atim;
    times[1] = status.st_mtim;
    utimensat(to_dir, to_name, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int directory_copy(int from, int to, unsigned depth, dev_t device, struct error *err)
{
    struct stat status;
    struct dirent *entry;
    DIR *list;
    int r = 0, copy;

    if (depth > DEPTH_MAX)
        return error_set(err, ELOOP, "directories are nested more than %d deep", DEPTH_MAX);
    copy = dup(from);
    list = copy < 0 ? NULL : fdopendir(copy);
    if (!list)
        return error_system(err, errno, "cannot list a directory");
    while (r == 0 && (entry = readdir(list))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = entry_copy(from, entry->d_name, to, entry->d_name, depth, device, err);
    }
    closedir(list);
    if (r < 0)
        return r;
    attributes_copy(from, to);
    if (fstat(from, &status) < 0 || fchown(to, status.st_uid, status.st_gid) < 0 ||
        fchmod(to, status.st_mode & 07777) < 0)
        return error_system(err, errno, "cannot copy the owner of a directory");
    return 0;
}

int copy_tree(int from_fd, int to_fd, struct error *err)
{
    AUTO_CLOSE int from = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int to = openat(to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;

    if (from < 0 || to < 0 || fstat(from, &status) < 0)
        return error_system(err, errno, "cannot open the directory to copy");
    return directory_copy(from, to, 0, status.st_dev, err);
}

int copy_entry(int from_fd, const char *name, int to_fd, const char *to_name, struct error *err)
{
    struct stat status;

    if (fstatat(from_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot copy %s", name);
    return entry_copy(from_fd, name, to_fd, to_name, 0, status.st_dev, err);
}
