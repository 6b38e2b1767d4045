/* What power cuts and failing writes leave of a qcow2 image. */
#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "memory_disk.h"
#include "storage/qcow2/qcow2.h"

#define SECTORS    512u /* of the disk */
#define SECTOR     512u
#define OPERATIONS 60
#define CUTS       12 /* a sequence */
#define HISTORY    64

/* What a sector has held: every content that was asked for, in order. */
struct history {
    unsigned count, durable; /* contents before `durable` must not come back */
    uint64_t stamp[HISTORY]; /* repeated through the sector; 0: zeroes */
    size_t at[HISTORY];      /* the log's length when it was asked for */
};

/* A flush that ended: contents asked for before `asked` survive cuts after `ended`. */
struct flush {
    size_t begun, ended;
    unsigned counts[SECTORS];
};

struct crash {
    uint64_t seed;
    struct storage *storage;
    struct memory_disk memory, before;
    struct disk *disk;
    struct history history[SECTORS];
    struct flush flushes[OPERATIONS + 1];
    unsigned flush_count;
    uint64_t stamp;
    bool lazy;
};

static uint64_t any(struct crash *c, uint64_t below)
{
    return test_random(&c->seed) % below;
}

static void open_image(struct crash *c, struct memory_disk *memory, bool writable)
{
    const struct disk_options options = {.writable = writable};
    struct disk *file = memory_disk_open(c->storage, memory);
    struct error err = {0};

    file->writable = writable;
    if (disk_open_in(file, &qcow2_format, &options, &c->disk, &err) < 0)
        fail_msg("%s", err.text);
}

static void start(struct crash *c, uint64_t seed)
{
    static const uint32_t clusters[] = {512, 1024, 4096, 16384};
    struct disk_create_options options = {.size = SECTORS * SECTOR};
    struct disk *file;

    *c = (struct crash){.seed = seed * 0x9e3779b97f4a7c15ull + 1};
    assert_int_equal(storage_create(NULL, "threads", &c->storage, NULL), 0);
    options.cluster_size = clusters[any(c, ARRAY_SIZE(clusters))];
    options.extended_l2 = options.cluster_size == 16384 && any(c, 2);
    options.lazy_refcounts = c->lazy = any(c, 4) == 0;
    file = memory_disk_open(c->storage, &c->memory);
    assert_int_equal(qcow2_create(file, &options, NULL), 0);
    disk_close(file, NULL);
    c->before.size = c->before.room = c->memory.size;
    c->before.data = malloc(c->memory.size);
    memcpy(c->before.data, c->memory.data, c->memory.size);
    for (unsigned i = 0; i < SECTORS; i++)
        c->history[i].count = 1; /* zeroes */
    c->memory.logging = true;
    open_image(c, &c->memory, true);
}

static void finish(struct crash *c)
{
    disk_close(c->disk, NULL);
    memory_disk_free(&c->memory);
    memory_disk_free(&c->before);
    storage_destroy(c->storage);
}

static void remember(struct crash *c, unsigned sector, uint64_t stamp)
{
    struct history *h = &c->history[sector];

    assert_true(h->count < HISTORY);
    h->at[h->count] = c->memory.log_count;
    h->stamp[h->count++] = stamp;
}

static void fill(uint8_t *data, uint64_t stamp)
{
    for (unsigned i = 0; i < SECTOR / 8; i++)
        memcpy(data + i * 8, &stamp, 8);
}

static void do_flush(struct crash *c)
{
    struct flush *f = &c->flushes[c->flush_count++];

    f->begun = c->memory.log_count;
    for (unsigned i = 0; i < SECTORS; i++)
        f->counts[i] = c->history[i].count;
    assert_int_equal(disk_flush(c->disk), 0);
    f->ended = c->memory.log_count;
}

static void one_operation(struct crash *c)
{
    static uint8_t data[SECTORS * SECTOR];
    unsigned first = (unsigned)any(c, SECTORS),
             count = 1 + (unsigned)any(c, MIN(SECTORS - first, 64));
    uint64_t kind = any(c, 20);
    uint64_t offset = first * (uint64_t)SECTOR, length = count * (uint64_t)SECTOR;

    if (kind < 10) {
        for (unsigned i = 0; i < count; i++) {
            fill(data + i * SECTOR, ++c->stamp);
            remember(c, first + i, c->stamp);
        }
        assert_int_equal(disk_write(c->disk, offset, data, length), 0);
    } else if (kind < 13) {
        for (unsigned i = 0; i < count; i++)
            remember(c, first + i, 0);
        assert_int_equal(disk_write_zeroes(c->disk, offset, length, any(c, 2) ? DISK_MAY_UNMAP : 0),
                         0);
    } else if (kind < 14) { /* what it leaves: zeroes or the old content; both may stay */
        uint64_t value;

        assert_int_equal(disk_discard(c->disk, offset, length), 0);
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(disk_read(c->disk, offset + i * SECTOR, &value, 8), 0);
            remember(c, first + i, value);
        }
    } else if (kind < 15) {
        image_snapshot_create(c->disk, "one", NULL); /* may be there already */
    } else if (kind < 16) {
        image_snapshot_delete(c->disk, "one", NULL);
    } else {
        do_flush(c);
    }
}

/* The sector is whole, and not older than what a flush before the cut made durable. */
static void check_sector(const struct crash *c, unsigned sector, const uint8_t *data, size_t cut)
{
    const struct history *h = &c->history[sector];
    unsigned from = 0;
    uint64_t stamp;

    memcpy(&stamp, data, 8);
    for (unsigned i = 1; i < SECTOR / 8; i++)
        if (memcmp(data, data + i * 8, 8) != 0)
            fail_msg("sector %u is torn", sector);
    for (unsigned i = 0; i < c->flush_count; i++)
        if (c->flushes[i].ended <= cut)
            from = c->flushes[i].counts[sector] - 1;
    for (unsigned i = from; i < h->count && h->at[i] <= cut; i++)
        if (h->stamp[i] == stamp)
            return;
    fail_msg("sector %u has lost what was flushed: it holds %llx", sector,
             (unsigned long long)stamp);
}

