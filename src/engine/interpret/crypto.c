/* AES-NI, PCLMULQDQ and the SHA extensions (SDM 1 12.13, 12.14; SDM 2 SHA*;
 * FIPS 197, FIPS 180-4), in plain C so that no host needs to have them. */
#include "engine/interpret/vector.h"

static const uint8_t substitute[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76,
    0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0,
    0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
    0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75,
    0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84,
    0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
    0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8,
    0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2,
    0xcd, 0x0c, 0x13, 0xec, 0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
    0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb,
    0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79,
    0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
    0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a,
    0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e,
    0xe1, 0xf8, 0x98, 0x11, 0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
    0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16,
};

static const uint8_t substitute_inverse[256] = {
    0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb,
    0x7c, 0xe3, 0x39, 0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb,
    0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2, 0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e,
    0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76, 0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25,
    0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc, 0x5d, 0x65, 0xb6, 0x92,
    0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d, 0x84,
    0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06,
    0xd0, 0x2c, 0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b,
    0x3a, 0x91, 0x11, 0x41, 0x4f, 0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73,
    0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85, 0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e,
    0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62, 0x0e, 0xaa, 0x18, 0xbe, 0x1b,
    0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd, 0x5a, 0xf4,
    0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f,
    0x60, 0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef,
    0xa0, 0xe0, 0x3b, 0x4d, 0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61,
    0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6, 0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d,
};

/* Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197 4.2). */
static uint8_t multiply(uint8_t x, uint8_t y)
{
    uint8_t product = 0;

    for (; y; y >>= 1) {
        if (y & 1)
            product ^= x;
        x = (uint8_t)(x << 1 ^ (x & 0x80 ? 0x1b : 0));
    }
    return product;
}

/* Byte i of the state is row i % 4, column i / 4. A round's ShiftRows moves
 * row r left by r columns, the inverse right. */
static void shift_rows(union lane *d, const union lane *a, const uint8_t *box, bool inverse)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned row = i % 4, column = (i / 4 + (inverse ? 4 - row : row)) % 4;

        d->u8[i] = box[a->u8[4 * column + row]];
    }
}

static void mix_columns(union lane *d, const union lane *a, const uint8_t factors[4])
{
    for (unsigned i = 0; i < 16; i++) {
        d->u8[i] = 0;
        for (unsigned j = 0; j < 4; j++)
            d->u8[i] ^= multiply(a->u8[(i & ~3u) + (i + j) % 4], factors[j]);
    }
}

static void add_round_key(union lane *d, const union lane *key)
{
    d->u64[0] ^= key->u64[0];
    d->u64[1] ^= key->u64[1];
}

static const uint8_t mix_factors[4] = {2, 3, 1, 1};
static const uint8_t mix_inverse_factors[4] = {14, 11, 13, 9};

static void aesenc_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    union lane shifted;

    (void)bytes;
    shift_rows(&shifted, a, substitute, false);
    mix_columns(d, &shifted, mix_factors);
    add_round_key(d, b);
}
BINARY_VEX(aesenc, aesenc_lane)

static void aesenclast_lane(union lane *d, const union lane *a, const union lane *b,
                            unsigned bytes)
{
    (void)bytes;
    shift_rows(d, a, substitute, false);
    add_round_key(d, b);
}
BINARY_VEX(aesenclast, aesenclast_lane)

static void aesdec_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    union lane shifted;

    (void)bytes;
    shift_rows(&shifted, a, substitute_inverse, true);
    mix_columns(d, &shifted, mix_inverse_factors);
    add_round_key(d, b);
}
BINARY_VEX(aesdec, aesdec_lane)

static void aesdeclast_lane(union lane *d, const union lane *a, const union lane *b,
                            unsigned bytes)
{
    (void)bytes;
    shift_rows(d, a, substitute_inverse, true);
    add_round_key(d, b);
}
BINARY_VEX(aesdeclast, aesdeclast_lane)

static void aesimc_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)a, (void)bytes;
    mix_columns(d, b, mix_inverse_factors);
}
BINARY_VEX(aesimc, aesimc_lane)

static uint32_t substitute_word(uint32_t word)
{
    return substitute[word & 0xff] | (uint32_t)substitute[word >> 8 & 0xff] << 8 |
           (uint32_t)substitute[word >> 16 & 0xff] << 16 | (uint32_t)substitute[word >> 24] << 24;
}

