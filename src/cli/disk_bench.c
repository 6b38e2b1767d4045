/* lodge disk bench: how fast random or sequential requests are. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/size.h"
#include "cli/disk.h"

#define DEPTH_MAX 256

struct bench {
    struct disk *disk;
    enum disk_op op;
    uint64_t left, under_way, ended; /* requests */
    uint64_t length, size, step, at; /* bytes; step 0: at random */
    uint64_t seed;
    int failed;
};

struct slot {
    struct bench *bench;
    struct disk_request request;
    struct iovec iov;
};

/* xorshift64* */
static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545f4914f6cdd1dull;
}

static void submit(struct slot *slot)
{
    struct bench *bench = slot->bench;
    uint64_t places = bench->size / bench->length;

    bench->left--;
    bench->under_way++;
    slot->request.offset = bench->at;
    if (!bench->step)
        slot->request.offset = (next_random(&bench->seed) >> 11) % places * bench->length;
    bench->at = (bench->at + bench->step) % (bench->size - bench->length + 1);
    disk_submit(bench->disk, &slot->request);
}

static void one_ended(struct disk_request *request, int result)
{
    struct slot *slot = request->opaque;
    struct bench *bench = slot->bench;

    bench->under_way--;
    bench->ended++;
    if (result < 0)
        bench->failed = result;
    if (bench->left && !bench->failed)
        submit(slot);
}

static int run_requests(struct bench *bench, unsigned depth, struct error *err)
{
    AUTO_FREE struct slot *slots = calloc(depth, sizeof(*slots));
    AUTO_FREE uint8_t *memory = malloc(depth * bench->length);
    struct storage *storage = disk_storage(bench->disk);

    if (!slots || !memory)
        return error_set(err, ENOMEM, "out of memory for %u requests", depth);
    memset(memory, 0x5a, depth * bench->length);
    storage_hold(storage);
    for (unsigned i = 0; i < depth && bench->left; i++) {
        struct slot *slot = &slots[i];

        slot->bench = bench;
        slot->iov = (struct iovec){memory + i * bench->length, bench->length};
        slot->request = (struct disk_request){
            .op = bench->op, .iov = &slot->iov, .iov_count = 1, .done = one_ended, .opaque = slot};
        submit(slot);
    }
    storage_release(storage);
    while (bench->under_way)
        storage_wait(storage);
    return bench->failed ? error_system(err, -bench->failed, "a request failed") : 0;
}

static int parse_count(const struct cli *cli, const char *name, uint64_t otherwise, uint64_t most,
                       uint64_t *ret_value, struct error *err)
{
    *ret_value = otherwise;
    if (!cli_value(cli, name))
        return 0;
    if (size_parse(cli_value(cli, name), 1, ret_value, err) < 0) {
        error_prepend(err, "--%s", name);
        return -EINVAL;
    }
    if (!*ret_value || *ret_value > most)
        return error_set(err, EINVAL, "--%s: 1 to %llu", name, (unsigned long long)most);
    return 0;
}

static int bench_run(struct cli *cli, struct error *err)
{
    struct bench bench = {.op = cli_flag(cli, "write") ? DISK_WRITE : DISK_READ,
                          .seed = 88172645463325252ull};
    struct storage *storage = NULL;
    uint64_t depth = 0, start, ns;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = parse_count(cli, "count", 100000, 1ull << 40, &bench.left, err);
    if (r == 0)
        r = parse_count(cli, "depth", 32, DEPTH_MAX, &depth, err);
    if (r == 0)
        r = parse_count(cli, "length", 4096, 64 << 20, &bench.length, err);
    if (r == 0)
        r = parse_count(cli, "step", 0, 1ull << 40, &bench.step, err);
    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", bench.op == DISK_WRITE, &storage,
                          &bench.disk, err);
    if (r == 0) {
        bench.size = disk_size(bench.disk);
        if (bench.size < bench.length)
            r = error_set(err, EINVAL, "%s is smaller than one request", cli->argv[0]);
    }
    if (r == 0) {
        start = loop_now_ns();
        r = run_requests(&bench, (unsigned)depth, err);
        ns = loop_now_ns() - start;
        if (r == 0)
            fprintf(cli->out, "%.3f seconds, %.0f requests a second (%s)\n", (double)ns / 1e9,
                    (double)bench.ended * 1e9 / (double)ns, storage_engine(storage));
    }
    return disk_cli_close(storage, bench.disk, r, err);
}

static const struct cli_option bench_options[] = {
    DISK_OPTION_FORMAT,
    {"write", 'w', NULL, "Write instead of reading; the content is overwritten.", NULL},
    {"step", 0, "SIZE", "Each request this far behind the last, instead of at random.", NULL},
    {"count", 'c', "N", "How many requests (default 100000).", NULL},
    {"depth", 'd', "N", "How many at a time (default 32).", NULL},
    {"length", 's', "SIZE", "Bytes of a request (default 4K).", NULL},
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_bench_command = {
    .name = "bench",
    .summary = "measure how many requests a second an image takes",
    .operands = "IMAGE",
    .description = "What is written is flushed at the end; that does not count.",
    .options = bench_options,
    .run = bench_run,
};
