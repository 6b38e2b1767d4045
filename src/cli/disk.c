/* lodge disk: disk images. The verbs below it are one file each. */
#include "cli/disk.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/verbs.h"

/* The signal that asks for an end of long work, or 0. */
static volatile sig_atomic_t interrupted;

int disk_cli_storage(const struct cli *cli, struct storage **ret_storage, struct error *err)
{
    return storage_create(NULL, cli_value(cli, "io"), ret_storage, err);
}

const char *disk_cli_new_format(const struct cli *cli, const char *option, const char *path)
{
    const char *format = cli_value(cli, option), *dot = strrchr(path, '.');

    if (format)
        return format;
    return dot && (!strcmp(dot, ".raw") || !strcmp(dot, ".img")) ? "raw" : "qcow2";
}

int disk_cli_operands(const struct cli *cli, int count, const char *usage, struct error *err)
{
    if (cli->argc == count)
        return 0;
    return error_set(err, EINVAL, "%s needs %s; see 'lodge help disk %s'", cli->verb->name, usage,
                     cli->verb->name);
}

int disk_cli_open(const struct cli *cli, const char *path, const char *format_option, bool writable,
                  struct storage **storage, struct disk **ret_disk, struct error *err)
{
    const struct disk_options options = {.format = cli_value(cli, format_option),
                                         .writable = writable};
    int r = *storage ? 0 : disk_cli_storage(cli, storage, err);

    return r < 0 ? r : disk_open(*storage, path, &options, ret_disk, err);
}

int disk_cli_close(struct storage *storage, struct disk *disk, int r, struct error *err)
{
    int r2 = disk_close(disk, r < 0 ? NULL : err);

    if (r == -EINVAL && storage)
        r = -EBADMSG; /* what is wrong with an image is no wrong usage */
    storage_destroy(storage);
    if (interrupted)
        raise(interrupted); /* who waits for this process is to know */
    return r < 0 || r2 == 0 ? r : r2;
}

int disk_cli_json(const struct cli *cli, json_t *value, struct error *err)
{
    int r = value ? json_dumpf(value, cli->out, JSON_INDENT(2)) : -1;

    json_decref(value);
    if (r < 0)
        return error_set(err, EIO, "cannot print JSON");
    fputc('\n', cli->out);
    return CLI_OK;
}

/* --- Progress --- */

static void interrupt(int number)
{
    interrupted = number;
}

static int show(void *opaque, uint64_t done, uint64_t total)
{
    static const char full[] = "########################################";
    struct progress_bar *bar = opaque;
    int percent = total ? (int)((double)done * 100 / (double)total) : 100;

    if (bar->shown && percent != bar->percent) {
        bar->percent = percent;
        fprintf(stderr, "\r%s [%-40.*s] %3d%%", bar->what, percent * 40 / 100, full, percent);
        fflush(stderr);
    }
    return interrupted ? -EINTR : 0;
}

void progress_bar_start(struct progress_bar *bar, const char *what)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    /* The second time it ends the process: the work may be stuck. */
    const struct sigaction stop = {.sa_handler = interrupt, .sa_flags = SA_RESETHAND | SA_RESTART};

    *bar = (struct progress_bar){.progress = {show, bar}, .what = what, .percent = -1};
    bar->shown = isatty(STDERR_FILENO);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
        struct sigaction before;

        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &stop, NULL);
    }
}

void progress_bar_end(struct progress_bar *bar)
{
    if (bar->shown && bar->percent >= 0)
        fputc('\n', stderr);
}

static const struct verb *const disk_verbs[] = {
    &disk_create_command,
    &disk_info_command,
    &disk_convert_command,
    &disk_resize_command,
    &disk_snapshot_command,
    &disk_commit_command,
    &disk_rebase_command,
    &disk_check_command,
    &disk_map_command,
    &disk_compare_command,
    &disk_serve_command,
    &disk_bench_command,
    NULL,
};

const struct verb disk_command = {
    .name = "disk",
    .summary = "make, look at, change and copy disk images",
    .description =
        "An image is a file, a block device, or an NBD export: nbd://HOST[:PORT][/EXPORT] "
        "or nbd+unix:///EXPORT?socket=PATH; within TLS, nbds and nbds+unix, with "
        "tls-certificates=FOLDER behind a '?' or '&'. Its format is found by its content; a raw "
        "disk's content is the guest's, so name the format (--format raw) where the "
        "guest is not trusted.",
    .verbs = disk_verbs,
};
