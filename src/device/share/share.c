#include "device/share/share.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/directories.h"
#include "device/share/fid.h"
#include "device/share/message.h"

#define VERSION       "9P2000.L"
#define MESSAGE_MIN   4096u
#define HEADER_SIZE   7u  /* size[4] type[1] tag[2] */
#define IO_OVERHEAD   24u /* of reads and writes, generously */
#define WALK_MAX      16u
#define PERMISSIONS   01777 /* no set-user-ID or set-group-ID files come from a guest */
#define FD_NAME_SIZE  16

/* Message types (include/net/9p/9p.h names them, too); a reply's is one more. */
enum message_type {
    LERROR = 6, STATFS = 8, LOPEN = 12, LCREATE = 14, SYMLINK = 16, READLINK = 22, GETATTR = 24,
    SETATTR = 26, READDIR = 40, FSYNC = 50, LOCK = 52, GETLOCK = 54, LINK = 70, MKDIR = 72,
    RENAMEAT = 74, UNLINKAT = 76, VERSION_ = 100, ATTACH = 104, FLUSH = 108, WALK = 110,
    READ = 116, WRITE = 118, CLUNK = 120, REMOVE = 122,
};

enum { QID_DIRECTORY = 0x80, QID_SYMLINK = 0x02, QID_FILE = 0 };

/* What a Tsetattr sets. */
enum {
    SET_MODE = 1 << 0, SET_UID = 1 << 1, SET_GID = 1 << 2, SET_SIZE = 1 << 3, SET_ATIME = 1 << 4,
    SET_MTIME = 1 << 5, SET_ATIME_GIVEN = 1 << 7, SET_MTIME_GIVEN = 1 << 8,
};
#define GETATTR_BASIC 0x7ffull

enum { LOCK_SUCCESS = 0, LOCK_TYPE_UNLOCKED = 2 };

struct share {
    int root;
    int descriptors; /* /proc/self/fd, held open: there may be no /proc later */
    bool readonly;
    uint32_t message_max; /* as agreed on */
    struct fid_table fids;
};

/* A request being carried out. */
struct call {
    struct share *share;
    struct reader in;
    struct writer out;
};

static struct fid *read_fid(struct call *call)
{
    return fid_find(&call->share->fids, read_u32(&call->in));
}

/* --- Files --- */

/* The handle's name below share->descriptors, by which calls that take no
 * handle reach its file. */
static const char *fd_name(int fd, char name[FD_NAME_SIZE])
{
    snprintf(name, FD_NAME_SIZE, "%d", fd);
    return name;
}

/* Open what the handle is. */
static int reopen(const struct share *share, int fd, int flags)
{
    char name[FD_NAME_SIZE];
    int file = openat(share->descriptors, fd_name(fd, name), flags | O_CLOEXEC);

    return file < 0 ? -errno : file;
}

/* A handle of name in the directory; the name is one component. */
static int open_child(int directory, const char *name)
{
    const struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, directory, name, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

static bool may_open(mode_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode);
}

static void write_qid(struct writer *out, mode_t mode, uint64_t inode)
{
    write_u8(out, S_ISDIR(mode) ? QID_DIRECTORY : S_ISLNK(mode) ? QID_SYMLINK : QID_FILE);
    write_u32(out, 0);
    write_u64(out, inode);
}

static int write_qid_of(struct writer *out, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    write_qid(out, st.st_mode, st.st_ino);
    return 0;
}

static int write_qid_of_child(struct writer *out, int directory, const char *name)
{
    struct stat st;

    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    write_qid(out, st.st_mode, st.st_ino);
    return 0;
}

static bool wants_write(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

/* The flags of a guest's open that mean something here. */
static int host_flags(uint32_t flags)
{
    return (int)(flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)) | O_CLOEXEC | O_NOCTTY |
           O_NONBLOCK;
}

/* How much a read or write moves at most. */
static uint32_t io_unit(const struct share *share)
{
    return share->message_max - IO_OVERHEAD;
}

