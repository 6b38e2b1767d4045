/* Files and block devices of the host, as the protocol that all paths mean. */
#include "storage/file.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/format.h"
#include "storage/vec.h"

#define ZEROES_LENGTH (64 * 1024)

struct file {
    int fd;
    bool device;        /* a block device: its size is fixed */
    bool no_flush;      /* as the opener said */
    bool no_punch;      /* the file system cannot make holes */
    bool no_zero_range; /* nor zero a range that stays allocated */
    bool no_holes;      /* lseek knows nothing about holes */
};

/* --- Locks --- */

/* QEMU's scheme (block/file-posix there, documented with its image locking):
 * a byte each for what an opener does, at 100 and up, and a byte each for what
 * it does not bear others doing, at 200 and up. All are shared locks; that a byte
 * is locked by others is found by asking for an exclusive one. */
enum { LOCK_DOES = 100, LOCK_REFUSES = 200 };
enum { LOCK_TRIES = 20, LOCK_PAUSE_US = 50000 };
enum { PERMISSION_READ, PERMISSION_WRITE, PERMISSION_WRITE_UNCHANGED, PERMISSION_RESIZE };

static int set_lock(int fd, int command, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    if (fcntl(fd, command, &lock) < 0)
        return -errno;
    return command == F_OFD_GETLK && lock.l_type != F_UNLCK ? -EAGAIN : 0;
}

static int try_lock(int fd, bool writable)
{
    const int write_bits[] = {PERMISSION_WRITE, PERMISSION_RESIZE};
    int r = set_lock(fd, F_OFD_SETLK, F_RDLCK, LOCK_DOES + PERMISSION_READ);

    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(write_bits); i++) {
        if (writable)
            r = set_lock(fd, F_OFD_SETLK, F_RDLCK, LOCK_DOES + write_bits[i]);
        if (r == 0)
            r = set_lock(fd, F_OFD_SETLK, F_RDLCK, LOCK_REFUSES + write_bits[i]);
    }
    /* Ours are taken; now see whether others collide with them. */
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(write_bits); i++) {
        r = set_lock(fd, F_OFD_GETLK, F_WRLCK, LOCK_DOES + write_bits[i]);
        if (r == 0 && writable)
            r = set_lock(fd, F_OFD_GETLK, F_WRLCK, LOCK_REFUSES + write_bits[i]);
    }
    if (r == 0)
        r = set_lock(fd, F_OFD_GETLK, F_WRLCK, LOCK_REFUSES + PERMISSION_READ);
    return r == -EACCES ? -EAGAIN : r;
}

/* A program that was killed holds its locks until the kernel has ended its requests (io_uring),
 * a little after the program: those are waited for. */
static int lock_file(int fd, bool writable, const char *path, struct error *err)
{
    int r = try_lock(fd, writable);

    for (unsigned i = 0; r == -EAGAIN && i < LOCK_TRIES; i++) {
        struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

        fcntl(fd, F_OFD_SETLK, &all); /* two that wait do not keep each other out */
        usleep(LOCK_PAUSE_US);
        r = try_lock(fd, writable);
    }
    if (r == -EAGAIN)
        return error_set(err, EBUSY, "%s is in use by another program%s", path,
                         writable ? "" : ", which writes to it");
    if (r == -EINVAL || r == -ENOLCK || r == -EOPNOTSUPP)
        return 0; /* the file system has no locks */
    return r < 0 ? error_system(err, -r, "cannot lock %s", path) : 0;
}

/* --- Opening --- */

static int find_size(int fd, const char *path, uint64_t *ret_size, bool *ret_device,
                     struct error *err)
{
    struct stat st;
    uint64_t size;

    if (fstat(fd, &st) < 0)
        return error_system(err, errno, "cannot look at %s", path);
    if (S_ISREG(st.st_mode)) {
        *ret_size = (uint64_t)st.st_size;
        *ret_device = false;
        return 0;
    }
    if (!S_ISBLK(st.st_mode))
        return error_set(err, EINVAL, "%s is neither a file nor a block device", path);
    if (ioctl(fd, BLKGETSIZE64, &size) < 0)
        return error_system(err, errno, "cannot find the size of %s", path);
    *ret_size = size;
    *ret_device = true;
    return 0;
}

