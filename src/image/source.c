#include "image/source.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <archive_entry.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/expand.h"
#include "image/layer.h"
#include "image/library.h"

enum { MEMBERS_MAX = 65536, LINKS_MAX = 4 };

struct member {
    char *name;
    char *link; /* the name it stands for, or NULL */
    uint64_t offset, size;
};

struct source {
    int fd; /* the directory or the archive */
    bool directory;
    struct member *members; /* of the archive, by name */
    size_t count;
};

/* --- Archives --- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->name, ((const struct member *)b)->name);
}

/* "./a/b" is "a/b". */
static const char *plain(const char *name)
{
    while (!strncmp(name, "./", 2))
        name += 2;
    return name;
}

/* What a symbolic link in an archive stands for: docker save once wrote "../ID/layer.tar". */
static char *link_target(const char *name, const char *target)
{
    const char *slash = strrchr(name, '/');
    char *path;

    if (!strncmp(target, "../", 3))
        return strdup(target + 3);
    if (asprintf(&path, "%.*s%s", slash ? (int)(slash - name + 1) : 0, name, target) < 0)
        return NULL;
    return path;
}

static int add_member(struct source *source, struct archive *tar, struct archive_entry *entry,
                      struct error *err)
{
    const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
    mode_t type = archive_entry_filetype(entry);
    struct member *member = source->members + source->count;

