#include "guest/archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum {
    DEPTH_MAX = 128,
    CHUNK_MAX = 65536,
    ATTRIBUTES_MAX = 64,
    ATTRIBUTE_MAX = 4096, /* bytes of a value, and of all names */
    /* mode, uid, gid, device, two times of 12 bytes */
    ENTRY_SIZE = 4 + 4 + 4 + 8 + 2 * 12,
};

/* --- To the stream --- */

static void put32(FILE *out, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    fwrite(bytes, sizeof(bytes), 1, out);
}

static void put_text(FILE *out, const void *text, size_t length)
{
    uint8_t bytes[2];

    store_le16(bytes, (uint16_t)length);
    fwrite(bytes, sizeof(bytes), 1, out);
    fwrite(text, 1, length, out);
}

static void put_entry(FILE *out, const struct stat *st, const char *name)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    uint8_t bytes[ENTRY_SIZE];

    store_le32(bytes, st->st_mode);
    store_le32(bytes + 4, st->st_uid);
    store_le32(bytes + 8, st->st_gid);
    store_le64(bytes + 12, st->st_rdev);
    for (size_t i = 0; i < 2; i++) {
        store_le64(bytes + 20 + 12 * i, (uint64_t)times[i].tv_sec);
        store_le32(bytes + 28 + 12 * i, (uint32_t)times[i].tv_nsec);
    }
    fwrite(bytes, sizeof(bytes), 1, out);
    put_text(out, name, strlen(name));
}

/* What the filesystem does not tell is left out. fd -1: there are none. */
static void put_attributes(FILE *out, int fd)
{
    char names[ATTRIBUTE_MAX], value[ATTRIBUTE_MAX];
    const char *known[ATTRIBUTES_MAX];
    ssize_t length = fd < 0 ? 0 : flistxattr(fd, names, sizeof(names)), size;
    uint16_t count = 0;
    uint8_t bytes[2];

    for (ssize_t at = 0; at < length && count < ATTRIBUTES_MAX;
         at += (ssize_t)strlen(names + at) + 1)
        if (fgetxattr(fd, names + at, value, sizeof(value)) >= 0)
            known[count++] = names + at;
    store_le16(bytes, count);
    fwrite(bytes, sizeof(bytes), 1, out);
    for (uint16_t i = 0; i < count; i++) {
        size = fgetxattr(fd, known[i], value, sizeof(value));
        put_text(out, known[i], strlen(known[i]));
        put_text(out, value, size > 0 ? (size_t)size : 0);
    }
}

static int send_content(FILE *out, int fd)
{
    char chunk[CHUNK_MAX];
    ssize_t n;

    while ((n = read(fd, chunk, sizeof(chunk))) > 0 && !ferror(out)) {
        put32(out, (uint32_t)n);
        fwrite(chunk, 1, (size_t)n, out);
    }
    if (n < 0)
        return -errno;
    put32(out, 0);
    return 0;
}

static int send_entry(int directory, const char *name, const char *as, FILE *out, unsigned depth,
                      dev_t device, struct error *err);

