#include "image/blob.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/store-private.h"

enum { COPY_SIZE = 256 << 10 };

struct blob_writer {
    struct store *store;
    struct descriptor expected; /* no digest: unknown */
    struct hasher *hasher;
    uint64_t size;
    int fd;
    bool partial; /* under partial/, and kept when abandoned */
    char name[STORE_NAME_MAX];
};

static void destroy(struct blob_writer *writer)
{
    hasher_destroy(writer->hasher);
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer);
}

static int create(struct store *store, const struct descriptor *expected,
                  struct blob_writer **ret_writer, struct error *err)
{
    struct blob_writer *writer = calloc(1, sizeof(*writer));
    int r;

    if (!writer)
        return error_set(err, ENOMEM, "out of memory");
    writer->store = store;
    writer->fd = -1;
    if (expected)
        writer->expected = *expected;
    r = hasher_create(&writer->expected.digest, &writer->hasher, err);
    if (r < 0) {
        destroy(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

int blob_create(struct store *store, const struct descriptor *expected,
                struct blob_writer **ret_writer, struct error *err)
{
    struct blob_writer *writer;
    int r = create(store, expected, &writer, err);

    if (r < 0)
        return r;
    store_temporary_name(store, writer->name, sizeof(writer->name));
    writer->fd = openat(store->fd, writer->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (writer->fd < 0) {
        r = error_system(err, errno, "cannot create a file in %s/tmp", store->path);
        destroy(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

/* Hash what is there already. */
static int take_over(struct blob_writer *writer, struct error *err)
{
    AUTO_FREE char *buffer = malloc(COPY_SIZE);
    ssize_t n;

    if (!buffer)
        return error_set(err, ENOMEM, "out of memory");
    while ((n = read(writer->fd, buffer, COPY_SIZE)) > 0) {
        hasher_update(writer->hasher, buffer, (size_t)n);
        writer->size += (uint64_t)n;
    }
    if (n < 0)
        return error_system(err, errno, "cannot read %s", writer->name);
    if (writer->size > writer->expected.size)
        return blob_restart(writer, err);
    return 0;
}

int blob_resume(struct store *store, const struct descriptor *expected,
                struct blob_writer **ret_writer, struct error *err)
{
    struct blob_writer *writer;
    struct stat mine, named;
    int r = create(store, expected, &writer, err);

    if (r < 0)
        return r;
    writer->partial = true;
    snprintf(writer->name, sizeof(writer->name), "partial/%s", digest_hex(&expected->digest));
    do { /* until the locked file is the one that has the name */
        if (writer->fd >= 0)
            close(writer->fd);
        writer->fd =
            openat(store->fd, writer->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (writer->fd < 0 || flock(writer->fd, LOCK_EX) < 0 || fstat(writer->fd, &mine) < 0) {
            r = error_system(err, errno, "cannot open %s/%s", store->path, writer->name);
            break;
        }
        if (store_has(store, expected)) {
            r = -EEXIST;
            break;
        }
    } while (fstatat(store->fd, writer->name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
             mine.st_ino != named.st_ino);
    if (r == 0)
        r = take_over(writer, err);
    if (r == -EEXIST)
        unlinkat(store->fd, writer->name, 0);
    if (r < 0) {
        destroy(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

uint64_t blob_size(const struct blob_writer *writer)
{
    return writer->size;
}

int blob_restart(struct blob_writer *writer, struct error *err)
{
    struct hasher *hasher;
    int r = hasher_create(&writer->expected.digest, &hasher, err);

    if (r < 0)
        return r;
    hasher_destroy(writer->hasher);
    writer->hasher = hasher;
    writer->size = 0;
    if (ftruncate(writer->fd, 0) < 0 || lseek(writer->fd, 0, SEEK_SET) < 0)
        return error_system(err, errno, "cannot empty %s", writer->name);
    return 0;
}

int blob_write(struct blob_writer *writer, const void *data, size_t length, struct error *err)
{
    const char *bytes = data;

    if (writer->expected.digest.text[0] && length > writer->expected.size - writer->size)
        return error_set(err, EINVAL, "%s: more comes than the %llu bytes it should have",
                         writer->expected.digest.text, (unsigned long long)writer->expected.size);
    hasher_update(writer->hasher, data, length);
    writer->size += length;
    while (length > 0) {
        ssize_t n = write(writer->fd, bytes, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot write to the image store %s",
                                writer->store->path);
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

int blob_copy(struct blob_writer *writer, int fd, uint64_t offset, uint64_t length,
              struct error *err)
{
    AUTO_FREE char *buffer = malloc(COPY_SIZE);
    int r = buffer ? 0 : error_set(err, ENOMEM, "out of memory");

    while (r == 0 && length > 0) {
        ssize_t n = pread(fd, buffer, MIN(length, (uint64_t)COPY_SIZE), (off_t)offset);

        if (n < 0)
            return error_system(err, errno, "cannot read");
        if (n == 0)
            return error_set(err, EINVAL, "the file ends in the middle of its content");
        r = blob_write(writer, buffer, (size_t)n, err);
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return r;
}

static int check(const struct blob_writer *writer, const struct digest *digest, struct error *err)
{
    const struct descriptor *expected = &writer->expected;

    if (!expected->digest.text[0])
        return 0;
    if (writer->size != expected->size)
        return error_set(err, EINVAL, "%s ends after %llu of %llu bytes", expected->digest.text,
                         (unsigned long long)writer->size, (unsigned long long)expected->size);
    if (!digest_equal(digest, &expected->digest))
        return error_set(err, EINVAL, "wrong digest: %s was expected, but %s came",
                         expected->digest.text, digest->text);
    return 0;
}

int blob_finish(struct blob_writer *writer, struct descriptor *ret_descriptor, struct error *err)
{
    struct store *store = writer->store;
    char path[STORE_NAME_MAX];
    struct digest digest;
    int r;

    hasher_finish(writer->hasher, &digest);
    r = check(writer, &digest, err);
    if (r < 0) {
        /* Of wrong bytes nothing can be gone on with. */
        writer->partial = writer->partial && writer->size < writer->expected.size;
        blob_abandon(writer);
        return r;
    }
    store_blob_path(&digest, path);
    if (fdatasync(writer->fd) < 0 || fchmod(writer->fd, 0444) < 0 ||
        renameat(store->fd, writer->name, store->fd, path) < 0) {
        r = error_system(err, errno, "cannot write to the image store %s", store->path);
        blob_abandon(writer);
        return r;
    }
    if (ret_descriptor) {
        ret_descriptor->digest = digest;
        ret_descriptor->size = writer->size;
    }
    destroy(writer);
    return 0;
}

void blob_abandon(struct blob_writer *writer)
{
    if (!writer->partial || writer->size == 0)
        unlinkat(writer->store->fd, writer->name, 0);
    destroy(writer);
}
