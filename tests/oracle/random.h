/* random.h - numbers that a seed repeats, on any machine (SplitMix64). */
#ifndef LODGE_TESTS_ORACLE_RANDOM_H
#define LODGE_TESTS_ORACLE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* In [0, limit); limit is far below 2^32. */
static inline unsigned random_below(struct random *r, unsigned limit)
{
    return (unsigned)((random_next(r) >> 32) * limit >> 32);
}

static inline bool random_chance(struct random *r, unsigned percent)
{
    return random_below(r, 100) < percent;
}

/* The numbers of one case: the same whatever came before it. */
static inline struct random random_case(uint64_t seed, uint64_t a, uint64_t b)
{
    struct random r = {seed};

    r.state = random_next(&r) ^ a;
    r.state = random_next(&r) ^ b;
    return r;
}

#endif
