/* run.c - a guest that is launched, joined, signalled and ended. */
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
#include "container/cgroup.h"
#include "container/file.h"
#include "guest/guest-private.h"
#include "guest/session.h"

enum { CONFIG_MAX = 1 << 20 };

int guest_launch(struct guest *guest, const struct store *store, int console_fd,
                 const struct log *log, pid_t *ret_pid, struct error *err)
{
    struct container_options options;
    struct manifest manifest = {0};
    struct image_config config = {0};
    pid_t pid;
    int r = guest_read_image(guest, store, &manifest, &config, err);

    guest_container(guest, log, &options);
    options.console_fd = console_fd;
    if (r == 0)
        r = image_unpack((struct store *)store, &manifest, &config, err);
    if (r == 0)
        r = root_mount(guest, store, &config, err);
    if (r == 0) {
        r = spec_write(guest, &config, err);
        if (r == 0)
            r = container_create(&options, &pid, err);
        if (r == 0 && ((r = network_connect(guest, pid, err)) < 0 ||
                       (r = container_start(&options, err)) < 0))
            container_delete(&options, true, NULL);
        if (r < 0) {
            network_disconnect(guest);
            root_unmount(guest, NULL);
        }
    }
    image_config_release(&config);
    manifest_release(&manifest);
    if (r == 0)
        *ret_pid = pid;
    return r;
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
    struct container_options options;
    char text[32];
    int r, unmounted;

    guest_container(guest, NULL, &options);
    network_disconnect(guest);
    r = container_delete(&options, true, err);
    unmounted = root_unmount(guest, r < 0 ? NULL : err);
    if (r == 0)
        r = unmounted;
    snprintf(text, sizeof(text), "%d\n", exit_status);
    if (r == 0 && (exit_status >= 0 || faccessat(guest->fd, "status", F_OK, 0) < 0))
        r = guest_write(guest, "status", text, err);
    return r;
}

/* --- Further processes --- */

int guest_exec_text(const struct guest *guest, const struct guest_options *options, char **ret_text,
                    struct error *err)
{
    AUTO_CLOSE int root = -1;
    AUTO_FREE char *text = NULL;
    struct guest_status status;
    char path[64];
    struct container_options container;
    json_t *config, *process, *user, *list;
    int r;

    r = guest_status(guest, &status, err);
    if (r == 0 && status.state != GUEST_RUNNING)
        r = error_set(err, EBUSY, "the guest %s does not run, it is %s", guest->name,
                      guest_state_name(status.state));
    if (r < 0)
        return r;
    guest_container(guest, NULL, &container);
    list = json_array();
    for (size_t i = 0; options->command[i]; i++)
        json_array_append_new(list, json_string(options->command[i]));
    r = guest_is_vm(guest) ? file_read(guest->fd, "config.json", CONFIG_MAX, &text, NULL, err)
                           : container_read_config(&container, &text, err);
    config = r < 0 ? NULL : json_loads(text, 0, NULL);
    process = json_incref(json_object_get(config, "process"));
    json_object_set_new(process, "args", list);
    json_object_set_new(process, "terminal", json_boolean(options->terminal));
    for (size_t i = 0; options->environment && options->environment[i]; i++)
        json_array_append_new(json_object_get(process, "env"),
                              json_string(options->environment[i]));
    if (options->working_directory)
        json_object_set_new(process, "cwd", json_string(options->working_directory));
    if (r == 0 && options->user) {
        /* As the process sees it: where it is mounted, others may not look. */
        snprintf(path, sizeof(path), "/proc/%d/root", (int)status.pid);
        root = guest_is_vm(guest)
                   ? openat(guest->fd, VM_USERS, O_PATH | O_DIRECTORY | O_CLOEXEC)
                   : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = user_resolve(root, options->user, &user, NULL, err);
        if (r == 0)
            json_object_set_new(process, "user", user);
    }
    if (r == 0) {
        *ret_text = json_dumps(process, JSON_COMPACT);
        if (!*ret_text)
            r = error_set(err, EINVAL, "the configuration of the guest %s is damaged", guest->name);
    }
    json_decref(process);
    json_decref(config);
    return r;
}

int guest_exec(const struct guest *guest, const char *text, int console_fd, const struct log *log,
               pid_t *ret_pid, struct error *err)
{
    struct container_options options;
    struct process process = {0};
    struct field_store store;
    int r = process_read(&process, &store, text, strlen(text), err);

    if (r < 0)
        return r;
    guest_container(guest, log, &options);
    options.console_fd = console_fd;
    r = container_exec(&options, &process, NULL, false, ret_pid, err);
    field_release(&store);
    return r;
}

/* --- Signals --- */

int guest_kill(const struct guest *guest, int signal, struct error *err)
{
    struct container_options options;
    struct guest_status status;
    int r;

    if (!guest_is_vm(guest)) {
        guest_container(guest, NULL, &options);
        return container_kill(&options, signal, false, err);
    }
    /* The machine's process passes it on. */
    r = guest_status(guest, &status, err);
    if (signal == SIGKILL)
        signal = SESSION_SIGKILL;
    if (r == 0 && (status.pid <= 0 || kill(status.pid, signal) < 0))
        r = error_set(err, ESRCH, "the guest %s does not run", guest->name);
    return r;
}

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
    if (r < 0)
        return r;
    if (!wait_gone(status.pid, (int)timeout_ms)) {
        r = guest_kill(guest, SIGKILL, err);
        if (r < 0 && !wait_gone(status.pid, 0))
            return r;
        /* A machine whose system does not answer. */
        if (!wait_gone(status.pid, 5000) && guest_is_vm(guest))
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

/* --- Looking --- */

int guest_stats(const struct guest *guest, json_t **ret_stats, struct error *err)
{
    struct container_options options;
    struct cgroup cgroup = {0};
    struct state state;
    int r;

    if (guest_is_vm(guest))
        return vm_stats(guest, ret_stats, err);
    guest_container(guest, NULL, &options);
    r = container_open(&options, &state, &cgroup, err);
    if (r < 0)
        return r;
    *ret_stats = cgroup_stats(&cgroup);
    cgroup_release(&cgroup);
    state_release(&state);
    return *ret_stats ? 0 : error_set(err, ENOMEM, "out of memory");
}

int guest_processes(const struct guest *guest, pid_t **ret_pids, size_t *ret_count,
                    struct error *err)
{
    struct container_options options;
    struct guest_status status;

    if (guest_is_vm(guest)) { /* one, that the machine is in */
        guest_status(guest, &status, NULL);
        *ret_pids = malloc(sizeof(**ret_pids));
        if (!*ret_pids)
            return error_set(err, ENOMEM, "out of memory");
        **ret_pids = status.pid;
        *ret_count = status.pid > 0;
        return 0;
    }
    guest_container(guest, NULL, &options);
    return container_pids(&options, ret_pids, ret_count, err);
}
