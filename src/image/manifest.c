#include "image/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

int document_parse(const char *text, size_t length, const char *name, json_t **ret_tree,
                   struct error *err)
{
    json_error_t wrong;
    json_t *tree;

    if (length > DOCUMENT_MAX)
        return error_set(err, EINVAL, "%s is larger than %d bytes", name, DOCUMENT_MAX);
    tree = json_loadb(text, length, 0, &wrong);
    if (!tree)
        return error_set(err, EINVAL, "%s: line %d, column %d: %s", name, wrong.line, wrong.column,
                         wrong.text);
    *ret_tree = tree;
    return 0;
}

/* --- Members --- */

/* The member as a string: NULL in ret_text when absent (null counts as absent). */
static int member_string(const json_t *object, const char *name, const char **ret_text,
                         struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (value && !json_is_null(value) && !json_is_string(value))
        return error_set(err, EINVAL, "%s must be a string", name);
    *ret_text = json_string_value(value);
    return 0;
}

/* Copy a string member into a buffer; absent: "". */
static int member_copy(const json_t *object, const char *name, char *buffer, size_t size,
                       struct error *err)
{
    const char *text;
    int r = member_string(object, name, &text, err);

    if (r < 0)
        return r;
    if (!text)
        text = "";
    if (strlen(text) >= size)
        return error_set(err, EINVAL, "%s is longer than %zu characters", name, size - 1);
    memset(buffer, 0, size);
    strcpy(buffer, text);
    return 0;
}

static int member_object(const json_t *object, const char *name, const json_t **ret_object,
                         struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (value && !json_is_null(value) && !json_is_object(value))
        return error_set(err, EINVAL, "%s must be an object", name);
    *ret_object = json_is_object(value) ? value : NULL;
    return 0;
}

static int member_array(const json_t *object, const char *name, size_t max,
                        const json_t **ret_array, struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (value && !json_is_null(value) && !json_is_array(value))
        return error_set(err, EINVAL, "%s must be an array", name);
    if (json_array_size(value) > max)
        return error_set(err, EINVAL, "%s has more than %zu elements", name, max);
    *ret_array = json_is_array(value) ? value : NULL;
    return 0;
}

/* A list of strings that ends with NULL: an array's elements, or an object's keys. */
static int member_strings(const json_t *object, const char *name, const char ***ret_list,
                          struct error *err)
{
    json_t *value = json_object_get(object, name);
    size_t count = json_is_object(value) ? json_object_size(value) : json_array_size(value), i = 0;
    AUTO_FREE const char **list = NULL;
    const char *key;
    json_t *item;

    if (value && !json_is_null(value) && !json_is_array(value) && !json_is_object(value))
        return error_set(err, EINVAL, "%s must be a list of strings", name);
    list = calloc(count + 1, sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    if (json_is_object(value))
        json_object_foreach(value, key, item) list[i++] = key;
    for (; i < count; i++) {
        list[i] = json_string_value(json_array_get(value, i));
        if (!list[i])
            return error_set(err, EINVAL, "%s[%zu] must be a string", name, i);
    }
    *ret_list = steal_pointer(&list);
    return 0;
}

/* --- Descriptors --- */

static int platform_read(const json_t *object, struct platform *platform, struct error *err)
{
    int r = member_copy(object, "os", platform->os, sizeof(platform->os), err);

    if (r == 0)
        r = member_copy(object, "architecture", platform->architecture,
                        sizeof(platform->architecture), err);
    if (r == 0)
        r = member_copy(object, "variant", platform->variant, sizeof(platform->variant), err);
    return r;
}

/* containerd writes the whole name beside a ref.name that is but the tag. What is too long to be a
 * name names nothing here. */
static void name_read(const json_t *annotations, char *name)
{
    member_copy(annotations, "io.containerd.image.name", name, REFERENCE_TEXT_MAX, NULL);
    if (!name[0])
        member_copy(annotations, ANNOTATION_NAME, name, REFERENCE_TEXT_MAX, NULL);
}

static int descriptor_read(const json_t *object, struct descriptor *descriptor, struct error *err)
{
    const json_t *size = json_object_get(object, "size"), *platform = NULL, *annotations = NULL;
    const char *digest;
    int r;

    if (!json_is_object(object))
        return error_set(err, EINVAL, "must be an object");
    r = member_copy(object, "mediaType", descriptor->media_type, sizeof(descriptor->media_type),
                    err);
    if (r == 0)
        r = member_string(object, "digest", &digest, err);
    if (r == 0)
        r = digest ? digest_parse(digest, &descriptor->digest, err)
                   : error_set(err, EINVAL, "digest is required, but missing");
    if (r == 0 && (!json_is_integer(size) || json_integer_value(size) < 0))
        r = error_set(err, EINVAL, "size must be a number of bytes");
    if (r == 0)
        r = member_object(object, "platform", &platform, err);
    if (r == 0 && platform)
        r = platform_read(platform, &descriptor->platform, err);
    if (r == 0)
        r = member_object(object, "annotations", &annotations, err);
    if (r == 0 && annotations)
        name_read(annotations, descriptor->name);
    if (r == 0)
        descriptor->size = (uint64_t)json_integer_value(size);
    return r;
}

static int descriptors_read(const json_t *object, const char *name, size_t max,
                            struct descriptor **ret_list, size_t *ret_count, struct error *err)
{
    AUTO_FREE struct descriptor *list = NULL;
    const json_t *array;
    int r = member_array(object, name, max, &array, err);

