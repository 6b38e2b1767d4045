#include "machine/loader/boot_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"

#define FILE_MAX (4ull << 30)

int boot_file_open(const char *what, const char *path, uint64_t memory,
                   struct boot_file *ret_file, struct error *err)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE char *copy = strdup(path);
    char want[32], have[32];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_system(err, errno, "cannot open the %s %s", what, path);
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    if (!S_ISREG(st.st_mode))
        return error_set(err, S_ISDIR(st.st_mode) ? EISDIR : ENOTSUP,
                         "the %s %s is %s; give a regular file", what, path,
                         S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
    if (st.st_size == 0)
        return error_set(err, ENOEXEC, "the %s %s is empty", what, path);
    if ((uint64_t)st.st_size > MIN(memory, FILE_MAX))
        return error_set(err, EINVAL,
                         "the %s %s (%s) does not fit into %s of memory; give more with --memory",
                         what, path, size_format((uint64_t)st.st_size, want, sizeof(want)),
                         size_format(MIN(memory, FILE_MAX), have, sizeof(have)));
    *ret_file = (struct boot_file){.path = steal_pointer(&copy), .fd = steal_fd(&fd),
                                   .size = (uint64_t)st.st_size};
    return 0;
}

void boot_file_close(struct boot_file *file)
{
    if (file->path)
        close(file->fd);
    free(file->path);
    *file = (struct boot_file){0};
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *to, size_t size,
                   struct error *err)
{
    size_t done = 0;

    if (offset > file->size || size > file->size - offset)
        return error_set(err, ENOEXEC, "%s is truncated: it has %llu bytes", file->path,
                         (unsigned long long)file->size);
    while (done < size) {
        ssize_t n = pread(file->fd, (char *)to + done, size - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot read %s", file->path);
        if (n == 0)
            return error_set(err, EIO, "%s became shorter while it was read", file->path);
        done += (size_t)n;
    }
    return 0;
}
