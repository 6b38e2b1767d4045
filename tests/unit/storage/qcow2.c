/* qcow2 images in memory: random operations against a plain model, power cuts, failing
 * writes. SEQUENCES and SEED of the environment make a longer run. */
#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "memory_disk.h"
#include "storage/qcow2/qcow2.h"

#define MODEL_MAX     (3u << 20) /* bytes of a disk */
#define SNAPSHOTS_MAX 3
#define PARALLEL      6

struct model {
    uint64_t seed;
    struct storage *storage;
    struct memory_disk memory, backing_memory;
    struct disk *disk, *backing;
    struct disk_create_options options;
    uint8_t *data; /* what the disk should hold; MODEL_MAX bytes */
    uint64_t size;
    struct {
        bool used;
        uint8_t *data;
        uint64_t size;
    } snapshots[SNAPSHOTS_MAX];
    uint8_t *buffer, *backing_data;
    unsigned under_way;
};

static uint64_t any(struct model *m, uint64_t below)
{
    return test_random(&m->seed) % below;
}

/* --- Setting up --- */

static void choose_options(struct model *m)
{
    static const uint32_t clusters[] = {512, 1024, 4096, 4096, 16384, 65536, 65536, 2u << 20};
    struct disk_create_options *o = &m->options;

    *o = (struct disk_create_options){.cluster_size = clusters[any(m, ARRAY_SIZE(clusters))]};
    o->version = any(m, 4) ? 3 : 2;
    if (o->version == 3) {
        o->refcount_bits = 1u << (2 + any(m, 5)); /* 4 and more: snapshots must fit */
        o->lazy_refcounts = any(m, 3) == 0;
        o->extended_l2 = o->cluster_size >= 16384 && any(m, 2);
        o->compression = any(m, 2) ? "zstd" : "zlib";
    }
    m->size = o->size = (1 + any(m, MODEL_MAX / 1024)) * 1024;
}

static void fill_random(struct model *m, uint8_t *data, size_t length)
{
    uint64_t kind = any(m, 4), word = test_random(&m->seed);

    if (kind == 0) {
        memset(data, 0, length);
    } else if (kind == 1) {
        memset(data, (int)(word & 255), length);
    } else {
        for (size_t i = 0; i < length; i++) {
            word = word * 6364136223846793005ull + 1442695040888963407ull;
            data[i] = (uint8_t)(word >> 40);
        }
    }
}

static void reopen(struct model *m)
{
    const struct disk_options options = {.writable = true, .no_backing = true};
    struct error err = {0};

    if (m->disk) {
        m->disk->backing = NULL;
        assert_int_equal(disk_close(m->disk, NULL), 0);
    }
    if (disk_open_in(memory_disk_open(m->storage, &m->memory), &qcow2_format, &options, &m->disk,
                     &err) < 0)
        fail_msg("%s", err.text);
    m->disk->backing = m->backing;
}

static void model_start(struct model *m, uint64_t seed)
{
    struct disk *file;
    struct error err = {0};

    *m = (struct model){.seed = seed * 0x9e3779b97f4a7c15ull + 1};
    assert_int_equal(storage_create(NULL, "threads", &m->storage, NULL), 0);
    m->data = calloc(1, MODEL_MAX);
    m->buffer = malloc(MODEL_MAX);
    choose_options(m);
    if (any(m, 2)) { /* a backing file, shorter or longer than the disk */
        m->backing_memory.size = (1 + any(m, MODEL_MAX / 512)) * 512;
        m->backing_memory.room = m->backing_memory.size;
        m->backing_memory.data = malloc(m->backing_memory.size);
        fill_random(m, m->backing_memory.data, m->backing_memory.size);
        memcpy(m->data, m->backing_memory.data, MIN(m->size, m->backing_memory.size));
        m->backing = memory_disk_open(m->storage, &m->backing_memory);
        m->backing->writable = false;
    }
    file = memory_disk_open(m->storage, &m->memory);
    if (qcow2_create(file, &m->options, &err) < 0)
        fail_msg("%s", err.text);
    disk_close(file, NULL);
    m->memory.seed = any(m, 2) ? m->seed | 1 : 0;
    reopen(m);
}

static void model_end(struct model *m)
{
    m->disk->backing = NULL;
    assert_int_equal(disk_close(m->disk, NULL), 0);
    disk_close(m->backing, NULL);
    storage_destroy(m->storage);
    memory_disk_free(&m->memory);
    memory_disk_free(&m->backing_memory);
    for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
        free(m->snapshots[i].data);
    free(m->data);
    free(m->buffer);
}

