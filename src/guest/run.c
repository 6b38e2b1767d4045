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
#include "base/signal_number.h"
#include "base/window.h"
#include "container/file.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "guest/processes.h"

#define STOPPED "stopped"
#define MONITOR "monitor"
#define WATCHED "watched"

enum { CONFIG_MAX = 1 << 20, WATCHERS_MS = 2000, WATCHERS_STEP_MS = 20 };

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
    if (r == 0 && guest->lock_fd < 0 && (r = guest_lock(guest, false, err)) == 0)
        unlinkat(guest->fd, STOPPED, 0);
    /* What nobody cleaned up when it ended. */
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

/* --- Again --- */

int restart_policy_read(const char *text, struct restart_policy *ret_policy)
{
    struct restart_policy policy = {.when = RESTART_ALWAYS};
    char *end;

    if (!strcmp(text, "no") || !*text) {
        policy.when = RESTART_NEVER;
    } else if (!strncmp(text, "on-failure", 10)) {
        policy.when = RESTART_ON_FAILURE;
        policy.tries = text[10] == ':' ? (unsigned)strtoul(text + 11, &end, 10) : 0;
        if (text[10] && (text[10] != ':' || end == text + 11 || *end || policy.tries > 1000000))
            return -EINVAL;
    } else if (strcmp(text, "always") != 0 && strcmp(text, "unless-stopped") != 0) {
        return -EINVAL;
    }
    *ret_policy = policy;
    return 0;
}

bool guest_is_to_restart(const struct guest *guest, int exit_status, unsigned failures)
{
    struct restart_policy policy;

    if (restart_policy_read(guest_text(guest, "restart"), &policy) < 0 ||
        faccessat(guest->fd, STOPPED, F_OK, 0) == 0)
        return false;
    return policy.when == RESTART_ALWAYS ||
           (policy.when == RESTART_ON_FAILURE && exit_status != 0 &&
            (!policy.tries || failures <= policy.tries));
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

int guest_print_processes(const struct guest *guest, const char *const *columns, FILE *out,
                          struct error *err)
{
    struct guest_status status;
    int r = columns ? processes_check(columns, err) : 0;

    if (r == 0)
        r = guest_status(guest, &status, err);
    return r < 0 ? r
                 : isolation_of(guest)->print_processes(guest, &status, columns, out, err);
}

int guest_kill(const struct guest *guest, int signal, struct error *err)
{
    struct guest_status status;
    int r = guest_status(guest, &status, err);

    return r < 0 ? r : isolation_of(guest)->kill(guest, &status, signal, err);
}

/* --- Who waits for it --- */

int guest_note_monitor(const struct guest *guest, struct error *err)
{
    char text[32];

    snprintf(text, sizeof(text), "%d\n", (int)getpid());
    return guest_write(guest, MONITOR, text, err);
}

void guest_resize(const struct guest *guest, const struct winsize *size)
{
    AUTO_CLOSE int lock = openat(guest->fd, "lock", O_RDWR | O_CLOEXEC);
    AUTO_FREE char *text = NULL;

    /* While the lock is held, its holder lives, and has that id. */
    if (lock >= 0 && flock(lock, LOCK_SH | LOCK_NB) < 0 &&
        file_read(guest->fd, MONITOR, 32, &text, NULL, NULL) == 0 && atoi(text) > 0)
        window_send(atoi(text), size);
}

int guest_watch(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int fd = openat(guest->fd, WATCHED, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || flock(fd, LOCK_SH) < 0)
        return error_system(err, errno, "cannot watch the guest %s", guest->name);
    return steal_fd(&fd);
}

void guest_await_watchers(const struct guest *guest)
{
    AUTO_CLOSE int fd = openat(guest->fd, WATCHED, O_RDWR | O_CLOEXEC);

    for (int left = WATCHERS_MS; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && left > 0;
         left -= WATCHERS_STEP_MS)
        poll(NULL, 0, WATCHERS_STEP_MS);
}

void guest_await_status(const struct guest *guest)
{
    AUTO_CLOSE int lock = openat(guest->fd, "lock", O_RDWR | O_CLOEXEC);

    while (faccessat(guest->fd, "status", F_OK, 0) < 0 && lock >= 0 &&
           flock(lock, LOCK_SH | LOCK_NB) < 0)
        poll(NULL, 0, 20);
}

/* --- Stopping --- */

/* Wait until the process is gone; false when it still is there after timeout_ms. */
static bool wait_gone(pid_t pid, int timeout_ms)
{
    AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd gone = {.fd = fd, .events = POLLIN};

    return fd < 0 || poll(&gone, 1, timeout_ms) > 0;
}

/* Who runs it again by itself does so after the mark was set, or not at all: wait for that. On the
 * way there it is for a moment as if it had never run. */
static int await_decision(const struct guest *guest, struct guest_status *status, struct error *err)
{
    AUTO_CLOSE int lock = openat(guest->fd, "lock", O_RDWR | O_CLOEXEC);
    int r = 0;

    while (r == 0 && (status->state == GUEST_EXITED || status->state == GUEST_CREATED) &&
           lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0) {
        poll(NULL, 0, 20);
        r = guest_status(guest, status, err);
    }
    return r;
}

/* Ask, and after a while kill. */
static int end_process(const struct guest *guest, const struct guest_status *status,
                       unsigned timeout_ms, struct error *err)
{
    int signal = signal_number(guest_text(guest, "stopSignal"));
    int r = guest_kill(guest, signal > 0 ? signal : SIGTERM, err);

    if (r == 0 && status->state == GUEST_PAUSED)
        r = guest_pause(guest, false, err);
    if (r < 0 || wait_gone(status->pid, (int)timeout_ms))
        return r;
    r = guest_kill(guest, SIGKILL, err);
    if (r < 0 && !wait_gone(status->pid, 0))
        return r;
    /* A machine whose system does not answer. */
    if (!wait_gone(status->pid, 5000))
        kill(status->pid, SIGKILL);
    return wait_gone(status->pid, 10000)
               ? 0
               : error_set(err, ETIMEDOUT, "the guest %s does not end", guest->name);
}

int guest_stop(struct guest *guest, unsigned timeout_ms, struct error *err)
{
    struct guest_status status;
    int r = guest_write(guest, STOPPED, "", err); /* first: it may just be run again */

    if (r < 0)
        return guest_is_gone(guest) ? 0 : r;
    r = guest_status(guest, &status, err);
    if (r == 0)
        r = await_decision(guest, &status, err);
    if (r < 0 || status.state == GUEST_EXITED || status.pid == 0)
        return r;
    r = end_process(guest, &status, timeout_ms, err);
    /* Who waits for it holds the lock until all is cleaned up; a dead one's is free. */
    if (r == 0 && guest->lock_fd < 0)
        r = guest_lock(guest, true, err);
    if (guest_is_gone(guest)) /* removed at its end, as was asked for */
        return 0;
    return r < 0 ? r : guest_end(guest, -1, err);
}
