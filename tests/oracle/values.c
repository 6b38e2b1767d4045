#include "values.h"

#include <string.h>

#include "base/bytes.h"

uint64_t value_integer(struct random *r)
{
    static const uint64_t limits[] = {
        0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
        0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX, UINT64_MAX - 1, 0xffffffff80000000,
        0x0123456789abcdef, 0x5555555555555555, 0x100000000,
    };

    switch (random_below(r, 8)) {
    case 0: case 1: return limits[random_below(r, ARRAY_SIZE(limits))];
    case 2: return random_below(r, 256);
    case 3: return 1ull << random_below(r, 64);
    case 4: return random_next(r) & UINT32_MAX;
    default: return random_next(r);
    }
}

static uint32_t value_float(struct random *r)
{
    static const uint32_t classes[] = {
        0x00000000, 0x80000000, 0x3f800000, 0xbf800000, /* 0, 1 */
        0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, /* infinity, quiet NaN */
        0x7f800001, 0xffa00000, 0x7fffffff,             /* signalling NaN, the last NaN */
        0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, /* denormal, the least, the greatest */
        0x4effffff, 0x4f000000, 0xcf000000, 0x5f000000, /* about 2^31 and 2^63 */
        0x3f000000, 0xbf000000, 0x3fc00000, 0x40200000, /* halves */
    };

    switch (random_below(r, 4)) {
    case 0: return classes[random_below(r, ARRAY_SIZE(classes))];
    case 1: return (uint32_t)random_next(r);
    default: /* near 1, where results meet */
        return ((uint32_t)random_next(r) & 0x807fffff) | (0x3f000000 + (random_below(r, 24) << 22));
    }
}

static uint64_t value_double(struct random *r)
{
    static const uint64_t classes[] = {
        0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000,
        0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000,
        0x7ff0000000000001, 0xfff4000000000000, 0x7fffffffffffffff,
        1, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
        0x41dfffffffc00000, 0x41e0000000000000, 0xc1e0000000000000, 0xc1e0000000200000,
        0x43e0000000000000, 0x3fe0000000000000, 0xbfe0000000000000, 0x4004000000000000,
        0x47efffffe0000000, 0x36a0000000000000, 0x380fffffffffffff, /* limits of single precision */
    };

    switch (random_below(r, 4)) {
    case 0: return classes[random_below(r, ARRAY_SIZE(classes))];
    case 1: return random_next(r);
    default:
        return (random_next(r) & 0x800fffffffffffff) |
               (0x3fe0000000000000 + ((uint64_t)random_below(r, 64) << 51));
    }
}

static void value_extended(struct random *r, uint64_t *significand, uint16_t *sign_exponent)
{
    static const struct {
        uint64_t significand;
        uint16_t exponent;
    } classes[] = {
        {0, 0}, {1ull << 63, 0x3fff}, {1ull << 63, 0x7fff},          /* 0, 1, infinity */
        {3ull << 62, 0x7fff}, {1ull << 63 | 1, 0x7fff}, {1, 0x7fff}, /* NaNs, pseudo-NaN */
        {1, 0}, {1ull << 63, 0}, {1ull << 62, 0x3fff},   /* denormal, pseudo-denormal, unnormal */
        {UINT64_MAX, 0x7ffe}, {1ull << 63, 1},           /* the greatest, the least */
        {1ull << 63, 0x403e}, {UINT64_MAX, 0x401d}, {1ull << 63, 0x3ffe},
        {0xc90fdaa22168c235, 0x4000}, {0xc90fdaa22168c235, 0x3ffe}, /* pi, pi/4 */
    };
    unsigned kind = random_below(r, 8);

    if (kind < 3) {
        unsigned i = random_below(r, ARRAY_SIZE(classes));

        *significand = classes[i].significand;
        *sign_exponent = classes[i].exponent;
    } else if (kind == 3) {
        *significand = random_next(r);
        *sign_exponent = (uint16_t)random_next(r);
    } else {
        *significand = random_next(r) | 1ull << 63;
        if (random_chance(r, 50))
            *significand &= UINT64_MAX << random_below(r, 64); /* few digits: exact results */
        *sign_exponent = (uint16_t)(0x3ff0 + random_below(r, 0x60));
    }
    if (random_chance(r, 50))
        *sign_exponent ^= 0x8000;
}

