#include "image/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/blob.h"
#include "image/collect.h"
#include "image/install.h"
#include "image/layer.h"

enum { INDEX_DEPTH_MAX = 4 };

struct loading {
    struct store *store;
    const struct source *source;
    const char *name; /* that of the only image, or NULL */
    const struct platform *platform;
    struct progress *progress;
    load_fn *loaded;
    void *opaque;
};

/* The layers' files in the source, by number. */
struct file_origin {
    struct origin origin;
    const struct loading *loading;
    const char **names;
};

static int fetch_file(const struct origin *origin, struct store *store, size_t i,
                      struct descriptor *layer, struct progress *progress, struct error *err)
{
    const struct file_origin *files = (const struct file_origin *)origin;
    struct blob_writer *writer;
    struct source_file file;
    AUTO_CLOSE int fd = -1;
    int r = source_find(files->loading->source, files->names[i], &file, err);

    if (r < 0)
        return r;
    fd = file.fd;
    progress_update(progress, i, files->names[i], 0, file.size);
    r = blob_create(store, layer->digest.text[0] ? layer : NULL, &writer, err);
    if (r < 0)
        return r;
    r = blob_copy(writer, fd, file.offset, file.size, err);
    if (r < 0)
        blob_abandon(writer);
    else
        r = blob_finish(writer, layer, err);
    if (r < 0)
        error_prepend(err, "%.200s", files->names[i]);
    else
        progress_update(progress, i, files->names[i], file.size, file.size);
    return r;
}

static int announce(const struct loading *l, const char *name, struct descriptor *descriptor,
                    struct error *err)
{
    struct reference reference;
    int r;

    descriptor->name[0] = 0;
    if (name && name[0]) {
        r = reference_parse(name, &reference, err);
        if (r < 0)
            return r;
        reference_format(&reference, descriptor->name);
    }
    r = store_tag(l->store, descriptor, err);
    if (r == 0)
        l->loaded(l->opaque, descriptor);
    return r;
}

/* --- OCI image layouts --- */

static void blob_name(const struct digest *digest, char *name, size_t size)
{
    snprintf(name, size, "blobs/%.6s/%s", digest->text, digest_hex(digest));
}

static int read_document(const struct loading *l, const struct descriptor *descriptor,
                         char **ret_text, size_t *ret_length, struct error *err)
{
    AUTO_FREE char *text = NULL;
    char name[sizeof(struct digest) + 8];
    struct digest digest;
    size_t length;
    int r;

    blob_name(&descriptor->digest, name, sizeof(name));
    r = source_read(l->source, name, &text, &length, err);
    if (r == 0)
        r = digest_of(&descriptor->digest, text, length, &digest, err);
    if (r < 0)
        return r;
    if (length != descriptor->size || !digest_equal(&digest, &descriptor->digest))
        return error_set(err, EINVAL, "wrong digest: %s has the content of %s",
                         descriptor->digest.text, digest.text);
    *ret_text = steal_pointer(&text);
    *ret_length = length;
    return 0;
}

static int install_layout(const struct loading *l, struct manifest *manifest,
                          const struct image_config *config, struct error *err)
{
    struct file_origin files = {{fetch_file, 0}, l, NULL};
    AUTO_FREE const char **names = calloc(manifest->layer_count + 1, sizeof(*names));
    AUTO_FREE char *texts = calloc(manifest->layer_count + 1, 8 + sizeof(struct digest));

    if (!names || !texts)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < manifest->layer_count; i++) {
        char *text = texts + i * (8 + sizeof(struct digest));

        blob_name(&manifest->layers[i].digest, text, 8 + sizeof(struct digest));
        names[i] = text;
    }
    files.names = names;
    return image_install(l->store, &files.origin, manifest, config, l->progress, err);
}

