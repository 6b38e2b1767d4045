/* lodge balloon: ask a running guest for memory back. */
#include <stdio.h>

#include "base/size.h"
#include "cli/verbs.h"
#include "machine/control.h"

static int balloon_run(struct cli *cli, struct error *err)
{
    char request[64];
    uint64_t bytes;
    int r;

    if (cli->argc != 2)
        return error_set(err, EINVAL, "balloon needs a machine and a size: lodge balloon NAME "
                                      "SIZE");
    r = size_parse(cli->argv[1], 1ull << 20, &bytes, err);
    if (r < 0) {
        error_prepend(err, "the size");
        return -EINVAL;
    }
    snprintf(request, sizeof(request), "balloon %llu", (unsigned long long)bytes);
    return control_request(cli->argv[0], request, -1, err);
}

const struct verb balloon_command = {
    .name = "balloon",
    .summary = "ask a running machine's guest for memory back",
    .operands = "NAME SIZE",
    .description =
        "The guest of the machine called NAME (lodge run --name) is asked to do without SIZE of "
        "its memory, in all: 512M, 2G; a bare number counts MiB, and 0 gives it all back. The "
        "host gets it as fast as the guest finds some that is free.",
    .run = balloon_run,
};