    if (!name || (!link && type != S_IFREG && type != S_IFLNK))
        return 0;
    if (source->count == MEMBERS_MAX)
        return error_set(err, EINVAL, "it has more than %d files", MEMBERS_MAX);
    member->name = strdup(plain(name));
    if (link)
        member->link = strdup(plain(link));
    else if (type == S_IFLNK && archive_entry_symlink(entry))
        member->link = link_target(plain(name), archive_entry_symlink(entry));
    member->offset = (uint64_t)archive_filter_bytes(tar, 0);
    member->size = (uint64_t)MAX(archive_entry_size(entry), 0);
    source->count++;
    if (!member->name || ((link || type == S_IFLNK) && !member->link))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

struct archive_file {
    int fd;
    uint64_t offset, size;
    char buffer[32 << 10];
};

static la_ssize_t archive_file_read(struct archive *archive, void *opaque, const void **ret_data)
{
    struct archive_file *file = opaque;
    ssize_t n = pread(file->fd, file->buffer, sizeof(file->buffer), (off_t)file->offset);

    if (n < 0) {
        archive_set_error(archive, errno, "cannot read");
        return -1;
    }
    file->offset += (uint64_t)n;
    *ret_data = file->buffer;
    return n;
}

static la_int64_t archive_file_skip(struct archive *archive, void *opaque, la_int64_t request)
{
    struct archive_file *file = opaque;
    uint64_t skip = MIN((uint64_t)request, file->size - MIN(file->offset, file->size));

    (void)archive;
    file->offset += skip;
    return (la_int64_t)skip;
}

/* Note where each file of a plain tar archive lies. */
static int list_members(struct source *source, struct error *err)
{
    struct archive_file file = {.fd = source->fd};
    struct archive *tar = archive_read_new();
    struct archive_entry *entry;
    struct stat status;
    int got, r = 0;

    source->members = calloc(MEMBERS_MAX, sizeof(*source->members));
    if (!source->members || !tar || fstat(source->fd, &status) < 0) {
        archive_read_free(tar);
        return error_set(err, ENOMEM, "out of memory");
    }
    file.size = (uint64_t)status.st_size;
    archive_read_support_format_tar(tar);
    archive_read_set_format_option(tar, "tar", "hdrcharset", "BINARY");
    archive_read_set_read_callback(tar, archive_file_read);
    archive_read_set_skip_callback(tar, archive_file_skip);
    archive_read_set_callback_data(tar, &file);
    got = archive_read_open1(tar);
    while (got == ARCHIVE_OK && r == 0) {
        got = archive_read_next_header(tar, &entry);
        if (got == ARCHIVE_OK || got == ARCHIVE_WARN) {
            r = add_member(source, tar, entry, err);
            got = ARCHIVE_OK;
        }
    }
    if (r == 0 && got != ARCHIVE_EOF)
        r = error_set(err, EINVAL, "%s", archive_error_string(tar));
    archive_read_free(tar);
    qsort(source->members, source->count, sizeof(*source->members), by_name);
    return r;
}

/* --- What cannot be read in place --- */

static int write_all(int fd, const char *data, size_t length, struct error *err)
{
    while (length > 0) {
        ssize_t n = write(fd, data, length);

        if (n < 0 && errno != EINTR)
            return error_system(err, errno, "cannot write a temporary file");
        data += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* A file without a name. */
static int open_temporary(struct store *store, struct error *err)
{
    char name[64];
    int fd;

    store_temporary_name(store, name, sizeof(name));
    fd = openat(store_directory(store), name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_system(err, errno, "cannot create a file in %s/tmp", store_path(store));
    unlinkat(store_directory(store), name, 0);
    return fd;
}

/* Copy a pipe into a file: fd is replaced. */
static int spool(int *fd, struct store *store, struct error *err)
{
    AUTO_CLOSE int file = open_temporary(store, err);
    AUTO_FREE char *buffer = malloc(256 << 10);
    int r = file;
    ssize_t n;

    if (file >= 0 && !buffer)
        r = error_set(err, ENOMEM, "out of memory");
    while (r >= 0 && (n = read(*fd, buffer, 256 << 10)) != 0)
        r = n > 0            ? write_all(file, buffer, (size_t)n, err)
            : errno == EINTR ? 0
                             : error_system(err, errno, "cannot read");
    if (r < 0)
        return r;
    close(*fd);
    *fd = steal_fd(&file);
    return 0;
}

/* Replace a compressed file by an expanded one. */
static int expand(int *fd, uint64_t size, struct store *store, struct error *err)
{
    AUTO_CLOSE int file = open_temporary(store, err);
    struct expander *expander;
    const void *data;
    ssize_t n;
    int r = file < 0
                ? file
                : expander_create(*fd, 0, size, LAYER_EXPANSION_FREE + size * LAYER_EXPANSION_RATIO,
                                  NULL, &expander, err);

    if (r < 0)
        return r;
    while ((n = expander_read(expander, &data, err)) > 0 && r == 0)
        r = write_all(file, data, (size_t)n, err);
    expander_destroy(expander);
    if (r == 0 && n < 0)
        r = (int)n;
    if (r < 0)
        return r;
    close(*fd);
    *fd = steal_fd(&file);
    return 0;
}

static int open_archive(struct source *source, struct store *store, struct error *err)
{
    struct stat status;
    int r = library_load(&library_archive, err);

    if (r == 0 && lseek(source->fd, 0, SEEK_CUR) < 0)
        r = spool(&source->fd, store, err);
    if (r == 0 && fstat(source->fd, &status) < 0)
        r = error_system(err, errno, "cannot look at it");
    if (r == 0 && strcmp(layer_media_type(source->fd, 0), MEDIA_LAYER) != 0)
        r = expand(&source->fd, (uint64_t)status.st_size, store, err);
    return r < 0 ? r : list_members(source, err);
}

/* --- The source --- */

int source_open(const char *path, struct store *store, struct source **ret_source,
                struct error *err)
{
    struct source *source = calloc(1, sizeof(*source));
    struct stat status;
    int r = 0;

    if (!source)
        return error_set(err, ENOMEM, "out of memory");
    source->fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    if (source->fd < 0 || fstat(source->fd, &status) < 0) {
        r = error_system(err, errno, "cannot open %s", path);
    } else {
        source->directory = S_ISDIR(status.st_mode);
        r = source->directory ? 0 : open_archive(source, store, err);
        if (r < 0)
            error_prepend(err, "%s", path);
    }
    if (r < 0) {
        source_close(source);
        return r;
    }
    *ret_source = source;
    return 0;
}

void source_close(struct source *source)
{
    if (!source)
        return;
    for (size_t i = 0; i < source->count; i++) {
        free(source->members[i].name);
        free(source->members[i].link);
    }
    free(source->members);
    if (source->fd >= 0)
        close(source->fd);
    free(source);
}

static int find_in_directory(const struct source *source, const char *name,
                             struct source_file *ret_file, struct error *err)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    AUTO_CLOSE int fd = (int)syscall(SYS_openat2, source->fd, name, &how, sizeof(how));
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_system(err, errno, "cannot open %.200s", name);
    if (!S_ISREG(status.st_mode))
        return error_set(err, EINVAL, "%.200s is no file", name);
    *ret_file = (struct source_file){steal_fd(&fd), 0, (uint64_t)status.st_size};
    return 0;
}

int source_find(const struct source *source, const char *name, struct source_file *ret_file,
                struct error *err)
{
    const struct member *member = NULL;
    struct member key = {.name = (char *)plain(name)};
    int fd;

    if (source->directory)
        return find_in_directory(source, name, ret_file, err);
    for (unsigned links = 0; key.name && links < LINKS_MAX; links++) {
        member = bsearch(&key, source->members, source->count, sizeof(key), by_name);
        key.name = member ? member->link : NULL;
    }
    if (!member || member->link)
        return error_set(err, ENOENT, "there is no %.200s in it", name);
    fd = fcntl(source->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return error_system(err, errno, "cannot open %.200s", member->name);
    *ret_file = (struct source_file){fd, member->offset, member->size};
    return 0;
}

int source_read(const struct source *source, const char *name, char **ret_text, size_t *ret_length,
                struct error *err)
{
    struct source_file file;
    AUTO_CLOSE int fd = -1;
    AUTO_FREE char *text = NULL;
    int r = source_find(source, name, &file, err);

    if (r < 0)
        return r;
    fd = file.fd;
    if (file.size > DOCUMENT_MAX)
        return error_set(err, EFBIG, "%.200s is larger than %d bytes", name, DOCUMENT_MAX);
    text = malloc(file.size + 1);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    if (pread(fd, text, file.size, (off_t)file.offset) != (ssize_t)file.size)
        return error_set(err, EINVAL, "%.200s ends early", name);
    text[file.size] = 0;
    *ret_text = steal_pointer(&text);
    *ret_length = file.size;
    return 0;
}
