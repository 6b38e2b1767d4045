/* container.c - guests as containers: processes of the host's kernel, by the OCI runtime. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "container/cgroup.h"
#include "container/container.h"
#include "container/file.h"
#include "container/path.h"
#include "container/relay.h"
#include "guest/guest-private.h"
#include "guest/init_program.h"
#include "guest/isolation.h"
#include "guest/processes.h"
#include "network/namespace.h"
#include "network/resolver.h"

enum { RESOLV_MAX = 65536 };

static int check(const struct guest_options *options, struct error *err)
{
    if (options->kernel || options->engine || options->no_sandbox)
        return error_set(err, EINVAL, "--kernel, --engine and --no-sandbox need --isolation vm");
    return 0;
}

/* The guest's place among the runtime's containers. */
static struct container_options place(const struct guest *guest, const struct log *log)
{
    return (struct container_options){.root = guest->states,
                                      .id = guest->name,
                                      .bundle = guest->path,
                                      .console_fd = -1,
                                      .log = log,
                                      .keyring = guest->name};
}

/* --- Running --- */

/* Its standard streams are the caller's; with a terminal, the terminal's master is sent to
 * the socket console_fd. ret_pid: the caller's child. */
static int launch(struct guest *guest, struct store *store, int console_fd, const struct log *log,
                  pid_t *ret_pid, struct error *err)
{
    struct container_options options = place(guest, log);
    struct manifest manifest = {0};
    struct image_config config = {0};
    pid_t pid;
    int r = guest_read_image(guest, store, &manifest, &config, err);

    options.console_fd = console_fd;
    if (r == 0)
        r = image_unpack(store, &manifest, &config, err);
    if (r == 0)
        r = root_mount(guest, store, &config, err);
    if (r == 0) {
        r = mounts_fill_volumes(guest, err);
        if (r == 0)
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

static int run(struct guest *guest, struct store **store, const struct guest_run *how,
               struct error *err)
{
    struct relay *relay = NULL;
    int console_fd = -1;
    pid_t pid;
    int r = relay_open(guest_flag(guest, "terminal"), &relay, &console_fd, err);

    if (r == 0)
        r = launch(guest, *store, console_fd, how->log, &pid, err);
    if (console_fd >= 0)
        close(console_fd);
    store_close(steal_pointer(store));
    if (r == 0) {
        if (how->started)
            how->started(how->opaque);
        r = relay_run(relay, pid, err);
    }
    relay_close(relay);
    return r;
}

static int clean(const struct guest *guest, struct error *err)
{
    const struct container_options options = place(guest, NULL);

    network_disconnect(guest);
    return container_delete(&options, true, err);
}

static char *resolver(const struct guest *guest)
{
    char *text;

    if (network_is_named(guest))
        return strdup("nameserver " NAMESPACE_RESOLVER "\nsearch " RESOLVER_DOMAIN "\n");
    return file_read(AT_FDCWD, "/etc/resolv.conf", RESOLV_MAX, &text, NULL, NULL) < 0 ? NULL : text;
}

/* --- While it runs --- */

static void status(const struct guest *guest, struct guest_status *status)
{
    static const enum guest_state states[] = {[STATE_CREATING] = GUEST_CREATED,
                                              [STATE_CREATED] = GUEST_CREATED,
                                              [STATE_RUNNING] = GUEST_RUNNING,
                                              [STATE_PAUSED] = GUEST_PAUSED,
                                              [STATE_STOPPED] = GUEST_EXITED};
    struct state state;

    if (state_open(&state, guest->states, guest->name, false, NULL) < 0)
        return;
    status->state = states[state_status(&state)];
    status->pid = status->state == GUEST_EXITED ? 0 : state.pid;
    state_release(&state);
}

/* As the first process sees it: where it is mounted, others may not look. */
static int open_users(const struct guest *guest, const struct guest_status *status)
{
    char path[64];

    (void)guest;
    snprintf(path, sizeof(path), "/proc/%d/root", (int)status->pid);
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Who made the user namespace may enter it, and then look into what is in it. */
static int open_root(const struct guest *guest, const struct guest_status *status,
                     struct error *err)
{
    AUTO_CLOSE int users = -1;
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)status->pid);
    if (geteuid() != 0 && ((users = open(path, O_RDONLY | O_CLOEXEC)) < 0 ||
                           setns(users, CLONE_NEWUSER) < 0))
        return error_system(err, errno, "cannot enter the user namespace of %s", guest->name);
    snprintf(path, sizeof(path), "/proc/%d/root", (int)status->pid);
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_system(err, errno, "cannot open the root of %s", guest->name) : fd;
}

/* What is mounted there while it runs; not where it never was. */
static int mount_volume(const json_t *volume, struct path_root *root, struct error *err)
{
    const char *source = json_string_value(json_object_get(volume, "source"));
    struct mount_attr fixed = {.attr_set = MOUNT_ATTR_RDONLY};
    AUTO_CLOSE int tree = -1, target = -1;

    target = path_open(root, json_string_value(json_object_get(volume, "target")), O_PATH);
    if (target < 0)
        return 0;
    tree = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0 ||
        (json_is_true(json_object_get(volume, "readOnly")) &&
         mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &fixed, sizeof(fixed)) < 0) ||
        move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return error_system(err, errno, "cannot mount the volume %s", source);
    return 0;
}

