#include "guest/initramfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { DEPTH_MAX = 300 };

struct initramfs {
    FILE *out;
    unsigned inode; /* each entry is a file of its own: hard links become copies */
    char path[PATH_MAX];
};

int initramfs_create(int fd, struct initramfs **ret_initramfs, struct error *err)
{
    struct initramfs *i = calloc(1, sizeof(*i));
    int copy = i ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;

    if (copy >= 0)
        i->out = fdopen(copy, "w");
    if (!i || !i->out) {
        if (copy >= 0)
            close(copy);
        free(i);
        return error_set(err, ENOMEM, "out of memory");
    }
    *ret_initramfs = i;
    return 0;
}

void initramfs_destroy(struct initramfs *initramfs)
{
    if (!initramfs)
        return;
    fclose(initramfs->out);
    free(initramfs);
}

static void pad(struct initramfs *i, size_t length)
{
    static const char zeros[4];

    fwrite(zeros, 1, -length & 3, i->out);
}

static void put_header(struct initramfs *i, const char *name, const struct stat *status,
                       uint64_t size)
{
    size_t length = strlen(name) + 1;

    fprintf(i->out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++i->inode,
            status->st_mode, status->st_uid, status->st_gid, 1u, (unsigned)status->st_mtime,
            (unsigned)size, 0u, 0u, major(status->st_rdev), minor(status->st_rdev),
            (unsigned)length, 0u);
    fwrite(name, 1, length, i->out);
    pad(i, 110 + length);
}

int initramfs_add(struct initramfs *initramfs, const char *name, unsigned mode, const void *data,
                  size_t length, struct error *err)
{
    struct stat status = {.st_mode = mode};

    put_header(initramfs, name, &status, length);
    if (length)
        fwrite(data, 1, length, initramfs->out);
    pad(initramfs, length);
    return ferror(initramfs->out) ? error_system(err, errno, "cannot write the initial RAM disk")
                                  : 0;
}

static int add_file(struct initramfs *i, int directory, const char *name, const struct stat *status,
                    struct error *err)
{
    AUTO_CLOSE int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_FREE char *buffer = malloc(65536);
    uint64_t left = (uint64_t)status->st_size;

    if (fd < 0 || !buffer)
        return error_system(err, fd < 0 ? errno : ENOMEM, "cannot open %s", i->path);
    if (left > UINT32_MAX)
        return error_set(err, EFBIG, "%s is too large for an initial RAM disk", i->path);
    put_header(i, i->path, status, left);
    while (left > 0) {
        ssize_t n = read(fd, buffer, left < 65536 ? left : 65536);

        if (n <= 0)
            return error_system(err, n < 0 ? errno : EIO, "cannot read %s", i->path);
        fwrite(buffer, 1, (size_t)n, i->out);
        left -= (uint64_t)n;
    }
    pad(i, (size_t)status->st_size);
    return 0;
}

static int add_link(struct initramfs *i, int directory, const char *name, const struct stat *status,
                    struct error *err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(directory, name, target, sizeof(target));

    if (n < 0)
        return error_system(err, errno, "cannot read the link %s", i->path);
    put_header(i, i->path, status, (uint64_t)n);
    fwrite(target, 1, (size_t)n, i->out);
    pad(i, (size_t)n);
    return 0;
}

static int add_directory(struct initramfs *i, int fd, size_t length, unsigned depth,
                         struct error *err);

/* The entry name in directory; i->path, of length bytes, is the directory's. */
static int add_entry(struct initramfs *i, int directory, const char *name, size_t length,
                     unsigned depth, struct error *err)
{
    int more =
        snprintf(i->path + length, sizeof(i->path) - length, "%s%s", length ? "/" : "", name);
    struct stat status;
    int fd, r = 0;

    if (more >= (int)(sizeof(i->path) - length) || depth > DEPTH_MAX)
        return error_set(err, ENAMETOOLONG, "%.100s... is too long or too deep", i->path);
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot look at %s", i->path);
    if (S_ISREG(status.st_mode)) {
        r = add_file(i, directory, name, &status, err);
    } else if (S_ISLNK(status.st_mode)) {
        r = add_link(i, directory, name, &status, err);
    } else if (!S_ISDIR(status.st_mode)) {
        put_header(i, i->path, &status, 0);
    } else {
        put_header(i, i->path, &status, 0);
        fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        r = fd < 0 ? error_system(err, errno, "cannot open %s", i->path)
                   : add_directory(i, fd, length + (size_t)more, depth + 1, err);
    }
    i->path[length] = 0;
    return r;
}

/* Takes fd over. */
static int add_directory(struct initramfs *i, int fd, size_t length, unsigned depth,
                         struct error *err)
{
    DIR *stream = fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!stream) {
        close(fd);
        return error_set(err, ENOMEM, "out of memory");
    }
    while (r == 0 && (entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            r = add_entry(i, dirfd(stream), entry->d_name, length, depth, err);
    closedir(stream);
    return r;
}

int initramfs_add_tree(struct initramfs *initramfs, int root_fd, struct error *err)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_system(err, errno, "cannot open the root");
    initramfs->path[0] = 0;
    return add_directory(initramfs, fd, 0, 0, err);
}

int initramfs_finish(struct initramfs *initramfs, struct error *err)
{
    struct stat none = {0};

    put_header(initramfs, "TRAILER!!!", &none, 0);
    if (fflush(initramfs->out) != 0 || ferror(initramfs->out))
        return error_system(err, errno ? errno : EIO, "cannot write the initial RAM disk");
    return 0;
}
