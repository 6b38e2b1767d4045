#include "cli/run_image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "cli/environment.h"
#include "cli/guest.h"
#include "cli/guest_live.h"
#include "container/protect.h"
#include "guest/rootless.h"

#define MEMORY_MIN (4ull << 20)

/* --- Options --- */

static const struct {
    const char *option;
    size_t offset; /* of a const char * */
} texts[] = {
    {"isolation", offsetof(struct guest_options, isolation)},
    {"name", offsetof(struct guest_options, name)},
    {"user", offsetof(struct guest_options, user)},
    {"workdir", offsetof(struct guest_options, working_directory)},
    {"hostname", offsetof(struct guest_options, hostname)},
    {"network", offsetof(struct guest_options, network)},
    {"kernel", offsetof(struct guest_options, kernel)},
    {"engine", offsetof(struct guest_options, engine)},
    {"entrypoint", offsetof(struct guest_options, entrypoint)},
    {"restart", offsetof(struct guest_options, restart)},
    {"stop-signal", offsetof(struct guest_options, stop_signal)},
    {"pid", offsetof(struct guest_options, pid)},
    {"ipc", offsetof(struct guest_options, ipc)},
    {"uts", offsetof(struct guest_options, uts)},
    {"umask", offsetof(struct guest_options, umask)},
    {"stop-timeout", offsetof(struct guest_options, stop_timeout)},
};

static const struct {
    const char *option;
    size_t offset; /* of a bool */
} flags[] = {
    {"tty", offsetof(struct guest_options, terminal)},
    {"interactive", offsetof(struct guest_options, interactive)},
    {"rm", offsetof(struct guest_options, remove)},
    {"detach", offsetof(struct guest_options, detached)},
    {"publish-all", offsetof(struct guest_options, publish_all)},
    {"init", offsetof(struct guest_options, init)},
    {"no-hosts", offsetof(struct guest_options, no_hosts)},
    {"unsetenv-all", offsetof(struct guest_options, unset_all)},
    {"no-sandbox", offsetof(struct guest_options, no_sandbox)},
};

/* Those that may be repeated. */
static const struct {
    const char *option;
    size_t offset; /* of a const char *const * */
} lists[] = {
    {"volume", offsetof(struct guest_options, volumes)},
    {"mount", offsetof(struct guest_options, mounts)},
    {"publish", offsetof(struct guest_options, ports)},
    {"annotation", offsetof(struct guest_options, annotations)},
    {"unsetenv", offsetof(struct guest_options, unset)},
    {"expose", offsetof(struct guest_options, exposed)},
    {"volumes-from", offsetof(struct guest_options, volumes_from)},
    {"dns-option", offsetof(struct guest_options, resolver_options)},
    {"add-host", offsetof(struct guest_options, hosts)},
    {"dns", offsetof(struct guest_options, name_servers)},
    {"dns-search", offsetof(struct guest_options, domains)},
    {"sysctl", offsetof(struct guest_options, sysctls)},
    {"group-add", offsetof(struct guest_options, groups)},
};

static int read_size(const struct cli *cli, const char *option, uint64_t *ret_size,
                     struct error *err)
{
    const char *text = cli_value(cli, option);

    if (text && size_parse(text, 1ull << 20, ret_size, err) < 0) {
        error_prepend(err, "--%s", option);
        return -EINVAL;
    }
    return 0;
}

static int read_limits(const struct cli *cli, struct guest_options *options, struct error *err)
{
    const char *cpus = cli_value(cli, "cpus");
    char *end;
    int r = read_size(cli, "memory", &options->memory, err);

    if (r == 0)
        r = read_size(cli, "shm-size", &options->shm_size, err);
    if (r < 0)
        return r;
    if (options->memory && options->memory < MEMORY_MIN)
        return error_set(err, EINVAL, "--memory %s: 4M is the least", cli_value(cli, "memory"));
    for (unsigned n = 0; limit_name(n); n++)
        options->limits.values[n] = cli_value(cli, limit_name(n));
    if (!cpus)
        return 0;
    options->cpus = strtod(cpus, &end);
    if (*end || end == cpus || !(options->cpus >= 0.01 && options->cpus <= 1024))
        return error_set(err, EINVAL, "--cpus '%s' is not a number from 0.01 to 1024", cpus);
    return 0;
}

/* The lists are to be released. */
static int read_options(const struct cli *cli, struct guest_options *options, struct error *err)
{
    options->image = cli->argv[0];
    options->command = (const char *const *)cli->argv + 1;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        FIELD_AT(const char *, options, texts[i].offset) = cli_value(cli, texts[i].option);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        FIELD_AT(bool, options, flags[i].offset) = cli_flag(cli, flags[i].option);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        FIELD_AT(const char **, options, lists[i].offset) = guest_values(cli, lists[i].option);
    run_confine_read(cli, &options->confine);
    return read_limits(cli, options, err);
}

