/* Sequences of instructions on two CPUs: an engine and another engine, or the
 * host. What differs is a fault of one of them.
 *
 *   sequences [--noise] [--dead-flags] [--hot | --hot-after N] [--seed N] [--count N]
 *             [--seconds N] [--index N] A B
 *
 * With --dead-flags the status flags that an exception saves are not compared:
 * an engine may have left out some that nothing would have read.
 * A and B are engines; A may also be `host`. An index alone repeats one case and
 * prints the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "compare.h"
#include "guest.h"
#include "host.h"
#include "options.h"
#include "program.h"

#define TIMEOUT     200 /* ms; loops have hundreds of rounds at most, noise may have no end */
#define SHOWN_MAX   5
#define TRACE_STEPS 100000
#define WARM_TIMEOUT 20 /* ms */

struct tally {
    unsigned long same, failed, endless, model;
};

struct run {
    const struct options *options;
    struct guest *guests[2]; /* NULL: the host */
    struct guest *tracer;    /* steps through a program when its outcomes differ */
    struct tally tally;
};

/* What the translator makes of code depends on the ways it took before: let it take some,
 * with other flags and data. What comes of it does not matter. */
static void warm_up(struct guest *guest, struct random *r, const struct image *image,
                    const struct image_memory *memory)
{
    static struct image_memory other_memory;
    struct image other = *image;
    struct error err;

    other_memory = *memory;
    other.rflags ^= random_next(r) & X86_STATUS_FLAGS;
    for (unsigned i = random_below(r, 3); i; i--)
        other.gpr[random_below(r, X86_GPRS)] = random_next(r) & (random_chance(r, 50) ? 0xff : -1);
    for (unsigned i = 0; i < IMAGE_DATA_SIZE; i += 1 + random_below(r, 64))
        other_memory.data[i] ^= (uint8_t)random_next(r);
    guest_run(guest, &other, &other_memory, WARM_TIMEOUT, &err);
}

static int run_one(struct guest *guest, struct image *image, struct image_memory *memory,
                   unsigned timeout, struct error *err)
{
    if (guest)
        return guest_run(guest, image, memory, timeout, err);
    host_run(image, memory);
    return 0;
}

/* Whether one of the two CPUs ended with an exception there. */
static bool faulted_at(const struct image outcomes[2], uint64_t rip)
{
    for (unsigned i = 0; i < 2; i++)
        if (outcomes[i].vector != X86_BP && outcomes[i].rip == rip)
            return true;
    return false;
}

static bool is_undefined(const struct tolerance *t)
{
    return t->registers || t->halves || t->to;
}

static bool is_undefined_in_fault(const struct tolerance *t)
{
    return t->fault_any || t->fault_pending || t->fault_flags || t->fault_registers ||
           t->fault_halves || t->fault_vectors || t->fault_high || t->fault_mxcsr ||
           t->fault_address || t->fault_memory || t->fault_x87;
}

/* What is undefined after the program ran from `image`: found by single steps
 * on the reference engine. Clears *ret_known when something undefined was read
 * on the way, so that nothing can be said; what only a fault leaves undefined
 * counts where one of the outcomes has one. With --dead-flags that is also what
 * the code that followed a store would not have read, had it not been changed
 * by that store. */
