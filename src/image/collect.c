#include "image/collect.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/install.h"
#include "image/store-private.h"
#include "image/tree.h"

enum { PARTIAL_SECONDS = 24 * 60 * 60 };

static const char *const content[] = {"blobs/sha256", "blobs/sha512", "layers/sha256",
                                      "layers/sha512", "disks"};

/* --- Marking --- */

/* The names of content that is needed are the keys of a JSON object. */
static int mark(json_t *marks, const char *name, struct error *err)
{
    return json_object_set_new(marks, name, json_true()) < 0
               ? error_set(err, ENOMEM, "out of memory")
               : 0;
}

static int mark_blob(json_t *marks, const struct digest *digest, struct error *err)
{
    char path[STORE_NAME_MAX];

    store_blob_path(digest, path);
    return mark(marks, path, err);
}

/* Mark what a manifest needs. */
static int mark_image(const struct store *store, json_t *marks, const struct descriptor *descriptor,
                      struct error *err)
{
    struct manifest manifest = {0};
    struct image_config config = {0};
    char path[LAYER_PATH_MAX];
    int r = mark_blob(marks, &descriptor->digest, err);

    store_disk_path(&descriptor->digest, path);
    if (r == 0)
        r = mark(marks, path, err);
    if (r == 0)
        r = store_read_image(store, descriptor, &manifest, &config, err);
    if (r == 0)
        r = mark_blob(marks, &manifest.config.digest, err);
    for (size_t i = 0; i < manifest.layer_count && r == 0; i++)
        r = mark_blob(marks, &manifest.layers[i].digest, err);
    for (size_t i = 0; i < config.diff_count && r == 0; i++) {
        layer_path(config.diff_ids + i, path);
        r = mark(marks, path, err);
    }
    image_config_release(&config);
    manifest_release(&manifest);
    return r;
}

/* --- Sweeping --- */

/* Called with each name in a directory of the store. */
typedef int visit_fn(struct store *store, const char *name, void *opaque, struct error *err);

static int visit(struct store *store, const char *directory, visit_fn *fn, void *opaque,
                 struct error *err)
{
    int fd = openat(store->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!stream)
        return error_system(err, errno, "cannot read %s/%s", store->path, directory);
    while (r == 0 && (entry = readdir(stream))) {
        char name[STORE_NAME_MAX + NAME_MAX];

        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(name, sizeof(name), "%s/%s", directory, entry->d_name);
        r = fn(store, name, opaque, err);
    }
    closedir(stream);
    return r;
}

struct sweep {
    json_t *marks;
    struct collected collected;
};

