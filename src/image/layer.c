#include "image/layer.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/privilege.h"
#include "image/expand.h"
#include "image/library.h"
#include "image/manifest.h"
#include "image/tree.h"

#define WHITEOUT     ".wh."         /* layer.md, Whiteouts */
#define WHITEOUT_OWN ".wh..wh."     /* AUFS's own files: no content */
#define OPAQUE       ".wh..wh..opq" /* layer.md, Opaque Whiteout */

enum { COMPONENTS_MAX = 255 };

/* A directory whose mode and time are set when all is in it. */
struct late_directory {
    char *path;
    mode_t mode;
    struct timespec time;
};

struct unpacking {
    int root_fd;
    bool privileged; /* root of the host */
    bool owners;     /* root, if only of a user namespace: ids that are mapped there can be given */
    uint64_t expanded, limit; /* bytes of files, holes counted in */
    /* The directory that the last entry was put into. */
    int parent_fd;
    char parent[PATH_MAX];
    struct late_directory *late;
    size_t late_count, late_room;
};

/* The entry at hand. */
struct place {
    int parent_fd;
    const char *name; /* one component; "." for the root */
};

/* --- Paths --- */

/* Copy name without "/" at its ends, doubled "/" and "." components. */
static int normalize(const char *name, char *path, struct error *err)
{
    size_t length = 0, components = 0;

    while (*(name += strspn(name, "/"))) {
        size_t n = strcspn(name, "/");

        if (n == 2 && !strncmp(name, "..", 2))
            return error_set(err, EINVAL, "a name with '..' may lead out of the root");
        if (n > NAME_MAX || length + n + 2 > PATH_MAX || ++components > COMPONENTS_MAX)
            return error_set(err, ENAMETOOLONG, "the name is too long or too deep");
        if (n != 1 || *name != '.') {
            if (length)
                path[length++] = '/';
            memcpy(path + length, name, n);
            length += n;
        }
        name += n;
    }
    path[length] = 0;
    return 0;
}

