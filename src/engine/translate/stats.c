#include "engine/translate/stats.h"

#include "x86/decode-table.h"

#define FALLBACKS_SHOWN 24

static const char *const exit_names[SITE_KINDS] = {
    [SITE_LINK] = "to link a branch",       [SITE_JUMP] = "branch to another page",
    [SITE_INDIRECT] = "indirect branch",    [SITE_MEMORY] = "address check",
    [SITE_INTERPRET] = "to interpret",      [SITE_TRAP] = "exception of the host",
    [SITE_CUT] = "instruction in two pages",
    [SITE_ARRIVED] = "system call or return",
    [SITE_SIGNAL] = "signal",               [SITE_VECTORS] = "vector registers",
    [SITE_HOT] = "hot unit",                [SITE_GUESS] = "wrong guesses",
    [SITE_PATH] = "pages of a trace",       [SITE_APART] = "ranges apart",
    [SITE_FRAME] = "frame in two pages",
};

static void print_fallbacks(const struct translate_stats *s, FILE *out)
{
    bool shown[X86_OP_COUNT] = {false};

    fprintf(out, "  interpreted:");
    for (unsigned i = 0; i < FALLBACKS_SHOWN; i++) {
        unsigned best = 0;

        for (unsigned op = 0; op < X86_OP_COUNT; op++)
            if (!shown[op] && (shown[best] || s->fallbacks[op] > s->fallbacks[best]))
                best = op;
        if (shown[best] || !s->fallbacks[best])
            break;
        shown[best] = true;
        fprintf(out, " %s %llu", x86_op_names[best], (unsigned long long)s->fallbacks[best]);
    }
    fprintf(out, "\n");
}

static const char *const part_names[CPU_PARTS] = {
    [PART_CODE] = "translated code",   [PART_TRANSLATE] = "translating",
    [PART_REFILL] = "TLB refills",     [PART_INTERPRET] = "interpreting",
    [PART_DEVICE] = "devices",         [PART_HALTED] = "halted",
    [PART_OTHER] = "exits and events",
};

static void print_times(const struct cpu_times *times, FILE *out)
{
    uint64_t all = 1;

    for (unsigned i = 0; i < CPU_PARTS; i++)
        all += times->spent[i];
    fprintf(out, "  time:");
    for (unsigned i = 0; i < CPU_PARTS; i++)
        fprintf(out, "%s %s %.1f%%", i ? "," : "", part_names[i],
                100.0 * (double)times->spent[i] / (double)all);
    fprintf(out, "\n");
}

static void print_predictions(const struct predictor *p, FILE *out)
{
    static const char *const names[PREDICTION_KINDS] = {
        [PREDICT_INDIRECT] = "indirect branches", [PREDICT_RETURN] = "returns"};

    fprintf(out, "  predicted:");
    for (unsigned i = 0; i < PREDICTION_KINDS; i++)
        fprintf(out, "%s %s %llu hits, %llu misses, %llu learned, %llu given up", i ? ";" : "",
                names[i], (unsigned long long)(p->asked[i] - p->missed[i]),
                (unsigned long long)p->missed[i], (unsigned long long)p->learned[i],
                (unsigned long long)p->given_up[i]);
    fprintf(out, "\n");
}

static void print_cpu(const struct translator *t, FILE *out)
{
    const struct translate_stats *s = &t->stats;

    fprintf(out,
            "cpu %u: %llu units of %llu instructions in %llu KiB, %llu of them hot, "
            "%llu copied, %llu moved, %llu dropped by %llu writes, %llu flushes, "
            "%llu evicted at %llu times\n",
            t->cpu.vcpu.index, (unsigned long long)s->units, (unsigned long long)s->insns,
            (unsigned long long)s->bytes / 1024, (unsigned long long)s->hot,
            (unsigned long long)s->copied, (unsigned long long)s->moved,
            (unsigned long long)s->dropped,
            (unsigned long long)s->writes, (unsigned long long)s->flushes,
            (unsigned long long)s->evicted, (unsigned long long)s->evictions);
    fprintf(out,
            "  %llu links, %llu jumps cached (%llu replaced, %llu flushes), "
            "%llu TLB refills, %llu from the second way, %llu units without groups, "
            "%llu guesses given up, %llu single steps, "
            "%llu blocks of code that is written\n",
            (unsigned long long)s->links, (unsigned long long)s->jumps_added,
            (unsigned long long)s->jumps_replaced, (unsigned long long)s->jump_flushes,
            (unsigned long long)s->fills, (unsigned long long)s->seconds,
            (unsigned long long)s->single, (unsigned long long)s->given_up,
            (unsigned long long)s->steps, (unsigned long long)s->churned);
    fprintf(out,
            "  %llu paths recorded, %llu traces of %llu instructions; %llu tried, %llu of them no "
            "good; %llu moved\n",
            (unsigned long long)s->records, (unsigned long long)s->paths,
            (unsigned long long)s->path_steps, (unsigned long long)s->paths_judged,
            (unsigned long long)s->paths_bad, (unsigned long long)s->paths_moved);
    print_predictions(&t->predictor, out);
    fprintf(out, "  exits:");
    for (unsigned i = 0; i < SITE_KINDS; i++)
        fprintf(out, "%s %s %llu", i ? "," : "", exit_names[i], (unsigned long long)s->exits[i]);
    fprintf(out, "\n");
    if (s->fallbacks)
        print_fallbacks(s, out);
    if (t->cpu.times.wanted)
        print_times(&t->cpu.times, out);
}

void stats_print(struct engine *engine, FILE *out)
{
    const struct soft_engine *soft = (const struct soft_engine *)engine;

    for (unsigned i = 0; i < soft->config.cpus; i++)
        print_cpu(translator_of(cpu_of(soft->engine.vcpus[i])), out);
}