static int load_manifest(const struct loading *l, const char *name,
                         const struct descriptor *descriptor, struct error *err)
{
    AUTO_FREE char *text = NULL, *config_text = NULL;
    struct descriptor stored = *descriptor;
    struct manifest manifest = {0};
    struct image_config config = {0};
    size_t length, config_length;
    int r = read_document(l, descriptor, &text, &length, err);

    if (r == 0)
        r = manifest_read(text, length, &manifest, err);
    if (r == 0)
        r = read_document(l, &manifest.config, &config_text, &config_length, err);
    if (r == 0)
        r = image_config_read(config_text, config_length, &config, err);
    if (r == 0)
        r = install_layout(l, &manifest, &config, err);
    if (r == 0)
        r = store_write_blob(l->store, config_text, config_length, NULL, err);
    if (r == 0)
        r = store_write_blob(l->store, text, length, NULL, err);
    if (r == 0) {
        stored.platform = config.platform;
        r = announce(l, name, &stored, err);
    }
    image_config_release(&config);
    manifest_release(&manifest);
    return r;
}

/* An index names the same image for several platforms. */
static int load_descriptor(const struct loading *l, const char *name,
                           const struct descriptor *descriptor, unsigned depth, struct error *err)
{
    AUTO_FREE char *text = NULL;
    const struct descriptor *chosen;
    struct index index;
    size_t length;
    int r;

    if (!media_type_is_index(descriptor->media_type))
        return load_manifest(l, name, descriptor, err);
    if (depth == INDEX_DEPTH_MAX)
        return error_set(err, EINVAL, "indexes are nested too deep");
    r = read_document(l, descriptor, &text, &length, err);
    if (r == 0)
        r = index_read(text, length, &index, err);
    if (r < 0)
        return r;
    chosen = index_choose(&index, l->platform);
    r = chosen ? load_descriptor(l, name, chosen, depth + 1, err)
               : error_set(err, ENOENT, "%s has no image for %s/%s", descriptor->digest.text,
                           l->platform->os, l->platform->architecture);
    index_release(&index);
    return r;
}

static int load_layout(const struct loading *l, struct error *err)
{
    AUTO_FREE char *text = NULL;
    struct index index;
    size_t length;
    int r = source_read(l->source, "index.json", &text, &length, err);

    if (r == 0)
        r = index_read(text, length, &index, err);
    if (r < 0)
        return r;
    if (index.count == 0)
        r = error_set(err, ENOENT, "the index names no image");
    if (l->name && index.count > 1)
        r = error_set(err, EINVAL, "it has %zu images: they cannot all be called %s", index.count,
                      l->name);
    for (size_t i = 0; i < index.count && r == 0; i++)
        r = load_descriptor(l, l->name ? l->name : index.items[i].name, index.items + i, 0, err);
    index_release(&index);
    return r;
}

/* --- Docker archives --- */

/* The strings of an array member, in a list of their count. */
static int strings_of(const json_t *object, const char *name, const char ***ret_list,
                      size_t *ret_count, struct error *err)
{
    const json_t *array = json_object_get(object, name);
    AUTO_FREE const char **list = NULL;

    if (array && !json_is_null(array) && !json_is_array(array))
        return error_set(err, EINVAL, "%s must be an array", name);
    if (json_array_size(array) > LAYERS_MAX)
        return error_set(err, EINVAL, "%s has more than %d elements", name, LAYERS_MAX);
    list = calloc(json_array_size(array) + 1, sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < json_array_size(array); i++) {
        list[i] = json_string_value(json_array_get(array, i));
        if (!list[i])
            return error_set(err, EINVAL, "%s[%zu] must be a string", name, i);
    }
    *ret_count = json_array_size(array);
    *ret_list = steal_pointer(&list);
    return 0;
}

/* A layer in a Docker archive has no digest of its own; plain, it has that of the tar stream. */
static int describe_layer(const struct loading *l, const char *name, const struct digest *diff_id,
                          struct descriptor *layer, struct error *err)
{
    struct source_file file;
    int r = source_find(l->source, name, &file, err);

    if (r < 0)
        return r;
    strcpy(layer->media_type, layer_media_type(file.fd, file.offset));
    close(file.fd);
    layer->size = file.size;
    if (!strcmp(layer->media_type, MEDIA_LAYER))
        layer->digest = *diff_id;
    return 0;
}

static int store_docker(const struct loading *l, const char *config_text, size_t config_length,
                        struct manifest *manifest, struct descriptor *ret_descriptor,
                        struct error *err)
{
    AUTO_FREE char *text = NULL;
    int r = store_write_blob(l->store, config_text, config_length, &manifest->config, err);

