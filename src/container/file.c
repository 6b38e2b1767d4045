#include "container/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

int file_read(int dir_fd, const char *path, size_t max, char **ret_text, size_t *ret_length,
              struct error *err)
{
    AUTO_CLOSE int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
    AUTO_FREE char *text = NULL;
    size_t used = 0, size = 4096;

    if (fd < 0)
        return error_system(err, errno, "cannot open %s", path);
    text = malloc(size);
    for (;;) {
        ssize_t n;

        if (!text)
            return error_set(err, ENOMEM, "out of memory");
        n = read(fd, text + used, size - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot read %s", path);
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > max)
            return error_set(err, EFBIG, "%s is larger than %zu bytes", path, max);
        if (used == size - 1) {
            char *larger = realloc(text, size *= 2);
            if (!larger)
                return error_set(err, ENOMEM, "out of memory");
            text = larger;
        }
    }
    text[used] = 0;
    *ret_text = steal_pointer(&text);
    if (ret_length)
        *ret_length = used;
    return 0;
}

static int fd_put(int fd, const char *text, size_t length)
{
    ssize_t n;

    while (length > 0) {
        n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        length -= (size_t)n;
    }
    return 0;
}

int file_put(int dir_fd, const char *path, const char *text, struct error *err)
{
    AUTO_CLOSE int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC);
    int r;

    if (fd < 0)
        return error_system(err, errno, "cannot open %s", path);
    r = fd_put(fd, text, strlen(text));
    if (r < 0)
        return error_system(err, -r, "cannot write \"%.64s\" to %s", text, path);
    return 0;
}

int file_replace(int dir_fd, const char *path, const char *text, size_t length, struct error *err)
{
    char temporary[4096];
    AUTO_CLOSE int fd = -1;
    int r;

    r = snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid());
    if (r < 0 || r >= (int)sizeof(temporary))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_system(err, errno, "cannot create %s", temporary);
    r = fd_put(fd, text, length);
    if (r == 0 && renameat(dir_fd, temporary, dir_fd, path) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(dir_fd, temporary, 0);
        return error_system(err, -r, "cannot write %s", path);
    }
    return 0;
}
