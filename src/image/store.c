#include "image/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/directories.h"
#include "base/privilege.h"
#include "image/blob.h"
#include "image/store-private.h"
#include "image/tree.h"

#define LAYOUT_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"

/* --- Opening --- */

static int write_whole(int directory, const char *name, const char *text, size_t length,
                       struct error *err)
{
    AUTO_CLOSE int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0)
        return error_system(err, errno, "cannot create %s", name);
    while (length > 0) {
        ssize_t n = write(fd, text, length);

        if (n < 0 && errno != EINTR)
            return error_system(err, errno, "cannot write %s", name);
        text += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    if (fdatasync(fd) < 0)
        return error_system(err, errno, "cannot write %s", name);
    return 0;
}

/* Put a file in its place, so that readers and a power cut find the old or the new. */
static int replace(struct store *store, const char *name, const char *text, size_t length,
                   struct error *err)
{
    char temporary[64];
    int r;

    store_temporary_name(store, temporary, sizeof(temporary));
    r = write_whole(store->fd, temporary, text, length, err);
    if (r == 0 && (renameat(store->fd, temporary, store->fd, name) < 0 || fsync(store->fd) < 0))
        r = error_system(err, errno, "cannot write %s", name);
    if (r < 0)
        unlinkat(store->fd, temporary, 0);
    return r;
}

/* What a store consists of, where it is missing. */
static int furnish(struct store *store, struct error *err)
{
    static const char *const directories[] = {
        "blobs",         "blobs/sha256",  "blobs/sha512", "layers",
        "layers/sha256", "layers/sha512", "partial",      "holds",      "tmp",
        "disks"};
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
        if (mkdirat(store->fd, directories[i], 0700) < 0 && errno != EEXIST)
            return error_system(err, errno, "cannot make the directory %s", directories[i]);
    if (faccessat(store->fd, "oci-layout", F_OK, 0) < 0)
        r = replace(store, "oci-layout", LAYOUT_TEXT, strlen(LAYOUT_TEXT), err);
    return r;
}

