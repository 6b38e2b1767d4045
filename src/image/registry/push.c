/* registry_push: blobs and a manifest out of a store into a registry. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/parallel.h"
#include "image/registry/registry-private.h"

enum { UPLOADS = 4 }; /* at once */

struct pushing {
    const struct store *store;
    struct endpoint *endpoint;
    const struct manifest *manifest;
    struct progress *progress;
};

struct upload {
    struct progress *progress;
    size_t i;
    const struct descriptor *descriptor;
};

static void upload_went(void *opaque, uint64_t bytes)
{
    const struct upload *u = opaque;

    progress_update(u->progress, u->i, u->descriptor->digest.text, bytes, u->descriptor->size);
}

static int has_blob(struct endpoint *endpoint, const struct descriptor *blob, bool *ret_has,
                    struct error *err)
{
    struct http_request request = {.method = "HEAD", .body_fd = -1};
    char path[sizeof("blobs/") + sizeof(struct digest)];
    struct http_answer answer;
    int r;

    snprintf(path, sizeof(path), "blobs/%s", blob->digest.text);
    r = endpoint_perform(endpoint, path, &request, &answer, err);
    if (r < 0)
        return r;
    if (answer.status == 200 || answer.status == 404)
        *ret_has = answer.status == 200;
    else
        r = endpoint_refusal(endpoint, "to say whether it has a blob", &answer, err);
    http_answer_release(&answer);
    return r;
}

/* Begin an upload: where the blob is to be put, its digest among the query. */
static int begin_upload(struct endpoint *endpoint, const struct descriptor *blob, char *url,
                        size_t size, struct error *err)
{
    struct http_request request = {.method = "POST", .body_fd = -1};
    struct http_answer answer;
    size_t length;
    int r = endpoint_perform(endpoint, "blobs/uploads/", &request, &answer, err);

    if (r < 0)
        return r;
    if (answer.status != 202)
        r = endpoint_refusal(endpoint, "an upload", &answer, err);
    else
        r = http_resolve(request.url, answer.location, url, size, err);
    http_answer_release(&answer);
    if (r < 0)
        return r;
    length = strlen(url);
    if (snprintf(url + length, size - length, "%cdigest=%s", strchr(url, '?') ? '&' : '?',
                 blob->digest.text) >= (int)(size - length))
        return error_set(err, EPROTO, "%s: the address for an upload is too long", endpoint->host);
    return 0;
}

/* Expect status 201 for what was put. */
static int put(struct endpoint *endpoint, const char *path, struct http_request *request,
               const char *what, struct error *err)
{
    struct http_answer answer;
    int r = endpoint_perform(endpoint, path, request, &answer, err);

    if (r < 0)
        return r;
    if (answer.status != 201)
        r = endpoint_refusal(endpoint, what, &answer, err);
    http_answer_release(&answer);
    return r;
}

static int push_blob(void *opaque, size_t i, struct error *err)
{
    const struct pushing *p = opaque;
    const struct descriptor *blob =
        i < p->manifest->layer_count ? p->manifest->layers + i : &p->manifest->config;
    struct upload upload = {p->progress, i, blob};
    struct http_request request = {.method = "PUT",
                                   .content_type = "application/octet-stream",
                                   .body_length = blob->size,
                                   .sent = upload_went,
                                   .opaque = &upload};
    AUTO_CLOSE int fd = -1;
    char url[URL_MAX];
    bool has = false;
    int r = has_blob(p->endpoint, blob, &has, err);

    if (r < 0 || has)
        return r;
    fd = store_open_blob(p->store, blob, err);
    if (fd < 0)
        return fd;
    request.body_fd = fd;
    r = begin_upload(p->endpoint, blob, url, sizeof(url), err);
    return r < 0 ? r : put(p->endpoint, url, &request, blob->digest.text, err);
}

static int push_manifest(struct endpoint *endpoint, const struct descriptor *descriptor,
                         const char *text, size_t length, struct error *err)
{
    const struct reference *reference = endpoint->reference;
    struct http_request request = {.method = "PUT",
                                   .content_type = descriptor->media_type,
                                   .body = text,
                                   .body_length = length,
                                   .body_fd = -1};
    char path[sizeof("manifests/") + REFERENCE_TEXT_MAX];

    snprintf(path, sizeof(path), "manifests/%s",
             reference->tag[0] ? reference->tag : descriptor->digest.text);
    return put(endpoint, path, &request, "the manifest", err);
}

int registry_push(struct store *store, const char *source, const char *target,
                  const struct registry_options *options, struct error *err)
{
    struct endpoints endpoints;
    struct descriptor descriptor;
    struct manifest manifest = {0};
    AUTO_FREE char *text = NULL;
    size_t length;
    int r = store_resolve(store, source, &descriptor, err);

    if (r == 0)
        r = store_read_blob(store, &descriptor, &text, &length, err);
    if (r == 0)
        r = manifest_read(text, length, &manifest, err);
    if (r < 0)
        return r;
    r = endpoints_open(&endpoints, target, true, options, err);
    if (r == 0) {
        struct pushing pushing = {store, endpoints.items, &manifest, options->progress};

        r = parallel_run(manifest.layer_count + 1, UPLOADS, push_blob, &pushing, err);
        if (r == 0)
            r = push_manifest(endpoints.items, &descriptor, text, length, err);
        endpoints_close(&endpoints);
    }
    if (r < 0)
        error_prepend(err, "cannot push to %.200s", target);
    manifest_release(&manifest);
    return r;
}
