/* Messages of a bus: header, and strings and numbers of the body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "container/dbus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size ? size : 1); /* where a sanitizer sees its end */
    struct dbus_message message;
    size_t offset = 0, texts = 0;
    const char *text;
    uint32_t number;

    if (!bytes)
        return 0;
    memcpy(bytes, data, size);
    if (dbus_parse(bytes, size, &message, NULL) == 0) {
        texts = strlen(message.member) + strlen(message.error_name) + strlen(message.signature);
        dbus_get_u32(&message, &offset, &number);
        while ((text = dbus_get_string(&message, &offset)))
            texts += strlen(text);
        if (offset > message.body_length || texts > 4 * size)
            abort();
    }
    free(bytes);
    return 0;
}
