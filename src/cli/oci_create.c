/* oci_create.c - create, start, and run: both and all that follows. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/oci.h"
#include "container/protect.h"
#include "container/relay.h"

/* clang-format off */
#define CREATE_OPTIONS                                                                             \
    {"bundle", 'b', "DIRECTORY", "The bundle (default: the working directory).", "FILE"},          \
    {"pid-file", 0, "FILE", "Write the process's id to this file.", "FILE"},                       \
    {"console-socket", 0, "SOCKET", "Send the terminal's master to this Unix socket.", "FILE"},    \
    {"preserve-fds", 0, "N", "Pass this many descriptors from 3 on.", NULL},                       \
    {"no-pivot", 0, NULL, "Change the root without pivot_root(2): on a ramdisk.", NULL},           \
    {"no-new-keyring", 0, NULL, "Keep the caller's session keyring.", NULL}
/* clang-format on */

static const struct cli_option create_options[] = {CREATE_OPTIONS, {0}};

static int create(struct cli *cli, struct container_options *options, struct error *err)
{
    pid_t pid;
    int r = protect_self(err);

    if (r == 0)
        r = oci_read_launch_options(cli, options, err);
    if (r == 0)
        r = container_create(options, &pid, err);
    if (options->console_fd >= 0)
        close(options->console_fd);
    return r;
}

static int create_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, create, 1, 1, err);
}

const struct verb oci_create_command = {
    .name = "create",
    .summary = "make a container from a bundle",
    .operands = "ID",
    .description = "The first process waits for 'lodge oci start'.",
    .options = create_options,
    .run = create_run,
};

static int start(struct cli *cli, struct container_options *options, struct error *err)
{
    (void)cli;
    return container_start(options, err);
}

static int start_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, start, 1, 1, err);
}

const struct verb oci_start_command = {
    .name = "start",
    .summary = "let a created container run its program",
    .operands = "ID",
    .run = start_run,
};

/* --- run: create, start, wait, delete --- */

static bool wants_terminal(const char *bundle)
{
    char path[PATH_MAX];
    json_t *tree;
    bool terminal;

    snprintf(path, sizeof(path), "%s/config.json", bundle);
    tree = json_load_file(path, 0, NULL);
    terminal = json_is_true(json_object_get(json_object_get(tree, "process"), "terminal"));
    json_decref(tree);
    return terminal;
}

static int foreground(struct container_options *options, bool keep, struct error *err)
{
    bool terminal = options->console_fd < 0 && wants_terminal(options->bundle);
    struct relay *relay = NULL;
    pid_t pid;
    int r = relay_open(terminal, &relay, &options->console_fd, err), status = 0;

    if (r < 0)
        return r;
    r = container_create(options, &pid, err);
    if (r == 0) {
        r = container_start(options, err);
        if (r == 0) {
            if (options->console_fd >= 0)
                close(options->console_fd);
            options->console_fd = -1;
            r = status = relay_run(relay, pid, err);
        }
        if (r < 0 || !keep) {
            struct error why = {0};
            int removed = container_delete(options, true, &why);
            if (removed < 0 && r >= 0) {
                *err = why;
                r = removed;
            }
        }
    }
    relay_close(relay);
    return r < 0 ? r : status;
}

static int run(struct cli *cli, struct container_options *options, struct error *err)
{
    bool detach = cli_flag(cli, "detach");
    pid_t pid;
    int r = protect_self(err);

    if (r == 0)
        r = oci_read_launch_options(cli, options, err);
    if (r == 0 && !detach)
        r = foreground(options, cli_flag(cli, "keep"), err);
    else if (r == 0 && (r = container_create(options, &pid, err)) == 0) {
        r = container_start(options, err);
        if (r < 0)
            container_delete(options, true, NULL);
    }
    if (options->console_fd >= 0)
        close(options->console_fd);
    return r;
}

static int run_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, run, 1, 1, err);
}

static const struct cli_option run_options[] = {
    CREATE_OPTIONS,
    {"detach", 'd', NULL, "Return once the program runs.", NULL},
    {"keep", 0, NULL, "Do not delete the container when its program has ended.", NULL},
    {"no-subreaper", 0, NULL, "Taken for the sake of callers; does nothing.", NULL},
    {0},
};

const struct verb oci_run_command = {
    .name = "run",
    .summary = "make a container, run it, and delete it",
    .operands = "ID",
    .description = "The exit status is the program's, or 128 and the number of the signal that "
                   "killed it.",
    .options = run_options,
    .run = run_run,
};
