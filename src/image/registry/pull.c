/* registry_pull: manifests and blobs out of a registry into a store. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/blob.h"
#include "image/install.h"
#include "image/registry/registry-private.h"

#define ACCEPT MEDIA_MANIFEST ", " MEDIA_INDEX ", " MEDIA_DOCKER ", " MEDIA_DOCKER_INDEX

enum {
    DOWNLOADS = 4, /* at once */
    TRIES_MAX = 5, /* without a byte in between */
};

struct pulling {
    struct origin origin;
    struct endpoints *endpoints;
};

/* --- Blobs --- */

struct download {
    struct blob_writer *writer;
    const struct descriptor *descriptor;
    struct progress *progress;
    size_t i;
    bool ranged; /* only the rest was asked for, and nothing has come yet */
};

static int download_came(void *opaque, long status, const void *data, size_t length,
                         struct error *err)
{
    struct download *d = opaque;
    /* 200 instead of 206: this server sends all of it again. */
    int r = d->ranged && status == 200 ? blob_restart(d->writer, err) : 0;

    d->ranged = false;
    if (r == 0)
        r = blob_write(d->writer, data, length, err);
    if (r == 0)
        progress_update(d->progress, d->i, d->descriptor->digest.text, blob_size(d->writer),
                        d->descriptor->size);
    return r;
}

/* One exchange: -EAGAIN when there is more to come. */
static int download_more(struct endpoint *endpoint, struct download *d, struct error *err)
{
    struct http_request request = {.method = "GET",
                                   .body_fd = -1,
                                   .sink = download_came,
                                   .opaque = d,
                                   .range_start = blob_size(d->writer)};
    char path[sizeof("blobs/") + sizeof(struct digest)];
    struct http_answer answer;
    int r;

    d->ranged = request.range_start > 0;
    snprintf(path, sizeof(path), "blobs/%s", d->descriptor->digest.text);
    r = endpoint_perform(endpoint, path, &request, &answer, err);
    if (r < 0)
        return r;
    if (answer.status == 416) { /* what is there does not fit this server's content */
        r = blob_restart(d->writer, err);
        r = r < 0 ? r : error_set(err, EAGAIN, "%s cannot resume", endpoint->host);
    } else if (answer.status / 100 != 2) {
        r = endpoint_refusal(endpoint, d->descriptor->digest.text, &answer, err);
    } else if (blob_size(d->writer) < d->descriptor->size) {
        r = error_set(err, EAGAIN, "%s: %s ends after %llu of %llu bytes", endpoint->host,
                      d->descriptor->digest.text, (unsigned long long)blob_size(d->writer),
                      (unsigned long long)d->descriptor->size);
    }
    http_answer_release(&answer);
    return r;
}