/* --- Comparing --- */

static void verify(struct model *m, uint64_t offset, uint64_t length)
{
    assert_int_equal(disk_read(m->disk, offset, m->buffer, length), 0);
    for (uint64_t i = 0; i < length; i++)
        if (m->buffer[i] != m->data[offset + i])
            fail_msg("byte %llu is %02x, not %02x; cluster size %u, version %u, extended %d, "
                     "backing %d",
                     (unsigned long long)(offset + i), m->buffer[i], m->data[offset + i],
                     m->options.cluster_size, m->options.version, m->options.extended_l2,
                     m->backing != NULL);
}

static void verify_check(struct model *m)
{
    struct image_check check;
    struct error err = {0};

    assert_int_equal(disk_flush(m->disk), 0);
    if (image_check(m->disk, 0, &check, &err) < 0)
        fail_msg("%s", err.text);
    if (check.corruptions || check.leaks)
        fail_msg("%llu corruptions (%s), %llu leaks", (unsigned long long)check.corruptions,
                 check.first, (unsigned long long)check.leaks);
}

/* --- Operations --- */

static void choose_range(struct model *m, uint64_t *ret_offset, uint64_t *ret_length)
{
    uint64_t unit = any(m, 3) ? 512 : m->options.cluster_size, most, limit = any(m, 4) ? 16 : 4096;

    if (unit > m->size)
        unit = 512;
    *ret_offset = any(m, m->size / unit) * unit;
    most = (m->size - *ret_offset) / unit;
    *ret_length = (1 + any(m, MIN(most, limit))) * unit;
    if (any(m, 8) == 0 && *ret_length > 3) { /* bytes, too */
        *ret_offset += 1;
        *ret_length -= 2;
    }
}

static void do_write(struct model *m)
{
    uint64_t offset, length;

    choose_range(m, &offset, &length);
    fill_random(m, m->data + offset, length);
    assert_int_equal(disk_write(m->disk, offset, m->data + offset, length), 0);
}

static void do_zero(struct model *m)
{
    uint64_t offset, length;

    choose_range(m, &offset, &length);
    memset(m->data + offset, 0, length);
    assert_int_equal(disk_write_zeroes(m->disk, offset, length, any(m, 2) ? DISK_MAY_UNMAP : 0), 0);
    verify(m, offset, length);
}

/* Each byte is zero or what it was; from then on it stays so. */
static void do_discard(struct model *m)
{
    uint64_t offset, length;

    choose_range(m, &offset, &length);
    assert_int_equal(disk_discard(m->disk, offset, length), 0);
    assert_int_equal(disk_read(m->disk, offset, m->buffer, length), 0);
    for (uint64_t i = 0; i < length; i++) {
        assert_true(m->buffer[i] == 0 || m->buffer[i] == m->data[offset + i]);
        m->data[offset + i] = m->buffer[i];
    }
}

static void do_compressed(struct model *m)
{
    uint64_t cluster = m->options.cluster_size, offset, length;
    int r;

    offset = any(m, (m->size + cluster - 1) / cluster) * cluster;
    length = MIN(cluster, m->size - offset);
    fill_random(m, m->buffer, length);
    r = m->disk->format->image->write_compressed(m->disk, offset, m->buffer, length);
    assert_true(r == 0 || r == -ENOSPC);
    if (r == 0)
        memcpy(m->data + offset, m->buffer, length);
}

struct parallel {
    struct model *m;
    struct disk_request request;
    struct iovec iov[2];
    uint8_t *buffer;
};

static void parallel_done(struct disk_request *request, int result)
{
    struct parallel *p = request->opaque;

    assert_int_equal(result, 0);
    p->m->under_way--;
}

