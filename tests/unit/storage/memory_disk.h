/* memory_disk.h - a file in memory for tests: it can fail, be slow in random ways,
 * and tells what a power cut could have left of it. */
#ifndef LODGE_TESTS_MEMORY_DISK_H
#define LODGE_TESTS_MEMORY_DISK_H

#include "storage/format.h"

struct memory_write {
    bool flush;  /* durable_from: writes before it had ended when the flush began */
    bool resize; /* offset: the new size */
    uint64_t offset;
    size_t length;
    uint8_t *data;       /* NULL: zeroes */
    size_t durable_from; /* index into the log */
};

struct memory_disk {
    uint8_t *data;
    uint64_t size, room;
    uint64_t limit;      /* the size that it cannot grow beyond; 0: none */
    uint64_t seed;       /* for the order in which requests end; 0: at once */
    uint64_t fail_after; /* so many writes go well, then each fails with fail_with; 0: never */
    int fail_with;
    uint64_t writes;
    bool logging;
    struct memory_write *log;
    size_t log_count, log_room;
};

uint64_t test_random(uint64_t *seed);
/* A number of the environment, which makes a run longer or another one. */
unsigned test_number(const char *name, unsigned otherwise);

/* A writable disk over *memory, which outlives it. */
struct disk *memory_disk_open(struct storage *storage, struct memory_disk *memory);
void memory_disk_free(struct memory_disk *memory);

/* What may be left when the power fails after `count` entries of the log: all that is
 * durable, and any sectors of what is not. before: the content at the start of the log. */
void memory_disk_power_cut(const struct memory_disk *memory, const struct memory_disk *before,
                           size_t count, uint64_t *seed, struct memory_disk *ret_left);

#endif
