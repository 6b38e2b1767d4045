#include "image/install.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/layer.h"
#include "image/parallel.h"
#include "image/store-private.h"
#include "image/tree.h"

struct installation {
    struct store *store;
    const struct origin *origin; /* NULL: all layers are in the store */
    struct manifest *manifest;
    const struct image_config *config;
    struct progress *progress;
    size_t *order; /* the largest layer first, so that no thread is left alone with it */
};

void layer_path(const struct digest *diff_id, char *path)
{
    snprintf(path, LAYER_PATH_MAX, "layers/%.6s/%s", diff_id->text, digest_hex(diff_id));
}

static int unpack_into(const struct store *store, const struct descriptor *layer,
                       const struct digest *diff_id, const char *directory, struct error *err)
{
    AUTO_CLOSE int blob = store_open_blob(store, layer, err), root = -1;
    struct digest digest;
    int r;

    if (blob < 0)
        return blob;
    root = openat(store->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_system(err, errno, "cannot open %s", directory);
    r = layer_unpack(blob, 0, layer->size, root, diff_id, &digest, err);
    if (r < 0)
        return r;
    if (!digest_equal(&digest, diff_id))
        return error_set(err, EINVAL, "its tar stream should be %s, but is %s", diff_id->text,
                         digest.text);
    /* The name says that all is there, after a power cut too. */
    if (syncfs(root) < 0)
        return error_system(err, errno, "cannot write the layer to the disk");
    return 0;
}

static int unpack_layer(struct store *store, const struct descriptor *layer,
                        const struct digest *diff_id, struct error *err)
{
    char path[LAYER_PATH_MAX], temporary[64];
    int r;

    layer_path(diff_id, path);
    if (faccessat(store->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    store_temporary_name(store, temporary, sizeof(temporary));
    if (mkdirat(store->fd, temporary, 0755) < 0)
        return error_system(err, errno, "cannot make a directory in %s/tmp", store->path);
    r = unpack_into(store, layer, diff_id, temporary, err);
    if (r == 0 && renameat(store->fd, temporary, store->fd, path) < 0 && errno != ENOTEMPTY &&
        errno != EEXIST)
        r = error_system(err, errno, "cannot put it into its place");
    /* When it failed, or another process was faster. */
    tree_remove(store->fd, temporary);
    if (r < 0)
        error_prepend(err, "the layer %s", layer->digest.text);
    return r;
}

static int install_layer(void *opaque, size_t nth, struct error *err)
{
    struct installation *in = opaque;
    size_t i = in->order[nth];
    struct descriptor *layer = in->manifest->layers + i;
    int r = 0;

    if (in->origin && (!layer->digest.text[0] || !store_has(in->store, layer)))
        r = in->origin->fetch(in->origin, in->store, i, layer, in->progress, err);
    if (r == 0)
        r = unpack_layer(in->store, layer, in->config->diff_ids + i, err);
    return r;
}

static int by_size_descending(const void *a, const void *b, void *opaque)
{
    const struct descriptor *layers = opaque;
    uint64_t one = layers[*(const size_t *)a].size, other = layers[*(const size_t *)b].size;

    return one < other ? 1 : one > other ? -1 : 0;
}

int image_install(struct store *store, const struct origin *origin, struct manifest *manifest,
                  const struct image_config *config, struct progress *progress, struct error *err)
{
    struct installation in = {store, origin, manifest, config, progress, NULL};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    AUTO_FREE size_t *order = calloc(manifest->layer_count + 1, sizeof(*order));

    if (!order)
        return error_set(err, ENOMEM, "out of memory");
    if (manifest->layer_count != config->diff_count)
        return error_set(err, EINVAL, "the manifest has %zu layers, but the configuration %zu",
                         manifest->layer_count, config->diff_count);
    for (size_t i = 0; i < manifest->layer_count; i++)
        order[i] = i;
    qsort_r(order, manifest->layer_count, sizeof(*order), by_size_descending, manifest->layers);
    in.order = order;
    return parallel_run(manifest->layer_count,
                        origin && origin->threads ? origin->threads : (unsigned)MAX(cpus, 1),
                        install_layer, &in, err);
}

int image_unpack(struct store *store, const struct manifest *manifest,
                 const struct image_config *config, struct error *err)
{
    /* Not written to without an origin. */
    return image_install(store, NULL, (struct manifest *)manifest, config, NULL, err);
}
