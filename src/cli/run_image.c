#include "cli/run_image.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/environment.h"
#include "cli/guest.h"
#include "cli/guest_live.h"
#include "container/protect.h"
#include "guest/rootless.h"

#define MEMORY_MIN (4ull << 20)

/* --- Options --- */

static int read_limits(const struct cli *cli, struct guest_options *options, struct error *err)
{
    const char *cpus = cli_value(cli, "cpus"), *memory = cli_value(cli, "memory");
    char *end;
    int r = memory ? size_parse(memory, 1ull << 20, &options->memory, err) : 0;

    if (r < 0) {
        error_prepend(err, "--memory");
        return -EINVAL;
    }
    if (memory && options->memory < MEMORY_MIN)
        return error_set(err, EINVAL, "--memory %s: 4M is the least", memory);
    if (!cpus)
        return 0;
    options->cpus = strtod(cpus, &end);
    if (*end || end == cpus || !(options->cpus >= 0.01 && options->cpus <= 1024))
        return error_set(err, EINVAL, "--cpus '%s' is not a number from 0.01 to 1024", cpus);
    return 0;
}

static int read_options(const struct cli *cli, struct guest_options *options, struct error *err)
{
    options->isolation = cli_value(cli, "isolation");
    options->name = cli_value(cli, "name");
    options->image = cli->argv[0];
    options->command = (const char *const *)cli->argv + 1;
    options->user = cli_value(cli, "user");
    options->working_directory = cli_value(cli, "workdir");
    options->hostname = cli_value(cli, "hostname");
    options->network = cli_value(cli, "network");
    options->kernel = cli_value(cli, "kernel");
    options->engine = cli_value(cli, "engine");
    options->entrypoint = cli_value(cli, "entrypoint");
    options->terminal = cli_flag(cli, "tty");
    options->interactive = cli_flag(cli, "interactive");
    options->remove = cli_flag(cli, "rm");
    options->detached = cli_flag(cli, "detach");
    options->no_sandbox = cli_flag(cli, "no-sandbox");
    return read_limits(cli, options, err);
}

int run_image(struct cli *cli, struct error *err)
{
    AUTO_FREE const char **volumes = guest_values(cli, "volume");
    AUTO_FREE const char **ports = guest_values(cli, "publish");
    struct environment environment = {0};
    struct guest_options options = {.volumes = volumes, .ports = ports};
    struct guest guest = {.fd = -1, .lock_fd = -1};
    struct store *store = NULL;
    int r = read_options(cli, &options, err);

    if (r < 0)
        return r;
    run_confine_read(cli, &options.confine);
    r = environment_read(cli, &environment, err);
    options.environment = environment.variables;
    /* First: what is executed in the namespace may be looked into from there. */
    if (r == 0)
        r = rootless_enter(err);
    if (r == 0)
        r = protect_self(err);
    if (r == 0)
        r = image_store_open(cli, &store, err);
    if (r == 0)
        r = guest_create(&options, store, &guest, err);
    if (r == 0)
        r = guest_live(cli, &guest, options.detached, &store, err);
    guest_close(&guest);
    store_close(store);
    environment_release(&environment);
    run_confine_release(&options.confine);
    return r;
}
