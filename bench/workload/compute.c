/* Integer work: a sieve, backtracking, table look-ups, a bytecode interpreter, calls. */
#include <string.h>

#include "workload.h"

uint64_t sieve(void)
{
    enum { N = 4000000 };
    static uint8_t composite[N];
    uint64_t primes = 0;

    for (unsigned round = 0; round < 4; round++) {
        memset(composite, 0, sizeof(composite));
        for (unsigned i = 2; i * i < N; i++)
            if (!composite[i])
                for (unsigned k = i * i; k < N; k += i)
                    composite[k] = 1;
        for (unsigned i = 2; i < N; i++)
            primes += !composite[i];
    }
    return primes;
}

static unsigned place(unsigned columns, unsigned left, unsigned right, unsigned all)
{
    unsigned found = 0;

    if (columns == all)
        return 1;
    for (unsigned free = all & ~(columns | left | right); free; free &= free - 1) {
        unsigned bit = free & -free;

        found += place(columns | bit, (left | bit) << 1, (right | bit) >> 1, all);
    }
    return found;
}

uint64_t queens(void)
{
    return place(0, 0, 0, (1u << 13) - 1);
}

uint64_t crc32(void)
{
    static uint32_t table[256];
    static uint8_t data[1 << 20];
    uint32_t crc = ~0u;

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (unsigned k = 0; k < 8; k++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
    }
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    for (unsigned round = 0; round < 48; round++)
        for (unsigned i = 0; i < sizeof(data); i++)
            crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return crc;
}

/* A register machine whose instructions are reached by computed goto. */
uint64_t bytecode(void)
{
    enum { ADD, XOR, SHIFT, MULTIPLY, DECREMENT, JUMP, STOP };
    struct code { uint8_t op, a, b; } code[] = {
        {ADD, 1, 2}, {XOR, 2, 1}, {SHIFT, 3, 1}, {ADD, 2, 3}, {MULTIPLY, 1, 4},
        {DECREMENT, 0, 0}, {JUMP, 0, 0}, {STOP, 0, 0},
    };
    static const void *const labels[] = {&&add, &&xor, &&shift, &&multiply, &&decrement, &&jump,
                                         &&stop};
    uint64_t r[8] = {5000000, 1, 2, 3, 0x9e3779b97f4a7c15};
    const struct code *pc = code;

#define NEXT goto *labels[pc->op]
    NEXT;
add:
    r[pc->a] += r[pc->b];
    pc++;
    NEXT;
xor:
    r[pc->a] ^= r[pc->b];
    pc++;
    NEXT;
shift:
    r[pc->a] = r[pc->b] >> 7;
    pc++;
    NEXT;
multiply:
    r[pc->a] *= r[pc->b];
    pc++;
    NEXT;
decrement:
    r[pc->a]--;
    pc++;
    NEXT;
jump:
    pc = r[pc->a] ? code + pc->b : pc + 1;
    NEXT;
stop:
    return r[1] ^ r[2];
#undef NEXT
}

static __attribute__((noinline)) uint64_t fib_of(unsigned n)
{
    uint64_t first;

    if (n < 2)
        return n;
    first = fib_of(n - 1);
    __asm__ volatile("" : "+r"(first)); /* both calls stay calls */
    return first + fib_of(n - 2);
}

uint64_t fib(void)
{
    return fib_of(34);
}
