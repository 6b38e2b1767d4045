/* reference.h - names of images: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
 * (OCI distribution specification, Pulling manifests: the grammar of <name>
 * and <reference>). */
#ifndef LODGE_IMAGE_REFERENCE_H
#define LODGE_IMAGE_REFERENCE_H

#include "image/digest.h"

struct reference {
    char registry[256];   /* host[:port]; "" when the text names none */
    char repository[256]; /* team/app */
    char tag[129];        /* "latest" when neither tag nor digest is given */
    struct digest digest; /* "" when not given */
};

/* The longest text of a reference, with its end. */
enum { REFERENCE_TEXT_MAX = 256 + 256 + 129 + sizeof(struct digest) };

/* The first component is a registry when it has a dot or a colon or is
 * "localhost", as everywhere. -EINVAL with words that quote the text. */
int reference_parse(const char *text, struct reference *ret_reference, struct error *err);

/* The whole name, normalized, into buffer (REFERENCE_TEXT_MAX); returns it. */
const char *reference_format(const struct reference *reference, char *buffer);

#endif
