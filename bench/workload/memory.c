/* Work that memory bounds: copying, a chase of pointers, pages touched for the first time. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "workload.h"

static uint8_t *pages(size_t size)
{
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        abort();
    return memory;
}

/* 256 MB in all, between buffers of 32 MB. */
uint64_t copy(void)
{
    enum { SIZE = 32 << 20 };
    uint8_t *from = pages(SIZE), *to = pages(SIZE);

    memset(from, 1, SIZE);
    for (unsigned i = 0; i < 8; i++) {
        from[i] = (uint8_t)i;
        memcpy(to, from, SIZE);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    munmap(from, SIZE);
    munmap(to, SIZE);
    return 8;
}

/* One cycle through the cache lines of 64 MB, in an order that no prefetcher guesses. */
uint64_t chase(void)
{
    struct line { uint64_t next, rest[7]; };
    enum { COUNT = (64 << 20) / sizeof(struct line) };
    struct line *lines = (struct line *)pages(COUNT * sizeof(*lines));
    uint64_t at = 0, random = 12345;

    for (uint64_t i = 0; i < COUNT; i++)
        lines[i].next = i;
    for (uint64_t i = COUNT - 1; i; i--) {
        uint64_t k, was;

        random = random * 6364136223846793005ull + 1442695040888963407ull;
        k = (random >> 33) % i; /* never itself: one cycle of all (Sattolo) */
        was = lines[i].next;
        lines[i].next = lines[k].next;
        lines[k].next = was;
    }
    for (unsigned i = 0; i < 1500000; i++)
        at = lines[at].next;
    munmap(lines, COUNT * sizeof(*lines));
    return at;
}

/* 256 MB, a quarter at a time, so that a guest of 512 MB does it too. */
uint64_t touch(void)
{
    enum { SIZE = 64 << 20 };
    uint64_t sum = 0;

    for (unsigned round = 0; round < 4; round++) {
        uint8_t *memory = pages(SIZE);

        madvise(memory, SIZE, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < SIZE; i += 4096)
            memory[i] = 1;
        for (size_t i = 0; i < SIZE; i += 1 << 20)
            sum += memory[i];
        munmap(memory, SIZE);
    }
    return sum;
}