    if (r < 0)
        return r;
    if (!array)
        return error_set(err, EINVAL, "%s is required, but missing", name);
    list = calloc(json_array_size(array) + 1, sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < json_array_size(array); i++) {
        r = descriptor_read(json_array_get(array, i), list + i, err);
        if (r < 0) {
            error_prepend(err, "%s[%zu]", name, i);
            return r;
        }
    }
    *ret_count = json_array_size(array);
    *ret_list = steal_pointer(&list);
    return 0;
}

static int check_schema(const json_t *tree, struct error *err)
{
    const json_t *version = json_object_get(tree, "schemaVersion");

    if (!json_is_object(tree))
        return error_set(err, EINVAL, "must be an object");
    if (!json_is_integer(version) || json_integer_value(version) != 2)
        return error_set(err, EINVAL, "schemaVersion must be 2");
    return 0;
}

int index_read(const char *text, size_t length, struct index *ret_index, struct error *err)
{
    json_t *tree = NULL;
    struct index index = {0};
    int r = document_parse(text, length, "the index", &tree, err);

    if (r < 0)
        return r;
    r = check_schema(tree, err);
    if (r == 0)
        r = descriptors_read(tree, "manifests", 65536, &index.items, &index.count, err);
    json_decref(tree);
    if (r < 0) {
        error_prepend(err, "the index");
        return r;
    }
    *ret_index = index;
    return 0;
}

void index_release(struct index *index)
{
    free(index->items);
    *index = (struct index){0};
}

int manifest_read(const char *text, size_t length, struct manifest *ret_manifest, struct error *err)
{
    json_t *tree = NULL;
    struct manifest manifest = {0};
    int r = document_parse(text, length, "the manifest", &tree, err);

    if (r < 0)
        return r;
    r = check_schema(tree, err);
    if (r == 0 && (r = descriptor_read(json_object_get(tree, "config"), &manifest.config, err)) < 0)
        error_prepend(err, "config");
    if (r == 0)
        r = descriptors_read(tree, "layers", LAYERS_MAX, &manifest.layers, &manifest.layer_count,
                             err);
    json_decref(tree);
    if (r < 0) {
        error_prepend(err, "the manifest");
        return r;
    }
    *ret_manifest = manifest;
    return 0;
}

void manifest_release(struct manifest *manifest)
{
    free(manifest->layers);
    *manifest = (struct manifest){0};
}

/* --- Configuration --- */

static int diff_ids_read(const json_t *tree, struct image_config *config, struct error *err)
{
    const json_t *rootfs = NULL, *array = NULL;
    int r = member_object(tree, "rootfs", &rootfs, err);

    if (r == 0)
        r = member_array(rootfs, "diff_ids", LAYERS_MAX, &array, err);
    if (r < 0)
        return r;
    config->diff_ids = calloc(json_array_size(array) + 1, sizeof(*config->diff_ids));
    if (!config->diff_ids)
        return error_set(err, ENOMEM, "out of memory");
    config->diff_count = json_array_size(array);
    for (size_t i = 0; i < config->diff_count && r == 0; i++) {
        const char *text = json_string_value(json_array_get(array, i));

        r = text ? digest_parse(text, config->diff_ids + i, err)
                 : error_set(err, EINVAL, "must be a string");
        if (r < 0)
            error_prepend(err, "rootfs.diff_ids[%zu]", i);
    }
    return r;
}

static int config_object_read(const json_t *tree, struct image_config *config, struct error *err)
{
    const struct {
        const char *name, **value;
    } strings[] = {
        {"User", &config->user},
        {"WorkingDir", &config->working_directory},
        {"StopSignal", &config->stop_signal},
    };
    const struct {
        const char *name, ***value;
    } lists[] = {
        {"Env", &config->environment},
        {"Entrypoint", &config->entrypoint},
        {"Cmd", &config->command},
        {"Volumes", &config->volumes},
        {"ExposedPorts", &config->exposed_ports},
    };
    const json_t *object = NULL;
    int r = member_object(tree, "config", &object, err);

    for (size_t i = 0; i < ARRAY_SIZE(strings) && r == 0; i++) {
        r = member_string(object, strings[i].name, strings[i].value, err);
        if (r == 0 && !*strings[i].value)
            *strings[i].value = "";
    }
    for (size_t i = 0; i < ARRAY_SIZE(lists) && r == 0; i++)
        r = member_strings(object, lists[i].name, lists[i].value, err);
    return r;
}

int image_config_read(const char *text, size_t length, struct image_config *ret_config,
                      struct error *err)
{
    struct image_config config = {0};
    int r = document_parse(text, length, "the image's configuration", &config.tree, err);