static int file_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    /* O_NONBLOCK: a FIFO is to be refused, not waited for. */
    AUTO_CLOSE int fd =
        open(disk->path, (disk->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    AUTO_FREE struct file *file = calloc(1, sizeof(*file));
    int r;

    if (!file)
        return error_set(err, ENOMEM, "out of memory for a file");
    if (fd < 0)
        return error_system(err, errno, "cannot open %s%s", disk->path,
                            disk->writable ? " for writing" : "");
    r = find_size(fd, disk->path, &disk->size, &file->device, err);
    if (r == 0 && !options->no_lock)
        r = lock_file(fd, disk->writable, disk->path, err);
    if (r == 0 && !options->no_lock) /* it may have grown before the lock was ours */
        r = find_size(fd, disk->path, &disk->size, &file->device, err);
    if (r < 0)
        return r;
    file->no_flush = options->no_flush;
    file->fd = steal_fd(&fd);
    disk->state = steal_pointer(&file);
    return 0;
}

static int file_close(struct disk *disk, struct error *err)
{
    struct file *file = disk->state;
    int r = close(file->fd) < 0 ? -errno : 0;

    free(file);
    return r < 0 ? error_system(err, -r, "cannot write all of %s", disk->path) : 0;
}

int file_make(const char *path, bool overwrite, bool *ret_made, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    struct stat st;

    if (stat(path, &st) == 0) {
        if (!overwrite && !S_ISBLK(st.st_mode))
            return error_set(err, EEXIST, "%s exists already; --force overwrites it", path);
        return 0;
    }
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_system(err, errno, "cannot make %s", path);
    *ret_made = true;
    return 0;
}

uint64_t file_allocated(const struct disk *disk)
{
    const struct file *file = disk->format == &file_protocol ? disk->state : NULL;
    struct stat st;

    return file && fstat(file->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* --- Requests --- */

static int file_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                     uint64_t length)
{
    const struct file *file = disk->state;
    struct iovec pieces[VEC_PIECES];
    size_t done = 0;

    if (count <= VEC_PIECES) { /* as it mostly goes: in one call */
        int n = io_read(disk->storage, file->fd, iov, count, offset);

        if (n < 0 && n != -EINTR && n != -EAGAIN)
            return n;
        if (n > 0)
            done = (size_t)n;
    }
    while (done < length) {
        unsigned n_pieces;
        int n;

        vec_cut(iov, count, done, length - done, pieces, &n_pieces);
        n = io_read(disk->storage, file->fd, pieces, n_pieces, offset + done);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n < 0)
            return n;
        if (n == 0) { /* beyond the end there are zeroes */
            vec_fill(iov, count, done, 0, length - done);
            break;
        }
        done += (size_t)n;
    }
    return 0;
}

static int file_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                      uint64_t length)
{
    const struct file *file = disk->state;
    struct iovec pieces[VEC_PIECES];
    size_t done = 0;

    if (count <= VEC_PIECES) {
        int n = io_write(disk->storage, file->fd, iov, count, offset);

        if (n < 0 && n != -EINTR && n != -EAGAIN)
            return n;
        if (n > 0)
            done = (size_t)n;
    }
    while (done < length) {
        unsigned n_pieces;
        int n;

        vec_cut(iov, count, done, length - done, pieces, &n_pieces);
        n = io_write(disk->storage, file->fd, pieces, n_pieces, offset + done);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0)
            return n < 0 ? n : -ENOSPC;
        done += (size_t)n;
    }
    disk->size = MAX(disk->size, offset + length);
    return 0;
}

static int file_flush(struct disk *disk)
{
    const struct file *file = disk->state;

    return file->no_flush ? 0 : io_sync(disk->storage, file->fd);
}

static bool not_supported(int r)
{
    return r == -EOPNOTSUPP || r == -ENOSYS || r == -EINVAL || r == -ENODEV;
}

static int punch(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct file *file = disk->state;
    int r = file->no_punch
                ? -EOPNOTSUPP
                : io_allocate(disk->storage, file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              offset, length);

    if (not_supported(r)) {
        file->no_punch = !file->device; /* a device refuses ranges that are not aligned */
        return -EOPNOTSUPP;
    }
    return r;
}

static int file_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    int r = punch(disk, offset, length);

    return r == -EOPNOTSUPP ? 0 : r;
}

static int write_zeroes(struct disk *disk, uint64_t offset, uint64_t length)
{
    static const uint8_t zeroes[ZEROES_LENGTH];

    while (length) {
        const struct iovec iov = {(void *)zeroes, MIN(length, ZEROES_LENGTH)};
        int r = file_write(disk, offset, &iov, 1, iov.iov_len);

        if (r < 0)
            return r;
        offset += iov.iov_len;
        length -= iov.iov_len;
    }
    return 0;
}

static int file_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct file *file = disk->state;
    int r = -EOPNOTSUPP;

    if ((flags & DISK_MAY_UNMAP) && (offset + length <= disk->size || !file->device)) {
        r = punch(disk, offset, length);
        if (r == 0 && offset + length > disk->size) {
            if (ftruncate(file->fd, (off_t)(offset + length)) < 0)
                return -errno;
        }
    }
    if (r == -EOPNOTSUPP && !file->no_zero_range) {
        r = io_allocate(disk->storage, file->fd, FALLOC_FL_ZERO_RANGE, offset, length);
        if (not_supported(r)) {
            file->no_zero_range = !file->device;
            r = -EOPNOTSUPP;
        }
    }
    if (r == -EOPNOTSUPP)
        return write_zeroes(disk, offset, length);
    if (r == 0)
        disk->size = MAX(disk->size, offset + length);
    return r;
}

static int file_resize(struct disk *disk, uint64_t size, struct error *err)
{
    const struct file *file = disk->state;

    if (file->device)
        return size <= disk->size
                   ? 0
                   : error_set(err, ENOSPC, "%s: a block device cannot grow", disk->path);
    if (ftruncate(file->fd, (off_t)size) < 0)
        return error_system(err, errno, "cannot set the size of %s", disk->path);
    disk->size = size;
    return 0;
}

static int file_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    struct file *file = disk->state;
    uint64_t end = disk->size;
    off_t data = -1, hole;

    *ret_extent = (struct disk_extent){
        .present = true, .data = true, .has_host_offset = true, .host_offset = offset};
    if (!file->no_holes) {
        data = lseek(file->fd, (off_t)offset, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            file->no_holes = true;
    }
    if (file->no_holes) {
        ret_extent->length = end - offset;
        return 0;
    }
    if (data != (off_t)offset) { /* a hole, up to the next data or the end */
        ret_extent->length = (data < 0 ? end : MIN((uint64_t)data, end)) - offset;
        ret_extent->data = false;
        ret_extent->zero = true;
        return 0;
    }
    hole = lseek(file->fd, (off_t)offset, SEEK_HOLE);
    ret_extent->length = (hole < 0 ? end : MIN((uint64_t)hole, end)) - offset;
    return 0;
}

const struct disk_format file_protocol = {
    .name = "file",
    .url = "",
    .summary = "a file or a block device of the host",
    .open = file_open,
    .close = file_close,
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .discard = file_discard,
    .write_zeroes = file_write_zeroes,
    .resize = file_resize,
    .map = file_map,
};
