#include "image/digest.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/bytes.h"
#include "image/library.h"

static const struct algorithm {
    const char *prefix;
    size_t bytes;
    const EVP_MD *(*md)(void);
} algorithms[] = {
    {"sha256:", 32, EVP_sha256},
    {"sha512:", 64, EVP_sha512},
};

struct hasher {
    const struct algorithm *algorithm;
    EVP_MD_CTX *context;
};

static const struct algorithm *algorithm_of(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
        if (!strncmp(text, algorithms[i].prefix, strlen(algorithms[i].prefix)))
            return algorithms + i;
    return NULL;
}

int digest_parse(const char *text, struct digest *ret_digest, struct error *err)
{
    const struct algorithm *algorithm = algorithm_of(text);
    const char *hex;

    if (!algorithm)
        return error_set(err, EINVAL, "'%.80s' is no digest: sha256: or sha512: must come first",
                         text);
    hex = text + strlen(algorithm->prefix);
    if (strlen(hex) != 2 * algorithm->bytes ||
        strspn(hex, "0123456789abcdef") != 2 * algorithm->bytes)
        return error_set(err, EINVAL,
                         "'%.150s' is no digest: %zu lower-case hex digits must follow", text,
                         2 * algorithm->bytes);
    strcpy(ret_digest->text, text);
    return 0;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return strcmp(a->text, b->text) == 0;
}

const char *digest_hex(const struct digest *digest)
{
    return strchr(digest->text, ':') + 1;
}

int hasher_create(const struct digest *like, struct hasher **ret_hasher, struct error *err)
{
    struct hasher *hasher;
    int r = library_load(&library_crypto, err);

    if (r < 0)
        return r;
    hasher = calloc(1, sizeof(*hasher));
    if (!hasher)
        return error_set(err, ENOMEM, "out of memory");
    hasher->algorithm = like && like->text[0] ? algorithm_of(like->text) : algorithms;
    hasher->context = EVP_MD_CTX_new();
    if (!hasher->context || !EVP_DigestInit_ex(hasher->context, hasher->algorithm->md(), NULL)) {
        hasher_destroy(hasher);
        return error_set(err, ENOMEM, "cannot set up a hash");
    }
    *ret_hasher = hasher;
    return 0;
}

void hasher_update(struct hasher *hasher, const void *data, size_t length)
{
    EVP_DigestUpdate(hasher->context, data, length);
}

void hasher_finish(struct hasher *hasher, struct digest *ret_digest)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[EVP_MAX_MD_SIZE];
    char *text = ret_digest->text;

    EVP_DigestFinal_ex(hasher->context, bytes, NULL);
    text = stpcpy(text, hasher->algorithm->prefix);
    for (size_t i = 0; i < hasher->algorithm->bytes; i++) {
        *text++ = digits[bytes[i] >> 4];
        *text++ = digits[bytes[i] & 15];
    }
    *text = 0;
}

void hasher_destroy(struct hasher *hasher)
{
    if (!hasher)
        return;
    EVP_MD_CTX_free(hasher->context);
    free(hasher);
}

int digest_of(const struct digest *like, const void *data, size_t length, struct digest *ret_digest,
              struct error *err)
{
    struct hasher *hasher;
    int r = hasher_create(like, &hasher, err);

    if (r < 0)
        return r;
    hasher_update(hasher, data, length);
    hasher_finish(hasher, ret_digest);
    hasher_destroy(hasher);
    return 0;
}