static uint64_t trace_undefined(struct run *run, const struct image *before,
                                struct image_memory *memory, const struct image outcomes[2],
                                bool *ret_known)
{
    struct image image = *before;
    static struct image_memory work;
    static uint8_t code[IMAGE_CODE_SIZE];
    uint64_t undefined = 0;
    struct error err;

    work = *memory;
    memcpy(code, work.code, sizeof(code));
    *ret_known = true;
    for (unsigned i = 0; i < TRACE_STEPS; i++) {
        const uint64_t linear = image.rip + image_code_base(image.mode);
        struct x86_insn insn;
        const struct x86_row *row;
        struct tolerance t;

        if (linear - IMAGE_CODE >= IMAGE_CODE_SIZE ||
            x86_decode(work.code + (linear - IMAGE_CODE), IMAGE_CODE + IMAGE_CODE_SIZE - linear,
                       image.mode, &insn) != X86_DECODE_OK)
            return undefined;
        row = &x86_rows[insn.row];
        t = tolerance_of(&insn, &image);
        if ((row->flags_read & undefined) || is_undefined(&t) ||
            (is_undefined_in_fault(&t) && faulted_at(outcomes, image.rip)) ||
            (row->attributes & X86_ATTR_NONDETERMINISTIC) || insn.op == X86_OP_CPUID)
            *ret_known = false;
        image.rflags |= X86_TF;
        if (guest_run(run->tracer, &image, &work, 0, &err) < 0 || image.vector != X86_DB)
            return undefined;
        undefined = (undefined & ~(uint64_t)row->flags_written) | t.flags;
        if (run->options->dead_flags && memcmp(code, work.code, sizeof(code)) != 0) {
            undefined |= X86_STATUS_FLAGS & ~(uint64_t)row->flags_written;
            memcpy(code, work.code, sizeof(code));
        }
        image.rflags &= ~(uint64_t)X86_TF;
    }
    return undefined;
}

static enum x86_mode pick_mode(struct random *r, bool host)
{
    static const enum x86_mode modes[] = {X86_MODE_64, X86_MODE_64, X86_MODE_32, X86_MODE_16};
    enum x86_mode mode;

    do
        mode = modes[random_below(r, ARRAY_SIZE(modes))];
    while (host && !host_has_mode(mode));
    return mode;
}

/* Cut the program short after each of its instructions, and tell after which
 * it first differs. */
static void find_first_difference(struct run *run, const struct program *program,
                                  const struct image *before, const struct image_memory *memory)
{
    static struct image_memory memories[2];
    struct tolerance tolerance = {0};
    uint64_t at = program->start;
    struct image images[2];
    struct x86_insn insn;
    struct error err;
    char text[1024], disassembly[128];

    while (at < program->start + program->length) {
        const uint64_t here = at - image_code_base(program->mode);

        if (x86_decode(memory->code + (at - IMAGE_CODE), IMAGE_CODE + IMAGE_CODE_SIZE - at,
                       program->mode, &insn) != X86_DECODE_OK)
            return;
        at += insn.length;
        tolerance.flags = x86_rows[insn.row].flags_undefined;
        tolerance.fault_flags =
            tolerance.flags | (run->options->dead_flags ? X86_STATUS_FLAGS : 0);
        for (unsigned i = 0; i < 2; i++) {
            images[i] = *before;
            memories[i] = *memory;
            memset(memories[i].code + (at - IMAGE_CODE), 0xcc,
                   at < program->start + program->length ? program->start + program->length - at
                                                         : 0);
            if (run_one(run->guests[i], &images[i], &memories[i], TIMEOUT, &err) < 0)
                printf("  %s: %s\n", run->options->names[i], err.text);
        }
        if (!compare_outcomes(&images[0], &memories[0], &images[1], &memories[1], &tolerance, text,
                              sizeof(text))) {
            x86_disassemble(&insn, here, disassembly, sizeof(disassembly));
            printf("  first after %llx, %s:%s\n", (unsigned long long)here, disassembly, text);
            return;
        }
    }
}