/* Requests that do not overlap, but share clusters, all at once. */
static void do_parallel(struct model *m)
{
    struct parallel parallel[PARALLEL] = {0};
    uint64_t part = m->size / PARALLEL / 512 * 512;

    if (!part)
        return;
    for (unsigned i = 0; i < PARALLEL; i++) {
        struct parallel *p = &parallel[i];
        uint64_t offset = i * part + any(m, part), length = 1 + any(m, (i + 1) * part - offset);
        enum disk_op op = (enum disk_op)any(m, 5);

        if (op == DISK_DISCARD)
            op = DISK_WRITE;
        p->m = m;
        p->buffer = malloc(length);
        p->iov[0] = (struct iovec){p->buffer, length / 3};
        p->iov[1] = (struct iovec){p->buffer + length / 3, length - length / 3};
        p->request = (struct disk_request){.op = op,
                                           .offset = offset,
                                           .length = length,
                                           .iov = p->iov,
                                           .iov_count = 2,
                                           .flags = any(m, 8) ? 0 : DISK_FUA,
                                           .done = parallel_done,
                                           .opaque = p};
        if (op == DISK_WRITE) {
            fill_random(m, p->buffer, length);
            memcpy(m->data + offset, p->buffer, length);
        } else if (op == DISK_WRITE_ZEROES) {
            memset(m->data + offset, 0, length);
        }
        m->under_way++;
    }
    for (unsigned i = 0; i < PARALLEL; i++)
        disk_submit(m->disk, &parallel[i].request);
    while (m->under_way)
        storage_wait(m->storage);
    for (unsigned i = 0; i < PARALLEL; i++) {
        struct parallel *p = &parallel[i];

        if (p->request.op == DISK_READ)
            assert_memory_equal(p->buffer, m->data + p->request.offset,
                                p->iov[0].iov_len + p->iov[1].iov_len);
        free(p->buffer);
    }
}

static void do_snapshot(struct model *m)
{
    unsigned i = (unsigned)any(m, SNAPSHOTS_MAX);
    struct error err = {0};
    char name[8];
    int r = 0;

    snprintf(name, sizeof(name), "s%u", i);
    if (!m->snapshots[i].used) {
        r = image_snapshot_create(m->disk, name, &err);
        if (r == 0) {
            m->snapshots[i].used = true;
            m->snapshots[i].size = m->size;
            m->snapshots[i].data = realloc(m->snapshots[i].data, MODEL_MAX);
            memcpy(m->snapshots[i].data, m->data, MODEL_MAX);
        }
    } else if (any(m, 2)) {
        r = image_snapshot_apply(m->disk, name, &err);
        if (r == 0) {
            m->size = m->snapshots[i].size;
            memcpy(m->data, m->snapshots[i].data, MODEL_MAX);
        }
    } else {
        r = image_snapshot_delete(m->disk, name, &err);
        m->snapshots[i].used = false;
    }
    if (r == -ERANGE) /* the refcount bits are few: refused, and nothing has changed */
        r = 0;
    if (r < 0)
        fail_msg("%s", err.text);
    assert_true(disk_size(m->disk) == m->size);
}

static void do_resize(struct model *m)
{
    uint64_t size = (1 + any(m, MODEL_MAX / 512)) * 512;
    struct error err = {0};
    int r = disk_resize(m->disk, size, &err);

    if (r == -ENOTSUP && m->options.version == 2)
        return;
    if (r < 0)
        fail_msg("%s", err.text);
    if (size > m->size)
        memset(m->data + m->size, 0, size - m->size);
    m->size = size;
}

static void do_flush(struct model *m)
{
    assert_int_equal(disk_flush(m->disk), 0);
}

static void do_verify(struct model *m)
{
    verify(m, 0, m->size);
}

static const struct {
    void (*fn)(struct model *m);
    unsigned weight;
} operations[] = {
    {do_write, 30},   {do_zero, 12},  {do_discard, 10}, {do_compressed, 8}, {do_parallel, 15},
    {do_snapshot, 8}, {do_resize, 3}, {do_flush, 8},    {reopen, 3},        {do_verify, 3},
};

static void one_operation(struct model *m)
{
    unsigned total = 0, at;

    for (unsigned i = 0; i < ARRAY_SIZE(operations); i++)
        total += operations[i].weight;
    at = (unsigned)any(m, total);
    for (unsigned i = 0; i < ARRAY_SIZE(operations); i++) {
        if (at < operations[i].weight) {
            operations[i].fn(m);
            return;
        }
        at -= operations[i].weight;
    }
}

static void random_operations_give_what_a_plain_model_gives(void **state)
{
    const unsigned sequences = test_number("SEQUENCES", 200),
                   seed = test_number("SEED", 1);

    (void)state;
    for (unsigned i = 0; i < sequences; i++) {
        struct model m;

        print_message("sequence %u\n", seed + i);
        model_start(&m, seed + i);
        for (unsigned k = 0; k < 40; k++)
            one_operation(&m);
        do_verify(&m);
        verify_check(&m);
        reopen(&m);
        do_verify(&m);
        verify_check(&m);
        model_end(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_give_what_a_plain_model_gives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
