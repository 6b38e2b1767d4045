/* lodge ls, inspect, stats, ps, port: what guests there are, and what they do. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/guest.h"
#include "cli/json.h"
#include "cli/verbs.h"
#include "network/publish.h"

/* The record with the status beside it. */
static json_t *describe(const struct guest *guest)
{
    json_t *tree = json_deep_copy(guest->record);
    struct guest_status status;
    char address[GUEST_ADDRESS_MAX];

    if (guest_status(guest, &status, NULL) < 0)
        return tree;
    json_object_set_new(tree, "status", json_string(guest_state_name(status.state)));
    if (status.pid)
        json_object_set_new(tree, "pid", json_integer(status.pid));
    if (status.exit_status >= 0)
        json_object_set_new(tree, "exitStatus", json_integer(status.exit_status));
    if (guest_address(guest, address))
        json_object_set_new(tree, "address", json_string(address));
    json_object_set_new(tree, "directory", json_string(guest->path));
    return tree;
}

/* --- ls --- */

#define ROW "%-20s %-10s %-14s %-20s %-24s %s\n"

struct listing {
    struct cli *cli;
    json_t *rows; /* NULL: a table */
    bool quiet;   /* only names */
};

/* Which network, the address there, and the published ports. */
static void network_text(const struct guest *guest, char *text, size_t size)
{
    const json_t *ports = json_object_get(guest->record, "ports");
    int used = snprintf(text, size, "%s", guest_text(guest, "network"));
    char address[GUEST_ADDRESS_MAX];

    if (guest_address(guest, address))
        used += snprintf(text + used, size - (size_t)used, " %s", address);
    for (size_t i = 0; i < json_array_size(ports) && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, "%c%s", i ? ',' : ' ',
                         json_string_value(json_array_get(ports, i)));
}

static int print_row(struct guest *guest, void *opaque)
{
    struct listing *listing = opaque;
    struct guest_status status;
    char state[32], network[256];

    if (listing->rows) {
        json_array_append_new(listing->rows, describe(guest));
        return 0;
    }
    if (listing->quiet) {
        fprintf(listing->cli->out, "%s\n", guest->name);
        return 0;
    }
    guest_status(guest, &status, NULL);
    snprintf(state, sizeof(state), status.exit_status >= 0 ? "%s (%d)" : "%s",
             guest_state_name(status.state), status.exit_status);
    network_text(guest, network, sizeof(network));
    fprintf(listing->cli->out, ROW, guest->name, guest_text(guest, "isolation"), state,
            guest_text(guest, "created"), network, guest_text(guest, "image"));
    return 0;
}

static int ls_run(struct cli *cli, struct error *err)
{
    struct listing listing = {cli, cli_flag(cli, "json") ? json_array() : NULL,
                              cli_flag(cli, "quiet")};
    int r;

    if (!listing.rows && !listing.quiet)
        fprintf(cli->out, ROW, "NAME", "ISOLATION", "STATUS", "CREATED", "NETWORK", "IMAGE");
    r = guest_list(print_row, &listing, err);
    if (r < 0)
        return r;
    return listing.rows ? cli_print_json(cli, listing.rows, err) : CLI_OK;
}

static int inspect_run(struct cli *cli, struct error *err)
{
    struct guest guest;
    int r = guest_operand(cli, 1, 1, &guest, err);

    if (r < 0)
        return r;
    r = cli_print_json(cli, describe(&guest), err);
    guest_close(&guest);
    return r;
}

/* --- stats --- */

static json_int_t number_at(const json_t *tree, const char *one, const char *two, const char *three)
{
    return json_integer_value(
        json_object_get(json_object_get(json_object_get(tree, one), two), three));
}

static int print_stats(struct cli *cli, struct guest *guest, struct error *err)
{
    json_t *stats;
    char memory[32];
    int r = guest_stats(guest, &stats, err);

    if (r < 0)
        return r;
    if (cli_flag(cli, "json"))
        return cli_print_json(cli, stats, err);
    fprintf(
        cli->out, "%-20s %10.2f s  %12s  %5lld processes\n", guest->name,
        (double)number_at(stats, "cpu", "usage", "total") / 1e9,
        size_format((uint64_t)number_at(stats, "memory", "usage", "usage"), memory, sizeof(memory)),
        (long long)json_integer_value(json_object_get(json_object_get(stats, "pids"), "current")));
    json_decref(stats);
    return 0;
}

static int stats_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, print_stats, err);
}

/* --- ps --- */

static int print_processes(struct cli *cli, struct guest *guest, struct error *err)
{
    return guest_print_processes(guest, NULL, cli->out, err);
}

static int ps_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, print_processes, err);
}

static int top_run(struct cli *cli, struct error *err)
{
    struct guest guest;
    int r;

    if (!cli->argc)
        return error_set(err, EINVAL, "usage: lodge top GUEST [COLUMN...]");
    r = guest_open(cli->argv[0], &guest, err);
    if (r < 0)
        return r;
    r = guest_print_processes(&guest, (const char *const *)(cli->argv + 1), cli->out, err);
    guest_close(&guest);
    return r;
}

/* --- port --- */

static int print_ports(struct cli *cli, struct guest *guest, struct error *err)
{
    json_t *port;
    size_t i;

    json_array_foreach(json_object_get(guest->record, "ports"), i, port)
    {
        AUTO_FREE struct network_publish *list = NULL;
        unsigned count = 0;
        char address[INET_ADDRSTRLEN];
        int r = publish_parse(json_string_value(port), &list, &count, err);

        if (r < 0)
            return r;
        for (unsigned n = 0; n < count; n++) {
            inet_ntop(AF_INET, &list[n].address, address, sizeof(address));
            fprintf(cli->out, "%u/%s -> %s:%u\n", list[n].guest_port,
                    list[n].udp ? "udp" : "tcp", address, list[n].host_port);
        }
    }
    return 0;
}

static int port_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, print_ports, err);
}

static const struct cli_option ls_options[] = {
    {"json", 0, NULL, "Print JSON.", NULL},
    {"quiet", 'q', NULL, "Only the names.", NULL},
    {"all", 'a', NULL, "Also those that have ended: they are always listed.", NULL},
    {0},
};

static const struct cli_option stats_options[] = {
    {"json", 0, NULL, "Print JSON.", NULL},
    {"no-stream", 0, NULL, "Once: it is always so.", NULL},
    {0},
};

const struct verb ls_command = {
    .name = "ls",
    .summary = "list the guests",
    .options = ls_options,
    .run = ls_run,
};

const struct verb inspect_command = {
    .name = "inspect",
    .summary = "print all about a guest, as JSON",
    .operands = "GUEST",
    .run = inspect_run,
};

const struct verb stats_command = {
    .name = "stats",
    .summary = "tell what guests use: processor time, memory, processes",
    .operands = "GUEST...",
    .options = stats_options,
    .run = stats_run,
};

const struct verb ps_command = {
    .name = "ps",
    .summary = "list the processes in guests: by the host's ids, or a virtual machine's own",
    .operands = "GUEST...",
    .run = ps_run,
};

const struct verb top_command = {
    .name = "top",
    .summary = "tell what the processes in a guest are at",
    .operands = "GUEST [COLUMN...]",
    .description = "The columns are podman's: args, comm, etime, hpid, nice, pcpu, pid, ppid, rss, "
                   "state, time, tty, user, vsz. Ids and users are those that the guest knows; "
                   "hpid is the host's.",
    .run = top_run,
};

const struct verb port_command = {
    .name = "port",
    .summary = "list the ports of guests that the host's lead to",
    .operands = "GUEST...",
    .run = port_run,
};
