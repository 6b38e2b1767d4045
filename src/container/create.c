/* create.c - runtime.md, Create: everything the container is, in the order that
 * lets a runtime be killed at any moment: what `delete` must know is written
 * down before it is made. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/privilege.h"
#include "container/cgroup.h"
#include "container/container-private.h"
#include "container/file.h"
#include "container/hook.h"
#include "container/init.h"
#include "container/launch.h"
#include "container/namespace.h"
#include "container/sync.h"

struct creation {
    const struct container_options *options;
    struct config config;
    char *config_text;
    size_t config_length;
    struct state state;
    struct cgroup cgroup;
    struct namespace_set namespaces;
    struct init init;
    int bundle_fd;
    pid_t pid;
    bool recorded; /* the state directory is made */
};

static void creation_clear(struct creation *creation, const struct container_options *options)
{
    *creation = (struct creation){.options = options, .bundle_fd = -1, .state = {.dir_fd = -1}};
    creation->init.fifo_fd = creation->init.error_fd = -1;
    creation->init.console_fd = -1;
    creation->init.rootfs.root.fd = creation->init.rootfs.place_fd = -1;
    creation->init.process.proc_fd = -1;
    for (size_t i = 0; i < NAMESPACE_TYPES; i++)
        creation->namespaces.join_fds[i] = -1;
}

static void creation_release(struct creation *creation)
{
    process_release(&creation->init.process);
    if (creation->init.rootfs.config)
        rootfs_close(&creation->init.rootfs);
    if (creation->init.fifo_fd >= 0)
        close(creation->init.fifo_fd);
    if (creation->init.error_fd >= 0)
        close(creation->init.error_fd);
    namespace_set_close(&creation->namespaces);
    cgroup_release(&creation->cgroup);
    if (creation->state.dir_fd >= 0)
        flock(creation->state.dir_fd, LOCK_UN);
    state_release(&creation->state);
    config_release(&creation->config);
    free(creation->config_text);
    if (creation->bundle_fd >= 0)
        close(creation->bundle_fd);
}

static int bundle_open(struct creation *creation, char bundle[PATH_MAX], struct error *err)
{
    const char *path = creation->options->bundle;
    int r;

    if (!realpath(path, bundle))
        return error_system(err, errno, "cannot open the bundle %.256s", path);
    creation->bundle_fd = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (creation->bundle_fd < 0)
        return error_system(err, errno, "cannot open the bundle %.256s", path);
    r = file_read(creation->bundle_fd, "config.json", CONFIG_BYTES_MAX, &creation->config_text,
                  &creation->config_length, err);
    if (r == 0)
        r = config_read(&creation->config, creation->config_text, creation->config_length, err);
    return r;
}

static int terminal_check(const struct creation *creation, struct error *err)
{
    bool terminal = creation->config.process->terminal;

    if (terminal && creation->options->console_fd < 0)
        return error_set(err, EINVAL,
                         "process.terminal: needs a console socket, as nobody stays "
                         "to hold the terminal; give --console-socket");
    return 0;
}

/* What the state keeps: the directory exists from here on. */
static int record_begin(struct creation *creation, const char *bundle, struct error *err)
{
    const struct config *config = &creation->config;
    struct state *state = &creation->state;
    int r = state_create(state, creation->options->root, creation->options->id, err);

    if (r < 0)
        return r;
    creation->recorded = true;
    state->bundle = strdup(bundle);
    if (config->root->path[0] == '/')
        state->rootfs = strdup(config->root->path);
    else if (asprintf(&state->rootfs, "%s/%s", bundle, config->root->path) < 0)
        state->rootfs = NULL;
    state->annotations = json_incref(json_object_get(config->store.tree, "annotations"));
    state->has_hooks = config->hooks != NULL;
    if (state->rootfs && !config_namespace(config, NAMESPACE_MOUNT))
        state->root_mount = rootfs_mount_id(state->rootfs);
    state->cgroup = cgroup_save(&creation->cgroup);
    if (!state->bundle || !state->rootfs || !state->cgroup)
        return error_set(err, ENOMEM, "out of memory");
    r = file_replace(state->dir_fd, state_config, creation->config_text, creation->config_length,
                     err);
    if (r == 0)
        r = state_save(state, err);
    if (r == 0 && mkfifoat(state->dir_fd, state_fifo, 0600) < 0)
        r = error_system(err, errno, "cannot make %s", state_fifo);
    return r;
}