    if (r < 0)
        return r;
    r = json_is_object(config.tree) ? 0 : error_set(err, EINVAL, "must be an object");
    if (r == 0)
        r = platform_read(config.tree, &config.platform, err);
    if (r == 0)
        r = member_string(config.tree, "created", &config.created, err);
    if (r == 0)
        r = diff_ids_read(config.tree, &config, err);
    if (r == 0)
        r = config_object_read(config.tree, &config, err);
    if (r < 0) {
        error_prepend(err, "the image's configuration");
        image_config_release(&config);
        return r;
    }
    *ret_config = config;
    return 0;
}

void image_config_release(struct image_config *config)
{
    free(config->diff_ids);
    free(config->environment);
    free(config->entrypoint);
    free(config->command);
    free(config->exposed_ports);
    free(config->volumes);
    json_decref(config->tree);
    *config = (struct image_config){0};
}

/* --- Writing --- */

bool media_type_is_index(const char *media_type)
{
    return !strcmp(media_type, MEDIA_INDEX) || !strcmp(media_type, MEDIA_DOCKER_INDEX);
}

bool media_type_is_manifest(const char *media_type)
{
    return !strcmp(media_type, MEDIA_MANIFEST) || !strcmp(media_type, MEDIA_DOCKER);
}

static void set_string(json_t *object, const char *name, const char *text)
{
    if (text[0])
        json_object_set_new(object, name, json_string(text));
}

json_t *descriptor_write(const struct descriptor *descriptor)
{
    json_t *object = json_object();

    set_string(object, "mediaType", descriptor->media_type);
    set_string(object, "digest", descriptor->digest.text);
    json_object_set_new(object, "size", json_integer((json_int_t)descriptor->size));
    if (descriptor->platform.os[0]) {
        json_t *platform = json_object();

        set_string(platform, "architecture", descriptor->platform.architecture);
        set_string(platform, "os", descriptor->platform.os);
        set_string(platform, "variant", descriptor->platform.variant);
        json_object_set_new(object, "platform", platform);
    }
    if (descriptor->name[0])
        json_object_set_new(object, "annotations",
                            json_pack("{ss}", ANNOTATION_NAME, descriptor->name));
    return object;
}

int manifest_write(const struct manifest *manifest, char **ret_text, struct error *err)
{
    json_t *layers = json_array(), *tree;
    char *text;

    for (size_t i = 0; i < manifest->layer_count; i++)
        json_array_append_new(layers, descriptor_write(manifest->layers + i));
    tree = json_pack("{si ss so so}", "schemaVersion", 2, "mediaType", MEDIA_MANIFEST, "config",
                     descriptor_write(&manifest->config), "layers", layers);
    text = json_dumps(tree, JSON_COMPACT);
    json_decref(tree);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    *ret_text = text;
    return 0;
}

/* --- Platforms --- */

int platform_parse(const char *text, struct platform *ret_platform, struct error *err)
{
    struct platform platform = {"linux", "amd64", ""};

    if (text) {
        int end = 0, variant = 0;

        memset(&platform, 0, sizeof(platform));
        sscanf(text, "%31[a-z0-9.]/%31[a-z0-9_]%n/%31[a-z0-9.]%n", platform.os,
               platform.architecture, &end, platform.variant, &variant);
        if (!end || text[MAX(end, variant)])
            return error_set(err, EINVAL, "the platform '%s' is not OS/ARCHITECTURE[/VARIANT]",
                             text);
    }
    *ret_platform = platform;
    return 0;
}

const struct descriptor *index_choose(const struct index *index, const struct platform *platform)
{
    for (size_t i = 0; i < index->count; i++) {
        const struct platform *offered = &index->items[i].platform;

        if (!strcmp(offered->os, platform->os) &&
            !strcmp(offered->architecture, platform->architecture) &&
            (!platform->variant[0] || !strcmp(offered->variant, platform->variant)))
            return index->items + i;
    }
    return NULL;
}