void value_vector(struct random *r, uint8_t *bytes)
{
    const unsigned kind = random_below(r, 5);

    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t value;

        switch (kind) {
        case 0: value = random_next(r); break;
        case 1: value = value_float(r) | (uint64_t)value_float(r) << 32; break;
        case 2: value = value_double(r); break;
        case 3: value = value_integer(r); break;
        default: /* text, for the string instructions; words at their limits */
            value = 0;
            for (unsigned k = 0; k < 8; k++)
                value = value << 8 | "aabcz\0\x7f\x80\xff\x01"[random_below(r, 10)];
            break;
        }
        store_le64(bytes + i, value);
    }
}

static void fill_x87(struct random *r, struct x86_xsave *fpu)
{
    const unsigned exceptions = random_chance(r, 10) ? random_below(r, 64) : 0;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t significand;
        uint16_t sign_exponent;

        value_extended(r, &significand, &sign_exponent);
        fpu->st[i].significand = significand;
        fpu->st[i].sign_exponent = sign_exponent;
    }
    /* Exceptions masked, precision and rounding any; 0x40 reads as one. */
    fpu->fcw = (uint16_t)(0x7f | (random_chance(r, 70) ? 0x300 : random_below(r, 4) << 8) |
                          random_below(r, 4) << 10);
    if (random_chance(r, 6))
        fpu->fcw &= (uint16_t) ~random_below(r, 64);
    fpu->ftw = (uint8_t)(random_chance(r, 70) ? random_next(r) | 0x0f : random_next(r));
    if (random_chance(r, 40))
        fpu->ftw = 0xff;
    fpu->fsw = (uint16_t)(random_below(r, 8) << 11 | (random_next(r) & 0x4700) | exceptions);
    if (exceptions & ~fpu->fcw & 63)
        fpu->fsw |= 0x8080; /* ES and B: an exception waits (SDM 1 8.1.3) */
}

void values_fill(struct random *r, struct image *image, struct image_memory *memory)
{
    struct x86_xsave *fpu = &image->fpu;

    for (unsigned i = 0; i < X86_GPRS; i++)
        image->gpr[i] = value_integer(r);
    if (image->mode != X86_MODE_64) /* what 32-bit code cannot see is zero */
        for (unsigned i = 0; i < X86_GPRS; i++)
            image->gpr[i] = i < 8 ? image->gpr[i] & UINT32_MAX : 0;
    image->rflags = X86_FLAGS_ONE | X86_IF |
                    (random_next(r) & (X86_STATUS_FLAGS | (random_chance(r, 25) ? X86_DF : 0)));

    memset(fpu, 0, sizeof(*fpu));
    fill_x87(r, fpu);
    for (unsigned i = 0; i < 16; i++) {
        if (i && random_chance(r, 15)) { /* two that are equal */
            memcpy(fpu->xmm[i], fpu->xmm[i - 1], 16);
            memcpy(fpu->ymm_high[i], fpu->ymm_high[i - 1], 16);
            continue;
        }
        value_vector(r, fpu->xmm[i]);
        value_vector(r, fpu->ymm_high[i]);
    }
    /* Flags, DAZ, FTZ, rounding; the masks mostly set. */
    fpu->mxcsr = 0x1f80 | (random_chance(r, 40) ? (uint32_t)random_next(r) & 0xe07f : 0);
    if (random_chance(r, 6))
        fpu->mxcsr &= ~(random_below(r, 64) << 7);

    memset(memory->code, 0xcc, sizeof(memory->code));
    for (unsigned i = 0; i < IMAGE_DATA_SIZE; i += 8)
        store_le64(memory->data + i, random_next(r));
}
