/* manifest.h - the JSON documents of images: index, manifest and configuration
 * (OCI image specification 1.1; Docker's schema 2 has the same members under
 * other media types). All of it is hostile until read: each reader checks
 * types and bounds, and its errors name the member. */
#ifndef LODGE_IMAGE_MANIFEST_H
#define LODGE_IMAGE_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "image/digest.h"
#include "image/reference.h"

#define MEDIA_INDEX        "application/vnd.oci.image.index.v1+json"
#define MEDIA_MANIFEST     "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_CONFIG       "application/vnd.oci.image.config.v1+json"
#define MEDIA_LAYER        "application/vnd.oci.image.layer.v1.tar"
#define MEDIA_LAYER_GZIP   MEDIA_LAYER "+gzip"
#define MEDIA_LAYER_ZSTD   MEDIA_LAYER "+zstd"
#define MEDIA_DOCKER_INDEX "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_DOCKER       "application/vnd.docker.distribution.manifest.v2+json"

#define ANNOTATION_NAME "org.opencontainers.image.ref.name"

enum {
    DOCUMENT_MAX = 4 << 20, /* bytes of JSON; registries have the same bound */
    LAYERS_MAX = 512,
};

struct platform {
    char os[32], architecture[32], variant[32]; /* "" when not said */
};

/* Content elsewhere, by digest (descriptor.md). */
struct descriptor {
    char media_type[128];
    struct digest digest;
    uint64_t size;
    struct platform platform;
    char name[REFERENCE_TEXT_MAX]; /* the annotation ref.name, or "" */
};

struct index {
    struct descriptor *items;
    size_t count;
};

struct manifest {
    struct descriptor config;
    struct descriptor *layers; /* the lowest first */
    size_t layer_count;
};

/* What a container or a machine of the image starts with (config.md). Strings
 * belong to tree; lists end with NULL, and an absent one is empty. */
struct image_config {
    struct platform platform;
    struct digest *diff_ids; /* of the layers' tar streams, the lowest first */
    size_t diff_count;
    const char *created;                                /* or NULL */
    const char *user, *working_directory, *stop_signal; /* "" when not said */
    const char **environment, **entrypoint, **command, **exposed_ports, **volumes;
    json_t *tree;
};

/* Parse text into an object or fail; name stands before the words. */
int document_parse(const char *text, size_t length, const char *name, json_t **ret_tree,
                   struct error *err);

int index_read(const char *text, size_t length, struct index *ret_index, struct error *err);
void index_release(struct index *index);
int manifest_read(const char *text, size_t length, struct manifest *ret_manifest,
                  struct error *err);
void manifest_release(struct manifest *manifest);
int image_config_read(const char *text, size_t length, struct image_config *ret_config,
                      struct error *err);
void image_config_release(struct image_config *config);

bool media_type_is_index(const char *media_type);
bool media_type_is_manifest(const char *media_type);

/* The descriptor as JSON, with platform and name when it has them; NULL: out of memory. */
json_t *descriptor_write(const struct descriptor *descriptor);
/* The text of a manifest of config and layers; freed by the caller. */
int manifest_write(const struct manifest *manifest, char **ret_text, struct error *err);

/* Parse OS/ARCHITECTURE[/VARIANT]; NULL: this host's. */
int platform_parse(const char *text, struct platform *ret_platform, struct error *err);
/* The manifest of index for the platform: its item, or NULL when there is none. */
const struct descriptor *index_choose(const struct index *index, const struct platform *platform);

#endif
