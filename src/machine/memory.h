/* memory.h - guest physical memory: RAM in one piece, laid around the hole
 * below 4 GiB that devices live in. Guest-given addresses are bounded here,
 * once, for everybody. */
#ifndef LODGE_MACHINE_MEMORY_H
#define LODGE_MACHINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* RAM ends here at the latest below 4 GiB; the rest of it goes on at 4 GiB. */
#define GUEST_MEMORY_HOLE_START 0xc0000000ull
#define GUEST_MEMORY_HIGH_START 0x100000000ull

struct guest_memory_region {
    uint64_t address, size;
    uint8_t *host;
};

struct guest_memory {
    uint64_t size;
    unsigned region_count;
    struct guest_memory_region region[2];
    /* Told when something other than a CPU has written (engine.h, invalidate); or NULL. */
    void (*written)(void *opaque, uint64_t address, uint64_t size);
    void *written_opaque;
};

/* The host gives memory when it is first touched. */
int guest_memory_create(uint64_t size, struct guest_memory **ret_memory, struct error *err);
/* All of it now, out of the huge pages that the host has set aside. */
int guest_memory_create_huge(uint64_t size, struct guest_memory **ret_memory, struct error *err);
void guest_memory_destroy(struct guest_memory *memory);

/* Host pointer to [address, address + size) when all of it lies in one region
 * of RAM, else NULL. size 0 is allowed. */
void *guest_memory_at(const struct guest_memory *memory, uint64_t address, uint64_t size);

/* Copy to and from RAM; -EFAULT (nothing copied) when it does not lie in RAM. */
int guest_memory_read(const struct guest_memory *memory, uint64_t address, void *to, size_t size);
int guest_memory_write(struct guest_memory *memory, uint64_t address, const void *from,
                       size_t size);

/* Give whole pages, at a pointer from guest_memory_at, back to the host; they read as zeroes
 * afterwards. Any thread. */
int guest_memory_discard(const struct guest_memory *memory, void *host, uint64_t size);

/* A device has written size bytes at host, a pointer from guest_memory_at. Any thread. */
void guest_memory_written(const struct guest_memory *memory, const void *host, uint64_t size);

#endif
