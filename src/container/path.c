#include "container/path.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"

enum { LINKS_MAX = 40 }; /* as the kernel's MAXSYMLINKS */

static int open_how(int fd, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC, .resolve = resolve};
    int r;

    /* -EAGAIN: a rename raced with "..", the kernel asks to try again. */
    for (int tries = 0; tries < 32; tries++) {
        r = (int)syscall(SYS_openat2, fd, path, &how, sizeof(how));
        if (r >= 0)
            return r;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return -errno;
}

static bool openat2_missing(int code)
{
    return code == -ENOSYS || code == -EPERM;
}

/*
 * The walk. A stack of descriptors stands for the directories from the root to
 * where we are, so ".." is a pop and never the kernel's: a directory renamed
 * away cannot lead out. Links are read and their text put before what is left.
 */
struct walk {
    int stack[PATH_MAX / 2];
    unsigned depth;
    char rest[2 * PATH_MAX];
    unsigned links;
};

static void walk_pop(struct walk *walk, unsigned depth)
{
    while (walk->depth > depth)
        close(walk->stack[--walk->depth]);
}

static int walk_link(struct walk *walk, int fd, const char *rest)
{
    char target[PATH_MAX], after[2 * PATH_MAX];
    ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);

    if (n < 0)
        return -errno;
    target[n] = 0;
    if (n == 0)
        return -ENOENT;
    if (++walk->links > LINKS_MAX)
        return -ELOOP;
    strcpy(after, rest);
    if ((size_t)n + strlen(after) + 2 > sizeof(walk->rest))
        return -ENAMETOOLONG;
    memcpy(walk->rest, target, (size_t)n);
    /* A "/" at the end would ask for a directory. What is left begins with one already. */
    strcpy(walk->rest + n, after);
    if (target[0] == '/')
        walk_pop(walk, 1);
    return 0;
}