/* --- Requests: 0, or a negative errno --- */

static int do_version(struct call *call)
{
    uint32_t wanted = read_u32(&call->in);
    char version[32];

    read_text(&call->in, version, sizeof(version));
    if (call->in.bad || wanted < MESSAGE_MIN)
        return -EINVAL;
    share_reset(call->share);
    call->share->message_max = MIN(wanted, SHARE_MESSAGE_MAX);
    write_u32(&call->out, call->share->message_max);
    write_text(&call->out, strcmp(version, VERSION) == 0 ? VERSION : "unknown");
    return 0;
}

static int do_attach(struct call *call)
{
    uint32_t number = read_u32(&call->in);
    char text[PATH_MAX];
    uid_t user;
    int path, r;

    read_u32(&call->in); /* afid: nobody is asked for a password */
    read_text(&call->in, text, sizeof(text)); /* uname */
    read_text(&call->in, text, sizeof(text)); /* aname */
    user = read_u32(&call->in);
    if (call->in.bad)
        return -EINVAL;
    path = fcntl(call->share->root, F_DUPFD_CLOEXEC, 0);
    if (path < 0)
        return -errno;
    r = write_qid_of(&call->out, path);
    if (r < 0) {
        close(path);
        return r;
    }
    return fid_add(&call->share->fids, number, path, user);
}

static int do_walk(struct call *call)
{
    struct fid *fid = read_fid(call), *old;
    uint32_t number = read_u32(&call->in);
    unsigned count = read_u16(&call->in), done = 0;
    AUTO_CLOSE int at = -1;
    uint8_t *count_at;
    uid_t user;
    int r = 0;

    if (!fid)
        return -EBADF;
    user = fid->user;
    if (count > WALK_MAX || call->in.bad)
        return -EINVAL;
    at = fcntl(fid->path, F_DUPFD_CLOEXEC, 0);
    if (at < 0)
        return -errno;
    count_at = write_space(&call->out, 2);
    while (done < count && count_at) {
        char name[NAME_MAX + 1];
        int next;

        read_name(&call->in, name);
        next = call->in.bad ? -ENOENT : open_child(at, name);
        if (next < 0) {
            r = next;
            break;
        }
        close(at);
        at = next;
        r = write_qid_of(&call->out, at);
        if (r < 0)
            break;
        done++;
    }
    if (!count_at || (done < count && done == 0))
        return r < 0 ? r : -EINVAL;
    store_le16(count_at, (uint16_t)done);
    if (done < count)
        return 0; /* as far as it went; no fid comes of it */
    old = number == fid->number ? fid : NULL;
    if (old)
        fid_drop(&call->share->fids, old);
    return fid_add(&call->share->fids, number, steal_fd(&at), user);
}

static int do_clunk(struct call *call)
{
    struct fid *fid = read_fid(call);

    if (!fid)
        return -EBADF;
    fid_drop(&call->share->fids, fid);
    return 0;
}

/* By fid alone: Linux removes by directory and name. The fid goes all the same. */
static int do_remove(struct call *call)
{
    int r = do_clunk(call);

    return r < 0 ? r : -EOPNOTSUPP;
}

static int do_lopen(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint32_t flags = read_u32(&call->in);
    struct stat st;
    int file;

    if (!fid || fid->file >= 0)
        return -EBADF;
    if (call->share->readonly && wants_write(flags))
        return -EROFS;
    if (fstat(fid->path, &st) < 0)
        return -errno;
    if (!may_open(st.st_mode))
        return S_ISLNK(st.st_mode) ? -ELOOP : -EACCES;
    file = reopen(call->share, fid->path, host_flags(flags));
    if (file < 0)
        return file;
    fid->file = file;
    write_qid(&call->out, st.st_mode, st.st_ino);
    write_u32(&call->out, io_unit(call->share));
    return 0;
}

/* What was just made belongs to the guest's user who made it, where this process may give files
 * away; else to this process's. NULL name: the file itself. */
