/* digest.h - names of content by its hash: "sha256:" or "sha512:" and hex
 * (OCI image specification, descriptor.md, Digests). */
#ifndef LODGE_IMAGE_DIGEST_H
#define LODGE_IMAGE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct digest {
    char text[sizeof("sha512:") + 128]; /* "" when there is none */
};

/* Take text when it is a digest of a known algorithm, lower-case, of the right length. */
int digest_parse(const char *text, struct digest *ret_digest, struct error *err);
bool digest_equal(const struct digest *a, const struct digest *b);
/* The part behind the colon. */
const char *digest_hex(const struct digest *digest);

/* A hash in the making. */
struct hasher;

/* like: a digest whose algorithm to use, or NULL for SHA-256. */
int hasher_create(const struct digest *like, struct hasher **ret_hasher, struct error *err);
void hasher_update(struct hasher *hasher, const void *data, size_t length);
/* May be called once; then only hasher_destroy. */
void hasher_finish(struct hasher *hasher, struct digest *ret_digest);
void hasher_destroy(struct hasher *hasher); /* NULL is ignored */

/* The digest of data in memory, by the algorithm of like. */
int digest_of(const struct digest *like, const void *data, size_t length, struct digest *ret_digest,
              struct error *err);

#endif