static void check_cut(struct crash *c, size_t cut)
{
    static uint8_t data[SECTORS * SECTOR];
    struct memory_disk left;
    struct image_check check;
    struct error err = {0};
    struct disk *running = c->disk;

    memory_disk_power_cut(&c->memory, &c->before, cut, &c->seed, &left);
    if (!c->lazy) { /* clean but for leaks, without any repair */
        open_image(c, &left, false);
        if (image_check(c->disk, 0, &check, &err) < 0)
            fail_msg("%s", err.text);
        /* A missing COPIED flag only costs a copy. */
        if (check.corruptions && !strstr(check.first, "COPIED"))
            fail_msg("cut at %zu of %zu: %s", cut, c->memory.log_count, check.first);
        disk_close(c->disk, NULL);
    }
    open_image(c, &left, true);
    if (image_check(c->disk, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ALL, &check, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(disk_read(c->disk, 0, data, sizeof(data)), 0);
    for (unsigned i = 0; i < SECTORS; i++)
        check_sector(c, i, data + i * SECTOR, cut);
    /* And it can be used on. */
    memset(data, 0x77, sizeof(data));
    assert_int_equal(disk_write(c->disk, 0, data, sizeof(data)), 0);
    assert_int_equal(disk_flush(c->disk), 0);
    assert_int_equal(image_check(c->disk, 0, &check, NULL), 0);
    if (check.corruptions || check.leaks)
        fail_msg("after the repair: %s, %llu leaks", check.first, (unsigned long long)check.leaks);
    disk_close(c->disk, NULL);
    memory_disk_free(&left);
    c->disk = running;
}

static void a_power_cut_leaves_at_most_leaks_and_loses_nothing_flushed(void **state)
{
    const unsigned sequences = test_number("SEQUENCES", 60),
                   seed = test_number("SEED", 1);

    (void)state;
    for (unsigned s = 0; s < sequences; s++) {
        struct crash *c = malloc(sizeof(*c));

        print_message("sequence %u\n", seed + s);
        start(c, seed + s);
        for (unsigned i = 0; i < OPERATIONS; i++)
            one_operation(c);
        for (unsigned i = 0; i < CUTS; i++)
            check_cut(c, any(c, c->memory.log_count + 1));
        finish(c);
        free(c);
    }
}

/* --- Writes that fail --- */

static void a_failing_write_is_an_error_and_harms_nothing_flushed(void **state)
{
    static uint8_t data[SECTORS * SECTOR], read[SECTORS * SECTOR];
    const struct disk_create_options options = {.size = sizeof(data), .cluster_size = 4096};

    (void)state;
    for (unsigned after = 1; after < 60; after++) {
        struct crash *c = calloc(1, sizeof(*c));
        struct image_check check;
        struct disk *file;
        int r = 0;

        assert_int_equal(storage_create(NULL, "threads", &c->storage, NULL), 0);
        file = memory_disk_open(c->storage, &c->memory);
        assert_int_equal(qcow2_create(file, &options, NULL), 0);
        disk_close(file, NULL);
        open_image(c, &c->memory, true);
        memset(data, 0x11, sizeof(data));
        assert_int_equal(disk_write(c->disk, 0, data, sizeof(data) / 2), 0);
        assert_int_equal(disk_flush(c->disk), 0);
        c->memory.fail_after = c->memory.writes + after;
        c->memory.fail_with = ENOSPC;
        for (unsigned i = 0; i < 40; i++) {
            r = disk_write(c->disk, sizeof(data) / 2 + i * 3072, data, 3072);
            if (r == 0 && i % 4 == 0)
                r = disk_flush(c->disk);
            if (r == 0 && i == 5)
                r = image_snapshot_create(c->disk, "s", NULL);
            assert_true(r == 0 || r == -ENOSPC);
        }
        /* Once there is room again, all goes on. */
        c->memory.fail_after = 0;
        assert_int_equal(disk_write(c->disk, sizeof(data) / 2, data, sizeof(data) / 2), 0);
        assert_int_equal(disk_flush(c->disk), 0);
        assert_int_equal(disk_read(c->disk, 0, read, sizeof(read)), 0);
        assert_memory_equal(read, data, sizeof(data));
        assert_int_equal(image_check(c->disk, IMAGE_REPAIR_LEAKS, &check, NULL), 0);
        if (check.corruptions && !strstr(check.first, "COPIED"))
            fail_msg("%s", check.first);
        finish(c);
        free(c);
    }
}

static void a_disk_whose_file_fails_at_the_end_says_so(void **state)
{
    struct crash *c = malloc(sizeof(*c));
    uint8_t byte = 1;

    (void)state;
    start(c, 7);
    c->memory.fail_after = c->memory.writes + 2;
    c->memory.fail_with = EIO;
    disk_write(c->disk, 0, &byte, 1);
    assert_int_equal(disk_close(c->disk, NULL), -EIO);
    memory_disk_free(&c->memory);
    memory_disk_free(&c->before);
    storage_destroy(c->storage);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_leaves_at_most_leaks_and_loses_nothing_flushed),
        cmocka_unit_test(a_failing_write_is_an_error_and_harms_nothing_flushed),
        cmocka_unit_test(a_disk_whose_file_fails_at_the_end_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
