#include "container/container.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/cgroup.h"
#include "container/container-private.h"
#include "container/file.h"
#include "container/hook.h"
#include "container/rootfs.h"

enum { ERROR_BYTES_MAX = 4096, KILL_WAIT_MS = 10000 };

int pid_file_write(const char *path, pid_t pid, struct error *err)
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%d", pid);

    return file_replace(AT_FDCWD, path, text, (size_t)length, err);
}

int container_open(const struct container_options *options, struct state *state,
                   struct cgroup *cgroup, struct error *err)
{
    enum state_status status;
    int r = state_open(state, options->root, options->id, false, err);

    if (r < 0)
        return r;
    status = state_status(state);
    if (status == STATE_STOPPED || status == STATE_CREATING)
        r = error_set(err, ESRCH, "container %s is not running: it is %s", options->id,
                      state_status_name(status));
    if (r == 0)
        r = cgroup_load(cgroup, state->cgroup, err);
    if (r == 0)
        cgroup_open(cgroup);
    else
        state_release(state);
    return r;
}

/* --- start --- */

/* The process closes its end of the fifo by executing its program, or by dying. */
static int start_wait(const struct state *state, int fifo, struct error *err)
{
    struct pollfd wait = {.fd = fifo};
    AUTO_FREE char *why = NULL;
    size_t length = 0;
    int r;

    while (poll(&wait, 1, -1) < 0 && errno == EINTR)
        ;
    r = file_read(state->dir_fd, state_error, ERROR_BYTES_MAX, &why, &length, NULL);
    if (r == 0 && length)
        return error_set(err, strstr(why, "no such file") ? ENOENT : ECANCELED, "%s", why);
    unlinkat(state->dir_fd, state_fifo, 0);
    return 0;
}

/* runtime.md, Lifecycle: a poststart hook that fails is a warning, and all goes on. */
static int poststart_run(struct state *state, const struct log *log, struct error *err)
{
    AUTO_FREE char *text = NULL;
    struct config config;
    int r = config_load(&config, state->dir_fd, state_config, err);

    if (r < 0)
        return r;
    if (config.hooks && config.hooks->poststart.count) {
        text = state_json(state, STATE_RUNNING);
        if (text)
            hook_run_all(&config.hooks->poststart, "poststart", text, log);
        else
            r = error_set(err, ENOMEM, "out of memory");
    }
    config_release(&config);
    return r;
}