static int send_directory(int fd, FILE *out, unsigned depth, dev_t device, struct error *err)
{
    struct dirent *entry;
    DIR *list;
    int r = 0, copy;

    if (depth > DEPTH_MAX)
        return error_set(err, ELOOP, "directories are nested more than %d deep", DEPTH_MAX);
    copy = dup(fd);
    list = copy < 0 ? NULL : fdopendir(copy);
    if (!list)
        return error_system(err, errno, "cannot list a directory");
    while (r == 0 && (entry = readdir(list)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = send_entry(fd, entry->d_name, entry->d_name, out, depth, device, err);
    closedir(list);
    if (r == 0)
        put32(out, ARCHIVE_END);
    return r;
}

static int send_entry(int directory, const char *name, const char *as, FILE *out, unsigned depth,
                      dev_t device, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    char target[PATH_MAX];
    struct stat st;
    ssize_t n = 0;
    int r = 0;

    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot read what %s is", name);
    if (S_ISDIR(st.st_mode) && st.st_dev != device)
        return 0;
    if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) {
        fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
            return error_system(err, errno, "cannot copy %s", name);
    }
    if (S_ISLNK(st.st_mode) &&
        (n = readlinkat(directory, name, target, sizeof(target))) < 0)
        return error_system(err, errno, "cannot copy %s", name);
    put_entry(out, &st, as);
    put_attributes(out, fd);
    if (S_ISLNK(st.st_mode))
        put_text(out, target, (size_t)n);
    else if (S_ISREG(st.st_mode) && (r = send_content(out, fd)) < 0)
        r = error_system(err, -r, "cannot copy %s", name);
    else if (S_ISDIR(st.st_mode))
        r = send_directory(fd, out, depth + 1, device, err);
    return r;
}

void archive_send_failure(FILE *out, const struct error *why)
{
    put32(out, ARCHIVE_FAILURE);
    put_text(out, why->text, strlen(why->text));
    fflush(out);
}

int archive_send(int directory, const char *name, FILE *out, struct error *err)
{
    struct error why = {0};
    struct stat st;
    int r;

    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        r = error_system(&why, errno, "cannot copy %s", name);
    else
        r = send_entry(directory, name, "", out, 0, st.st_dev, &why);
    if (r < 0) {
        archive_send_failure(out, &why);
        if (err)
            *err = why;
        return r;
    }
    return fflush(out) < 0 || ferror(out) ? error_set(err, EPIPE, "nobody takes what is copied")
                                          : 0;
}

/* --- From the stream --- */

struct receiver {
    FILE *in;
    bool trusted;
};

struct entry {
    struct stat st; /* what was sent of it */
    char name[NAME_MAX + 1];
    size_t attribute_count;
    struct attribute {
        char name[256], *value; /* owned */
        size_t length;
    } attributes[ATTRIBUTES_MAX];
};

static void entry_free(struct entry **entry)
{
    for (size_t i = 0; *entry && i < (*entry)->attribute_count; i++)
        free((*entry)->attributes[i].value);
    free(*entry);
}

static int ended(struct error *err)
{
    return error_set(err, EPIPE, "what is copied ends too early");
}

static int take(const struct receiver *receiver, void *bytes, size_t length, struct error *err)
{
    return fread(bytes, 1, length, receiver->in) == length ? 0 : ended(err);
}

/* A text of less than size bytes, with a NUL after it. Returns its length. */
static int take_text(const struct receiver *receiver, char *text, size_t size, struct error *err)
{
    uint8_t bytes[2];
    size_t length;
    int r = take(receiver, bytes, sizeof(bytes), err);

    if (r < 0)
        return r;
    length = load_le16(bytes);
    if (length >= size)
        return error_set(err, EPROTO, "what is copied has a text that is too long");
    r = take(receiver, text, length, err);
    text[r < 0 ? 0 : length] = 0;
    return r < 0 ? r : (int)length;
}

/* The sender's words: one line, without what a terminal would take for commands. */
static int take_failure(const struct receiver *receiver, struct error *err)
{
    char text[400];
    int r = take_text(receiver, text, sizeof(text), err);

    if (r < 0)
        return r;
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return error_set(err, EIO, "%s", text);
}

static int take_attributes(const struct receiver *receiver, struct entry *entry, struct error *err)
{
    uint8_t bytes[2];
    int r = take(receiver, bytes, sizeof(bytes), err);
    size_t count = r < 0 ? 0 : load_le16(bytes);

    if (count > ATTRIBUTES_MAX)
        return error_set(err, EPROTO, "what is copied has too many attributes");
    for (size_t i = 0; i < count && r >= 0; i++) {
        struct attribute *attribute = &entry->attributes[i];

        attribute->value = malloc(ATTRIBUTE_MAX + 1);
        entry->attribute_count = i + 1;
        if (!attribute->value)
            return error_set(err, ENOMEM, "out of memory");
        r = take_text(receiver, attribute->name, sizeof(attribute->name), err);
        if (r >= 0)
            r = take_text(receiver, attribute->value, ATTRIBUTE_MAX + 1, err);
        attribute->length = r > 0 ? (size_t)r : 0;
    }
    return r < 0 ? r : 0;
}

static int entry_check(const struct receiver *receiver, struct entry *entry, struct error *err)
{
    mode_t kind = entry->st.st_mode & S_IFMT;

    if (strchr(entry->name, '/') || !strcmp(entry->name, ".") || !strcmp(entry->name, ".."))
        return error_set(err, EPROTO, "what is copied has the name '%.60s'", entry->name);
    if (receiver->trusted)
        return 0;
    if (kind == S_IFCHR || kind == S_IFBLK)
        return error_set(err, EPERM, "the device %.100s is not copied out of a virtual machine",
                         entry->name);
    entry->st.st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
    return 0;
}

/* 1: an entry; 0: the end of a directory. */
static int take_entry(const struct receiver *receiver, struct entry *entry, struct error *err)
{
    uint8_t bytes[ENTRY_SIZE];
    struct timespec *times[2] = {&entry->st.st_atim, &entry->st.st_mtim};
    uint32_t mode;
    int r = take(receiver, bytes, 4, err), length;

    if (r < 0)
        return r;
    mode = load_le32(bytes);
    if (mode == ARCHIVE_END)
        return 0;
    if (mode == ARCHIVE_FAILURE)
        return take_failure(receiver, err);
    if ((r = take(receiver, bytes + 4, sizeof(bytes) - 4, err)) < 0)
        return r;
    entry->st.st_mode = mode;
    entry->st.st_uid = load_le32(bytes + 4);
    entry->st.st_gid = load_le32(bytes + 8);
    entry->st.st_rdev = load_le64(bytes + 12);
    for (size_t i = 0; i < 2; i++) {
        times[i]->tv_sec = (time_t)load_le64(bytes + 20 + 12 * i);
        times[i]->tv_nsec = load_le32(bytes + 28 + 12 * i) % 1000000000;
    }
    length = take_text(receiver, entry->name, sizeof(entry->name), err);
    if (length >= 0 && strlen(entry->name) != (size_t)length)
        return error_set(err, EPROTO, "what is copied has a name with a NUL");
    r = length < 0 ? length : take_attributes(receiver, entry, err);
    if (r == 0)
        r = entry_check(receiver, entry, err);
    return r < 0 ? r : 1;
}

/* Attributes that the filesystem does not take (security labels) are left out. */
static void set_attributes(const struct receiver *receiver, int fd, const struct entry *entry)
{
    for (size_t i = 0; i < entry->attribute_count; i++) {
        const struct attribute *attribute = &entry->attributes[i];

        if (receiver->trusted || !strncmp(attribute->name, "user.", 5))
            fsetxattr(fd, attribute->name, attribute->value, attribute->length, 0);
    }
}

static int set_owner_and_mode(const struct receiver *receiver, int fd, const struct entry *entry)
{
    if (fchown(fd, entry->st.st_uid, entry->st.st_gid) < 0)
        return -errno;
    set_attributes(receiver, fd, entry);
    return fchmod(fd, entry->st.st_mode & 07777) < 0 ? -errno : 0;
}

static int write_all(int fd, const char *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, bytes + done, length - done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int receive_file(const struct receiver *receiver, int directory, const char *name,
                        const struct entry *entry, struct error *err)
{
    AUTO_CLOSE int fd =
        openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    char chunk[CHUNK_MAX];
    uint8_t bytes[4];
    uint32_t length;
    int r = fd < 0 ? -errno : 0;

    if (r < 0)
        return error_system(err, -r, "cannot make %s", entry->name);
    for (;;) {
        if ((r = take(receiver, bytes, sizeof(bytes), err)) < 0)
            return r;
        length = load_le32(bytes);
        if (length == ARCHIVE_FAILURE)
            return take_failure(receiver, err);
        if (length == 0)
            break;
        if (length > sizeof(chunk))
            return error_set(err, EPROTO, "what is copied has a chunk that is too long");
        if ((r = take(receiver, chunk, length, err)) < 0)
            return r;
        if ((r = write_all(fd, chunk, length)) < 0)
            return error_system(err, -r, "cannot write %s", entry->name);
    }
    r = set_owner_and_mode(receiver, fd, entry);
    return r < 0 ? error_system(err, -r, "cannot set the owner and mode of %s", entry->name) : 0;
}

static int receive_link(const struct receiver *receiver, int directory, const char *name,
                        const struct entry *entry, struct error *err)
{
    char target[PATH_MAX];
    int r = take_text(receiver, target, sizeof(target), err);

    if (r < 0)
        return r;
    if (symlinkat(target, directory, name) < 0 ||
        fchownat(directory, name, entry->st.st_uid, entry->st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_system(err, errno, "cannot make the link %s", entry->name);
    return 0;
}

static int receive_special(int directory, const char *name, const struct entry *entry,
                           struct error *err)
{
    if (mknodat(directory, name, entry->st.st_mode, entry->st.st_rdev) < 0 ||
        fchownat(directory, name, entry->st.st_uid, entry->st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(directory, name, entry->st.st_mode & 07777, 0) < 0)
        return error_system(err, errno, "cannot make %s", entry->name);
    return 0;
}

static int receive_entry(const struct receiver *receiver, const struct entry *entry, int directory,
                         const char *name, unsigned depth, struct error *err);

static int receive_directory(const struct receiver *receiver, int directory, const char *name,
                             const struct entry *entry, unsigned depth, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    int r = 1, made;

    if (depth > DEPTH_MAX)
        return error_set(err, ELOOP, "directories are nested more than %d deep", DEPTH_MAX);
    if (mkdirat(directory, name, 0700) < 0)
        return error_system(err, errno, "cannot make the directory %s", entry->name);
    fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, errno, "cannot open the directory %s", entry->name);
    while (r > 0) {
        __attribute__((cleanup(entry_free))) struct entry *below = calloc(1, sizeof(*below));

        r = below ? take_entry(receiver, below, err) : error_set(err, ENOMEM, "out of memory");
        if (r > 0 && !below->name[0])
            r = error_set(err, EPROTO, "what is copied has no name");
        else if (r > 0 && (made = receive_entry(receiver, below, fd, below->name, depth + 1, err)))
            r = made;
    }
    if (r == 0 && (r = set_owner_and_mode(receiver, fd, entry)) < 0)
        return error_system(err, -r, "cannot set the owner and mode of %s", entry->name);
    return r;
}

static int receive_entry(const struct receiver *receiver, const struct entry *entry, int directory,
                         const char *name, unsigned depth, struct error *err)
{
    const struct timespec times[2] = {entry->st.st_atim, entry->st.st_mtim};
    int r;

    switch (entry->st.st_mode & S_IFMT) {
    case S_IFDIR:
        r = receive_directory(receiver, directory, name, entry, depth, err);
        break;
    case S_IFREG:
        r = receive_file(receiver, directory, name, entry, err);
        break;
    case S_IFLNK:
        r = receive_link(receiver, directory, name, entry, err);
        break;
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        r = receive_special(directory, name, entry, err);
        break;
    default:
        r = error_set(err, EPROTO, "what is copied has a file of no kind, %.60s", entry->name);
    }
    if (r == 0)
        utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW);
    return r;
}

int archive_receive(FILE *in, bool trusted, int directory, const char *name, struct error *err)
{
    const struct receiver receiver = {in, trusted};
    __attribute__((cleanup(entry_free))) struct entry *entry = calloc(1, sizeof(*entry));
    int r = entry ? take_entry(&receiver, entry, err) : error_set(err, ENOMEM, "out of memory");

    if (r == 0)
        return error_set(err, EPROTO, "nothing was copied");
    if (r > 0)
        snprintf(entry->name, sizeof(entry->name), "%s", "what is copied"); /* in errors */
    return r < 0 ? r : receive_entry(&receiver, entry, directory, name, 0, err);
}
