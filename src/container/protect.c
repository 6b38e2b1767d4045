#include "container/protect.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"

static const char self[] = "/proc/self/exe";

enum { ARGUMENTS_BYTES_MAX = 16 << 20 };
enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

static bool is_protected(int fd)
{
    struct statvfs status;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals >= 0 && (seals & SEALS) == SEALS)
        return true;
    return fstatvfs(fd, &status) == 0 && status.f_flag & ST_RDONLY;
}

/* The file under a read-only mount of its own. Once the descriptor is closed by
 * execve the mount belongs to no namespace, and nobody can make it writable. */
static int read_only_mount(void)
{
    AUTO_CLOSE int fd = open_tree(AT_FDCWD, self, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};

    if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return -errno;
    return steal_fd(&fd);
}

static int sealed_copy(int from)
{
    AUTO_CLOSE int fd = memfd_create("lodge", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat status;

    if (fd < 0 || fstat(from, &status) < 0)
        return -errno;
    for (off_t done = 0; done < status.st_size;) {
        ssize_t n = sendfile(fd, from, &done, (size_t)(status.st_size - done));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
    }
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return -errno;
    return steal_fd(&fd);
}

/* The arguments as they were given: a parser may have moved argv about. */
static char **arguments_read(char **ret_text)
{
    char **argv = NULL;
    size_t length = 0, count = 0;

    if (file_read(AT_FDCWD, "/proc/self/cmdline", ARGUMENTS_BYTES_MAX, ret_text, &length, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < length; i++)
        count += (*ret_text)[i] == 0;
    argv = calloc(count + 1, sizeof(*argv));
    for (size_t i = 0, at = 0; argv && i < count; i++, at += strlen(*ret_text + at) + 1)
        argv[i] = *ret_text + at;
    return argv;
}

int protect_self(struct error *err)
{
    AUTO_FREE char *text = NULL;
    AUTO_FREE char **argv = NULL;
    AUTO_CLOSE int from = open(self, O_RDONLY | O_CLOEXEC), fd = -1;

    if (from < 0)
        return error_system(err, errno, "cannot open %s", self);
    if (is_protected(from))
        return 0;
    fd = sealed_copy(from);
    if (fd < 0)
        fd = read_only_mount();
    if (fd < 0)
        return error_system(err, -fd, "cannot make a protected copy of the program");
    argv = arguments_read(&text);
    if (!argv)
        return error_set(err, ENOMEM, "cannot read the program's own arguments");
    execveat(fd, "", argv, environ, AT_EMPTY_PATH);
    return error_system(err, errno, "cannot run the protected copy of the program");
}
