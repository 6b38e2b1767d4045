/* Messages of a 9P client: the input is a list of messages, each with a 16-bit
 * length before it. The share is an empty folder, and nothing appears beside it. */
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device/share/share.h"

static char folder[] = "/tmp/lodge-fuzz-share-XXXXXX";

static void clean_up(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    if (system(command) != 0)
        abort();
}

/* Messages are short: lengths in them are cut so that more of them fit. */
static void set_header(uint8_t *message, size_t length)
{
    if (length >= 4)
        store_le32(message, (uint32_t)length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t attach[] = {0, 0, 0, 0, 104, 1, 0, 1, 0,    0,    0,    0xff, 0xff,
                                     0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0};
    static struct share *share;
    static uint8_t request[1024], reply[4096];
    char path[64];

    if (!share) {
        if (!mkdtemp(folder))
            abort();
        atexit(clean_up);
        snprintf(path, sizeof(path), "%s/share", folder);
        if (mkdir(path, 0755) < 0 || share_open(path, false, &share, NULL) < 0)
            abort();
    }
    share_reset(share);
    memcpy(request, attach, sizeof(attach));
    set_header(request, sizeof(attach));
    share_serve(share, request, sizeof(attach), reply, sizeof(reply));
    while (size >= 2) {
        size_t length = MIN(load_le16(data) % sizeof(request), size - 2);

        memcpy(request, data + 2, length);
        set_header(request, length);
        if (share_serve(share, request, length, reply, sizeof(reply)) > sizeof(reply))
            abort();
        data += 2 + length;
        size -= 2 + length;
    }
    return 0;
}
