#include "image/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 200 }; /* descriptors open at once; deeper directories are moved up */

/* One removal. A hostile layer may nest directories deeper than there are descriptors. */
struct removal {
    int top;
    unsigned moved;
};

static int remove_entry(struct removal *removal, int directory, const char *name, unsigned depth);

static int open_directory(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == EACCES) { /* an unprivileged user's own, of mode 000 */
        fchmodat(directory, name, 0700, 0);
        fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

/* Takes fd over. */
static int empty_open(struct removal *removal, int fd, unsigned depth)
{
    DIR *stream = fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!stream) {
        close(fd);
        return -ENOMEM;
    }
    while (r == 0 && (errno = 0, entry = readdir(stream))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        r = remove_entry(removal, dirfd(stream), entry->d_name, depth + 1);
    }
    if (r == 0 && errno)
        r = -errno;
    closedir(stream);
    return r;
}

static int move_up(struct removal *removal, int directory, const char *name)
{
    char up[32];

    do {
        snprintf(up, sizeof(up), ".deep%u", removal->moved++);
        if (renameat(directory, name, removal->top, up) == 0)
            return 0;
    } while (errno == ENOTEMPTY || errno == ENOTDIR || errno == EEXIST);
    return -errno;
}

static int remove_entry(struct removal *removal, int directory, const char *name, unsigned depth)
{
    struct stat status;
    int fd, r;

    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM && errno != EACCES)
        return -errno;
    r = -errno;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return r;
    if (depth > DEPTH_MAX)
        return move_up(removal, directory, name);
    fd = open_directory(directory, name);
    r = fd < 0 ? fd : empty_open(removal, fd, depth);
    if (r == 0 && unlinkat(directory, name, AT_REMOVEDIR) < 0)
        r = -errno;
    return r;
}

int tree_empty(int directory, const char *name)
{
    struct removal removal = {.top = open_directory(directory, name)};
    unsigned moved;
    int fd, r;

    if (removal.top < 0)
        return removal.top;
    do { /* until a pass moved nothing up */
        moved = removal.moved;
        fd = open_directory(directory, name);
        r = fd < 0 ? fd : empty_open(&removal, fd, 0);
    } while (r == 0 && removal.moved != moved);
    close(removal.top);
    return r;
}

int tree_remove(int directory, const char *name)
{
    int r = tree_empty(directory, name);

    if (r == 0)
        return unlinkat(directory, name, AT_REMOVEDIR) < 0 ? -errno : 0;
    if (r == -ENOTDIR || r == -ELOOP)
        return unlinkat(directory, name, 0) < 0 ? -errno : 0;
    return r == -ENOENT ? 0 : r;
}
