#include "disk_format.h"

#include <stdlib.h>
#include <string.h>

#include "../unit/storage/memory_disk.h"
#include "base/bytes.h"

#define PIECE      65536u
#define FILE_LIMIT (4u << 20) /* what the image may grow to */

static uint8_t buffer[PIECE];

/* Where a disk of any size is looked at: the start, the end, and places between. */
static uint64_t place(uint64_t size, unsigned i)
{
    const uint64_t places[] = {0, PIECE, size / 3, size / 2, size - size / 5, size - PIECE};

    return places[i] < size ? places[i] : 0;
}

static void read_around(struct disk *disk)
{
    for (unsigned i = 0; i < 6; i++) {
        uint64_t offset = place(disk_size(disk), i);
        struct disk_extent extent;

        disk_map(disk, offset, &extent);
        disk_read(disk, offset, buffer, MIN(PIECE, disk_size(disk) - offset));
    }
}

static void write_around(struct disk *disk, uint8_t choice)
{
    struct image_snapshot *snapshots;
    struct image_check check;
    unsigned count;

    for (unsigned i = 0; i < 6; i++) {
        uint64_t offset = place(disk_size(disk), i), length = MIN(PIECE, disk_size(disk) - offset);

        if (choice & 1 << i)
            disk_write(disk, offset, buffer, length / (i + 1));
        else if (i & 1)
            disk_write_zeroes(disk, offset, length, DISK_MAY_UNMAP);
        else
            disk_discard(disk, offset, length);
    }
    disk_flush(disk);
    if (image_snapshot_list(disk, &snapshots, &count, NULL) == 0) {
        if (count)
            image_snapshot_apply(disk, snapshots[0].name, NULL);
        free(snapshots);
    }
    image_snapshot_create(disk, "fuzz", NULL);
    disk_write(disk, 0, buffer, MIN(PIECE, disk_size(disk)));
    image_snapshot_delete(disk, "fuzz", NULL);
    image_check(disk, choice & 64 ? IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ALL : 0, &check, NULL);
    if (choice & 128)
        disk_resize(disk, disk_size(disk) / 2 + 1024 * choice, NULL);
}

struct one {
    const struct disk_format *format;
    struct disk *file;
    struct disk_options options;
    struct disk *disk;
};

static int open_one(void *opaque)
{
    struct one *one = opaque;

    return disk_open_in(one->file, one->format, &one->options, &one->disk, NULL);
}

void fuzz_disk(const struct disk_format *format, bool writable, const uint8_t *image, size_t length)
{
    uint8_t choice = length ? image[length - 1] : 0;
    /* What is not written to stays as it is: a copy would be most of the time. */
    struct memory_disk memory = {
        .data = (uint8_t *)image, .size = length, .room = length, .limit = FILE_LIMIT};
    struct one one = {.format = format, .options = {.writable = writable, .no_backing = true}};
    static struct storage *storage; /* one for all: nothing is left in it */

    if (!storage && storage_create(NULL, "threads", &storage, NULL) < 0)
        return;
    one.options.repairing = choice & 32;
    if (writable) {
        memory.data = malloc(length + 1);
        memcpy(memory.data, image, length);
    }
    one.file = memory_disk_open(storage, &memory);
    one.file->writable = writable;
    if (storage_run(storage, open_one, &one) == 0) {
        read_around(one.disk);
        if (writable)
            write_around(one.disk, choice);
        disk_close(one.disk, NULL);
    }
    if (writable)
        free(memory.data);
}