static int mount_root(const struct guest *guest, struct store *store, struct error *err)
{
    struct manifest manifest = {0};
    struct image_config config = {0};
    AUTO_CLOSE int fd = -1;
    struct path_root root;
    json_t *volume;
    size_t i;
    int r = guest_read_image(guest, store, &manifest, &config, err);

    if (r == 0)
        r = image_unpack(store, &manifest, &config, err);
    if (r == 0)
        r = root_mount(guest, store, &config, err);
    image_config_release(&config);
    manifest_release(&manifest);
    if (r < 0)
        return r;
    fd = openat(guest->fd, "rootfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, errno, "cannot open the root of %s", guest->name);
    root = (struct path_root){.fd = fd};
    json_array_foreach(json_object_get(guest->record, "volumes"), i, volume)
    {
        r = mount_volume(volume, &root, err);
        if (r < 0)
            return r;
    }
    return steal_fd(&fd);
}

static int exec(const struct guest *guest, const char *text, bool terminal, const struct log *log,
                struct error *err)
{
    struct container_options options = place(guest, log);
    struct process process = {0};
    struct relay *relay = NULL;
    struct field_store store;
    pid_t pid;
    int r = process_read(&process, &store, text, strlen(text), err);

    if (r < 0)
        return r;
    r = relay_open(terminal, &relay, &options.console_fd, err);
    if (r == 0)
        r = container_exec(&options, &process, NULL, false, &pid, err);
    if (options.console_fd >= 0)
        close(options.console_fd);
    field_release(&store);
    if (r == 0)
        r = relay_run(relay, pid, err);
    relay_close(relay);
    return r;
}

static int send_signal(const struct guest *guest, const struct guest_status *status, int signal,
                       struct error *err)
{
    const struct container_options options = place(guest, NULL);

    (void)status;
    return container_kill(&options, signal, false, err);
}

static int freeze(const struct guest *guest, const struct guest_status *status, bool pause,
                  struct error *err)
{
    const struct container_options options = place(guest, NULL);

    (void)status;
    return container_pause(&options, pause, err);
}

static int stats(const struct guest *guest, const struct guest_status *status, json_t **ret_stats,
                 struct error *err)
{
    const struct container_options options = place(guest, NULL);
    struct cgroup cgroup = {0};
    struct state state;
    json_t *tree;
    int r = container_open(&options, &state, &cgroup, err);

    (void)status;
    if (r < 0)
        return r;
    tree = cgroup_stats(&cgroup);
    cgroup_release(&cgroup);
    state_release(&state);
    if (!tree)
        return error_set(err, ENOMEM, "out of memory");
    *ret_stats = tree;
    return 0;
}

/* --- Processes --- */

static int print_processes(const struct guest *guest, const struct guest_status *status,
                           const char *const *columns, FILE *out, struct error *err)
{
    const struct container_options options = place(guest, NULL);
    struct processes processes = {.first = status->pid};
    AUTO_CLOSE int users = -1;
    AUTO_FREE pid_t *pids = NULL;
    int r = container_pids(&options, &pids, &processes.count, err);

    if (r < 0)
        return r;
    processes.pids = pids;
    processes.root_fd = users = open_users(guest, status);
    if (columns)
        processes_print(&processes, columns, out);
    else
        processes_list(&processes, out);
    return 0;
}

const struct isolation container_isolation = {
    .name = "container",
    .check = check,
    .run = run,
    .clean = clean,
    .init = INIT_OF_CONTAINER,
    .resolver = resolver,
    .status = status,
    .open_users = open_users,
    .open_root = open_root,
    .mount_root = mount_root,
    .exec = exec,
    .kill = send_signal,
    .pause = freeze,
    .stats = stats,
    .print_processes = print_processes,
};
