/* oci_signal.c - kill, delete, pause and resume. */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/oci.h"

/* "9", "KILL", "SIGKILL" or "RTMIN+1"; "0" asks whether there is the process. -1: no signal. */
static int signal_parse(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (end != text && !*end)
        return number >= 0 && number < NSIG ? (int)number : -1;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    if (strncasecmp(text, "RTMIN", 5) == 0) {
        number = text[5] ? strtol(text + 5, &end, 10) : 0;
        return number >= 0 && SIGRTMIN + number <= SIGRTMAX ? SIGRTMIN + (int)number : -1;
    }
    for (int i = 1; i < NSIG; i++) {
        const char *name = sigabbrev_np(i);
        if (name && strcasecmp(name, text) == 0)
            return i;
    }
    return -1;
}

static int kill_one(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *name = cli->argc > 1 ? cli->argv[1] : "TERM";
    int number = signal_parse(name);

    if (number < 0)
        return error_set(err, EINVAL, "unknown signal \"%.32s\"", name);
    return container_kill(options, number, cli_flag(cli, "all"), err);
}

static int kill_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, kill_one, 1, 2, err);
}

static const struct cli_option kill_options[] = {
    {"all", 'a', NULL, "Signal all processes of the container.", NULL},
    {0},
};

const struct verb oci_kill_command = {
    .name = "kill",
    .summary = "send a signal to a container's first process",
    .operands = "ID [SIGNAL]",
    .options = kill_options,
    .run = kill_run,
};

static int delete_one(struct cli *cli, struct container_options *options, struct error *err)
{
    return container_delete(options, cli_flag(cli, "force"), err);
}

static int delete_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, delete_one, 1, 1, err);
}

static const struct cli_option delete_options[] = {
    {"force", 'f', NULL, "Kill it first; it is no error when it does not exist.", NULL},
    {0},
};

const struct verb oci_delete_command = {
    .name = "delete",
    .summary = "remove what a stopped container left",
    .operands = "ID",
    .options = delete_options,
    .run = delete_run,
};

static int pause_one(struct cli *cli, struct container_options *options, struct error *err)
{
    (void)cli;
    return container_pause(options, true, err);
}

static int pause_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, pause_one, 1, 1, err);
}

const struct verb oci_pause_command = {
    .name = "pause",
    .summary = "stop all processes of a container",
    .operands = "ID",
    .run = pause_run,
};

static int resume_one(struct cli *cli, struct container_options *options, struct error *err)
{
    (void)cli;
    return container_pause(options, false, err);
}

static int resume_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, resume_one, 1, 1, err);
}

const struct verb oci_resume_command = {
    .name = "resume",
    .summary = "let a paused container go on",
    .operands = "ID",
    .run = resume_run,
};
