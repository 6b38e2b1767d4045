/* bytes.h - numbers in memory by byte order, and small arithmetic. */
#ifndef LODGE_BASE_BYTES_H
#define LODGE_BASE_BYTES_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(array)   (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b)           ((a) < (b) ? (a) : (b))
#define MAX(a, b)           ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, size) ((x) & ~((__typeof__(x))(size) - 1))
#define ALIGN_UP(x, size)   ALIGN_DOWN((x) + ((__typeof__(x))(size) - 1), size)
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

/* A field of a struct by its offset, for tables of fields. */
#define FIELD_AT(type, pointer, offset) (*(type *)(void *)((char *)(pointer) + (offset)))

#define BYTES_ORDER(bits, order, from, to)                                                         \
    static inline uint##bits##_t load_##order##bits(const void *p)                                 \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return from(v);                                                                            \
    }                                                                                              \
    static inline void store_##order##bits(void *p, uint##bits##_t v)                              \
    {                                                                                              \
        v = to(v);                                                                                 \
        memcpy(p, &v, sizeof(v));                                                                  \
    }

BYTES_ORDER(16, le, le16toh, htole16)
BYTES_ORDER(32, le, le32toh, htole32)
BYTES_ORDER(64, le, le64toh, htole64)
BYTES_ORDER(16, be, be16toh, htobe16)
BYTES_ORDER(32, be, be32toh, htobe32)
BYTES_ORDER(64, be, be64toh, htobe64)

#endif