static uint32_t rotate_right(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

static void aeskeygenassist_lane(union lane *d, const union lane *a, const union lane *b,
                                 uint8_t imm, unsigned bytes)
{
    uint32_t x1 = substitute_word(b->u32[1]), x3 = substitute_word(b->u32[3]);

    (void)a, (void)bytes;
    *d = (union lane){
        .u32 = {x1, rotate_right(x1, 8) ^ imm, x3, rotate_right(x3, 8) ^ imm}};
}
IMMEDIATE_VEX(aeskeygenassist, aeskeygenassist_lane)

/* Carry-less product of one half of each source, chosen by imm[0] and imm[4]. */
static void pclmulqdq_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                           unsigned bytes)
{
    uint64_t x = a->u64[imm & 1], y = b->u64[imm >> 4 & 1];

    (void)bytes;
    *d = (union lane){0};
    for (unsigned i = 0; i < 64; i++) {
        if (!(y >> i & 1))
            continue;
        d->u64[0] ^= x << i;
        d->u64[1] ^= i ? x >> (64 - i) : 0;
    }
}
IMMEDIATE_VEX(pclmulqdq, pclmulqdq_lane)

/* SHA-1. Words are held with the first (A, W0) in the highest element. */
static uint32_t rotate_left(uint32_t x, unsigned by)
{
    return x << by | x >> (32 - by);
}

static uint32_t choose(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (~x & z);
}

static uint32_t majority(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (x & z) ^ (y & z);
}

static uint32_t sha1_function(unsigned which, uint32_t x, uint32_t y, uint32_t z)
{
    switch (which) {
    case 0:
        return choose(x, y, z);
    case 2:
        return majority(x, y, z);
    default:
        return x ^ y ^ z;
    }
}

static void sha1rnds4_lane(union lane *lane, const union lane *s, const union lane *words,
                           uint8_t imm, unsigned bytes)
{
    static const uint32_t constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t a = s->u32[3], b = s->u32[2], c = s->u32[1], d = s->u32[0], e = 0;

    (void)bytes;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t next = sha1_function(imm & 3, b, c, d) + rotate_left(a, 5) +
                        words->u32[3 - i] + e + constants[imm & 3];

        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    *lane = (union lane){.u32 = {d, c, b, a}};
}
IMMEDIATE(sha1rnds4, sha1rnds4_lane)

static void sha1nexte_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)bytes;
    *d = *b;
    d->u32[3] += rotate_left(a->u32[3], 30);
}
BINARY(sha1nexte, sha1nexte_lane)

static void sha1msg1_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)bytes;
    *d = (union lane){.u32 = {b->u32[2] ^ a->u32[0], b->u32[3] ^ a->u32[1],
                              a->u32[0] ^ a->u32[2], a->u32[1] ^ a->u32[3]}};
}
BINARY(sha1msg1, sha1msg1_lane)

static void sha1msg2_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    uint32_t w16 = rotate_left(a->u32[3] ^ b->u32[2], 1);

    (void)bytes;
    *d = (union lane){.u32 = {rotate_left(a->u32[0] ^ w16, 1),
                              rotate_left(a->u32[1] ^ b->u32[0], 1),
                              rotate_left(a->u32[2] ^ b->u32[1], 1), w16}};
}
BINARY(sha1msg2, sha1msg2_lane)

/* SHA-256. */
static void sha256msg1_lane(union lane *d, const union lane *a, const union lane *b,
                            unsigned bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t next = i < 3 ? a->u32[i + 1] : b->u32[0];

        d->u32[i] = a->u32[i] + (rotate_right(next, 7) ^ rotate_right(next, 18) ^ next >> 3);
    }
}
BINARY(sha256msg1, sha256msg1_lane)

static uint32_t sha256_sigma1(uint32_t x)
{
    return rotate_right(x, 17) ^ rotate_right(x, 19) ^ x >> 10;
}

static void sha256msg2_lane(union lane *d, const union lane *a, const union lane *b,
                            unsigned bytes)
{
    (void)bytes;
    d->u32[0] = a->u32[0] + sha256_sigma1(b->u32[2]);
    d->u32[1] = a->u32[1] + sha256_sigma1(b->u32[3]);
    d->u32[2] = a->u32[2] + sha256_sigma1(d->u32[0]);
    d->u32[3] = a->u32[3] + sha256_sigma1(d->u32[1]);
}
BINARY(sha256msg2, sha256msg2_lane)

/* Two rounds: CDGH in the destination, ABEF in the source, W + K of both
 * rounds in XMM0. */
void interpret_sha256rnds2(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector cdgh, abef, result = {0};
    union lane words;
    uint32_t a, b, c, d, e, f, g, h;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &abef);
    vector_read(cpu, insn, 0, &cdgh);
    vector_read_xmm(cpu, 0, &words);
    a = abef.u32[3], b = abef.u32[2], e = abef.u32[1], f = abef.u32[0];
    c = cdgh.u32[3], d = cdgh.u32[2], g = cdgh.u32[1], h = cdgh.u32[0];
    for (unsigned i = 0; i < 2; i++) {
        uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t1 = h + sum1 + choose(e, f, g) + words.u32[i];
        uint32_t t2 = sum0 + majority(a, b, c);

        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    result.u32[3] = a, result.u32[2] = b, result.u32[1] = e, result.u32[0] = f;
    vector_write(cpu, insn, 0, &result);
}
