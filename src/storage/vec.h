/* vec.h - memory in pieces (struct iovec) as one run of bytes (private to storage). */
#ifndef LODGE_STORAGE_VEC_H
#define LODGE_STORAGE_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* How many pieces one call handles; longer vectors are cut. */
#define VEC_PIECES 64

/* The bytes of a vector; UINT64_MAX when they overflow. */
uint64_t vec_length(const struct iovec *iov, unsigned count);

/* The pieces of at most length bytes after the first skip ones, no more than
 * VEC_PIECES. Returns how many bytes they hold: less than length when the
 * pieces are many, 0 only when length is 0 or skip is at the end. */
size_t vec_cut(const struct iovec *iov, unsigned count, size_t skip, size_t length,
               struct iovec ret_pieces[VEC_PIECES], unsigned *ret_count);

/* length bytes of the vector after skip, which it must have. */
void vec_fill(const struct iovec *iov, unsigned count, size_t skip, uint8_t byte, size_t length);
void vec_from(const struct iovec *iov, unsigned count, size_t skip, const void *from,
              size_t length);
void vec_to(const struct iovec *iov, unsigned count, size_t skip, void *to, size_t length);

#endif
