#include "image/save.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/library.h"
#include "image/store-private.h"
#include "image/tree.h"

/* Where files go: into a directory, or into an archive. */
struct sink {
    int directory;       /* or -1 */
    struct archive *tar; /* or NULL */
    json_t *written;     /* names, as keys: images share layers */
};

struct saving {
    const struct store *store;
    struct sink sink;
    struct progress *progress;
    size_t blobs;
};

/* --- Sinks --- */

static int open_file(struct sink *sink, const char *name, uint64_t size, int *ret_fd,
                     struct error *err)
{
    struct archive_entry *entry;
    int r = 0;

    *ret_fd = -1;
    if (!sink->tar) {
        *ret_fd = openat(sink->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        return *ret_fd < 0 ? error_system(err, errno, "cannot create %s", name) : 0;
    }
    entry = archive_entry_new();
    if (!entry)
        return error_set(err, ENOMEM, "out of memory");
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, S_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)size);
    archive_entry_set_mtime(entry, 0, 0); /* the same images make the same archive */
    if (archive_write_header(sink->tar, entry) != ARCHIVE_OK)
        r = error_set(err, EIO, "%s", archive_error_string(sink->tar));
    archive_entry_free(entry);
    return r;
}

static int put(struct sink *sink, int fd, const char *data, size_t length, struct error *err)
{
    while (length > 0) {
        ssize_t n =
            sink->tar ? archive_write_data(sink->tar, data, length) : write(fd, data, length);

        if (n < 0 && sink->tar)
            return error_set(err, EIO, "%s", archive_error_string(sink->tar));
        if (n < 0 && errno != EINTR)
            return error_system(err, errno, "cannot write");
        data += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int put_text(struct sink *sink, const char *name, const char *text, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    int r = open_file(sink, name, strlen(text), &fd, err);

    return r < 0 ? r : put(sink, fd, text, strlen(text), err);
}

/* Takes tree over. */
static int put_json(struct sink *sink, const char *name, json_t *tree, struct error *err)
{
    AUTO_FREE char *text = json_dumps(tree, JSON_COMPACT);

    json_decref(tree);
    return text ? put_text(sink, name, text, err) : error_set(err, ENOMEM, "out of memory");
}

/* --- Blobs --- */

static int copy_blob(struct saving *s, int blob, const char *name,
                     const struct descriptor *descriptor, struct hasher *hasher, struct error *err)
{
    AUTO_FREE char *buffer = malloc(256 << 10);
    AUTO_CLOSE int fd = -1;
    uint64_t done = 0;
    ssize_t n;
    int r = buffer ? open_file(&s->sink, name, descriptor->size, &fd, err)
                   : error_set(err, ENOMEM, "out of memory");

    while (r == 0 && (n = read(blob, buffer, 256 << 10)) != 0) {
        if (n < 0)
            return error_system(err, errno, "cannot read");
        hasher_update(hasher, buffer, (size_t)n);
        r = put(&s->sink, fd, buffer, (size_t)n, err);
        done += (uint64_t)n;
        progress_update(s->progress, s->blobs, descriptor->digest.text, done, descriptor->size);
    }
    return r;
}

static int save_blob(struct saving *s, const struct descriptor *descriptor, struct error *err)
{
    AUTO_CLOSE int blob = store_open_blob(s->store, descriptor, err);
    char name[STORE_NAME_MAX];
    struct hasher *hasher;
    struct digest digest;
    int r;

    if (blob < 0)
        return blob;
    store_blob_path(&descriptor->digest, name);
    if (json_object_get(s->sink.written, name))
        return 0;
    json_object_set_new(s->sink.written, name, json_true());
    r = hasher_create(&descriptor->digest, &hasher, err);
    if (r < 0)
        return r;
    r = copy_blob(s, blob, name, descriptor, hasher, err);
    if (r == 0) {
        hasher_finish(hasher, &digest);
        if (!digest_equal(&digest, &descriptor->digest))
            r = error_set(err, EINVAL, "the store is damaged: %s has the content of %s",
                          descriptor->digest.text, digest.text);
        s->blobs++;
    }
    hasher_destroy(hasher);
    return r;
}

/* The image's entry in manifest.json. */
static json_t *docker_item(const struct descriptor *image, const struct manifest *manifest)
{
    char name[STORE_NAME_MAX];
    json_t *layers = json_array(), *tags = json_array(), *item = json_object();

    for (size_t i = 0; i < manifest->layer_count; i++) {
        store_blob_path(&manifest->layers[i].digest, name);
        json_array_append_new(layers, json_string(name));
    }
    if (image->name[0])
        json_array_append_new(tags, json_string(image->name));
    store_blob_path(&manifest->config.digest, name);
    json_object_set_new(item, "Config", json_string(name));
    json_object_set_new(item, "RepoTags", tags);
    json_object_set_new(item, "Layers", layers);
    return item;
}

static int save_image(struct saving *s, const struct descriptor *image, json_t *docker,
                      struct error *err)
{
    struct manifest manifest;
    int r = store_read_image(s->store, image, &manifest, NULL, err);

    if (r < 0)
        return r;
    r = save_blob(s, image, err);
    if (r == 0)
        r = save_blob(s, &manifest.config, err);
    for (size_t i = 0; i < manifest.layer_count && r == 0; i++)
        r = save_blob(s, manifest.layers + i, err);
    if (r == 0)
        json_array_append_new(docker, docker_item(image, &manifest));
    manifest_release(&manifest);
    return r;
}

static int save_all(struct saving *s, const struct descriptor *images, size_t count,
                    struct error *err)
{
    json_t *docker = json_array(), *index = json_array();
    int r = put_text(&s->sink, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", err);

    for (size_t i = 0; i < count && r == 0; i++) {
        json_array_append_new(index, descriptor_write(images + i));
        r = save_image(s, images + i, docker, err);
    }
    if (r < 0) {
        json_decref(docker);
        json_decref(index);
        return r;
    }
    r = put_json(&s->sink, "manifest.json", docker, err);
    return r < 0 ? r
                 : put_json(&s->sink, "index.json",
                            json_pack("{si ss so}", "schemaVersion", 2, "mediaType", MEDIA_INDEX,
                                      "manifests", index),
                            err);
}

/* --- The two forms --- */

static int save_directory(struct saving *s, const struct descriptor *images, size_t count,
                          const char *path, struct error *err)
{
    static const char *const directories[] = {"blobs", "blobs/sha256", "blobs/sha512"};
    char temporary[PATH_MAX];
    AUTO_CLOSE int fd = -1;
    int r = 0;

    if (snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid()) >= (int)sizeof(temporary))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    if (mkdir(temporary, 0755) < 0 ||
        (fd = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return error_system(err, errno, "cannot make the directory %s", temporary);
    s->sink.directory = fd;
    for (size_t i = 0; i < ARRAY_SIZE(directories) && r == 0; i++)
        if (mkdirat(fd, directories[i], 0755) < 0)
            r = error_system(err, errno, "cannot make the directory %s", directories[i]);
    if (r == 0)
        r = save_all(s, images, count, err);
    if (r == 0 && (syncfs(fd) < 0 || rename(temporary, path) < 0))
        r = error_system(err, errno, "cannot make the directory %s", path);
    if (r < 0)
        tree_remove(AT_FDCWD, temporary);
    return r;
}

static la_ssize_t write_archive(struct archive *tar, void *opaque, const void *data, size_t length)
{
    int fd = *(int *)opaque;
    ssize_t n = fd < 0 ? (ssize_t)length : write(fd, data, length);

    if (n < 0)
        archive_set_error(tar, errno, "cannot write the archive: %s", strerror(errno));
    return n;
}

static int save_tar(struct saving *s, const struct descriptor *images, size_t count, int fd,
                    struct error *err)
{
    struct archive *tar = archive_write_new();
    int r;

    if (!tar)
        return error_set(err, ENOMEM, "out of memory");
    archive_write_set_format_pax_restricted(tar);
    archive_write_set_bytes_in_last_block(tar, 1);
    s->sink.tar = tar;
    r = archive_write_open(tar, &fd, NULL, write_archive, NULL) == ARCHIVE_OK
            ? save_all(s, images, count, err)
            : error_set(err, EIO, "%s", archive_error_string(tar));
    if (r == 0 && archive_write_close(tar) != ARCHIVE_OK)
        r = error_set(err, EIO, "%s", archive_error_string(tar));
    if (r < 0)
        fd = -1; /* what the closing still writes goes nowhere */
    archive_write_free(tar);
    return r;
}

static int save_archive(struct saving *s, const struct descriptor *images, size_t count,
                        const char *path, struct error *err)
{
    char temporary[PATH_MAX];
    AUTO_CLOSE int fd = -1;
    int r;

    if (!strcmp(path, "-"))
        return save_tar(s, images, count, STDOUT_FILENO, err);
    if (snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid()) >= (int)sizeof(temporary))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_system(err, errno, "cannot create %s", temporary);
    r = save_tar(s, images, count, fd, err);
    if (r == 0 && (fdatasync(fd) < 0 || rename(temporary, path) < 0))
        r = error_system(err, errno, "cannot write %s", path);
    if (r < 0)
        unlink(temporary);
    return r;
}

int image_save(const struct store *store, const struct descriptor *images, size_t count,
               enum save_form form, const char *path, struct progress *progress, struct error *err)
{
    struct saving s = {store, {-1, NULL, NULL}, progress, 0};
    int r = library_load(&library_archive, err);

    if (r < 0)
        return r;
    s.sink.written = json_object();
    r = form == SAVE_DIRECTORY ? save_directory(&s, images, count, path, err)
                               : save_archive(&s, images, count, path, err);
    json_decref(s.sink.written);
    return r;
}
