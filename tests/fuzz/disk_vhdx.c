/* The input is what matters of a VHDX image: it goes where it belongs in a file that is
 * mostly empty, and the checksums are made right. */
#include <string.h>

#include "base/bytes.h"
#include "disk_format.h"
#include "storage/vhdx_log.h"

enum {
    HEADER = 64 << 10,
    REGIONS = 192 << 10,
    METADATA = 1 << 20,
    BLOCKS = 2 << 20,
    LOG = 3 << 20,
    FILE_SIZE = 4 << 20
};

/* Where pieces of the input go, and the length that a checksum covers. */
static const struct {
    uint32_t from, length, to, checked;
} pieces[] = {
    {0, 512, HEADER, 4096},
    {512, 512, REGIONS, 65536},
    {1024, 2048, METADATA, 0},
    {3072, 4096, BLOCKS, 0},
    {7168, 12288, LOG, 0},
    {19456, 12288, LOG + 12288, 0},
};
enum { ENTRY_LENGTH_AT = 8, ENTRY_MAX = 16384 };

static void seal(uint8_t *data, size_t length)
{
    store_le32(data + 4, vhdx_checksum(data, length));
}

/* Entries of the log, as long as they say they are. */
static void seal_log(uint8_t *log)
{
    for (uint32_t at = 0; at < 24576; at += 4096) {
        uint32_t length = load_le32(log + at + ENTRY_LENGTH_AT);

        if (!memcmp(log + at, "loge", 4) && length <= ENTRY_MAX && length % 4096 == 0)
            seal(log + at, length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[FILE_SIZE];

    for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
        uint8_t *to = file + pieces[i].to;

        memset(to, 0, pieces[i].length);
        if (pieces[i].from < size)
            memcpy(to, data + pieces[i].from, MIN(size - pieces[i].from, pieces[i].length));
        if (pieces[i].checked)
            seal(to, pieces[i].checked);
    }
    seal_log(file + LOG);
    fuzz_disk(&vhdx_format, false, file, FILE_SIZE);
    return 0;
}
