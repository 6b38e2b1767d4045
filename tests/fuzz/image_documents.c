/* The readers of images' JSON documents and names: the first byte chooses one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_name(const char *text, size_t length)
{
    char *copy = strndup(text, length), whole[REFERENCE_TEXT_MAX];
    struct reference reference, again;

    /* A name that is taken must read the same when written. */
    if (reference_parse(copy, &reference, NULL) == 0 &&
        (reference_parse(reference_format(&reference, whole), &again, NULL) < 0 ||
         memcmp(&reference, &again, sizeof(again)) != 0))
        abort();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_config config;
    struct manifest manifest;
    struct error err;
    struct index index;
    const char *text = (const char *)data + 1;

    if (!size--)
        return 0;
    switch (data[0] % 4) {
    case 0:
        if (index_read(text, size, &index, &err) == 0)
            index_release(&index);
        break;
    case 1:
        if (manifest_read(text, size, &manifest, &err) == 0)
            manifest_release(&manifest);
        break;
    case 2:
        if (image_config_read(text, size, &config, &err) == 0)
            image_config_release(&config);
        break;
    default:
        read_name(text, size);
    }
    return 0;
}
