#include "guest/initramfs.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct initramfs {
    FILE *out;
    unsigned inode; /* each entry is a file of its own */
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

/* All are root's, and of no device. */
static void put_header(struct initramfs *i, const char *name, unsigned mode, size_t size)
{
    size_t length = strlen(name) + 1;

    fprintf(i->out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++i->inode, mode,
            0u, 0u, 1u, 0u, (unsigned)size, 0u, 0u, 0u, 0u, (unsigned)length, 0u);
    fwrite(name, 1, length, i->out);
    pad(i, 110 + length);
}

int initramfs_add(struct initramfs *initramfs, const char *name, unsigned mode, const void *data,
                  size_t length, struct error *err)
{
    put_header(initramfs, name, mode, length);
    if (length)
        fwrite(data, 1, length, initramfs->out);
    pad(initramfs, length);
    return ferror(initramfs->out) ? error_system(err, errno, "cannot write the initial RAM disk")
                                  : 0;
}

int initramfs_finish(struct initramfs *initramfs, struct error *err)
{
    put_header(initramfs, "TRAILER!!!", 0, 0);
    if (fflush(initramfs->out) != 0 || ferror(initramfs->out))
        return error_system(err, errno ? errno : EIO, "cannot write the initial RAM disk");
    return 0;
}