static int init_prepare(struct creation *creation, struct error *err)
{
    const struct container_options *options = creation->options;
    struct init *init = &creation->init;
    int r;

    init->config = &creation->config;
    init->state = &creation->state;
    init->console_fd = options->console_fd;
    /* For writing too: readers never see an end, and the check for a reader finds it. */
    init->fifo_fd = openat(creation->state.dir_fd, state_fifo, O_RDWR | O_CLOEXEC);
    init->error_fd = openat(creation->state.dir_fd, state_error,
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (init->fifo_fd < 0 || init->error_fd < 0)
        return error_system(err, errno, "cannot open the files of the state");
    r = process_prepare(&init->process, creation->config.process, creation->config.linux_,
                        options->log, err);
    init->process.preserve_fds = options->preserve_fds;
    init->process.keyring = options->keyring;
    init->rootfs.cgroup = &creation->cgroup;
    if (r == 0 && geteuid() != 0)
        init->bundle = creation->state.bundle;
    else if (r == 0)
        r = rootfs_open(&init->rootfs, &creation->config, &creation->cgroup, creation->bundle_fd,
                        err);
    init->rootfs.no_pivot = options->no_pivot;
    return r;
}

static int process_launch(struct creation *creation, int *ret_sync, struct error *err)
{
    const struct launch how = {
        .namespaces = &creation->namespaces,
        .cgroup = &creation->cgroup,
        .linux_ = creation->config.linux_,
        .process = creation->config.process,
        .run = init_run,
        .opaque = &creation->init,
    };
    int r = launch(&how, &creation->pid, ret_sync, err);

    if (r == 0)
        r = state_set_pid(&creation->state, creation->pid, err);
    return r < 0 ? r : state_save(&creation->state, err);
}

/* Hooks in the runtime's namespaces, once the container's mounts are there. */
static int runtime_hooks(struct creation *creation, struct error *err)
{
    const struct hooks *hooks = creation->config.hooks;
    /* config.md: prestart hooks belong to `start`, which finds a created container; other
     * runtimes run them here too, where the namespaces can still be filled. */
    AUTO_FREE char *created = state_json(&creation->state, STATE_CREATED);
    AUTO_FREE char *creating = state_json(&creation->state, STATE_CREATING);
    int r;

    if (!created || !creating)
        return error_set(err, ENOMEM, "out of memory");
    r = hook_run(&hooks->prestart, "prestart", created, err);
    return r < 0 ? r : hook_run(&hooks->create_runtime, "createRuntime", creating, err);
}

static int listener_send(struct creation *creation, int listener, struct error *err)
{
    const struct seccomp *seccomp = creation->config.linux_->seccomp;
    AUTO_FREE char *text = state_json(&creation->state, STATE_CREATING);

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    return filter_send_listener(seccomp->listener_path, seccomp->listener_metadata, creation->pid,
                                listener, text, err);
}

/* Answer the process until it only waits for its program. */
static int process_accompany(struct creation *creation, int sync_fd, struct error *err)
{
    struct sync_message message;
    int r;

    for (;;) {
        enum sync_step answer;

        r = sync_receive(sync_fd, &message, err);
        if (r < 0)
            return r;
        switch (message.step) {
        case SYNC_MOUNTED:
            r = runtime_hooks(creation, err);
            answer = SYNC_HOOKED;
            break;
        case SYNC_NOTIFY:
            r = listener_send(creation, message.number, err);
            answer = SYNC_NOTIFIED;
            break;
        case SYNC_READY:
            return 0;
        default:
            return error_set(err, ESRCH, "the container's first process ended before its time");
        }
        if (r == 0 && (r = sync_send(sync_fd, answer, 0)) < 0)
            r = error_system(err, -r, "cannot reach the container's first process");
        if (r < 0)
            return r;
    }
}

static int creation_finish(struct creation *creation, int sync_fd, struct error *err)
{
    int r = 0;

    if (creation->options->pid_file)
        r = pid_file_write(creation->options->pid_file, creation->pid, err);
    if (r == 0 && (r = sync_send(sync_fd, SYNC_SAVED, 0)) < 0)
        r = error_system(err, -r, "cannot reach the container's first process");
    return r;
}

static void creation_undo(struct creation *creation)
{
    if (creation->pid > 0) {
        kill(creation->pid, SIGKILL);
        while (waitpid(creation->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (!creation->recorded)
        return;
    creation->state.pid = 0;
    cgroup_settle(&creation->cgroup);
    cgroup_remove(&creation->cgroup, NULL);
    rootfs_uncover(creation->state.rootfs, creation->state.root_mount);
    if (creation->config.hooks && creation->pid > 0)
        poststop_run(&creation->state, &creation->config, creation->options->log);
    state_remove(&creation->state, creation->options->root, NULL);
}

int container_create(const struct container_options *options, pid_t *ret_pid, struct error *err)
{
    struct creation creation;
    AUTO_CLOSE int sync_fd = -1;
    char bundle[PATH_MAX];
    int r;

    creation_clear(&creation, options);
    r = bundle_open(&creation, bundle, err);
    if (r == 0)
        r = terminal_check(&creation, err);
    if (r == 0)
        r = namespace_set_open(&creation.namespaces, &creation.config, err);
    if (r == 0)
        r = cgroup_init(&creation.cgroup, creation.config.linux_->cgroups_path, options->id,
                        !privilege_is_full(), options->systemd_cgroup, err);
    if (r == 0)
        r = cgroup_check_empty(&creation.cgroup, err);
    if (r == 0)
        r = record_begin(&creation, bundle, err);
    if (r == 0)
        r = cgroup_create(&creation.cgroup, creation.config.linux_->resources, err);
    if (r == 0)
        r = init_prepare(&creation, err);
    if (r == 0)
        r = process_launch(&creation, &sync_fd, err);
    if (r == 0)
        r = process_accompany(&creation, sync_fd, err);
    if (r == 0)
        r = creation_finish(&creation, sync_fd, err);
    if (r < 0)
        creation_undo(&creation);
    else
        *ret_pid = creation.pid;
    creation_release(&creation);
    return r;
}
