/* oci_list.c - state, list and ps: what there is. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/oci.h"

/* --- state --- */

static int state(struct cli *cli, struct container_options *options, struct error *err)
{
    struct state container;
    json_t *value;
    int r = state_open(&container, options->root, options->id, false, err);

    if (r < 0)
        return r;
    value = state_json_runc(&container, state_status(&container));
    state_release(&container);
    return oci_print_json(cli, value, true, err);
}

static int state_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, state, 1, 1, err);
}

const struct verb oci_state_command = {
    .name = "state",
    .summary = "print the state of a container",
    .operands = "ID",
    .run = state_run,
};

/* --- list --- */

struct listing {
    struct cli *cli;
    json_t *all; /* NULL: a table, or ids alone */
    bool quiet;
};

static int list_one(struct state *container, void *opaque)
{
    struct listing *listing = opaque;
    json_t *value;

    if (listing->quiet) {
        fprintf(listing->cli->out, "%s\n", container->id);
        return 0;
    }
    value = state_json_runc(container, state_status(container));
    if (listing->all)
        return json_array_append_new(listing->all, value);
    fprintf(listing->cli->out, "%-24s  %-8lld  %-8s  %-40s  %-30s  %s\n", container->id,
            (long long)json_integer_value(json_object_get(value, "pid")),
            json_string_value(json_object_get(value, "status")), container->bundle,
            container->created, json_string_value(json_object_get(value, "owner")));
    json_decref(value);
    return 0;
}

static int list(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *format = cli_value(cli, "format") ? cli_value(cli, "format") : "table";
    bool json = strcmp(format, "json") == 0;
    struct listing listing = {.cli = cli, .quiet = cli_flag(cli, "quiet")};
    int r;

    if (!json && strcmp(format, "table") != 0)
        return error_set(err, EINVAL, "--format is table or json, not '%s'", format);
    if (json && !listing.quiet)
        listing.all = json_array();
    else if (!listing.quiet)
        fprintf(cli->out, "%-24s  %-8s  %-8s  %-40s  %-30s  %s\n", "ID", "PID", "STATUS", "BUNDLE",
                "CREATED", "OWNER");
    r = state_list(options->root, list_one, &listing, err);
    if (r == 0 && listing.all)
        return oci_print_json(cli, listing.all, false, err);
    json_decref(listing.all);
    return r;
}

static int list_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, list, 0, 0, err);
}

static const struct cli_option list_options[] = {
    {"format", 'f', "FORMAT", "table (default) or json.", "table json"},
    {"quiet", 'q', NULL, "Only the names.", NULL},
    {0},
};

const struct verb oci_list_command = {
    .name = "list",
    .summary = "list the containers",
    .options = list_options,
    .run = list_run,
};

/* --- ps --- */

static bool is_among(long pid, const pid_t *pids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

/* The n-th word of a line, counted from 0, as a number. */
static long word_number(const char *line, unsigned n)
{
    for (line += strspn(line, " "); n > 0; n--) {
        line += strcspn(line, " ");
        line += strspn(line, " ");
    }
    return strtol(line, NULL, 10);
}

static int column_find(char *heading)
{
    int column = 0;

    for (char *save = NULL, *word = strtok_r(heading, " \n", &save); word;
         word = strtok_r(NULL, " \n", &save), column++)
        if (strcmp(word, "PID") == 0)
            return column;
    return -1;
}

/* The lines of ps(1) that are of the container. */
static int table_print(struct cli *cli, FILE *lines, const pid_t *pids, size_t count,
                       struct error *err)
{
    AUTO_FREE char *line = NULL, *heading = NULL;
    size_t size = 0;
    int column;

    if (getline(&line, &size, lines) < 0 || !(heading = strdup(line)))
        return error_set(err, ENOENT, "ps printed nothing; is it installed?");
    fputs(line, cli->out);
    column = column_find(heading);
    if (column < 0)
        return error_set(err, EINVAL, "ps printed no column PID");
    while (getline(&line, &size, lines) >= 0)
        if (is_among(word_number(line, (unsigned)column), pids, count))
            fputs(line, cli->out);
    return CLI_OK;
}

static int ps_start(struct cli *cli, FILE **ret_lines, pid_t *ret_pid, struct error *err)
{
    AUTO_FREE char **argv = calloc((size_t)cli->argc + 3, sizeof(*argv));
    static char ps[] = "ps", all[] = "-ef";
    int ends[2];

    if (!argv)
        return error_set(err, ENOMEM, "out of memory");
    argv[0] = ps;
    argv[1] = all;
    for (int i = 1; i < cli->argc; i++)
        argv[i] = cli->argv[i];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    *ret_pid = fork();
    if (*ret_pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    if (*ret_pid < 0) {
        close(ends[0]);
        return error_system(err, errno, "cannot start ps");
    }
    *ret_lines = fdopen(ends[0], "r");
    return *ret_lines ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int ps(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *format = cli_value(cli, "format") ? cli_value(cli, "format") : "table";
    AUTO_FREE pid_t *pids = NULL;
    AUTO_FCLOSE FILE *lines = NULL;
    size_t count;
    pid_t child = 0;
    int r;

    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return error_set(err, EINVAL, "--format is table or json, not '%s'", format);
    r = container_pids(options, &pids, &count, err);
    if (r < 0)
        return r;
    if (strcmp(format, "json") == 0) {
        json_t *all = json_array();

        for (size_t i = 0; i < count; i++)
            json_array_append_new(all, json_integer(pids[i]));
        return oci_print_json(cli, all, false, err);
    }
    r = ps_start(cli, &lines, &child, err);
    if (r < 0)
        return r;
    r = table_print(cli, lines, pids, count, err);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return r;
}

static int ps_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, ps, 1, -1, err);
}

static const struct cli_option ps_options[] = {
    {"format", 'f', "FORMAT", "table (default) or json: the process ids.", "table json"},
    {0},
};

const struct verb oci_ps_command = {
    .name = "ps",
    .summary = "list the processes of a container",
    .operands = "ID [PS-OPTION...]",
    .options = ps_options,
    .raw_options = true,
    .run = ps_run,
};
