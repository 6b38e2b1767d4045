/* Every row of the decode table, on the host CPU and in an engine, with random
 * operands: what differs is a fault of the engine.
 *
 *   instructions [--engine NAME] [--dead-flags] [--seed N] [--cases N] [--seconds N]
 *                [--part I/N] [--row N [--case N]]
 *
 * With --dead-flags the status flags that an exception saves are not compared.
 * Fails when a row differs, and when a row is neither tried nor excused. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "compare.h"
#include "excused.h"
#include "generate.h"
#include "guest.h"
#include "host.h"
#include "values.h"

#define SHOWN_MAX 2 /* differences of one row that are told */

struct options {
    const char *engine;
    uint64_t seed;
    unsigned cases, seconds, part, parts;
    int row, one_case;
    bool dead_flags;
};

struct tally {
    unsigned tried, excused, lacking, failed;
    unsigned long cases;
};

struct run {
    const struct options *options;
    struct guest *guest;
    struct tally tally;
};

/* 64-bit code most of the time; what exists elsewhere is tried there too. */
static enum x86_mode pick_mode(struct random *r, const struct x86_row *row)
{
    const unsigned kind = random_below(r, 100);
    const bool only32 = row->attributes & X86_ATTR_NO64;

    if ((row->attributes & X86_ATTR_ONLY64) || (!only32 && kind < 60))
        return X86_MODE_64;
    return kind < 85 || !host_has_mode(X86_MODE_16) ? X86_MODE_32 : X86_MODE_16;
}

/* Where the instruction lies: at an odd place, or across a page. */
static uint64_t pick_place(struct random *r)
{
    if (random_chance(r, 10))
        return IMAGE_CODE + IMAGE_PAGE - 1 - random_below(r, X86_INSN_MAX);
    return IMAGE_CODE + 0x400 + random_below(r, 0x400);
}

static void report(const struct x86_insn *insn, const struct image *before, const uint8_t *bytes,
                   uint64_t address, unsigned number, const char *text)
{
    char disassembly[128], hex[2 * X86_INSN_MAX + 1];

    for (unsigned i = 0; i < insn->length; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    x86_disassemble(insn, address, disassembly, sizeof(disassembly));
    printf("row %u case %u, %u bits: %s  %s  host/engine:%s\n", insn->row, number, before->mode,
           hex, disassembly, text);
}

/* One case. 1: tried, 0: the row has no such form, -1: tried and different, which is
 * told if it is to be shown. */
static int try_case(struct run *run, unsigned row, unsigned number, bool show)
{
    static struct image_memory memory, host_memory, guest_memory;
    struct random r = random_case(run->options->seed, row, number);
    struct image before = {.mode = pick_mode(&r, &x86_rows[row])};
    const uint64_t address = pick_place(&r);
    uint8_t bytes[X86_INSN_MAX];
    struct image host, guest;
    struct tolerance tolerance;
    struct x86_insn insn;
    struct error err;
    char text[1024];

    values_fill(&r, &before, &memory);
    if (!generate_bytes(&r, row, before.mode, bytes, &insn) ||
        !generate_aim(&r, &before, &memory, address, bytes, &insn, false))
        return 0;
    before.rip = address - image_code_base(before.mode);
    memcpy(memory.code + (address - IMAGE_CODE), bytes, insn.length);
    host = guest = before;
    host_memory = guest_memory = memory;
    host_run(&host, &host_memory);
    if (guest_run(run->guest, &guest, &guest_memory, 0, &err) < 0) {
        report(&insn, &before, bytes, address, number, err.text);
        return -1;
    }
    tolerance = tolerance_of(&insn, &before);
    if (run->options->dead_flags)
        tolerance.fault_flags |= X86_STATUS_FLAGS;
    if (compare_outcomes(&host, &host_memory, &guest, &guest_memory, &tolerance, text,
                         sizeof(text)))
        return 1;
    if (show)
        report(&insn, &before, bytes, address, number, text);
    return -1;
}

/* The same, and once more if it differs: what comes of time or load is told apart. */
static int try_twice(struct run *run, unsigned row, unsigned number, bool show)
{
    const int r = try_case(run, row, number, show);

    if (r < 0 && show && try_case(run, row, number, false) > 0)
        printf("row %u case %u: the same when tried again\n", row, number);
    return r;
}

static void try_row(struct run *run, unsigned row)
{
    const struct options *o = run->options;
    unsigned tried = 0, failed = 0;

    if (!host_has_feature((enum x86_feature)x86_rows[row].feature)) {
        run->tally.lacking++;
        return;
    }
    /* Some forms have no safe use: a few more numbers than cases. */
    for (unsigned number = 0; tried < o->cases && number < 4 * o->cases; number++) {
        int r;

        if (o->one_case >= 0 && number != (unsigned)o->one_case)
            continue;
        r = try_twice(run, row, number, failed < SHOWN_MAX);
        tried += r != 0;
        failed += r < 0;
    }
    run->tally.cases += tried;
    if (tried < o->cases && o->one_case < 0) {
        printf("row %u, %s %s: only %u of %u cases could be made\n", row, x86_rows[row].mnemonic,
               x86_rows[row].encoding, tried, o->cases);
        failed++;
    }
    if (failed)
        printf("row %u, %s %s: %u of %u cases differ\n", row, x86_rows[row].mnemonic,
               x86_rows[row].encoding, failed, tried);
    run->tally.tried++;
    run->tally.failed += failed != 0;
}

static void try_rows(struct run *run)
{
    const struct options *o = run->options;

    for (unsigned row = o->part; row < x86_row_count; row += o->parts) {
        if (o->row >= 0 && row != (unsigned)o->row)
            continue;
        if (excused(row))
            run->tally.excused++;
        else
            try_row(run, row);
    }
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {
        {"engine", required_argument, NULL, 'e'}, {"seed", required_argument, NULL, 's'},
        {"cases", required_argument, NULL, 'n'},  {"seconds", required_argument, NULL, 't'},
        {"part", required_argument, NULL, 'p'},   {"row", required_argument, NULL, 'r'},
        {"case", required_argument, NULL, 'c'},   {"dead-flags", no_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int c;

    *o = (struct options){.engine = "interpret", .seed = 1, .cases = 200, .parts = 1, .row = -1,
                          .one_case = -1};
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
        switch (c) {
        case 'd': o->dead_flags = true; break;
        case 'e': o->engine = optarg; break;
        case 's': o->seed = strtoull(optarg, NULL, 0); break;
        case 'n': o->cases = (unsigned)strtoul(optarg, NULL, 0); break;
        case 't': o->seconds = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'r': o->row = (int)strtol(optarg, NULL, 0); break;
        case 'c': o->one_case = (int)strtol(optarg, NULL, 0); break;
        case 'p':
            if (sscanf(optarg, "%u/%u", &o->part, &o->parts) != 2 || !o->parts)
                return -1;
            break;
        default: return -1;
        }
    return optind == argc ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options options;
    struct run run = {.options = &options};
    const time_t start = time(NULL);
    struct error err;

    if (parse(argc, argv, &options) < 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (host_open(&err) < 0 || guest_open(options.engine, NULL, 0, &run.guest, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    do {
        try_rows(&run);
        printf("seed %llu: %u rows tried in %lu cases, %u excused, %u lacking on this host, "
               "%u failed\n",
               (unsigned long long)options.seed, run.tally.tried, run.tally.cases,
               run.tally.excused, run.tally.lacking, run.tally.failed);
        options.seed++;
    } while (!run.tally.failed && time(NULL) - start < (time_t)options.seconds);
    guest_close(run.guest);
    return run.tally.failed != 0;
}
