/* lodge engine: go on with another engine while the guest runs. */
#include <fcntl.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "cli/verbs.h"
#include "engine/engine.h"
#include "machine/control.h"

static int engine_run_verb(struct cli *cli, struct error *err)
{
    const struct engine_ops *engine;
    AUTO_CLOSE int device_fd = -1;
    char request[64];
    int r;

    if (cli->argc != 2)
        return error_set(err, EINVAL, "engine needs a machine and an engine: lodge engine NAME "
                                      "ENGINE");
    r = engine_find(cli->argv[1], &engine, err);
    if (r < 0)
        return r;
    r = engine->probe(err); /* here: the machine sits in a sandbox */
    if (r < 0)
        return r;
    if (engine->device)
        device_fd = open(engine->device, O_RDWR | O_CLOEXEC);
    snprintf(request, sizeof(request), "engine %s", engine->name);
    return control_request(cli->argv[0], request, device_fd, err);
}

const struct verb engine_command = {
    .name = "engine",
    .summary = "change the engine of a running machine",
    .operands = "NAME ENGINE",
    .description =
        "The guest of the machine called NAME (lodge run --name) goes on under ENGINE, one of "
        "'lodge engines', from the very instruction it is at. Refused when the guest was offered "
        "a CPU feature that the other engine lacks.",
    .run = engine_run_verb,
};