static int open_in_root(int root_fd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, root_fd, path[0] ? path : ".", &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

/* Open the directory path; what is missing on the way is made. */
static int open_directory(struct unpacking *u, const char *path, struct error *err)
{
    AUTO_CLOSE int fd = open_in_root(u->root_fd, path, O_RDONLY | O_DIRECTORY);
    char above[PATH_MAX];
    char *slash;

    if (fd >= 0)
        return steal_fd(&fd);
    if (fd != -ENOENT)
        return error_system(err, -fd, "cannot open the directory %s", path);
    strcpy(above, path);
    slash = strrchr(above, '/');
    if (slash)
        *slash = 0;
    fd = slash ? open_directory(u, above, err) : open_in_root(u->root_fd, "", O_RDONLY);
    if (fd < 0)
        return fd;
    /* -EEXIST: a link that leads nowhere. It is not followed. */
    if (mkdirat(fd, slash ? slash + 1 : above, 0755) < 0)
        return error_system(err, errno, "cannot make the directory %s", path);
    return openat(fd, slash ? slash + 1 : above, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void forget_parent(struct unpacking *u)
{
    if (u->parent_fd >= 0)
        close(u->parent_fd);
    u->parent_fd = -1;
}

/* Where path (normalized) goes. The place is valid until the next one is found. */
static int find_place(struct unpacking *u, char *path, struct place *place, struct error *err)
{
    char *slash = strrchr(path, '/');

    if (!path[0] || !slash) {
        place->parent_fd = u->root_fd;
        place->name = path[0] ? path : ".";
        return 0;
    }
    *slash = 0;
    if (u->parent_fd < 0 || strcmp(u->parent, path) != 0) {
        forget_parent(u);
        u->parent_fd = open_directory(u, path, err);
        if (u->parent_fd < 0)
            return u->parent_fd;
        strcpy(u->parent, path);
    }
    place->parent_fd = u->parent_fd;
    place->name = slash + 1;
    *slash = '/';
    return 0;
}

/* --- Whiteouts --- */

static int set_opaque(const struct unpacking *u, int fd, struct error *err)
{
    const char *name = u->privileged ? "trusted.overlay.opaque" : "user.overlay.opaque";

    if (fsetxattr(fd, name, "y", 1, 0) < 0)
        return error_system(err, errno, "cannot mark a directory as opaque (%s)", name);
    return 0;
}

static bool is_whiteout(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == 0;
}

/* A whiteout is about lower layers only: what this layer itself has of the name stays. */
static int add_whiteout(const struct unpacking *u, const struct place *place, struct error *err)
{
    const char *name = place->name + strlen(WHITEOUT);
    AUTO_CLOSE int fd = -1;

    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return error_set(err, EINVAL, "a whiteout of nothing");
    if (mknodat(place->parent_fd, name, S_IFCHR, 0) == 0)
        return 0;
    if (errno != EEXIST)
        return error_system(err, errno, "cannot make a whiteout");
    fd = openat(place->parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : set_opaque(u, fd, err);
}

/* --- Entries --- */

static int account(struct unpacking *u, uint64_t bytes, struct error *err)
{
    if (bytes > u->limit - u->expanded)
        return error_set(err, EFBIG,
                         "the layer expands to more than %llu MiB, too much for its size: it "
                         "looks like a decompression bomb",
                         (unsigned long long)(u->limit >> 20));
    u->expanded += bytes;
    return 0;
}

static int remember_directory(struct unpacking *u, const char *path, mode_t mode,
                              const struct timespec *time, struct error *err)
{
    struct late_directory *late = u->late;

    if (u->late_count == u->late_room) {
        u->late_room = u->late_room ? 2 * u->late_room : 256;
        late = reallocarray(u->late, u->late_room, sizeof(*late));
        if (!late)
            return error_set(err, ENOMEM, "out of memory");
        u->late = late;
    }
    late += u->late_count;
    *late = (struct late_directory){strdup(path), mode, *time};
    if (!late->path)
        return error_set(err, ENOMEM, "out of memory");
    u->late_count++;
    return 0;
}

static int set_xattrs(const struct unpacking *u, int fd, struct archive_entry *entry,
                      struct error *err)
{
    const char *name;
    const void *value;
    size_t size;

    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
        bool security = !strncmp(name, "security.", 9);

        /* trusted.overlay and user.overlay redirect overlayfs elsewhere. */
        if (!(security && u->owners) &&
            !(!strncmp(name, "user.", 5) && strncmp(name, "user.overlay.", 13)))
            continue;
        if (fsetxattr(fd, name, value, size, 0) < 0 && errno != EOPNOTSUPP &&
            (u->privileged || errno != EPERM))
            return error_system(err, errno, "cannot set the attribute %.100s", name);
    }
    return 0;
}

/* Owner, then mode, then attributes: each clears some of the next when set later. */
static int set_owner_and_mode(const struct unpacking *u, const struct place *place,
                              struct archive_entry *entry, bool mode, struct error *err)
{
    int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return error_set(err, EINVAL, "the owner %lld:%lld is out of range", (long long)uid,
                         (long long)gid);
    /* EINVAL: the id is not mapped, and the file stays root's. */
    if (u->owners &&
        fchownat(place->parent_fd, place->name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0 &&
        (u->privileged || errno != EINVAL))
        return error_system(err, errno, "cannot set the owner");
    if (mode && fchmodat(place->parent_fd, place->name, archive_entry_perm(entry) & 07777, 0) < 0)
        return error_system(err, errno, "cannot set the mode");
    return 0;
}

static int write_at(int fd, const char *data, size_t length, int64_t offset, struct error *err)
{
    while (length > 0) {
        ssize_t n = pwrite(fd, data, length, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot write");
        data += n;
        offset += n;
        length -= (size_t)n;
    }
    return 0;
}

static int add_file(struct unpacking *u, const struct place *place, struct archive *tar,
                    struct archive_entry *entry, struct error *err)
{
    AUTO_CLOSE int fd = openat(place->parent_fd, place->name,
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int64_t size = archive_entry_size(entry), offset, end = 0;
    const void *data;
    size_t length;
    int r = 0, got;

    if (fd < 0)
        return error_system(err, errno, "cannot make the file");
    if (size < 0 || (r = account(u, (uint64_t)size, err)) < 0)
        return r < 0 ? r : error_set(err, EINVAL, "a file of negative size");
    while ((got = archive_read_data_block(tar, &data, &length, &offset)) == ARCHIVE_OK) {
        if (offset < end || offset > size || length > (uint64_t)(size - offset))
            return error_set(err, EINVAL, "content beyond the file's size");
        r = write_at(fd, data, length, offset, err);
        if (r < 0)
            return r;
        end = offset + (int64_t)length;
    }
    if (got != ARCHIVE_EOF)
        return error_set(err, EINVAL, "%s", archive_error_string(tar));
    if (end < size && ftruncate(fd, size) < 0)
        return error_system(err, errno, "cannot set the size");
    r = set_owner_and_mode(u, place, entry, true, err);
    return r < 0 ? r : set_xattrs(u, fd, entry, err);
}

static int add_directory(struct unpacking *u, const struct place *place, const char *path,
                         struct archive_entry *entry, bool whited_out, struct error *err)
{
    struct timespec time = {archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
    AUTO_CLOSE int fd = -1;
    int r;

    if (mkdirat(place->parent_fd, place->name, 0700) < 0 && errno != EEXIST)
        return error_system(err, errno, "cannot make the directory");
    fd = openat(place->parent_fd, place->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, errno, "cannot open the directory");
    r = whited_out ? set_opaque(u, fd, err) : 0;
    if (r == 0)
        r = set_owner_and_mode(u, place, entry, false, err);
    if (r == 0)
        r = set_xattrs(u, fd, entry, err);
    if (r == 0)
        r = remember_directory(u, path, archive_entry_perm(entry) & 07777, &time, err);
    return r;
}

static int add_hard_link(struct unpacking *u, const char *target, const struct place *place,
                         struct error *err)
{
    char path[PATH_MAX], *slash;
    AUTO_CLOSE int fd = -1;
    int r = normalize(target, path, err);

    if (r < 0) {
        error_prepend(err, "a hard link to %.200s", target);
        return r;
    }
    slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    fd = open_in_root(u->root_fd, slash ? path : "", O_PATH | O_DIRECTORY);
    if (fd < 0 || linkat(fd, slash ? slash + 1 : path, place->parent_fd, place->name, 0) < 0)
        return error_system(err, fd < 0 ? -fd : errno, "cannot link to %.200s in this layer",
                            target);
    return 0;
}

static int add_special(struct unpacking *u, const struct place *place, struct archive_entry *entry,
                       struct error *err)
{
    mode_t type = archive_entry_filetype(entry);
    dev_t device = type == S_IFIFO ? 0
                                   : makedev((unsigned)archive_entry_rdevmajor(entry),
                                             (unsigned)archive_entry_rdevminor(entry));

    if (!u->privileged && type != S_IFIFO)
        return 0;
    if (mknodat(place->parent_fd, place->name, type | 0600, device) < 0)
        return error_system(err, errno, "cannot make the special file");
    return set_owner_and_mode(u, place, entry, true, err);
}

/* Make room for the entry: what the layer had of this name goes, unless both are directories. */
static int make_room(struct unpacking *u, const struct place *place, bool directory,
                     bool *ret_whited_out, struct error *err)
{
    struct stat status;
    int r;

    *ret_whited_out = false;
    if (fstatat(place->parent_fd, place->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot look at it");
    if (directory && S_ISDIR(status.st_mode))
        return 0;
    *ret_whited_out = is_whiteout(&status);
    u->parent[0] = 0; /* what is removed may hold the last parent: look it up anew */
    r = tree_remove(place->parent_fd, place->name);
    return r < 0 ? error_system(err, -r, "cannot replace it") : 0;
}

static int add_entry(struct unpacking *u, struct archive *tar, struct archive_entry *entry,
                     const char *name, struct error *err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
    const char *link = archive_entry_hardlink(entry);
    mode_t type = archive_entry_filetype(entry);
    char path[PATH_MAX];
    struct place place = {0};
    bool whited_out;
    int r = normalize(name, path, err);

    if (r == 0)
        r = account(u, 512, err); /* its header */
    if (r == 0)
        r = find_place(u, path, &place, err);
    if (r < 0)
        return r;
    if (!strcmp(place.name, OPAQUE)) /* the parent is the root or the last one opened */
        return set_opaque(u, place.parent_fd, err);
    if (!strncmp(place.name, WHITEOUT_OWN, strlen(WHITEOUT_OWN)))
        return 0;
    if (!strncmp(place.name, WHITEOUT, strlen(WHITEOUT)))
        return add_whiteout(u, &place, err);
    if (!path[0] && (link || type != S_IFDIR))
        return error_set(err, EINVAL, "the root must be a directory");
    r = make_room(u, &place, !link && type == S_IFDIR, &whited_out, err);
    if (r < 0)
        return r;
    if (link)
        return add_hard_link(u, link, &place, err);
    switch (type) {
    case S_IFDIR:
        return add_directory(u, &place, path, entry, whited_out, err);
    case S_IFREG:
        r = add_file(u, &place, tar, entry, err);
        break;
    case S_IFLNK:
        r = symlinkat(archive_entry_symlink(entry) ? archive_entry_symlink(entry) : "",
                      place.parent_fd, place.name) < 0
                ? error_system(err, errno, "cannot make the symbolic link")
                : set_owner_and_mode(u, &place, entry, false, err);
        break;
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
        r = add_special(u, &place, entry, err);
        break;
    default: /* a socket has no meaning without its process */
        return 0;
    }
    times[1] = (struct timespec){archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
    if (r == 0)
        utimensat(place.parent_fd, place.name, times, AT_SYMLINK_NOFOLLOW);
    return r;
}

/* --- The whole --- */

/* The deepest come last in most streams, and a parent's mode may shut it: go backwards. */
static int finish_directories(struct unpacking *u, struct error *err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};

    for (size_t i = u->late_count; i-- > 0;) {
        const struct late_directory *late = u->late + i;
        AUTO_CLOSE int fd = open_in_root(u->root_fd, late->path, O_RDONLY | O_DIRECTORY);

        if (fd < 0) /* replaced by a later entry */
            continue;
        times[1] = late->time;
        if (fchmod(fd, late->mode) < 0)
            return error_system(err, errno, "cannot set the mode of %s", late->path);
        futimens(fd, times);
    }
    return 0;
}

static int add_entries(struct unpacking *u, struct archive *tar, struct expander *expander,
                       struct error *err)
{
    struct archive_entry *entry;
    int got, r = 0;

    while (r == 0 && (got = archive_read_next_header(tar, &entry)) != ARCHIVE_EOF) {
        const char *name = archive_entry_pathname(entry);

        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return expander_error(expander, tar, err);
        if (!name)
            return error_set(err, EINVAL, "an entry without a name");
        r = add_entry(u, tar, entry, name, err);
        if (r < 0)
            error_prepend(err, "%.200s", name);
    }
    return r;
}

int layer_unpack(int fd, uint64_t offset, uint64_t length, int root_fd, const struct digest *like,
                 struct digest *ret_diff_id, struct error *err)
{
    struct unpacking u = {.root_fd = root_fd, .privileged = privilege_is_full(),
                          .owners = geteuid() == 0,
                          .parent_fd = -1};
    struct expander *expander = NULL;
    struct archive *tar = NULL;
    int r = library_load(&library_archive, err);

    u.limit = LAYER_EXPANSION_FREE +
              MIN(length, UINT64_MAX / LAYER_EXPANSION_RATIO / 2) * LAYER_EXPANSION_RATIO;
    if (r == 0)
        r = expander_create(fd, offset, length, u.limit, like, &expander, err);
    if (r == 0)
        r = expander_open_tar(expander, &tar, err);
    if (r == 0)
        r = add_entries(&u, tar, expander, err);
    if (r == 0)
        r = expander_finish(expander, ret_diff_id, err);
    if (r == 0)
        r = finish_directories(&u, err);
    forget_parent(&u);
    for (size_t i = 0; i < u.late_count; i++)
        free(u.late[i].path);
    free(u.late);
    if (tar)
        archive_read_free(tar);
    expander_destroy(expander);
    return r;
}

const char *layer_media_type(int fd, uint64_t offset)
{
    static const unsigned char gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    unsigned char magic[4] = {0};

    if (pread(fd, magic, sizeof(magic), (off_t)offset) < 0)
        return MEDIA_LAYER;
    if (!memcmp(magic, gzip, sizeof(gzip)))
        return MEDIA_LAYER_GZIP;
    return !memcmp(magic, zstd, sizeof(zstd)) ? MEDIA_LAYER_ZSTD : MEDIA_LAYER;
}
