#include "storage/vec.h"

#include <string.h>

#include "base/bytes.h"

uint64_t vec_length(const struct iovec *iov, unsigned count)
{
    uint64_t length = 0;

    for (unsigned i = 0; i < count; i++)
        if (__builtin_add_overflow(length, iov[i].iov_len, &length))
            return UINT64_MAX;
    return length;
}

size_t vec_cut(const struct iovec *iov, unsigned count, size_t skip, size_t length,
               struct iovec ret_pieces[VEC_PIECES], unsigned *ret_count)
{
    size_t total = 0;
    unsigned n = 0, i = 0;

    for (; i < count && skip >= iov[i].iov_len; i++)
        skip -= iov[i].iov_len;
    for (; i < count && total < length && n < VEC_PIECES; i++) {
        size_t piece = MIN(iov[i].iov_len - skip, length - total);

        if (piece) {
            ret_pieces[n].iov_base = (uint8_t *)iov[i].iov_base + skip;
            ret_pieces[n++].iov_len = piece;
        }
        total += piece;
        skip = 0;
    }
    *ret_count = n;
    return total;
}

void vec_fill(const struct iovec *iov, unsigned count, size_t skip, uint8_t byte, size_t length)
{
    struct iovec pieces[VEC_PIECES];
    unsigned n;

    while (length) {
        size_t done = vec_cut(iov, count, skip, length, pieces, &n);

        for (unsigned i = 0; i < n; i++)
            memset(pieces[i].iov_base, byte, pieces[i].iov_len);
        skip += done;
        length -= done;
    }
}

void vec_from(const struct iovec *iov, unsigned count, size_t skip, const void *from, size_t length)
{
    const uint8_t *p = from;
    struct iovec pieces[VEC_PIECES];
    unsigned n;

    while (length) {
        size_t done = vec_cut(iov, count, skip, length, pieces, &n);

        for (unsigned i = 0; i < n; p += pieces[i++].iov_len)
            memcpy(pieces[i].iov_base, p, pieces[i].iov_len);
        skip += done;
        length -= done;
    }
}

void vec_to(const struct iovec *iov, unsigned count, size_t skip, void *to, size_t length)
{
    uint8_t *p = to;
    struct iovec pieces[VEC_PIECES];
    unsigned n;

    while (length) {
        size_t done = vec_cut(iov, count, skip, length, pieces, &n);

        for (unsigned i = 0; i < n; p += pieces[i++].iov_len)
            memcpy(p, pieces[i].iov_base, pieces[i].iov_len);
        skip += done;
        length -= done;
    }
}