int container_start(const struct container_options *options, struct error *err)
{
    struct state state;
    AUTO_CLOSE int fifo = -1;
    enum state_status status;
    int r = state_open(&state, options->root, options->id, true, err);

    if (r < 0)
        return r;
    status = state_status(&state);
    if (status != STATE_CREATED)
        r = error_set(err, EINVAL, "cannot start container %s: it is %s, not created", options->id,
                      state_status_name(status));
    if (r == 0) {
        fifo = openat(state.dir_fd, state_fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (fifo < 0 || write(fifo, "", 1) != 1)
            r = error_system(err, errno, "cannot reach the first process of %s", options->id);
    }
    if (r == 0)
        r = start_wait(&state, fifo, err);
    if (r == 0 && state.has_hooks)
        r = poststart_run(&state, options->log, err);
    state_release(&state);
    return r;
}

/* --- kill --- */

static int first_signal(const struct state *state, int signal, struct error *err)
{
    AUTO_CLOSE int process = pidfd_open(state->pid, 0);

    /* The descriptor is of the process that had the number now; it is the right one if it
     * still is the container's. */
    if (process < 0 || !state_is_alive(state) || pidfd_send_signal(process, signal, NULL, 0) < 0) {
        if (process >= 0 && errno != ESRCH && state_is_alive(state))
            return error_system(err, errno, "cannot signal container %s", state->id);
        return error_set(err, ESRCH, "container not running");
    }
    return 0;
}

static int all_signal(const struct state *state, int signal, struct error *err)
{
    struct cgroup cgroup;
    int r = cgroup_load(&cgroup, state->cgroup, err);

    if (r < 0)
        return r;
    cgroup_open(&cgroup);
    r = cgroup_find_any(&cgroup) ? cgroup_signal(&cgroup, signal, err)
                                 : first_signal(state, signal, err);
    cgroup_release(&cgroup);
    return r;
}

int container_kill(const struct container_options *options, int signal, bool all, struct error *err)
{
    struct state state;
    int r = state_open(&state, options->root, options->id, false, err);

    if (r < 0)
        return r;
    if (all && state.cgroup)
        r = all_signal(&state, signal, err);
    else
        r = first_signal(&state, signal, err);
    state_release(&state);
    return r;
}

/* --- delete --- */

void poststop_run(const struct state *state, const struct config *config, const struct log *log)
{
    AUTO_FREE char *text = NULL;

    if (!config->hooks || !config->hooks->poststop.count)
        return;
    text = state_json(state, STATE_STOPPED);
    if (text)
        hook_run_all(&config->hooks->poststop, "poststop", text, log);
}

static void first_kill(const struct state *state)
{
    AUTO_CLOSE int process = pidfd_open(state->pid, 0);
    struct pollfd wait = {.fd = process, .events = POLLIN};
    struct cgroup cgroup;

    if (process < 0 || !state_is_alive(state))
        return;
    pidfd_send_signal(process, SIGKILL, NULL, 0);
    if (state->cgroup && cgroup_load(&cgroup, state->cgroup, NULL) == 0) {
        cgroup_open(&cgroup);
        if (cgroup_is_frozen(&cgroup)) /* the dead do not leave a frozen group */
            cgroup_freeze(&cgroup, false, NULL);
        cgroup_release(&cgroup);
    }
    poll(&wait, 1, KILL_WAIT_MS);
    waitpid(state->pid, NULL, WNOHANG); /* where it is our own child */
}

/* force: a group that is not to be found in the state is none. */
static int remains_remove(struct state *state, const struct container_options *options, bool force,
                          struct error *err)
{
    struct config config;
    struct cgroup cgroup;
    int r = 0;

    if (state->cgroup && (r = cgroup_load(&cgroup, state->cgroup, err)) == 0) {
        r = cgroup_remove(&cgroup, err);
        cgroup_release(&cgroup);
    }
    if (r < 0 && !(force && r == -EINVAL))
        return r;
    rootfs_uncover(state->rootfs, state->root_mount);
    if (state->has_hooks && config_load(&config, state->dir_fd, state_config, NULL) == 0) {
        poststop_run(state, &config, options->log);
        config_release(&config);
    }
    return state_remove(state, options->root, err);
}

int container_delete(const struct container_options *options, bool force, struct error *err)
{
    struct state state;
    enum state_status status;
    int r = state_open(&state, options->root, options->id, true, err);

    if (r == -EINVAL && force && state_id_check(options->id, NULL) == 0)
        return state_destroy(options->root, options->id, err);
    if (r == -ENOENT && force)
        return 0;
    if (r < 0)
        return r;
    status = state_status(&state);
    if (force && status != STATE_STOPPED)
        first_kill(&state);
    else if (status != STATE_STOPPED)
        r = error_set(err, EBUSY, "cannot delete container %s that is not stopped: %s", options->id,
                      state_status_name(status));
    if (r == 0)
        r = remains_remove(&state, options, force, err);
    state_release(&state);
    return r;
}

/* --- pause, update, ps --- */

int container_pause(const struct container_options *options, bool pause, struct error *err)
{
    struct state state;
    struct cgroup cgroup;
    enum state_status status;
    int r = container_open(options, &state, &cgroup, err);

    if (r < 0)
        return r;
    status = state_status(&state);
    if (pause && status != STATE_RUNNING && status != STATE_CREATED)
        r = error_set(err, EINVAL, "cannot pause container %s: it is %s", options->id,
                      state_status_name(status));
    else if (!pause && !cgroup_is_frozen(&cgroup))
        r = error_set(err, EINVAL, "cannot resume container %s: it is not paused", options->id);
    else
        r = cgroup_freeze(&cgroup, pause, err);
    cgroup_release(&cgroup);
    state_release(&state);
    return r;
}

int container_update(const struct container_options *options, const struct resources *resources,
                     struct error *err)
{
    struct state state;
    struct cgroup cgroup;
    int r = container_open(options, &state, &cgroup, err);

    if (r < 0)
        return r;
    r = cgroup_set(&cgroup, resources, err);
    cgroup_release(&cgroup);
    state_release(&state);
    return r;
}

int container_pids(const struct container_options *options, pid_t **ret_pids, size_t *ret_count,
                   struct error *err)
{
    struct state state;
    struct cgroup cgroup;
    int r = container_open(options, &state, &cgroup, err);

    if (r < 0)
        return r;
    if (cgroup_find_any(&cgroup)) {
        r = cgroup_pids(&cgroup, ret_pids, ret_count, err);
    } else { /* rootless without a group: the first process is all that is known */
        *ret_pids = malloc(sizeof(**ret_pids));
        *ret_count = *ret_pids ? 1 : 0;
        if (*ret_pids)
            **ret_pids = state.pid;
        else
            r = error_set(err, ENOMEM, "out of memory");
    }
    cgroup_release(&cgroup);
    state_release(&state);
    return r;
}

/* --- What commands read --- */

int container_read_file(const char *path, char **ret_text, size_t *ret_length, struct error *err)
{
    return file_read(AT_FDCWD, path, CONFIG_BYTES_MAX, ret_text, ret_length, err);
}

int container_read_config(const struct container_options *options, char **ret_text,
                          struct error *err)
{
    struct state state;
    int r = state_open(&state, options->root, options->id, false, err);

    if (r < 0)
        return r;
    r = file_read(state.dir_fd, state_config, CONFIG_BYTES_MAX, ret_text, NULL, err);
    state_release(&state);
    return r;
}
