#include "cli/progress_bars.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"
#include "base/size.h"

#define REDRAW_NS 100000000ull

enum { LINES_MAX = 16, WIDTH = 30 };

struct bar {
    char label[24];
    uint64_t done, total;
    bool used;
};

struct progress_bars {
    struct progress progress;
    pthread_mutex_t lock; /* guards what follows */
    struct bar bars[LINES_MAX];
    unsigned drawn; /* lines on the terminal */
    uint64_t last_ns;
};

static void wipe(struct progress_bars *bars)
{
    if (bars->drawn)
        fprintf(stderr, "\033[%uA\033[J", bars->drawn);
    bars->drawn = 0;
}

static void draw_bar(const struct bar *bar)
{
    unsigned filled = bar->total ? (unsigned)((__uint128_t)bar->done * WIDTH / bar->total) : WIDTH;
    char line[WIDTH + 1], done[32], total[32];

    filled = MIN(filled, (unsigned)WIDTH);
    memset(line, '.', WIDTH);
    memset(line, '#', filled);
    line[WIDTH] = 0;
    fprintf(stderr, "%-23s [%s] %s of %s\n", bar->label, line,
            size_format(bar->done, done, sizeof(done)),
            size_format(bar->total, total, sizeof(total)));
}

static void draw(struct progress_bars *bars)
{
    wipe(bars);
    for (unsigned i = 0; i < LINES_MAX; i++)
        if (bars->bars[i].used) {
            draw_bar(bars->bars + i);
            bars->drawn++;
        }
    fflush(stderr);
}

static void update(struct progress *progress, size_t i, const char *label, uint64_t done,
                   uint64_t total)
{
    struct progress_bars *bars = container_of(progress, struct progress_bars, progress);
    uint64_t now = loop_now_ns();
    struct bar *bar;

    if (i >= LINES_MAX)
        return;
    pthread_mutex_lock(&bars->lock);
    bar = bars->bars + i;
    bar->used = true;
    snprintf(bar->label, sizeof(bar->label), "%s", label);
    bar->done = done;
    bar->total = total;
    if (now - bars->last_ns > REDRAW_NS || done == total) {
        bars->last_ns = now;
        draw(bars);
    }
    pthread_mutex_unlock(&bars->lock);
}

struct progress_bars *progress_bars_create(void)
{
    struct progress_bars *bars = isatty(STDERR_FILENO) ? calloc(1, sizeof(*bars)) : NULL;

    if (!bars)
        return NULL;
    bars->progress.update = update;
    pthread_mutex_init(&bars->lock, NULL);
    return bars;
}

void progress_bars_destroy(struct progress_bars *bars)
{
    if (!bars)
        return;
    wipe(bars);
    fflush(stderr);
    pthread_mutex_destroy(&bars->lock);
    free(bars);
}

struct progress *progress_bars_progress(struct progress_bars *bars)
{
    return bars ? &bars->progress : NULL;
}