static void give(int fd, const char *name, uid_t user, gid_t group)
{
    if (fchownat(fd, name ? name : "", user, group,
                 AT_SYMLINK_NOFOLLOW | (name ? 0 : AT_EMPTY_PATH)) < 0)
        return;
}

/* The fid, a directory's, becomes the new file's. */
static int do_lcreate(struct call *call)
{
    struct fid *fid = read_fid(call);
    char name[NAME_MAX + 1];
    uint32_t flags, mode;
    gid_t group;
    bool made;
    AUTO_CLOSE int file = -1;
    struct stat st;
    int path;

    read_name(&call->in, name);
    flags = read_u32(&call->in);
    mode = read_u32(&call->in);
    group = read_u32(&call->in);
    if (!fid || fid->file >= 0)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    file = openat(fid->path, name, host_flags(flags) | O_EXCL | O_CREAT | O_NOFOLLOW,
                  mode & PERMISSIONS);
    made = file >= 0;
    if (!made && errno == EEXIST && !(flags & O_EXCL))
        file = openat(fid->path, name, host_flags(flags) | O_NOFOLLOW);
    if (file < 0)
        return -errno;
    if (made)
        give(file, NULL, fid->user, group);
    if (fstat(file, &st) < 0 || !S_ISREG(st.st_mode))
        return -EACCES;
    path = open_child(fid->path, name);
    if (path < 0)
        return path;
    close(fid->path);
    fid->path = path;
    fid->file = steal_fd(&file);
    write_qid(&call->out, st.st_mode, st.st_ino);
    write_u32(&call->out, io_unit(call->share));
    return 0;
}

static int do_read(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint64_t offset = read_u64(&call->in);
    uint32_t count = read_u32(&call->in);
    uint8_t *length_at, *data;
    ssize_t n;

    if (!fid || fid->file < 0)
        return -EBADF;
    length_at = write_space(&call->out, 4);
    if (!length_at || call->in.bad || offset > INT64_MAX)
        return -EINVAL;
    count = (uint32_t)MIN(count, call->out.room - call->out.used);
    data = call->out.start + call->out.used;
    n = pread(fid->file, data, count, (off_t)offset);
    if (n < 0)
        return -errno;
    store_le32(length_at, (uint32_t)n);
    write_space(&call->out, (size_t)n);
    return 0;
}

static int do_write(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint64_t offset = read_u64(&call->in);
    uint32_t count = read_u32(&call->in);
    const uint8_t *data = read_bytes(&call->in, count);
    ssize_t n;

    if (!fid || fid->file < 0)
        return -EBADF;
    if (!data || offset > INT64_MAX)
        return -EINVAL;
    n = pwrite(fid->file, data, count, (off_t)offset);
    if (n < 0)
        return -errno;
    write_u32(&call->out, (uint32_t)n);
    return 0;
}

