#include "memory_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "storage/vec.h"

#define SECTOR 512

uint64_t test_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545f4914f6cdd1dull >> 16;
}

unsigned test_number(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* Let others run a few times. */
static void dawdle(struct disk *disk)
{
    struct memory_disk *memory = disk->state;
    struct fibers *fibers = storage_fibers(disk->storage);

    if (!memory->seed || !fiber_self(fibers))
        return;
    for (uint64_t n = test_random(&memory->seed) % 4; n; n--) {
        fiber_wake(fiber_self(fibers));
        fiber_wait(fibers);
    }
}

static void set_size(struct memory_disk *memory, uint64_t size)
{
    if (size > memory->room) {
        memory->room = MAX(size, 2 * memory->room);
        memory->data = realloc(memory->data, memory->room);
    }
    if (size > memory->size)
        memset(memory->data + memory->size, 0, size - memory->size);
    memory->size = size;
}

static void apply(struct memory_disk *memory, uint64_t offset, const uint8_t *data, size_t length)
{
    if (offset + length > memory->size)
        set_size(memory, offset + length);
    if (data)
        memcpy(memory->data + offset, data, length);
    else
        memset(memory->data + offset, 0, length);
}

static void note(struct memory_disk *memory, struct memory_write entry)
{
    if (!memory->logging)
        return;
    if (memory->log_count == memory->log_room) {
        memory->log_room = MAX(256, 2 * memory->log_room);
        memory->log = realloc(memory->log, memory->log_room * sizeof(*memory->log));
    }
    if (entry.data) {
        uint8_t *copy = malloc(entry.length);

        memcpy(copy, entry.data, entry.length);
        entry.data = copy;
    }
    memory->log[memory->log_count++] = entry;
}

static int count_write(struct memory_disk *memory, uint64_t end)
{
    memory->writes++;
    if (memory->limit && end > memory->limit)
        return -ENOSPC;
    return memory->fail_after && memory->writes > memory->fail_after ? -memory->fail_with : 0;
}

static int memory_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                       uint64_t length)
{
    const struct memory_disk *memory = disk->state;
    uint64_t there;

    dawdle(disk);
    there = offset < memory->size ? MIN(length, memory->size - offset) : 0;
    vec_from(iov, count, 0, memory->data + offset, there);
    vec_fill(iov, count, there, 0, length - there);
    return 0;
}

static int memory_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                        uint64_t length)
{
    struct memory_disk *memory = disk->state;
    uint8_t *data = malloc(length);
    int r = count_write(memory, offset + length);

    dawdle(disk);
    if (r == 0) {
        vec_to(iov, count, 0, data, length);
        apply(memory, offset, data, length);
        note(memory, (struct memory_write){.offset = offset, .length = length, .data = data});
        disk->size = memory->size;
    }
    free(data);
    return r;
}

static int memory_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct memory_disk *memory = disk->state;
    int r = count_write(memory, offset + length);

    (void)flags;
    dawdle(disk);
    if (r < 0)
        return r;
    apply(memory, offset, NULL, length);
    note(memory, (struct memory_write){.offset = offset, .length = length});
    disk->size = memory->size;
    return 0;
}

/* What is discarded becomes garbage: nobody may count on it. */
static int memory_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct memory_disk *memory = disk->state;
    uint64_t end = MIN(offset + length, memory->size);
    uint8_t *garbage;

    if (offset >= end)
        return 0;
    garbage = malloc(end - offset);
    memset(garbage, 0xdd, end - offset);
    apply(memory, offset, garbage, end - offset);
    note(memory, (struct memory_write){.offset = offset, .length = end - offset, .data = garbage});
    free(garbage);
    return 0;
}

static int memory_flush(struct disk *disk)
{
    struct memory_disk *memory = disk->state;
    size_t durable_from = memory->log_count;
    int r = count_write(memory, 0);

    dawdle(disk);
    if (r == 0)
        note(memory, (struct memory_write){.flush = true, .durable_from = durable_from});
    return r;
}

static int memory_resize(struct disk *disk, uint64_t size, struct error *err)
{
    struct memory_disk *memory = disk->state;

    (void)err;
    set_size(memory, size);
    note(memory, (struct memory_write){.resize = true, .offset = size});
    disk->size = size;
    return 0;
}

static int memory_close(struct disk *disk, struct error *err)
{
    (void)disk;
    (void)err;
    return 0;
}

static const struct disk_format memory_protocol = {
    .name = "memory",
    .url = "memory:",
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .discard = memory_discard,
    .write_zeroes = memory_zero,
    .resize = memory_resize,
};

struct disk *memory_disk_open(struct storage *storage, struct memory_disk *memory)
{
    struct disk *disk = disk_new(storage, &memory_protocol, "memory", true);

    disk->state = memory;
    disk->size = memory->size;
    return disk;
}

void memory_disk_free(struct memory_disk *memory)
{
    for (size_t i = 0; i < memory->log_count; i++)
        free(memory->log[i].data);
    free(memory->log);
    free(memory->data);
    *memory = (struct memory_disk){0};
}

void memory_disk_power_cut(const struct memory_disk *memory, const struct memory_disk *before,
                           size_t count, uint64_t *seed, struct memory_disk *ret_left)
{
    struct memory_disk left = {0};
    size_t durable = 0;

    set_size(&left, before->size);
    memcpy(left.data, before->data, before->size);
    for (size_t i = 0; i < count; i++)
        if (memory->log[i].flush)
            durable = MAX(durable, memory->log[i].durable_from);
    for (size_t i = 0; i < count; i++) {
        const struct memory_write *w = &memory->log[i];
        uint64_t at = w->offset, end = w->offset + w->length;
        unsigned fate = i < durable ? 0 : (unsigned)(test_random(seed) % 3);

        if (w->flush)
            continue;
        if (w->resize) { /* file systems keep sizes in order with what follows */
            set_size(&left, w->offset);
            continue;
        }
        for (uint64_t next; at < end; at = next) {
            next = MIN(ALIGN_DOWN(at, (uint64_t)SECTOR) + SECTOR, end);
            /* Durable or lucky: all of it; unlucky: nothing; torn: some sectors. */
            if (fate == 0 || (fate == 2 && test_random(seed) % 2))
                apply(&left, at, w->data ? w->data + (at - w->offset) : NULL, next - at);
        }
    }
    *ret_left = left;
}