static void try_sequence(struct run *run, unsigned long index)
{
    static struct image_memory memory, memories[2];
    const struct options *o = run->options;
    struct random r = random_case(o->seed, index, o->noise);
    const bool host = !run->guests[0];
    const enum x86_mode mode = pick_mode(&r, host);
    struct image before, images[2];
    const unsigned timeout = o->noise ? 20 : TIMEOUT;
    const uint64_t dead = o->dead_flags ? X86_STATUS_FLAGS : 0;
    struct tolerance tolerance = {.fault_flags = dead};
    struct program program = {.mode = mode, .for_host = host, .ways = o->hot_turns};
    struct error err;
    char text[1024];
    bool known = true;

    if (o->noise)
        program_noise(&r, mode, &before, &memory, &program);
    else
        program_make(&r, &program, &before, &memory);
    if (o->index >= 0)
        program_print(&program, &memory);
    for (unsigned i = 0; i < 2; i++) {
        images[i] = before;
        memories[i] = memory;
        if (o->hot_turns && i && random_chance(&r, 75))
            warm_up(run->guests[i], &r, &before, &memory);
        if (run_one(run->guests[i], &images[i], &memories[i], timeout, &err) < 0) {
            printf("seed %llu index %lu, %u bits, %s: %s\n", (unsigned long long)o->seed, index,
                   mode, o->names[i], err.text);
            run->tally.failed++;
            return;
        }
    }
    /* Who does not end where the other does gets more time. */
    if (images[0].vector != IMAGE_TIMEOUT && images[1].vector == IMAGE_TIMEOUT) {
        images[1] = before;
        memories[1] = memory;
        run_one(run->guests[1], &images[1], &memories[1], 50 * timeout, &err);
    }
    if (images[0].vector == IMAGE_TIMEOUT) {
        run->tally.endless++;
        return;
    }
    if (compare_outcomes(&images[0], &memories[0], &images[1], &memories[1], &tolerance, text,
                         sizeof(text))) {
        run->tally.same++;
        return;
    }
    tolerance.flags = trace_undefined(run, &before, &memory, images, &known);
    tolerance.fault_flags = tolerance.flags | dead;
    if (!known) {
        run->tally.model++;
        return;
    }
    if (compare_outcomes(&images[0], &memories[0], &images[1], &memories[1], &tolerance, text,
                         sizeof(text))) {
        run->tally.same++;
        return;
    }
    if (run->tally.failed++ < SHOWN_MAX) {
        printf("seed %llu index %lu%s, %u bits, %s/%s:%s\n", (unsigned long long)o->seed, index,
               o->noise ? " noise" : "", mode, o->names[0], o->names[1], text);
        if (o->index < 0)
            program_print(&program, &memory);
        find_first_difference(run, &program, &before, &memory);
    }
}

static int open_cpus(struct run *run, struct error *err)
{
    const char *const *names = run->options->names;
    const bool host = !strcmp(names[0], "host");
    const char *const peers[] = {names[1], host ? NULL : names[0], NULL};
    int r;

    r = host ? host_open(err)
             : guest_open(names[0], peers, run->options->hot_turns, &run->guests[0], err);
    if (r == 0)
        r = guest_open(names[1], peers, run->options->hot_turns, &run->guests[1], err);
    if (r == 0)
        r = guest_open("interpret", peers, 0, &run->tracer, err);
    return r;
}

int main(int argc, char **argv)
{
    struct options options;
    struct run run = {.options = &options};
    const time_t start = time(NULL);
    struct error err;

    /* The host comes first, if at all. */
    if (options_parse(argc, argv, 20000, &options) < 0 || !strcmp(options.names[1], "host"))
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (open_cpus(&run, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    do {
        if (options.index >= 0)
            try_sequence(&run, (unsigned long)options.index);
        for (unsigned i = 0; options.index < 0 && i < options.count; i++)
            try_sequence(&run, i);
        printf("seed %llu: %lu the same, %lu without an end, %lu by the model, %lu failed\n",
               (unsigned long long)options.seed, run.tally.same, run.tally.endless,
               run.tally.model, run.tally.failed);
        options.seed++;
    } while (!run.tally.failed && time(NULL) - start < (time_t)options.seconds);
    for (unsigned i = 0; i < 2; i++)
        guest_close(run.guests[i]);
    guest_close(run.tracer);
    return run.tally.failed != 0;
}