static int do_readdir(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint64_t offset = read_u64(&call->in);
    uint32_t count = read_u32(&call->in);
    uint8_t *length_at = write_space(&call->out, 4), buffer[4096];
    size_t start = call->out.used;
    long n;

    if (!fid || fid->file < 0)
        return -EBADF;
    if (!length_at || call->in.bad || lseek(fid->file, (off_t)offset, SEEK_SET) < 0)
        return -EINVAL;
    call->out.room = MIN(call->out.room, start + count);
    while ((n = syscall(SYS_getdents64, fid->file, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            const struct dirent64 *entry = (const struct dirent64 *)(void *)(buffer + at);
            size_t before = call->out.used;

            write_qid(&call->out, DTTOIF(entry->d_type), entry->d_ino);
            write_u64(&call->out, (uint64_t)entry->d_off);
            write_u8(&call->out, entry->d_type);
            write_text(&call->out, entry->d_name);
            if (call->out.full) { /* the guest comes back from the last that fits */
                call->out.full = false;
                call->out.used = before;
                goto full;
            }
            at += entry->d_reclen;
        }
    }
    if (n < 0)
        return -errno;
full:
    store_le32(length_at, (uint32_t)(call->out.used - start));
    return 0;
}

static int do_getattr(struct call *call)
{
    struct fid *fid = read_fid(call);
    struct writer *out = &call->out;
    struct stat st;

    if (!fid)
        return -EBADF;
    if (fstat(fid->path, &st) < 0)
        return -errno;
    write_u64(out, GETATTR_BASIC);
    write_qid(out, st.st_mode, st.st_ino);
    write_u32(out, st.st_mode);
    write_u32(out, st.st_uid);
    write_u32(out, st.st_gid);
    write_u64(out, st.st_nlink);
    write_u64(out, st.st_rdev);
    write_u64(out, (uint64_t)st.st_size);
    write_u64(out, (uint64_t)st.st_blksize);
    write_u64(out, (uint64_t)st.st_blocks);
    write_u64(out, (uint64_t)st.st_atim.tv_sec);
    write_u64(out, (uint64_t)st.st_atim.tv_nsec);
    write_u64(out, (uint64_t)st.st_mtim.tv_sec);
    write_u64(out, (uint64_t)st.st_mtim.tv_nsec);
    write_u64(out, (uint64_t)st.st_ctim.tv_sec);
    write_u64(out, (uint64_t)st.st_ctim.tv_nsec);
    for (unsigned i = 0; i < 4; i++) /* birth time, generation, data version: not known */
        write_u64(out, 0);
    return 0;
}

static struct timespec read_time(struct reader *in, uint32_t valid, uint32_t set, uint32_t given)
{
    struct timespec time = {.tv_sec = (time_t)read_u64(in), .tv_nsec = (long)read_u64(in)};

    if (!(valid & set))
        time.tv_nsec = UTIME_OMIT;
    else if (!(valid & given))
        time.tv_nsec = UTIME_NOW;
    else if (time.tv_nsec < 0 || time.tv_nsec > 999999999)
        time.tv_nsec = 0;
    return time;
}

static int set_size(const struct share *share, const struct fid *fid, off_t size)
{
    AUTO_CLOSE int file = -1;
    struct stat st;

    if (fstat(fid->path, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    file = reopen(share, fid->path, O_WRONLY);
    return file < 0 ? file : ftruncate(file, size) < 0 ? -errno : 0;
}

static int do_setattr(struct call *call)
{
    struct fid *fid = read_fid(call);
    struct reader *in = &call->in;
    uint32_t valid = read_u32(in), mode = read_u32(in);
    uid_t uid = read_u32(in);
    gid_t gid = read_u32(in);
    uint64_t size = read_u64(in);
    struct timespec times[2];
    char name[FD_NAME_SIZE];

    times[0] = read_time(in, valid, SET_ATIME, SET_ATIME_GIVEN);
    times[1] = read_time(in, valid, SET_MTIME, SET_MTIME_GIVEN);
    if (!fid)
        return -EBADF;
    if (in->bad || size > INT64_MAX)
        return -EINVAL;
    if ((valid & SET_MODE) && fchmodat(call->share->descriptors, fd_name(fid->path, name),
                                       mode & PERMISSIONS, 0) < 0)
        return -errno;
    /* Without the right to give files away, they stay this user's. */
    if ((valid & (SET_UID | SET_GID)) &&
        fchownat(fid->path, "", valid & SET_UID ? uid : (uid_t)-1,
                 valid & SET_GID ? gid : (gid_t)-1, AT_EMPTY_PATH) < 0 &&
        errno != EPERM)
        return -errno;
    if (valid & SET_SIZE) {
        int r = set_size(call->share, fid, (off_t)size);

        if (r < 0)
            return r;
    }
    if ((valid & (SET_ATIME | SET_MTIME)) && utimensat(fid->path, "", times, AT_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

static int do_readlink(struct call *call)
{
    struct fid *fid = read_fid(call);
    char target[PATH_MAX];
    ssize_t n;

    if (!fid)
        return -EBADF;
    n = readlinkat(fid->path, "", target, sizeof(target) - 1);
    if (n < 0)
        return -errno;
    target[n] = 0;
    write_text(&call->out, target);
    return 0;
}

static int do_symlink(struct call *call)
{
    struct fid *fid = read_fid(call);
    char name[NAME_MAX + 1], target[PATH_MAX];
    gid_t group;

    read_name(&call->in, name);
    read_text(&call->in, target, sizeof(target));
    group = read_u32(&call->in);
    if (!fid)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    if (symlinkat(target, fid->path, name) < 0)
        return -errno;
    give(fid->path, name, fid->user, group);
    return write_qid_of_child(&call->out, fid->path, name);
}

static int do_mkdir(struct call *call)
{
    struct fid *fid = read_fid(call);
    char name[NAME_MAX + 1];
    uint32_t mode;
    gid_t group;

    read_name(&call->in, name);
    mode = read_u32(&call->in);
    group = read_u32(&call->in);
    if (!fid)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    if (mkdirat(fid->path, name, mode & PERMISSIONS) < 0)
        return -errno;
    give(fid->path, name, fid->user, group);
    return write_qid_of_child(&call->out, fid->path, name);
}

static int do_link(struct call *call)
{
    struct fid *directory = read_fid(call), *fid = read_fid(call);
    char name[NAME_MAX + 1], from[FD_NAME_SIZE];

    read_name(&call->in, name);
    if (!directory || !fid)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    return linkat(call->share->descriptors, fd_name(fid->path, from), directory->path, name,
                  AT_SYMLINK_FOLLOW) < 0
               ? -errno
               : 0;
}

static int do_renameat(struct call *call)
{
    char from_name[NAME_MAX + 1], to_name[NAME_MAX + 1];
    struct fid *from = read_fid(call), *to;

    read_name(&call->in, from_name);
    to = read_fid(call);
    read_name(&call->in, to_name);
    if (!from || !to)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    return renameat(from->path, from_name, to->path, to_name) < 0 ? -errno : 0;
}

static int do_unlinkat(struct call *call)
{
    struct fid *fid = read_fid(call);
    char name[NAME_MAX + 1];
    uint32_t flags;

    read_name(&call->in, name);
    flags = read_u32(&call->in);
    if (!fid)
        return -EBADF;
    if (call->in.bad)
        return -EINVAL;
    return unlinkat(fid->path, name, flags & AT_REMOVEDIR ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

static int do_statfs(struct call *call)
{
    struct fid *fid = read_fid(call);
    struct writer *out = &call->out;
    struct statfs fs;

    if (!fid)
        return -EBADF;
    if (fstatfs(fid->path, &fs) < 0)
        return -errno;
    write_u32(out, (uint32_t)fs.f_type);
    write_u32(out, (uint32_t)fs.f_bsize);
    write_u64(out, fs.f_blocks);
    write_u64(out, fs.f_bfree);
    write_u64(out, fs.f_bavail);
    write_u64(out, fs.f_files);
    write_u64(out, fs.f_ffree);
    write_u64(out, 0); /* the file system's number */
    write_u32(out, (uint32_t)fs.f_namelen);
    return 0;
}

static int do_fsync(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint32_t data_only = read_u32(&call->in);

    if (!fid || fid->file < 0)
        return -EBADF;
    return (data_only ? fdatasync(fid->file) : fsync(fid->file)) < 0 ? -errno : 0;
}

/* Locks hold within the guest, which keeps them itself. */
static int do_lock(struct call *call)
{
    if (!read_fid(call))
        return -EBADF;
    write_u8(&call->out, LOCK_SUCCESS);
    return 0;
}

static int do_getlock(struct call *call)
{
    struct fid *fid = read_fid(call);
    uint64_t start, length;
    uint32_t process;
    char client[256];

    read_u8(&call->in);
    start = read_u64(&call->in);
    length = read_u64(&call->in);
    process = read_u32(&call->in);
    read_text(&call->in, client, sizeof(client));
    if (!fid)
        return -EBADF;
    write_u8(&call->out, LOCK_TYPE_UNLOCKED);
    write_u64(&call->out, start);
    write_u64(&call->out, length);
    write_u32(&call->out, process);
    write_text(&call->out, client);
    return 0;
}

/* Requests are carried out one after another: what is to be flushed is done. */
static int do_flush(struct call *call)
{
    (void)call;
    return 0;
}

static const struct request {
    int (*run)(struct call *call);
    bool changes; /* refused on a read-only share */
} requests[UINT8_MAX + 1] = {
    [VERSION_] = {do_version}, [ATTACH] = {do_attach},   [FLUSH] = {do_flush},
    [WALK] = {do_walk},        [CLUNK] = {do_clunk},     [LOPEN] = {do_lopen},
    [READ] = {do_read},        [READDIR] = {do_readdir}, [GETATTR] = {do_getattr},
    [READLINK] = {do_readlink}, [STATFS] = {do_statfs},  [FSYNC] = {do_fsync},
    [LOCK] = {do_lock},        [GETLOCK] = {do_getlock}, [REMOVE] = {do_remove},
    [LCREATE] = {do_lcreate, true}, [WRITE] = {do_write, true},
    [SETATTR] = {do_setattr, true}, [SYMLINK] = {do_symlink, true},
    [MKDIR] = {do_mkdir, true},     [LINK] = {do_link, true},
    [RENAMEAT] = {do_renameat, true}, [UNLINKAT] = {do_unlinkat, true},
};

static int run(struct call *call, uint8_t type)
{
    const struct request *request = &requests[type];
    int r;

    if (!request->run)
        return -EOPNOTSUPP;
    if (request->changes && call->share->readonly)
        return -EROFS;
    r = request->run(call);
    if (r == 0 && call->in.bad)
        return -EINVAL;
    return r == 0 && call->out.full ? -EMSGSIZE : r;
}

size_t share_serve(struct share *share, const uint8_t *request, size_t length, uint8_t *reply,
                   size_t room)
{
    struct call call = {.share = share, .in = {request, length, false}};
    uint32_t size = read_u32(&call.in);
    uint8_t type = read_u8(&call.in);
    uint16_t tag = read_u16(&call.in);
    int r;

    if (room < HEADER_SIZE + 4)
        return 0;
    call.out = (struct writer){reply, HEADER_SIZE, MIN(room, share->message_max), false};
    r = call.in.bad || size != length ? -EINVAL : run(&call, type);
    if (r < 0) {
        call.out = (struct writer){reply, HEADER_SIZE, room, false};
        write_u32(&call.out, (uint32_t)-r);
        type = LERROR;
    }
    store_le32(reply, (uint32_t)call.out.used);
    reply[4] = (uint8_t)(type + 1);
    store_le16(reply + 5, tag);
    return call.out.used;
}

int share_open(const char *folder, bool readonly, struct share **ret_share, struct error *err)
{
    AUTO_CLOSE int root = directory_open_alone(folder, readonly);
    AUTO_CLOSE int descriptors = -1;
    struct share *share;

    if (root < 0)
        return error_system(err, errno, "cannot share %s", folder);
    descriptors = directory_open_alone("/proc/self/fd", false);
    if (descriptors < 0)
        return error_system(err, errno, "cannot share %s without /proc/self/fd", folder);
    share = calloc(1, sizeof(*share));
    if (!share)
        return error_set(err, ENOMEM, "out of memory");
    share->root = steal_fd(&root);
    share->descriptors = steal_fd(&descriptors);
    share->readonly = readonly;
    share->message_max = SHARE_MESSAGE_MAX;
    *ret_share = share;
    return 0;
}

void share_reset(struct share *share)
{
    fid_drop_all(&share->fids);
}

void share_close(struct share *share)
{
    if (!share)
        return;
    share_reset(share);
    close(share->root);
    close(share->descriptors);
    free(share);
}