static int sweep_name(struct store *store, const char *name, void *opaque, struct error *err)
{
    struct sweep *sweep = opaque;
    struct stat status;
    int r;

    if (json_object_get(sweep->marks, name) ||
        fstatat(store->fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (!strncmp(name, "partial/", 8) && time(NULL) - status.st_mtime < PARTIAL_SECONDS)
        return 0;
    r = tree_remove(store->fd, name);
    if (r < 0)
        return error_system(err, -r, "cannot remove %s/%s", store->path, name);
    sweep->collected.items++;
    sweep->collected.bytes += S_ISREG(status.st_mode) ? (uint64_t)status.st_blocks * 512 : 0;
    return 0;
}

/* Mark what a file of the form of index.json names. */
static int mark_index(struct store *store, const char *name, void *marks, struct error *err)
{
    struct index index;
    int r = store_read_index(store, name, &index, err);

    if (r < 0)
        return r;
    /* An image that cannot be read stops it: what it needs is not known. */
    for (size_t i = 0; i < index.count && r == 0; i++) {
        r = mark_image(store, marks, index.items + i, err);
        if (r < 0)
            error_prepend(err,
                          "nothing is removed, since an image is damaged ('lodge image rm' it)");
    }
    index_release(&index);
    return r;
}

static int mark_and_sweep(struct store *store, struct sweep *sweep, struct error *err)
{
    int r = mark_index(store, "index.json", sweep->marks, err);

    if (r == 0)
        r = visit(store, "holds", mark_index, sweep->marks, err);
    for (size_t i = 0; i < ARRAY_SIZE(content) && r == 0; i++)
        r = visit(store, content[i], sweep_name, sweep, err);
    return r < 0 ? r : visit(store, "partial", sweep_name, sweep, err);
}

int store_collect(struct store *store, struct collected *ret_collected, struct error *err)
{
    struct sweep sweep = {0};
    int r = 0;

    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        sweep.marks = json_object();
        r = sweep.marks ? mark_and_sweep(store, &sweep, err)
                        : error_set(err, ENOMEM, "out of memory");
        json_decref(sweep.marks);
    } else {
        sweep.collected.busy = true;
    }
    /* The attempt for the exclusive lock may have cost the shared one: flock(2). */
    if (flock(store->lock_fd, LOCK_SH) < 0 && r == 0)
        r = error_system(err, errno, "cannot lock the image store %s", store->path);
    if (r == 0 && ret_collected)
        *ret_collected = sweep.collected;
    return r;
}

/* --- Checking --- */

struct checking {
    json_t *marks;
    struct checked checked;
    check_fn *fault;
    void *opaque;
};

__attribute__((format(printf, 2, 3))) static void found(struct checking *c, const char *format, ...)
{
    char text[sizeof(((struct error *)NULL)->text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    c->fault(c->opaque, text);
    c->checked.faults++;
}

static int digest_of_file(int fd, const struct digest *like, struct digest *ret_digest,
                          struct error *err)
{
    AUTO_FREE char *buffer = malloc(256 << 10);
    struct hasher *hasher = NULL;
    ssize_t n;
    int r = buffer ? hasher_create(like, &hasher, err) : error_set(err, ENOMEM, "out of memory");

    if (r < 0)
        return r;
    while ((n = read(fd, buffer, 256 << 10)) > 0)
        hasher_update(hasher, buffer, (size_t)n);
    if (n < 0)
        r = error_system(err, errno, "cannot read");
    else
        hasher_finish(hasher, ret_digest);
    hasher_destroy(hasher);
    return r;
}

/* Each file in blobs/ has the digest that is its name. */
static int check_blob(struct store *store, const char *name, void *opaque, struct error *err)
{
    struct checking *c = opaque;
    AUTO_CLOSE int fd = openat(store->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char text[STORE_NAME_MAX + NAME_MAX];
    struct digest named, digest;
    int r;

    snprintf(text, sizeof(text), "%.6s:%s", name + strlen("blobs/"), strrchr(name, '/') + 1);
    if (fd < 0 || digest_parse(text, &named, NULL) < 0) {
        found(c, "%s does not belong there", name);
        return 0;
    }
    c->checked.blobs++;
    c->checked.unreferenced += !json_object_get(c->marks, name);
    r = digest_of_file(fd, &named, &digest, err);
    if (r == 0 && !digest_equal(&digest, &named))
        found(c, "%s is damaged: it has the content of %s", name, digest.text);
    return r;
}

static int check_layer(struct store *store, const char *name, void *opaque, struct error *err)
{
    struct checking *c = opaque;
    struct stat status;

    (void)err;
    if (fstatat(store->fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !(strncmp(name, "disks/", 6) ? S_ISDIR(status.st_mode) : S_ISREG(status.st_mode)))
        found(c, "%s does not belong there", name);
    else
        c->checked.unreferenced += !json_object_get(c->marks, name);
    return 0;
}

static int check_images(struct store *store, struct checking *c, struct error *err)
{
    struct index index;
    int r = store_list(store, &index, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < index.count; i++) {
        const struct descriptor *item = index.items + i;
        struct manifest manifest = {0};
        struct error why;

        c->checked.images++;
        if (mark_image(store, c->marks, item, &why) < 0)
            found(c, "the image %s: %s", item->name[0] ? item->name : item->digest.text, why.text);
        else if (store_read_image(store, item, &manifest, NULL, NULL) == 0)
            for (size_t k = 0; k < manifest.layer_count; k++)
                if (!store_has(store, manifest.layers + k))
                    found(c, "the image %s lacks its layer %s",
                          item->name[0] ? item->name : item->digest.text,
                          manifest.layers[k].digest.text);
        manifest_release(&manifest);
    }
    index_release(&index);
    return 0;
}

int store_check(struct store *store, check_fn *fault, void *opaque, struct checked *ret_checked,
                struct error *err)
{
    struct checking c = {.marks = json_object(), .fault = fault, .opaque = opaque};
    int r = c.marks ? check_images(store, &c, err) : error_set(err, ENOMEM, "out of memory");

    if (r == 0)
        r = visit(store, "holds", mark_index, c.marks, err);
    for (size_t i = 0; i < ARRAY_SIZE(content) && r == 0; i++)
        r = visit(store, content[i], strncmp(content[i], "blobs", 5) ? check_layer : check_blob, &c,
                  err);
    json_decref(c.marks);
    if (r == 0)
        *ret_checked = c.checked;
    return r;
}
