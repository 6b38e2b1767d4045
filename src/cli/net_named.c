/* lodge net create, ls, inspect, rm: networks with a name. */
#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/json.h"
#include "cli/verbs.h"
#include "network/lease.h"
#include "network/link.h"

#define FORMAT "%-20s %-20s %-12s %s%s\n"

/* --- Facts --- */

static int add_guest(const struct lease_guest *guest, void *opaque)
{
    const uint8_t *m = guest->mac;
    char address[INET_ADDRSTRLEN], mac[18];

    inet_ntop(AF_INET, &guest->address, address, sizeof(address));
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
    json_array_append_new(opaque, json_pack("{ss ss ss}", "name", guest->name, "address", address,
                                            "mac", mac));
    return 0;
}

/* A new reference, or NULL with err filled. */
static json_t *describe(const struct named_network *network, struct error *err)
{
    const struct in_addr host = subnet_host(&network->subnet);
    struct in6_addr ipv6 = subnet_host_ipv6(&network->subnet);
    char subnet[SUBNET_TEXT_MAX], gateway[INET_ADDRSTRLEN], gateway6[INET6_ADDRSTRLEN],
        prefix[INET6_ADDRSTRLEN + 4];
    json_t *guests = json_array();
    int r = lease_guests(network, add_guest, guests, err);

    if (r < 0) {
        json_decref(guests);
        return NULL;
    }
    inet_ntop(AF_INET, &host, gateway, sizeof(gateway));
    inet_ntop(AF_INET6, &ipv6, gateway6, sizeof(gateway6));
    ipv6.s6_addr[15] = 0;
    inet_ntop(AF_INET6, &ipv6, prefix, sizeof(prefix));
    snprintf(prefix + strlen(prefix), 4, "/64");
    return json_pack("{ss ss ss ss ss ss sb sb ss so}", "name", network->name, "subnet",
                     subnet_format(&network->subnet, subnet), "gateway", gateway, "subnet6",
                     prefix, "gateway6", gateway6, "bridge", network->bridge, "up",
                     link_exists(network->bridge), "internal", network->internal, "created",
                     network->created, "guests", guests);
}

/* --- Verbs --- */

/* Who has not the rights is told whose they are. */
static int roots_own(int r, struct error *err)
{
    if (r == -EACCES || r == -EPERM)
        error_prepend(err, "only root makes and removes networks with a name");
    return r;
}

static int run_create(struct cli *cli, struct error *err)
{
    const char *text = cli_value(cli, "subnet");
    struct named_network network;
    struct subnet subnet;
    int r;

    if (cli->argc != 1)
        return error_set(err, EINVAL, "net create needs one name");
    if (text && subnet_parse(text, &subnet, err) < 0) {
        error_prepend(err, "--subnet");
        return -EINVAL;
    }
    r = named_create(cli->argv[0], text ? &subnet : NULL, cli_flag(cli, "internal"), &network, err);
    if (r < 0)
        return roots_own(r, err);
    if (cli_flag(cli, "json"))
        return cli_print_json(cli, describe(&network, err), err);
    fprintf(cli->out, "%s\n", network.name);
    return CLI_OK;
}

struct listing {
    struct cli *cli;
    json_t *rows; /* NULL: a table */
    struct error *err;
};

static int print_row(const struct named_network *network, void *opaque)
{
    struct listing *listing = opaque;
    json_t *tree = describe(network, listing->err);
    char guests[16];

    if (!tree)
        return -listing->err->code;
    if (listing->rows) {
        json_array_append_new(listing->rows, tree);
        return 0;
    }
    snprintf(guests, sizeof(guests), "%zu", json_array_size(json_object_get(tree, "guests")));
    fprintf(listing->cli->out, FORMAT, network->name,
            json_string_value(json_object_get(tree, "subnet")), network->bridge, guests,
            network->internal ? " internal" : "");
    json_decref(tree);
    return 0;
}

static int run_ls(struct cli *cli, struct error *err)
{
    struct listing listing = {cli, cli_flag(cli, "json") ? json_array() : NULL, err};
    int r;

    if (cli->argc)
        return error_set(err, EINVAL, "net ls takes no operands");
    if (!listing.rows)
        fprintf(cli->out, FORMAT, "NAME", "SUBNET", "BRIDGE", "GUESTS", "");
    r = named_list(print_row, &listing, err);
    if (r < 0) {
        json_decref(listing.rows);
        return r;
    }
    return listing.rows ? cli_print_json(cli, listing.rows, err) : CLI_OK;
}

static int run_inspect(struct cli *cli, struct error *err)
{
    json_t *rows = json_array();
    int r = cli->argc ? 0 : error_set(err, EINVAL, "net inspect needs the name of a network");

    for (int i = 0; r == 0 && i < cli->argc; i++) {
        struct named_network network;
        json_t *tree = NULL;

        r = named_open(cli->argv[i], &network, err);
        if (r == 0 && !(tree = describe(&network, err)))
            r = -err->code;
        if (r == 0)
            json_array_append_new(rows, tree);
    }
    if (r == 0)
        return cli_print_json(cli, rows, err);
    json_decref(rows);
    return r;
}

static int run_rm(struct cli *cli, struct error *err)
{
    int r = cli->argc ? 0 : error_set(err, EINVAL, "net rm needs the name of a network");

    for (int i = 0; r == 0 && i < cli->argc; i++) {
        struct named_network network;

        r = named_open(cli->argv[i], &network, err);
        if (r == 0)
            r = named_remove(&network, err);
        if (r == 0)
            fprintf(cli->out, "%s\n", network.name);
    }
    return roots_own(r, err);
}

/* --- Rows --- */

static const struct cli_option create_options[] = {
    {"subnet", 0, "SUBNET", "The addresses of its guests, like 10.5.0.0/24 (default: the first of "
     "10.78.0.0/16 that is free).", NULL},
    {"internal", 0, NULL, "Its guests reach each other and the host, and nothing else.", NULL},
    {"json", 0, NULL, "Print JSON.", NULL},
    {0},
};

static const struct cli_option json_options[] = {
    {"json", 0, NULL, "Print JSON.", NULL},
    {0},
};

const struct verb net_create_command = {
    .name = "create",
    .summary = "make a network that guests join with --network NAME (root)",
    .operands = "NAME",
    .description =
        "Guests of the network get addresses by DHCP and Router Advertisements, find each other by "
        "name (NAME and NAME.lodge), and reach the rest of the world through the host. It needs no "
        "server: each guest's process answers its guest.",
    .options = create_options,
    .run = run_create,
};

const struct verb net_ls_command = {
    .name = "ls",
    .summary = "list the networks with a name",
    .options = json_options,
    .run = run_ls,
};

const struct verb net_inspect_command = {
    .name = "inspect",
    .summary = "print all about networks and the guests in them, as JSON",
    .operands = "NAME...",
    .run = run_inspect,
};

const struct verb net_rm_command = {
    .name = "rm",
    .summary = "remove networks that have no guests (root)",
    .operands = "NAME...",
    .run = run_rm,
};
