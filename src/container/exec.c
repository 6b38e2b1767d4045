/* exec.c - a further process in a container: born in its control group,
 * joined to its namespaces, made what its process object says. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/cgroup.h"
#include "container/container-private.h"
#include "container/device.h"
#include "container/filter.h"
#include "container/launch.h"
#include "container/namespace.h"
#include "container/process.h"
#include "container/socket.h"
#include "container/sync.h"

struct guest_process {
    struct process_plan plan;
    int console_fd;
    int root_fd; /* of a container without a mount namespace, whose root is no namespace's; or -1 */
};

static int terminal_take(const struct guest_process *guest, struct error *err)
{
    static const char name[] = "/dev/ptmx";
    AUTO_CLOSE int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), master = -1;
    struct path_root root = {.fd = top};
    int slave = -1, r;

    if (top < 0)
        return error_system(err, errno, "cannot open the container's root");
    r = device_open_terminal(&root, &master, &slave, err);
    if (r < 0)
        return r;
    r = socket_send_fd(guest->console_fd, master, name, sizeof(name) - 1);
    if (r < 0) {
        close(slave);
        return error_system(err, -r, "cannot send the terminal to the console socket");
    }
    return process_take_terminal(guest->plan.process, slave, err);
}

static int guest_run(int sync_fd, void *opaque, struct error *err)
{
    struct guest_process *guest = opaque;
    int r = 0;

    process_begin_session();
    if (guest->root_fd >= 0 && (fchdir(guest->root_fd) < 0 || chroot(".") < 0))
        return error_system(err, errno, "cannot enter the container's root");
    if (guest->plan.process->terminal)
        r = terminal_take(guest, err);
    if (r == 0)
        r = process_become(&guest->plan, true, sync_fd, err);
    if (r == 0 && (r = sync_send(sync_fd, SYNC_READY, 0)) < 0)
        r = error_system(err, -r, "cannot reach the runtime");
    if (r == 0)
        r = sync_expect(sync_fd, SYNC_SAVED, NULL, err);
    return r < 0 ? r : process_execute(&guest->plan, err);
}

/* Everything that the runtime does for it; on return the program runs. */
static int guest_accompany(const struct container_options *options, const struct state *state,
                           const struct config *config, pid_t pid, int sync_fd, struct error *err)
{
    const struct seccomp *seccomp = config->linux_->seccomp;
    struct sync_message message;
    AUTO_FREE char *text = NULL;
    int r = sync_receive(sync_fd, &message, err);

    if (r == 0 && message.step == SYNC_NOTIFY) {
        text = state_json(state, STATE_RUNNING);
        r = text ? filter_send_listener(seccomp->listener_path, seccomp->listener_metadata, pid,
                                        message.number, text, err)
                 : error_set(err, ENOMEM, "out of memory");
        if (r == 0 && (r = sync_send(sync_fd, SYNC_NOTIFIED, 0)) == 0)
            r = sync_receive(sync_fd, &message, err);
    }
    if (r == 0 && message.step != SYNC_READY)
        r = error_set(err, ESRCH, "the new process ended before its time");
    if (r == 0 && options->pid_file)
        r = pid_file_write(options->pid_file, pid, err);
    if (r == 0 && (r = sync_send(sync_fd, SYNC_SAVED, 0)) < 0)
        r = error_system(err, -r, "cannot reach the new process");
    /* It says no more, unless its program cannot be executed. */
    return r < 0 ? r : sync_receive(sync_fd, &message, err);
}

static int root_open(const struct state *state, struct error *err)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/root", state->pid);
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && state_is_alive(state))
        return fd;
    if (fd >= 0)
        close(fd);
    return error_system(err, fd < 0 ? errno : ESRCH, "cannot open the container's root");
}

static int guest_launch(const struct container_options *options, const struct state *state,
                        const struct cgroup *cgroup, const struct config *config,
                        const struct process *process, pid_t *ret_pid, struct error *err)
{
    const struct namespace *mounts = config_namespace(config, NAMESPACE_MOUNT);
    AUTO_CLOSE int root_fd = -1;
    struct guest_process guest = {.console_fd = options->console_fd, .root_fd = -1};
    struct namespace_set namespaces;
    struct launch how = {.namespaces = &namespaces,
                         .cgroup = cgroup,
                         .run = guest_run,
                         .process = process,
                         .opaque = &guest};
    AUTO_CLOSE int sync_fd = -1;
    pid_t pid = 0;
    int r;

    if (!mounts || mounts->path) { /* its root is not that of its mount namespace */
        root_fd = guest.root_fd = root_open(state, err);
        if (root_fd < 0)
            return root_fd;
    }
    r = namespace_set_open_pid(&namespaces, state->pid, err);
    if (r < 0)
        return r;
    if (process->exec_cpu_affinity && process->exec_cpu_affinity->initial)
        how.initial_cpus = process->exec_cpu_affinity->initial;
    r = process_prepare(&guest.plan, process, config->linux_, options->log, err);
    guest.plan.preserve_fds = options->preserve_fds;
    guest.plan.keyring = options->keyring;
    if (r == 0)
        r = launch(&how, &pid, &sync_fd, err);
    if (r == 0)
        r = guest_accompany(options, state, config, pid, sync_fd, err);
    if (r < 0 && pid > 0) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    process_release(&guest.plan);
    namespace_set_close(&namespaces);
    if (r == 0)
        *ret_pid = pid;
    return r;
}

int container_exec(const struct container_options *options, const struct process *process,
                   const char *group, bool ignore_paused, pid_t *ret_pid, struct error *err)
{
    struct state state;
    struct cgroup cgroup;
    struct config config;
    int r = container_open(options, &state, &cgroup, err);

    if (r < 0)
        return r;
    if (!ignore_paused && cgroup_is_frozen(&cgroup))
        r = error_set(err, EBUSY, "cannot exec in container %s: it is paused", options->id);
    if (r == 0 && group)
        r = cgroup_descend(&cgroup, group, err);
    if (r == 0)
        r = config_load(&config, state.dir_fd, state_config, err);
    if (r == 0) {
        if (process->terminal && options->console_fd < 0)
            r = error_set(err, EINVAL, "a terminal needs a console socket; give --console-socket");
        else
            r = guest_launch(options, &state, &cgroup, &config, process, ret_pid, err);
        config_release(&config);
    }
    cgroup_release(&cgroup);
    state_release(&state);
    return r;
}
