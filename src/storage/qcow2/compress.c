/* Compressed clusters: raw deflate with a window of 4K, or a zstd frame. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

#define DEFLATE_WINDOW (-12) /* negative: no zlib header around it */

/* Input may have a sector's rest behind it; output must be a whole cluster. */
static int inflate_cluster(const uint8_t *in, uint32_t in_length, uint8_t *out, uint32_t length)
{
    z_stream stream = {
        .next_in = (uint8_t *)in, .avail_in = in_length, .next_out = out, .avail_out = length};
    int r;

    if (inflateInit2(&stream, DEFLATE_WINDOW) != Z_OK)
        return -ENOMEM;
    r = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !stream.avail_out ? 0 : -EIO;
}

static int unzstd_cluster(const uint8_t *in, uint32_t in_length, uint8_t *out, uint32_t length)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    ZSTD_inBuffer input = {in, in_length, 0};
    ZSTD_outBuffer output = {out, length, 0};
    size_t before, n = 1;

    if (!context)
        return -ENOMEM;
    while (n && output.pos < length) {
        before = input.pos + output.pos;
        n = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(n) || input.pos + output.pos == before)
            break;
    }
    ZSTD_freeDCtx(context);
    return output.pos == length ? 0 : -EIO;
}

int qcow2_decompress(struct qcow2 *q, uint64_t descriptor, uint8_t *ret_cluster)
{
    AUTO_FREE uint8_t *in = NULL;
    uint64_t offset;
    uint32_t length;
    int r;

    compressed_range(q, descriptor, &offset, &length);
    if (offset > q->file->size)
        return -EIO;
    in = malloc(length);
    if (!in)
        return -ENOMEM;
    r = disk_read(q->file, offset, in, length);
    if (r < 0)
        return r;
    return q->header.compression == QCOW2_ZSTD
               ? unzstd_cluster(in, length, ret_cluster, q->cluster_size)
               : inflate_cluster(in, length, ret_cluster, q->cluster_size);
}

/* Returns the length, 0 when it does not get smaller, or a negative errno. */
static int deflate_cluster(const uint8_t *in, uint8_t *out, uint32_t length)
{
    z_stream stream = {
        .next_in = (uint8_t *)in, .avail_in = length, .next_out = out, .avail_out = length - 1};
    int r;

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    r = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return r == Z_STREAM_END ? (int)stream.total_out : 0;
}

static int zstd_cluster(const uint8_t *in, uint8_t *out, uint32_t length)
{
    size_t n = ZSTD_compress(out, length - 1, in, length, ZSTD_CLEVEL_DEFAULT);

    return ZSTD_isError(n) ? 0 : (int)n;
}

/* Let the entry at offset refer to the bytes at host. The caller holds range and lock. */
static int link_compressed(struct qcow2 *q, uint64_t offset, uint64_t host, uint32_t length)
{
    const unsigned bits = 62 - (q->header.cluster_bits - 8);
    const uint64_t sectors = (host + length - 1) / QCOW2_SECTOR - host / QCOW2_SECTOR;
    const struct l2_entry entry = {.value = QCOW2_COMPRESSED | sectors << bits | host};
    struct l2_entry before;
    struct l2_place place;
    int r = l2_find(q, offset, true, &place);

    if (r < 0)
        return r;
    before = l2_read(q, &place);
    r = l2_check(q, before);
    if (r < 0)
        return r;
    l2_write(q, &place, entry);
    l2_free_later(q, before);
    return 0;
}

static int store_compressed(struct qcow2 *q, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct fibers *fibers = storage_fibers(q->disk->storage);
    struct range_hold hold;
    uint64_t host = 0;
    int r;

    range_lock(fibers, &q->ranges, &hold, offset, q->cluster_size, true);
    fiber_lock(fibers, &q->lock);
    r = q->broken ? -EIO : bytes_allocate(q, length, &host);
    fiber_unlock(&q->lock);
    if (r == 0) {
        r = disk_write(q->file, host, data, length);
        fiber_lock(fibers, &q->lock);
        if (r == 0)
            r = link_compressed(q, offset, host, length);
        if (r < 0) /* when it fails they leak, and the next check says so */
            refcount_change(q, host, length, -1);
        fiber_unlock(&q->lock);
    }
    range_unlock(&q->ranges, &hold);
    return r;
}

int qcow2_write_compressed(struct disk *disk, uint64_t offset, const void *data, size_t length)
{
    struct qcow2 *q = disk->state;
    AUTO_FREE uint8_t *in = NULL;
    AUTO_FREE uint8_t *out = malloc(q->cluster_size);
    int n;

    if ((offset & (q->cluster_size - 1)) || length > q->cluster_size)
        return -EINVAL;
    if (!out)
        return -ENOMEM;
    if (length < q->cluster_size) { /* the disk's last cluster */
        in = calloc(1, q->cluster_size);
        if (!in)
            return -ENOMEM;
        memcpy(in, data, length);
        data = in;
    }
    n = q->header.compression == QCOW2_ZSTD ? zstd_cluster(data, out, q->cluster_size)
                                            : deflate_cluster(data, out, q->cluster_size);
    if (n <= 0)
        return n < 0 ? n : -ENOSPC;
    return store_compressed(q, offset, out, (uint32_t)n);
}