    strcpy(manifest->config.media_type, MEDIA_CONFIG);
    if (r == 0)
        r = manifest_write(manifest, &text, err);
    if (r == 0)
        r = store_write_blob(l->store, text, strlen(text), ret_descriptor, err);
    strcpy(ret_descriptor->media_type, MEDIA_MANIFEST);
    return r;
}

static int load_docker_image(const struct loading *l, const json_t *item, struct error *err)
{
    const char *config_name = json_string_value(json_object_get(item, "Config"));
    struct file_origin files = {{fetch_file, 0}, l, NULL};
    AUTO_FREE const char **names = NULL, **tags = NULL;
    AUTO_FREE char *config_text = NULL;
    struct descriptor descriptor = {0};
    struct image_config config = {0};
    struct manifest manifest = {0};
    size_t length, tag_count;
    int r;

    if (!config_name)
        return error_set(err, EINVAL, "Config must be a string");
    r = strings_of(item, "Layers", &names, &manifest.layer_count, err);
    if (r == 0)
        r = strings_of(item, "RepoTags", &tags, &tag_count, err);
    if (r == 0)
        r = source_read(l->source, config_name, &config_text, &length, err);
    if (r == 0)
        r = image_config_read(config_text, length, &config, err);
    if (r == 0 && manifest.layer_count != config.diff_count)
        r = error_set(err, EINVAL, "there are %zu layers, but the configuration has %zu",
                      manifest.layer_count, config.diff_count);
    if (r == 0) {
        manifest.layers = calloc(manifest.layer_count + 1, sizeof(*manifest.layers));
        r = manifest.layers ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < manifest.layer_count && r == 0; i++)
        r = describe_layer(l, names[i], config.diff_ids + i, manifest.layers + i, err);
    files.names = names;
    if (r == 0)
        r = image_install(l->store, &files.origin, &manifest, &config, l->progress, err);
    if (r == 0)
        r = store_docker(l, config_text, length, &manifest, &descriptor, err);
    descriptor.platform = config.platform;
    if (r == 0 && (l->name || tag_count == 0))
        r = announce(l, l->name, &descriptor, err);
    for (size_t i = 0; !l->name && i < tag_count && r == 0; i++)
        r = announce(l, tags[i], &descriptor, err);
    image_config_release(&config);
    free(manifest.layers);
    return r;
}

static int load_docker(const struct loading *l, const char *text, size_t length, struct error *err)
{
    json_t *items;
    int r = document_parse(text, length, "manifest.json", &items, err);

    if (r < 0)
        return r;
    if (!json_is_array(items) || json_array_size(items) == 0)
        r = error_set(err, EINVAL, "manifest.json must be a list of images");
    else if (l->name && json_array_size(items) > 1)
        r = error_set(err, EINVAL, "it has %zu images: they cannot all be called %s",
                      json_array_size(items), l->name);
    for (size_t i = 0; i < json_array_size(items) && r == 0; i++) {
        r = load_docker_image(l, json_array_get(items, i), err);
        if (r < 0)
            error_prepend(err, "manifest.json[%zu]", i);
    }
    json_decref(items);
    return r;
}

int image_load(struct store *store, const struct source *source, const char *name,
               const struct platform *platform, struct progress *progress, load_fn *loaded,
               void *opaque, struct error *err)
{
    const struct loading loading = {store, source, name, platform, progress, loaded, opaque};
    AUTO_FREE char *layout = NULL, *manifest = NULL;
    size_t length;
    int r;

    /* Newer archives have both: the layout keeps the digests. */
    if (source_read(source, "oci-layout", &layout, &length, NULL) == 0)
        r = load_layout(&loading, err);
    else if (source_read(source, "manifest.json", &manifest, &length, NULL) == 0)
        r = load_docker(&loading, manifest, length, err);
    else
        r = error_set(err, EINVAL,
                      "it is neither an OCI image layout (oci-layout, index.json) nor "
                      "a Docker archive (manifest.json)");
    if (r < 0)
        store_collect(store, NULL, NULL);
    return r;
}