/* One component: returns 1 when it was the last and is open in ret_fd. */
static int walk_step(struct walk *walk, const char *name, char *rest, int flags, int *ret_fd)
{
    bool last = rest[strspn(rest, "/")] == 0;
    AUTO_CLOSE int fd = -1;
    struct stat status;

    fd = openat(walk->stack[walk->depth - 1], name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (S_ISLNK(status.st_mode) && !(last && (flags & O_NOFOLLOW))) {
        char copy[2 * PATH_MAX];
        strcpy(copy, rest);
        return walk_link(walk, fd, copy);
    }
    if (last && !S_ISDIR(status.st_mode)) {
        if ((flags & O_DIRECTORY) || rest[0] == '/')
            return -ENOTDIR;
        if (S_ISLNK(status.st_mode) && !(flags & O_PATH))
            return -ELOOP;
        *ret_fd = flags & O_PATH
                      ? steal_fd(&fd)
                      : openat(walk->stack[walk->depth - 1], name, flags | O_NOFOLLOW | O_CLOEXEC);
        return *ret_fd < 0 ? -errno : 1;
    }
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    if (walk->depth == sizeof(walk->stack) / sizeof(walk->stack[0]))
        return -ENAMETOOLONG;
    walk->stack[walk->depth++] = steal_fd(&fd);
    memmove(walk->rest, rest, strlen(rest) + 1);
    return 0;
}

static int walk_run(struct walk *walk, int flags)
{
    int fd = -1, r;

    for (;;) {
        char *start = walk->rest + strspn(walk->rest, "/");
        size_t length = strcspn(start, "/");
        char name[NAME_MAX + 1];

        if (length == 0) /* The path ends with a directory: open it anew with flags. */
            break;
        if (length > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, start, length);
        name[length] = 0;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            if (name[1] && walk->depth > 1)
                walk_pop(walk, walk->depth - 1);
            memmove(walk->rest, start + length, strlen(start + length) + 1);
            continue;
        }
        r = walk_step(walk, name, start + length, flags, &fd);
        if (r < 0)
            return r;
        if (r == 1)
            return fd;
    }
    fd = openat(walk->stack[walk->depth - 1], ".", (flags & ~O_NOFOLLOW) | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int path_walk(int root_fd, const char *path, int flags)
{
    struct walk *walk;
    int fd;

    if (strlen(path) >= PATH_MAX)
        return -ENAMETOOLONG;
    walk = calloc(1, sizeof(*walk));
    if (!walk)
        return -ENOMEM;
    strcpy(walk->rest, path);
    fd = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        fd = -errno;
    } else {
        walk->stack[walk->depth++] = fd;
        fd = walk_run(walk, flags);
    }
    walk_pop(walk, 0);
    free(walk);
    return fd;
}

int path_open(struct path_root *root, const char *path, int flags)
{
    if (!root->walk) {
        int fd = open_how(root->fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
        if (!openat2_missing(fd))
            return fd;
        /* -EPERM may be the file's own answer: then the walk says so too. */
        root->walk = fd == -ENOSYS;
    }
    return path_walk(root->fd, path, flags);
}

int path_open_beneath(int dir_fd, const char *name, int flags)
{
    int fd = open_how(dir_fd, name, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);

    if (fd != -ENOSYS)
        return fd;
    /* Without openat2: names come from the runtime, only the last component could be a link. */
    fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The part of path up to and with its n-th component; false at the end. */
static bool prefix_next(const char *path, size_t *used)
{
    size_t start = *used + strspn(path + *used, "/");

    if (!path[start])
        return false;
    *used = start + strcspn(path + start, "/");
    return true;
}

/* Where a dangling link leads: its text, after the part of path that holds it unless it is
 * absolute, then what follows. The result is a path within the root like any other. */
static int link_expand(int dir, const char *name, const char *path, size_t parent, const char *rest,
                       char target[PATH_MAX])
{
    char text[PATH_MAX];
    ssize_t n = readlinkat(dir, name, text, sizeof(text) - 1);
    int length;

    if (n < 0)
        return -errno;
    text[n] = 0;
    length =
        snprintf(target, PATH_MAX, "%.*s/%s%s", text[0] == '/' ? 0 : (int)parent, path, text, rest);
    return length < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int directory_make(struct path_root *root, const char *path, mode_t mode, unsigned links,
                          struct error *err)
{
    AUTO_CLOSE int dir = -1;
    char prefix[PATH_MAX];
    size_t used = 0, start;
    int fd = path_open(root, path, O_PATH | O_DIRECTORY);

    if (fd >= 0)
        return fd;
    if (fd != -ENOENT)
        return error_system(err, -fd, "cannot open %s in the root", path);
    if (strlen(path) >= sizeof(prefix))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    dir = path_open(root, "/", O_PATH | O_DIRECTORY);
    if (dir < 0)
        return error_system(err, -dir, "cannot open the root");
    for (start = 0; prefix_next(path, &used); start = used) {
        const char *name = prefix + start + strspn(path + start, "/");

        memcpy(prefix, path, used);
        prefix[used] = 0;
        fd = path_open(root, prefix, O_PATH | O_DIRECTORY);
        if (fd == -ENOENT) {
            if (strcmp(name, "..") == 0 || strcmp(name, ".") == 0)
                return error_set(err, EINVAL, "cannot make %s: a name in it is %s", path, name);
            if (mkdirat(dir, name, mode) < 0 && errno != EEXIST)
                return error_system(err, errno, "cannot make the directory %s", prefix);
            fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd < 0)
                fd = -errno;
            if (fd == -ENOTDIR || fd == -ELOOP) {
                char target[PATH_MAX];
                int r = link_expand(dir, name, path, start, path + used, target);

                if (r < 0 || ++links > LINKS_MAX)
                    return error_system(err, r < 0 ? -r : ELOOP, "cannot follow %s", prefix);
                return directory_make(root, target, mode, links, err);
            }
        }
        if (fd < 0)
            return error_system(err, -fd, "cannot open %s in the root", prefix);
        close(dir);
        dir = fd;
    }
    return steal_fd(&dir);
}

char *path_read_text(struct path_root *root, const char *path, size_t max)
{
    AUTO_CLOSE int fd = path_open(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    AUTO_FREE char *text = NULL;
    struct stat status;
    ssize_t n;

    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size < 0 ||
        (uint64_t)status.st_size > max)
        return NULL;
    text = malloc((size_t)status.st_size + 1);
    n = text ? read(fd, text, (size_t)status.st_size) : -1;
    if (n < 0)
        return NULL;
    text[n] = 0;
    return steal_pointer(&text);
}

int path_make_directory(struct path_root *root, const char *path, mode_t mode, struct error *err)
{
    return directory_make(root, path, mode, 0, err);
}

int path_open_parent(struct path_root *root, const char *path, const char **ret_name,
                     struct error *err)
{
    char parent[PATH_MAX];
    size_t length = strlen(path), end;

    if (length >= sizeof(parent))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    for (end = length; end > 0 && path[end - 1] != '/'; end--)
        ;
    if (end == length || strcmp(path + end, "..") == 0 || strcmp(path + end, ".") == 0)
        return error_set(err, EINVAL, "%s does not name a file", path);
    memcpy(parent, path, end);
    parent[end] = 0;
    *ret_name = path + end;
    return path_make_directory(root, end ? parent : "/", 0755, err);
}

static int file_make(struct path_root *root, const char *path, unsigned links, struct error *err)
{
    const char *name;
    AUTO_CLOSE int dir = -1, fd = -1;

    fd = path_open(root, path, O_PATH);
    if (fd >= 0)
        return steal_fd(&fd);
    if (fd != -ENOENT)
        return error_system(err, -fd, "cannot open %s in the root", path);
    dir = path_open_parent(root, path, &name, err);
    if (dir < 0)
        return dir;
    fd = openat(dir, name, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 && errno == ELOOP) {
        char target[PATH_MAX];
        int r = link_expand(dir, name, path, (size_t)(name - path), "", target);

        if (r < 0 || ++links > LINKS_MAX)
            return error_system(err, r < 0 ? -r : ELOOP, "cannot follow %s", path);
        return file_make(root, target, links, err);
    }
    if (fd < 0)
        return error_system(err, errno, "cannot make the file %s", path);
    return openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

int path_make_file(struct path_root *root, const char *path, struct error *err)
{
    return file_make(root, path, 0, err);
}