int store_open(const char *path, struct store **ret_store, struct error *err)
{
    char standard[PATH_MAX];
    struct store *store;
    int r;

    if (!path && !privilege_data_path("images", standard, sizeof(standard)))
        return error_set(err, ENOENT, "there is no place for images: set HOME or XDG_DATA_HOME");
    store = calloc(1, sizeof(*store));
    if (!store)
        return error_set(err, ENOMEM, "out of memory");
    store->fd = store->lock_fd = -1;
    store->path = strdup(path ? path : standard);
    r = store->path ? directories_make(store->path, 0700, 0700, err)
                    : error_set(err, ENOMEM, "out of memory");
    if (r == 0) {
        store->fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        store->lock_fd = openat(store->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (store->fd < 0 || store->lock_fd < 0)
            r = error_system(err, errno, "cannot open it");
    }
    /* Nobody else is here: then what lies in tmp/ is left from a crash. */
    if (r == 0 && flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
        tree_empty(store->fd, "tmp");
    if (r == 0 && flock(store->lock_fd, LOCK_SH) < 0)
        r = error_system(err, errno, "cannot lock it");
    if (r == 0 && getrandom(&store->token, sizeof(store->token), 0) < 0)
        r = error_system(err, errno, "cannot get random bytes");
    if (r == 0)
        r = furnish(store, err);
    if (r < 0) {
        error_prepend(err, "the image store %s", store->path ? store->path : "");
        store_close(store);
        return r;
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    if (store->fd >= 0)
        close(store->fd);
    free(store->path);
    free(store);
}

const char *store_path(const struct store *store)
{
    return store->path;
}

int store_directory(const struct store *store)
{
    return store->fd;
}

void store_temporary_name(struct store *store, char *buffer, size_t size)
{
    snprintf(buffer, size, "tmp/%016llx.%u", (unsigned long long)store->token,
             atomic_fetch_add(&store->temporaries, 1));
}

/* --- Content --- */

void store_blob_path(const struct digest *digest, char *path)
{
    snprintf(path, STORE_NAME_MAX, "blobs/%.6s/%s", digest->text, digest_hex(digest));
}

void store_disk_path(const struct digest *manifest, char path[STORE_DISK_MAX])
{
    snprintf(path, STORE_DISK_MAX, "disks/%s", digest_hex(manifest));
}

bool store_has(const struct store *store, const struct descriptor *descriptor)
{
    char path[STORE_NAME_MAX];
    struct stat status;

    store_blob_path(&descriptor->digest, path);
    return fstatat(store->fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
           (uint64_t)status.st_size == descriptor->size;
}

int store_open_blob(const struct store *store, const struct descriptor *descriptor,
                    struct error *err)
{
    char path[STORE_NAME_MAX];
    AUTO_CLOSE int fd = -1;
    struct stat status;

    store_blob_path(&descriptor->digest, path);
    fd = openat(store->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_system(err, errno, "cannot open %s in the store %s", descriptor->digest.text,
                            store->path);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != descriptor->size)
        return error_set(err, EINVAL, "%s has %lld bytes, but should have %llu",
                         descriptor->digest.text, (long long)status.st_size,
                         (unsigned long long)descriptor->size);
    return steal_fd(&fd);
}

/* The file of length bytes, whole, with a NUL behind. */
static int read_whole(int fd, size_t length, char **ret_text, struct error *err)
{
    AUTO_FREE char *text = malloc(length + 1);
    size_t used = 0;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    while (used < length) {
        ssize_t n = read(fd, text + used, length - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot read");
        if (n == 0)
            return error_set(err, EINVAL, "the file ends early");
        used += (size_t)n;
    }
    text[length] = 0;
    *ret_text = steal_pointer(&text);
    return 0;
}

int store_read_blob(const struct store *store, const struct descriptor *descriptor, char **ret_text,
                    size_t *ret_length, struct error *err)
{
    AUTO_CLOSE int fd = store_open_blob(store, descriptor, err);
    AUTO_FREE char *text = NULL;
    struct digest digest;
    int r;

    if (fd < 0)
        return fd;
    if (descriptor->size > DOCUMENT_MAX)
        return error_set(err, EFBIG, "%s is larger than a document may be (%d bytes)",
                         descriptor->digest.text, DOCUMENT_MAX);
    r = read_whole(fd, descriptor->size, &text, err);
    if (r == 0)
        r = digest_of(&descriptor->digest, text, descriptor->size, &digest, err);
    if (r == 0 && !digest_equal(&digest, &descriptor->digest))
        r = error_set(err, EINVAL, "%s is damaged: its digest is %s", descriptor->digest.text,
                      digest.text);
    if (r < 0)
        return r;
    *ret_text = steal_pointer(&text);
    *ret_length = descriptor->size;
    return 0;
}

int store_write_blob(struct store *store, const void *data, size_t length,
                     struct descriptor *ret_descriptor, struct error *err)
{
    struct blob_writer *writer;
    int r = blob_create(store, NULL, &writer, err);

    if (r < 0)
        return r;
    r = blob_write(writer, data, length, err);
    if (r < 0)
        blob_abandon(writer);
    else
        r = blob_finish(writer, ret_descriptor, err);
    return r;
}

/* --- Names --- */

static int lock_index(const struct store *store, struct error *err)
{
    AUTO_CLOSE int fd = openat(store->fd, "index.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock the index of %s", store->path);
    return steal_fd(&fd);
}

int store_read_index(const struct store *store, const char *name, struct index *ret_index,
                     struct error *err)
{
    AUTO_CLOSE int fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC);
    AUTO_FREE char *text = NULL;
    struct stat status;
    int r;

    if (fd < 0 && errno == ENOENT) {
        *ret_index = (struct index){0};
        return 0;
    }
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_system(err, errno, "cannot open %s/%s", store->path, name);
    if (status.st_size > DOCUMENT_MAX)
        return error_set(err, EFBIG, "%s/%s is larger than %d bytes", store->path, name,
                         DOCUMENT_MAX);
    r = read_whole(fd, (size_t)status.st_size, &text, err);
    if (r == 0)
        r = index_read(text, (size_t)status.st_size, ret_index, err);
    if (r < 0)
        error_prepend(err, "%s", store->path);
    return r;
}

int store_list(const struct store *store, struct index *ret_index, struct error *err)
{
    return store_read_index(store, "index.json", ret_index, err);
}

static int write_index(struct store *store, const char *name, const struct index *index,
                       struct error *err)
{
    json_t *items = json_array(), *tree;
    AUTO_FREE char *text = NULL;

    for (size_t i = 0; i < index->count; i++)
        json_array_append_new(items, descriptor_write(index->items + i));
    tree =
        json_pack("{si ss so}", "schemaVersion", 2, "mediaType", MEDIA_INDEX, "manifests", items);
    text = json_dumps(tree, JSON_INDENT(1));
    json_decref(tree);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    return replace(store, name, text, strlen(text), err);
}

/* The item that gives way: of the same name, or of the same content without a name. */
static bool same_item(const struct descriptor *a, const struct descriptor *b)
{
    return !strcmp(a->name, b->name) && (a->name[0] || digest_equal(&a->digest, &b->digest));
}

/* Take out what removed names, put in added (NULL: nothing); both at once. */
static int change_index(struct store *store, const struct descriptor *removed,
                        const struct descriptor *added, struct error *err)
{
    AUTO_CLOSE int lock = lock_index(store, err);
    struct index index;
    struct descriptor *items;
    size_t kept = 0;
    int r = lock < 0 ? lock : store_list(store, &index, err);

    if (r < 0)
        return r;
    items = reallocarray(index.items, index.count + 1, sizeof(*items));
    if (!items) {
        index_release(&index);
        return error_set(err, ENOMEM, "out of memory");
    }
    index.items = items;
    for (size_t i = 0; i < index.count; i++)
        if (!same_item(items + i, removed))
            items[kept++] = items[i];
    if (!added && kept == index.count)
        r = error_set(err, ENOENT, "there is no image %s in %s",
                      removed->name[0] ? removed->name : removed->digest.text, store->path);
    if (added)
        items[kept++] = *added;
    index.count = kept;
    if (r == 0)
        r = write_index(store, "index.json", &index, err);
    index_release(&index);
    return r;
}

int store_tag(struct store *store, const struct descriptor *descriptor, struct error *err)
{
    return change_index(store, descriptor, descriptor, err);
}

int store_untag(struct store *store, const struct descriptor *descriptor, struct error *err)
{
    return change_index(store, descriptor, NULL, err);
}

/* Whether the name of an image is reference, or ends with it when that has no registry. */
static bool name_fits(const char *name, const struct reference *reference)
{
    struct reference own;

    return reference_parse(name, &own, NULL) == 0 &&
           !strcmp(own.repository, reference->repository) && !strcmp(own.tag, reference->tag);
}

static bool id_fits(const struct digest *digest, const char *text)
{
    size_t length = strlen(text);

    if (!strncmp(text, "sha256:", 7))
        return !strncmp(digest->text, text, length);
    return length >= 6 && strspn(text, "0123456789abcdef") == length &&
           !strncmp(digest_hex(digest), text, length);
}

int store_resolve(const struct store *store, const char *text, struct descriptor *ret_descriptor,
                  struct error *err)
{
    const struct descriptor *exact = NULL, *fitting = NULL;
    char name[REFERENCE_TEXT_MAX] = "";
    struct reference reference = {0};
    bool ambiguous = false;
    struct index index;
    int r = store_list(store, &index, err);

    if (r < 0)
        return r;
    if (reference_parse(text, &reference, NULL) == 0)
        reference_format(&reference, name);
    for (size_t i = 0; i < index.count; i++) {
        const struct descriptor *item = index.items + i;

        if (item->name[0] && (!strcmp(item->name, text) || !strcmp(item->name, name)))
            exact = item;
        if (id_fits(&item->digest, text) ||
            (!reference.registry[0] && name_fits(item->name, &reference)) ||
            (reference.digest.text[0] && digest_equal(&reference.digest, &item->digest))) {
            ambiguous |= fitting && !digest_equal(&fitting->digest, &item->digest);
            fitting = item;
        }
    }
    if (exact)
        *ret_descriptor = *exact;
    else if (ambiguous)
        r = error_set(err, EEXIST, "'%.200s' fits several images: give more of the name", text);
    else if (fitting)
        *ret_descriptor = *fitting;
    else
        r = error_set(err, ENOENT,
                      "there is no image '%.200s' here; 'lodge image' pulls, loads and builds them",
                      text);
    index_release(&index);
    return r;
}

/* --- Holds --- */

int store_hold(struct store *store, const char *name, const struct descriptor *descriptor,
               struct error *err)
{
    const struct index index = {.items = (struct descriptor *)descriptor, .count = 1};
    char path[STORE_NAME_MAX];

    snprintf(path, sizeof(path), "holds/%s", name);
    return write_index(store, path, &index, err);
}

int store_release(struct store *store, const char *name, struct error *err)
{
    char path[STORE_NAME_MAX];

    snprintf(path, sizeof(path), "holds/%s", name);
    if (unlinkat(store->fd, path, 0) < 0 && errno != ENOENT)
        return error_system(err, errno, "cannot remove %s/%s", store->path, path);
    return 0;
}

bool store_is_held(const struct store *store, const char *name)
{
    char path[STORE_NAME_MAX];

    snprintf(path, sizeof(path), "holds/%s", name);
    return faccessat(store->fd, path, F_OK, 0) == 0;
}

int store_release_others(struct store *store, bool (*is_there)(const char *name),
                         struct error *err)
{
    int fd = openat(store->fd, "holds", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!list) {
        if (fd >= 0)
            close(fd);
        return error_system(err, errno, "cannot read %s/holds", store->path);
    }
    while (r == 0 && (entry = readdir(list)))
        if (entry->d_name[0] != '.' && !is_there(entry->d_name))
            r = store_release(store, entry->d_name, err);
    closedir(list);
    return r;
}

int store_read_image(const struct store *store, const struct descriptor *descriptor,
                     struct manifest *ret_manifest, struct image_config *ret_config,
                     struct error *err)
{
    AUTO_FREE char *text = NULL, *config_text = NULL;
    struct manifest manifest;
    size_t length;
    int r = store_read_blob(store, descriptor, &text, &length, err);

    if (r == 0)
        r = manifest_read(text, length, &manifest, err);
    if (r < 0)
        return r;
    if (ret_config) {
        r = store_read_blob(store, &manifest.config, &config_text, &length, err);
        if (r == 0)
            r = image_config_read(config_text, length, ret_config, err);
    }
    if (r < 0) {
        manifest_release(&manifest);
        return r;
    }
    *ret_manifest = manifest;
    return 0;
}
