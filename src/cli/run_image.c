#include "cli/run_image.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/environment.h"
#include "cli/guest.h"
#include "cli/oci.h"
#include "container/protect.h"
#include "guest/rootless.h"
#include "guest/vm.h"

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
    return read_limits(cli, options, err);
}

/* --- The guest's life --- */

/* The guest's standard input is the caller's only when asked for. */
static int set_input(const struct guest *guest, const struct guest_options *options,
                     struct error *err)
{
    AUTO_CLOSE int fd = -1;

    if (options->interactive && !options->detached)
        return 0;
    /* A detached guest reads what `attach` writes; opened for both, it never ends. */
    fd = options->interactive ? openat(guest->fd, "input", O_RDWR | O_CLOEXEC)
                              : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        return error_system(err, errno, "cannot set the guest's standard input");
    return 0;
}

static int live_vm(struct cli *cli, struct guest *guest, struct store **store,
                   void (*started)(void *opaque), void *opaque, struct error *err)
{
    const char *engine = json_string_value(json_object_get(guest->record, "engine"));
    struct vm_options options = {
        .log = (struct log *)cli->log,
        .started = started,
        .opaque = opaque,
    };
    int r = engine_find(engine ? engine : "auto", &options.engine, err);

    if (r == 0)
        r = vm_prepare(guest, *store, err);
    store_close(*store); /* its lock would keep others from removing images */
    *store = NULL;
    return r < 0 ? r : vm_run(guest, &options, err);
}

static int live_container(struct cli *cli, struct guest *guest, const struct guest_options *options,
                          struct store **store, void (*started)(void *opaque), void *opaque,
                          struct error *err)
{
    struct oci_relay *relay = NULL;
    int console_fd = -1;
    pid_t pid;
    int r = oci_relay_open(options->terminal, &relay, &console_fd, err);

    if (r == 0)
        r = guest_launch(guest, *store, console_fd, cli->log, &pid, err);
    if (console_fd >= 0)
        close(console_fd);
    store_close(*store);
    *store = NULL;
    if (r == 0) {
        if (started)
            started(opaque);
        r = oci_relay_run(relay, pid, err);
    }
    oci_relay_close(relay);
    return r;
}

/* Launch the guest, tell started (NULL: nobody) that it runs, wait for it, clean up. */
static int live(struct cli *cli, struct guest *guest, const struct guest_options *options,
                struct store **store, void (*started)(void *opaque), void *opaque,
                struct error *err)
{
    struct error why;
    int r = set_input(guest, options, err);

    if (r == 0)
        r = guest_is_vm(guest) ? live_vm(cli, guest, store, started, opaque, err)
                               : live_container(cli, guest, options, store, started, opaque, err);
    if (guest_end(guest, r, r < 0 ? NULL : err) < 0 && r >= 0)
        r = -EIO;
    /* What never ran is of no use either. */
    if (r < 0 || options->remove) {
        int removed = *store ? 0 : image_store_open(cli, store, &why);

        if (removed == 0)
            removed = guest_remove(guest, *store, &why);
        if (removed < 0 && r >= 0) {
            *err = why;
            r = removed;
        }
    }
    return r < 0 ? -EIO : r;
}

static void tell_parent(void *opaque)
{
    int *fd = opaque;

    close(*fd); /* the end without a word is the good news */
    *fd = -1;
}

/* In the child: a process of its own, whose output is the guest's log. */
static int become_monitor(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int log =
        openat(guest->fd, "output.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        return error_system(err, errno, "cannot open the guest's log");
    setsid();
    return chdir("/") < 0 ? error_system(err, errno, "cannot change to /") : 0;
}

static _Noreturn void monitor(struct cli *cli, struct guest *guest,
                              const struct guest_options *options, struct store *store, int fd)
{
    struct error err = {0};
    int r = become_monitor(guest, &err);

    if (r == 0)
        r = live(cli, guest, options, &store, tell_parent, &fd, &err);
    if (r < 0 && fd >= 0 && write(fd, err.text, strlen(err.text)) < 0)
        r = -EIO; /* the parent is gone: the log keeps no trace either */
    _exit(r < 0 ? CLI_FAILED : CLI_OK);
}

static int detach(struct cli *cli, struct guest *guest, const struct guest_options *options,
                  struct store *store, struct error *err)
{
    int pipe_fds[2];
    AUTO_CLOSE int fd = -1;
    char text[sizeof(err->text)];
    ssize_t n;
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    fd = pipe_fds[0];
    pid = fork();
    if (pid == 0)
        monitor(cli, guest, options, store, pipe_fds[1]);
    close(pipe_fds[1]);
    if (pid < 0)
        return error_system(err, errno, "cannot fork");
    n = read(fd, text, sizeof(text) - 1);
    if (n > 0)
        return error_set(err, EIO, "%.*s", (int)n, text);
    fprintf(cli->out, "%s\n", guest->name);
    return CLI_OK;
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
        r = options.detached ? detach(cli, &guest, &options, store, err)
                             : live(cli, &guest, &options, &store, NULL, NULL, err);
    guest_close(&guest);
    store_close(store);
    environment_release(&environment);
    run_confine_release(&options.confine);
    return r;
}
