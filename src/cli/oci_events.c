/* oci_events.c - what a container uses, as it goes. */
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/oci.h"
#include "container/cgroup.h"

/* "5s", "100ms" or "1m", as Go writes durations; seconds where no unit is given. */
static int interval_parse(const char *text, int *ret_ms, struct error *err)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    double value = strtod(text, &end);

    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        if (!(value * units[i].ms >= 1) || value * units[i].ms > INT32_MAX)
            break;
        *ret_ms = (int)(value * units[i].ms);
        return 0;
    }
    return error_set(err, EINVAL, "--interval '%s' is no time", text);
}

static int event_print(struct cli *cli, const char *type, const char *id, json_t *data,
                       struct error *err)
{
    json_t *event = json_pack("{s:s, s:s, s:o*}", "type", type, "id", id, "data", data);
    int r = oci_print_json(cli, event, false, err);

    fflush(cli->out);
    return r;
}

/* Until the container has ended. */
static int watch(struct cli *cli, const struct state *state, const struct cgroup *cgroup,
                 int interval, struct error *err)
{
    AUTO_CLOSE int oom = cgroup_watch_oom(cgroup);
    struct pollfd wait = {.fd = oom, .events = POLLIN};
    uint64_t seen = 0;
    int r = 0;

    while (r >= 0 && state_is_alive(state)) {
        int n = poll(&wait, 1, interval);

        if (n == 0)
            r = event_print(cli, "stats", state->id, cgroup_stats(cgroup), err);
        else if (n > 0 && cgroup_count_oom(cgroup, oom, &seen) && state_is_alive(state))
            r = event_print(cli, "oom", state->id, NULL, err);
    }
    return r;
}

static int events(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *text = cli_value(cli, "interval") ? cli_value(cli, "interval") : "5s";
    struct state state;
    struct cgroup cgroup;
    int interval = 0, r = interval_parse(text, &interval, err);

    if (r == 0)
        r = container_open(options, &state, &cgroup, err);
    if (r < 0)
        return r;
    if (cli_flag(cli, "stats"))
        r = event_print(cli, "stats", options->id, cgroup_stats(&cgroup), err);
    else
        r = watch(cli, &state, &cgroup, interval, err);
    cgroup_release(&cgroup);
    state_release(&state);
    return r;
}

static int events_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, events, 1, 1, err);
}

static const struct cli_option events_options[] = {
    {"stats", 0, NULL, "Print what the container uses, once.", NULL},
    {"interval", 0, "TIME", "How often it is printed otherwise (default 5s).", NULL},
    {0},
};

const struct verb oci_events_command = {
    .name = "events",
    .summary = "print what a container uses, and when it runs out of memory",
    .operands = "ID",
    .options = events_options,
    .run = events_run,
};
