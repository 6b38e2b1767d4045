#include "image/expand.h"

#include <stdlib.h>
#include <unistd.h>

#include <archive_entry.h>

#include "base/bytes.h"

enum { BUFFER_SIZE = 256 << 10 };

struct expander {
    int fd;
    uint64_t offset, end;     /* what is left to read */
    uint64_t expanded, limit; /* bytes */
    struct archive *filter;
    struct hasher *hasher;
    struct error why; /* of a failure inside libarchive's callbacks */
    char buffer[BUFFER_SIZE];
};

static la_ssize_t read_source(struct archive *archive, void *opaque, const void **ret_data)
{
    struct expander *e = opaque;
    ssize_t n =
        pread(e->fd, e->buffer, MIN(e->end - e->offset, (uint64_t)BUFFER_SIZE), (off_t)e->offset);

    if (n < 0) {
        error_system(&e->why, errno, "cannot read");
        archive_set_error(archive, e->why.code, "cannot read");
        return -1;
    }
    e->offset += (uint64_t)n;
    *ret_data = e->buffer;
    return n;
}

int expander_create(int fd, uint64_t offset, uint64_t length, uint64_t limit,
                    const struct digest *like, struct expander **ret_expander, struct error *err)
{
    struct expander *e = malloc(sizeof(*e));
    struct archive_entry *entry;
    int r;

    if (!e)
        return error_set(err, ENOMEM, "out of memory");
    e->fd = fd;
    e->offset = offset;
    e->end = offset + length;
    e->expanded = 0;
    e->limit = limit;
    e->hasher = NULL;
    e->why = (struct error){0};
    e->filter = archive_read_new();
    r = hasher_create(like, &e->hasher, err);
    if (r == 0 && !e->filter)
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0) {
        archive_read_support_filter_gzip(e->filter);
        archive_read_support_filter_zstd(e->filter);
        archive_read_support_format_raw(e->filter);
        if (archive_read_open(e->filter, e, NULL, read_source, NULL) != ARCHIVE_OK ||
            archive_read_next_header(e->filter, &entry) != ARCHIVE_OK)
            r = expander_error(e, e->filter, err);
    }
    if (r < 0) {
        expander_destroy(e);
        return r;
    }
    *ret_expander = e;
    return 0;
}

void expander_destroy(struct expander *expander)
{
    if (!expander)
        return;
    if (expander->filter)
        archive_read_free(expander->filter);
    hasher_destroy(expander->hasher);
    free(expander);
}

int expander_error(struct expander *expander, struct archive *tar, struct error *err)
{
    const char *words = archive_error_string(tar);

    if (expander->why.code)
        return error_set(err, expander->why.code, "%s", expander->why.text);
    return error_set(err, EINVAL, "%s", words ? words : "it is no tar archive");
}

ssize_t expander_read(struct expander *e, const void **ret_data, struct error *err)
{
    const void *data;
    size_t length;
    la_int64_t offset;
    int got;

    do {
        got = archive_read_data_block(e->filter, &data, &length, &offset);
    } while (got == ARCHIVE_OK && length == 0);
    if (got == ARCHIVE_EOF)
        return 0;
    if (got != ARCHIVE_OK)
        return expander_error(e, e->filter, err);
    if (length > e->limit - e->expanded)
        return error_set(err, EFBIG,
                         "it expands to more than %llu MiB, too much for its size: it looks like "
                         "a decompression bomb",
                         (unsigned long long)(e->limit >> 20));
    e->expanded += length;
    hasher_update(e->hasher, data, length);
    *ret_data = data;
    return (ssize_t)length;
}

static la_ssize_t read_expanded(struct archive *archive, void *opaque, const void **ret_data)
{
    struct expander *e = opaque;
    struct error why;
    ssize_t n = expander_read(e, ret_data, &why);

    if (n < 0) {
        e->why = why;
        archive_set_error(archive, e->why.code, "%s", e->why.text);
        return -1;
    }
    return n;
}

int expander_open_tar(struct expander *expander, struct archive **ret_tar, struct error *err)
{
    struct archive *tar = archive_read_new();

    if (!tar)
        return error_set(err, ENOMEM, "out of memory");
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    /* Names are bytes, whatever the locale. */
    archive_read_set_format_option(tar, "tar", "hdrcharset", "BINARY");
    if (archive_read_open(tar, expander, NULL, read_expanded, NULL) != ARCHIVE_OK) {
        int r = expander_error(expander, tar, err);

        archive_read_free(tar);
        return r;
    }
    *ret_tar = tar;
    return 0;
}

int expander_finish(struct expander *expander, struct digest *ret_digest, struct error *err)
{
    const void *data;
    ssize_t n;

    while ((n = expander_read(expander, &data, err)) > 0)
        ;
    if (n < 0)
        return (int)n;
    hasher_finish(expander->hasher, ret_digest);
    return 0;
}