static void release_options(struct guest_options *options)
{
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        free(FIELD_AT(const char **, options, lists[i].offset));
    run_confine_release(&options->confine);
}

/* --- The image --- */

/* When it is got from a registry. */
static const char *const pull_policies[] = {"missing", "always", "never", "newer"};
enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER, PULL_NEWER };

static int read_pull(const struct cli *cli, enum pull_policy *ret_policy, struct error *err)
{
    const char *text = cli_value(cli, "pull");

    for (size_t i = 0; i < ARRAY_SIZE(pull_policies); i++)
        if (!text || !strcmp(text, pull_policies[i])) {
            *ret_policy = (enum pull_policy)i;
            return 0;
        }
    return error_set(err, EINVAL, "--pull '%.30s' is not missing, always, newer or never", text);
}

static int pull(const struct cli *cli, struct store *store, struct descriptor *ret_image,
                struct error *err)
{
    struct progress_bars *bars = cli_flag(cli, "quiet") ? NULL : progress_bars_create();
    struct registry_options options;
    int r = image_registry_options(cli, bars, &options, err);

    if (r == 0)
        r = registry_pull(store, cli->argv[0], &options, ret_image, err);
    progress_bars_destroy(bars);
    return r < 0 ? -EIO : 0;
}

/* The image is in the store then; ret_image has its name when it was pulled. */
static int get_image(const struct cli *cli, struct store *store, struct descriptor *ret_image,
                     struct error *err)
{
    enum pull_policy policy = PULL_MISSING;
    struct descriptor there;
    int r = read_pull(cli, &policy, err);

    if (r < 0)
        return r;
    if (policy == PULL_ALWAYS)
        return pull(cli, store, ret_image, err);
    r = store_resolve(store, cli->argv[0], &there, err);
    /* What the registry has now; when it cannot be asked, what is here. */
    if (r == 0 && policy == PULL_NEWER && pull(cli, store, ret_image, NULL) < 0)
        *ret_image = (struct descriptor){0};
    if (r != -ENOENT || policy == PULL_NEVER)
        return r;
    r = pull(cli, store, ret_image, err);
    if (r < 0)
        error_prepend(err, "there is no image '%.200s' here", cli->argv[0]);
    return r;
}

/* --- The whole --- */

/* --replace: one of that name makes room. */
static int replace(const char *name, struct store *store, struct error *err)
{
    struct guest guest;
    int r = name ? guest_open(name, &guest, NULL) : -ENOENT;

    if (r < 0) /* none, or no name of one, which is said later */
        return 0;
    r = guest_stop(&guest, 0, err);
    if (r == 0)
        r = guest_remove(&guest, store, false, err);
    guest_close(&guest);
    return r < 0 ? -EIO : 0;
}

/* --cidfile, which must be new: for scripts. */
static int write_name(const struct cli *cli, const struct guest *guest, struct error *err)
{
    const char *path = cli_value(cli, "cidfile");
    AUTO_CLOSE int fd = -1;

    if (!path)
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_system(err, errno, "--cidfile: cannot make %.300s", path);
    if (dprintf(fd, "%s", guest->name) < 0)
        return error_system(err, errno, "--cidfile: cannot write %.300s", path);
    return 0;
}

int run_image(struct cli *cli, struct error *err)
{
    struct environment environment = {0}, labels = {0};
    struct guest_options options = {0};
    struct guest guest = {.fd = -1, .lock_fd = -1};
    struct descriptor pulled = {0};
    struct store *store = NULL;
    int r = read_options(cli, &options, err);

    if (r == 0)
        r = environment_read(cli, "env-file", "env", cli_flag(cli, "env-host"), &environment, err);
    if (r == 0)
        r = environment_read(cli, "label-file", "label", false, &labels, err);
    options.environment = environment.variables;
    options.labels = labels.variables;
    /* First: what is executed in the namespace may be looked into from there. */
    if (r == 0)
        r = rootless_enter(err);
    if (r == 0)
        r = protect_self(err);
    if (r == 0)
        r = image_store_open(cli, &store, err);
    if (r == 0)
        r = get_image(cli, store, &pulled, err);
    if (pulled.name[0])
        options.image = pulled.name;
    if (r == 0 && cli_flag(cli, "replace"))
        r = replace(options.name, store, err);
    if (r == 0)
        r = guest_create(&options, store, &guest, err);
    if (r == 0 && (r = write_name(cli, &guest, err)) < 0)
        guest_remove(&guest, store, true, NULL);
    if (r == 0)
        r = guest_live(cli, &guest, options.detached, &store, err);
    guest_close(&guest);
    store_close(store);
    environment_release(&environment);
    environment_release(&labels);
    release_options(&options);
    return r;
}
