/* run.c - a guest that is run, joined, signalled and ended. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"

enum { CONFIG_MAX = 1 << 20 };

int guest_run(struct guest *guest, struct store **store, const struct guest_run *run,
              struct error *err)
{
    return isolation_of(guest)->run(guest, store, run, err);
}

int guest_restart(struct guest *guest, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    if (r == 0 && status.state != GUEST_EXITED && status.state != GUEST_CREATED)
        r = error_set(err, EBUSY, "the guest %s runs already", guest->name);
    /* What nobody cleaned up when it ended. */
    if (r == 0)
        r = guest_lock(guest, false, err);
    if (r == 0)
        r = guest_end(guest, -1, err);
    if (r == 0 && unlinkat(guest->fd, "status", 0) < 0 && errno != ENOENT)
        r = error_system(err, errno, "cannot forget how the guest %s ended", guest->name);
    guest->has_run = true;
    return r;
}

int guest_end(struct guest *guest, int exit_status, struct error *err)
{
    char text[32];
    int r = isolation_of(guest)->clean(guest, err);
    int unmounted = root_unmount(guest, r < 0 ? NULL : err);

    if (r == 0)
        r = unmounted;
    snprintf(text, sizeof(text), "%d\n", exit_status);
    if (r == 0 && (exit_status >= 0 || faccessat(guest->fd, "status", F_OK, 0) < 0))
        r = guest_write(guest, "status", text, err);
    return r;
}

/* --- While it runs --- */

/* Its status, when it is the one asked for. */
static int check_state(const struct guest *guest, enum guest_state state,
                       struct guest_status *ret_status, struct error *err)
{
    int r = guest_status(guest, ret_status, err);

    if (r == 0 && ret_status->state != state)
        r = error_set(err, EBUSY, "the guest %s is not %s, it is %s", guest->name,
                      guest_state_name(state), guest_state_name(ret_status->state));
    return r;
}

/* Change the process of its config.json into another one. */
static int describe_process(const struct guest *guest, const struct guest_status *status,
                            const struct guest_options *options, json_t *process,
                            struct error *err)
{
    AUTO_CLOSE int users = -1;
    json_t *list = json_array(), *user;
    int r;

    for (size_t i = 0; options->command[i]; i++)
        json_array_append_new(list, json_string(options->command[i]));
    json_object_set_new(process, "args", list);
    json_object_set_new(process, "terminal", json_boolean(options->terminal));
    for (size_t i = 0; options->environment && options->environment[i]; i++)
        json_array_append_new(json_object_get(process, "env"),
                              json_string(options->environment[i]));
    if (options->working_directory)
        json_object_set_new(process, "cwd", json_string(options->working_directory));
    if (!options->user)
        return 0;
    users = isolation_of(guest)->open_users(guest, status);
    r = user_resolve(users, options->user, &user, NULL, err);
    if (r == 0)
        json_object_set_new(process, "user", user);
    return r;
}

int guest_exec(const struct guest *guest, const struct guest_options *options,
               const struct log *log, struct error *err)
{
    AUTO_FREE char *config = NULL, *text = NULL;
    struct guest_status status;
    json_t *tree, *process;
    int r = check_state(guest, GUEST_RUNNING, &status, err);

    if (r == 0)
        r = file_read(guest->fd, "config.json", CONFIG_MAX, &config, NULL, err);
    if (r < 0)
        return r;
    tree = json_loads(config, 0, NULL);
    process = json_object_get(tree, "process");
    r = describe_process(guest, &status, options, process, err);
    text = json_dumps(process, JSON_COMPACT);
    json_decref(tree);
    if (r < 0)
        return r;
    if (!text)
        return error_set(err, EINVAL, "the configuration of the guest %s is damaged", guest->name);
    return isolation_of(guest)->exec(guest, text, options->terminal, log, err);
}

int guest_pause(const struct guest *guest, bool pause, struct error *err)
{
    struct guest_status status;
    int r = check_state(guest, pause ? GUEST_RUNNING : GUEST_PAUSED, &status, err);

    return r < 0 ? r : isolation_of(guest)->pause(guest, &status, pause, err);
}

int guest_stats(const struct guest *guest, json_t **ret_stats, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    if (r == 0 && status.state != GUEST_RUNNING && status.state != GUEST_PAUSED)
        r = error_set(err, ESRCH, "the guest %s does not run", guest->name);
    return r < 0 ? r : isolation_of(guest)->stats(guest, &status, ret_stats, err);
}

int guest_print_processes(const struct guest *guest, FILE *out, struct error *err)
{
    return isolation_of(guest)->print_processes(guest, out, err);
}

int guest_kill(const struct guest *guest, int signal, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    return r < 0 ? r : isolation_of(guest)->kill(guest, &status, signal, err);
}

/* --- Stopping --- */

/* Wait until the process is gone; false when it still is there after timeout_ms. */
static bool wait_gone(pid_t pid, int timeout_ms)
{
    AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd gone = {.fd = fd, .events = POLLIN};

    return fd < 0 || poll(&gone, 1, timeout_ms) > 0;
}

/* A signal by the name or number that an image gives; SIGTERM when it gives none. */
static int stop_signal(const char *text)
{
    static const struct {
        const char *name;
        int signal;
    } names[] = {{"INT", SIGINT},   {"QUIT", SIGQUIT}, {"KILL", SIGKILL},  {"HUP", SIGHUP},
                 {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"WINCH", SIGWINCH}};

    if (!strncmp(text, "SIG", 3))
        text += 3;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(names[i].name, text))
            return names[i].signal;
    if (!strcmp(text, "RTMIN+3")) /* systemd's */
        return SIGRTMIN + 3;
    return atoi(text) > 0 && atoi(text) < 65 ? atoi(text) : SIGTERM;
}

int guest_stop(struct guest *guest, unsigned timeout_ms, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    if (r < 0 || status.state == GUEST_EXITED || status.pid == 0)
        return r;
    r = guest_kill(guest, stop_signal(guest_text(guest, "stopSignal")), err);
    if (r == 0 && status.state == GUEST_PAUSED)
        r = guest_pause(guest, false, err);
    if (r < 0)
        return r;
    if (!wait_gone(status.pid, (int)timeout_ms)) {
        r = guest_kill(guest, SIGKILL, err);
        if (r < 0 && !wait_gone(status.pid, 0))
            return r;
        /* A machine whose system does not answer. */
        if (!wait_gone(status.pid, 5000))
            kill(status.pid, SIGKILL);
        if (!wait_gone(status.pid, 10000))
            return error_set(err, ETIMEDOUT, "the guest %s does not end", guest->name);
    }
    /* Who waits for it holds the lock until all is cleaned up; a dead one's is free. */
    guest->lock_fd = openat(guest->fd, "lock", O_RDWR | O_CLOEXEC);
    if (guest->lock_fd < 0) /* removed at its end, as was asked for */
        return 0;
    if (flock(guest->lock_fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock the guest %s", guest->name);
    return faccessat(AT_FDCWD, guest->path, F_OK, 0) < 0 ? 0 : guest_end(guest, -1, err);
}