static int download(struct endpoint *endpoint, struct download *d, struct error *err)
{
    unsigned tries = 0;

    /* An earlier pull may have been killed just before it named its content. */
    while (blob_size(d->writer) < d->descriptor->size) {
        uint64_t before = blob_size(d->writer);
        int r = download_more(endpoint, d, err);
        struct timespec pause = {.tv_nsec = 50000000l << tries};

        if (r == 0)
            return 0;
        if (blob_size(d->writer) > before && (r == -EAGAIN || r == -ECONNREFUSED))
            tries = 0;
        else if ((r != -EAGAIN && !(r == -ECONNREFUSED && before)) || ++tries == TRIES_MAX)
            return r;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int fetch_from(struct endpoint *endpoint, struct store *store, size_t i,
                      const struct descriptor *blob, struct progress *progress, struct error *err)
{
    struct download d = {.descriptor = blob, .progress = progress, .i = i};
    int r = blob_resume(store, blob, &d.writer, err);

    if (r == -EEXIST)
        return 0;
    if (r < 0)
        return r;
    r = download(endpoint, &d, err);
    if (r < 0)
        blob_abandon(d.writer);
    else
        r = blob_finish(d.writer, NULL, err);
    return r;
}

static int fetch_blob(const struct origin *origin, struct store *store, size_t i,
                      struct descriptor *blob, struct progress *progress, struct error *err)
{
    const struct pulling *pulling = (const struct pulling *)origin;
    int r = -ENOENT;

    /* The registry itself comes last: what it says is the error. */
    for (size_t k = 0; k < pulling->endpoints->count && r < 0 && r != -ENOSPC; k++)
        r = fetch_from(pulling->endpoints->items + k, store, i, blob, progress, err);
    return r;
}

/* --- Documents --- */

struct document {
    struct descriptor descriptor;
    char *text;
    size_t length;
};

/* What a document is when the answer's Content-Type does not say: by its own members. */
static void guess_media_type(struct document *document)
{
    json_t *tree = json_loadb(document->text, document->length, 0, NULL);
    const char *own = json_string_value(json_object_get(tree, "mediaType"));

    if (!own)
        own = json_object_get(tree, "manifests") ? MEDIA_INDEX : MEDIA_MANIFEST;
    snprintf(document->descriptor.media_type, sizeof(document->descriptor.media_type), "%s", own);
    json_decref(tree);
}

/* Get manifests/REFERENCE; a digest must be that of what comes. */
static int get_document(struct endpoint *endpoint, const char *reference,
                        const struct digest *expected, struct document *ret_document,
                        struct error *err)
{
    struct http_request request = {.method = "GET", .accept = ACCEPT, .body_fd = -1};
    char path[sizeof("manifests/") + REFERENCE_TEXT_MAX];
    struct document document = {0};
    struct http_answer answer;
    int r;

    snprintf(path, sizeof(path), "manifests/%s", reference);
    r = endpoint_perform(endpoint, path, &request, &answer, err);
    if (r < 0)
        return r;
    if (answer.status != 200) {
        r = endpoint_refusal(endpoint, reference, &answer, err);
        http_answer_release(&answer);
        return r;
    }
    document.text = answer.text ? steal_pointer(&answer.text) : strdup("");
    document.length = answer.length;
    document.descriptor.size = answer.length;
    snprintf(document.descriptor.media_type, sizeof(document.descriptor.media_type), "%.*s",
             (int)strcspn(answer.content_type, "; "), answer.content_type);
    http_answer_release(&answer);
    if (!media_type_is_index(document.descriptor.media_type) &&
        !media_type_is_manifest(document.descriptor.media_type))
        guess_media_type(&document);
    r = digest_of(expected, document.text, document.length, &document.descriptor.digest, err);
    if (r == 0 && expected && expected->text[0] &&
        !digest_equal(expected, &document.descriptor.digest))
        r = error_set(err, EINVAL, "wrong digest: %s was asked for, but %s sends %s",
                      expected->text, endpoint->host, document.descriptor.digest.text);
    if (r < 0) {
        free(document.text);
        return r;
    }
    *ret_document = document;
    return 0;
}

/* The manifest of the platform behind an index. */
static int choose(struct endpoint *endpoint, const struct platform *platform,
                  struct document *document, struct error *err)
{
    const struct descriptor *chosen;
    struct document inner;
    struct index index;
    int r = index_read(document->text, document->length, &index, err);

    if (r < 0)
        return r;
    chosen = index_choose(&index, platform);
    r = chosen ? get_document(endpoint, chosen->digest.text, &chosen->digest, &inner, err)
               : error_set(err, ENOENT, "there is no image for %s/%s", platform->os,
                           platform->architecture);
    index_release(&index);
    if (r < 0)
        return r;
    free(document->text);
    *document = inner;
    return 0;
}

static int get_manifest(struct endpoint *endpoint, const struct platform *platform,
                        struct document *ret_document, struct error *err)
{
    const struct reference *reference = endpoint->reference;
    bool by_digest = reference->digest.text[0];
    struct document document;
    int r = get_document(endpoint, by_digest ? reference->digest.text : reference->tag,
                         by_digest ? &reference->digest : NULL, &document, err);

    if (r < 0)
        return r;
    if (media_type_is_index(document.descriptor.media_type))
        r = choose(endpoint, platform, &document, err);
    if (r < 0)
        free(document.text);
    else
        *ret_document = document;
    return r;
}

/* --- The whole --- */

static int pull_manifest(const struct pulling *pulling, struct store *store,
                         struct document *document, struct manifest *manifest,
                         struct progress *progress, struct error *err)
{
    struct image_config config = {0};
    AUTO_FREE char *text = NULL;
    size_t length;
    int r = 0;

    if (!store_has(store, &manifest->config))
        r = fetch_blob(&pulling->origin, store, manifest->layer_count, &manifest->config, NULL,
                       err);
    if (r == 0)
        r = store_read_blob(store, &manifest->config, &text, &length, err);
    if (r == 0)
        r = image_config_read(text, length, &config, err);
    if (r == 0)
        r = image_install(store, &pulling->origin, manifest, &config, progress, err);
    if (r == 0) {
        char media_type[sizeof(document->descriptor.media_type)];

        strcpy(media_type, document->descriptor.media_type);
        r = store_write_blob(store, document->text, document->length, &document->descriptor, err);
        strcpy(document->descriptor.media_type, media_type);
        document->descriptor.platform = config.platform;
    }
    image_config_release(&config);
    return r;
}

int registry_pull(struct store *store, const char *text, const struct registry_options *options,
                  struct descriptor *ret_descriptor, struct error *err)
{
    struct endpoints endpoints;
    struct pulling pulling = {{fetch_blob, DOWNLOADS}, &endpoints};
    struct document document = {0};
    struct manifest manifest = {0};
    int r = endpoints_open(&endpoints, text, false, options, err);

    if (r < 0)
        return r;
    r = -ENOENT;
    for (size_t i = 0; i < endpoints.count && r < 0; i++)
        r = get_manifest(endpoints.items + i, &options->platform, &document, err);
    if (r == 0)
        r = manifest_read(document.text, document.length, &manifest, err);
    if (r == 0)
        r = pull_manifest(&pulling, store, &document, &manifest, options->progress, err);
    if (r == 0) {
        reference_format(&endpoints.reference, document.descriptor.name);
        r = store_tag(store, &document.descriptor, err);
    }
    if (r == 0)
        *ret_descriptor = document.descriptor;
    else
        error_prepend(err, "cannot pull %.200s", text);
    manifest_release(&manifest);
    free(document.text);
    endpoints_close(&endpoints);
    return r;
}
