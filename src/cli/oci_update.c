/* oci_update.c - new limits for a container that runs. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "cli/oci.h"

/* Each option is a member of config.json's linux.resources. */
static const struct {
    const char *option, *group, *member;
    enum { NUMBER, SIZE, TEXT } kind;
} members[] = {
    {"blkio-weight", "blockIO", "weight", NUMBER},
    {"cpu-period", "cpu", "period", NUMBER},
    {"cpu-quota", "cpu", "quota", NUMBER},
    {"cpu-burst", "cpu", "burst", NUMBER},
    {"cpu-share", "cpu", "shares", NUMBER},
    {"cpu-rt-period", "cpu", "realtimePeriod", NUMBER},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", NUMBER},
    {"cpu-idle", "cpu", "idle", NUMBER},
    {"cpuset-cpus", "cpu", "cpus", TEXT},
    {"cpuset-mems", "cpu", "mems", TEXT},
    {"memory", "memory", "limit", SIZE},
    {"memory-reservation", "memory", "reservation", SIZE},
    {"memory-swap", "memory", "swap", SIZE},
    {"pids-limit", "pids", "limit", NUMBER},
};

/* 512M, as runc has it too; -1: no limit. */
static int size_read(struct cli *cli, const char *name, long long *ret_value, struct error *err)
{
    const char *text = cli_value(cli, name);
    uint64_t size;
    int r;

    if (text[0] == '-')
        return oci_read_number(cli, name, ret_value, err);
    r = size_parse(text, 1, &size, err);
    if (r < 0) {
        error_prepend(err, "--%s", name);
        return r;
    }
    if (size > INT64_MAX)
        return error_set(err, ERANGE, "--%s '%s' is too large", name, text);
    *ret_value = (long long)size;
    return 0;
}

static int resources_build(struct cli *cli, json_t *resources, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        const char *text = cli_value(cli, members[i].option);
        json_t *group = json_object_get(resources, members[i].group);
        long long number = 0;
        int r = 0;

        if (!text)
            continue;
        if (members[i].kind == SIZE)
            r = size_read(cli, members[i].option, &number, err);
        else if (members[i].kind == NUMBER)
            r = oci_read_number(cli, members[i].option, &number, err);
        if (r < 0)
            return r;
        if (!group)
            json_object_set_new(resources, members[i].group, group = json_object());
        json_object_set_new(group, members[i].member,
                            members[i].kind == TEXT ? json_string(text) : json_integer(number));
    }
    return 0;
}

static int text_read(struct cli *cli, char **ret_text, size_t *ret_length, struct error *err)
{
    const char *path = cli_value(cli, "resources");
    json_t *resources;
    int r;

    if (path)
        return container_read_file(strcmp(path, "-") == 0 ? "/dev/stdin" : path, ret_text,
                                   ret_length, err);
    resources = json_object();
    r = resources_build(cli, resources, err);
    *ret_text = r == 0 ? json_dumps(resources, JSON_COMPACT) : NULL;
    json_decref(resources);
    if (r == 0 && !*ret_text)
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        *ret_length = strlen(*ret_text);
    return r;
}

static int update(struct cli *cli, struct container_options *options, struct error *err)
{
    AUTO_FREE char *text = NULL;
    struct resources resources;
    struct field_store store;
    size_t length = 0;
    int r;

    if (cli_value(cli, "l3-cache-schema") || cli_value(cli, "mem-bw-schema"))
        return error_set(err, ENOTSUP, "Intel RDT is not supported");
    r = text_read(cli, &text, &length, err);
    if (r == 0)
        r = resources_read(&resources, &store, text, length, err);
    if (r < 0)
        return r;
    r = container_update(options, &resources, err);
    field_release(&store);
    return r;
}

static int update_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, update, 1, 1, err);
}

static const struct cli_option update_options[] = {
    {"resources", 'r', "FILE",
     "The limits as config.json's linux.resources; - is the standard input. Other options are "
     "not looked at then.",
     "FILE"},
    {"blkio-weight", 0, "N", "The weight in block I/O, 10 to 1000.", NULL},
    {"cpu-period", 0, "MICROSECONDS", "The period that the quota is for.", NULL},
    {"cpu-quota", 0, "MICROSECONDS", "CPU time in a period; -1: no limit.", NULL},
    {"cpu-burst", 0, "MICROSECONDS", "What may be saved up of the quota.", NULL},
    {"cpu-share", 0, "N", "The weight in CPU time.", NULL},
    {"cpu-rt-period", 0, "MICROSECONDS", "The period of realtime processes.", NULL},
    {"cpu-rt-runtime", 0, "MICROSECONDS", "CPU time of realtime processes in it.", NULL},
    {"cpu-idle", 0, "N", "1: run only where nobody else wants to.", NULL},
    {"cpuset-cpus", 0, "LIST", "The CPUs to run on.", NULL},
    {"cpuset-mems", 0, "LIST", "The memory nodes to use.", NULL},
    {"memory", 'm', "SIZE", "The limit of memory, as 512M.", NULL},
    {"memory-reservation", 0, "SIZE", "What is left to it under pressure.", NULL},
    {"memory-swap", 0, "SIZE", "The limit of memory and swap together; -1: none.", NULL},
    {"pids-limit", 0, "N", "How many processes there may be.", NULL},
    {"l3-cache-schema", 0, "TEXT", "Refused: Intel RDT is not supported.", NULL},
    {"mem-bw-schema", 0, "TEXT", "Refused: Intel RDT is not supported.", NULL},
    {0},
};

const struct verb oci_update_command = {
    .name = "update",
    .summary = "change the limits of a container",
    .operands = "ID",
    .options = update_options,
    .run = update_run,
};
