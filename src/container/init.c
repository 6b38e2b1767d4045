#include "container/init.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/device.h"
#include "container/file.h"
#include "container/hook.h"
#include "container/namespace.h"
#include "container/socket.h"
#include "container/sync.h"

/* A file below /proc. The runtime's /proc is covered in parts, or read-only, where it runs in a
 * container itself: then by one of this process's own, which nothing is mounted on. */
static int proc_open(const struct init *init, const char *path)
{
    AUTO_CLOSE int context = -1, proc = -1;
    int fd = path_open_beneath(init->process.proc_fd, path, O_WRONLY);

    if (fd != -EXDEV && fd != -EROFS)
        return fd;
    context = fsopen("proc", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    proc =
        fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return proc < 0 ? -errno : path_open_beneath(proc, path, O_WRONLY);
}

/* "a.b.c" or "a/b/c" is a file below /proc/sys; a "/" inside a dotted name is a dot of
 * the file's (sysctl(8)). config_read has checked that it belongs to a namespace. */
static int sysctl_set(const struct init *init, const struct pair *sysctl, struct error *err)
{
    const char *separator = strpbrk(sysctl->key, "./");
    bool dotted = separator && *separator == '.';
    char path[PATH_MAX];
    AUTO_CLOSE int fd = -1;
    size_t used;

    used = (size_t)snprintf(path, sizeof(path), "sys/%s", sysctl->key);
    if (used >= sizeof(path))
        return error_set(err, ENAMETOOLONG, "linux.sysctl.%.64s...: is too long", sysctl->key);
    for (char *at = path + 4; dotted && *at; at++)
        *at = *at == '.' ? '/' : *at == '/' ? '.' : *at;
    fd = proc_open(init, path);
    if (fd < 0)
        return error_system(err, -fd, "linux.sysctl.%.64s: cannot be opened", sysctl->key);
    if (write(fd, sysctl->value, strlen(sysctl->value)) < 0)
        return error_system(err, errno, "linux.sysctl.%.64s: cannot be set to \"%.64s\"",
                            sysctl->key, sysctl->value);
    return 0;
}

static int namespaces_fill(const struct init *init, struct error *err)
{
    const struct config *config = init->config;
    const struct namespace *network = config_namespace(config, NAMESPACE_NETWORK);
    int r = 0;

    if (config->hostname && config->hostname[0] &&
        sethostname(config->hostname, strlen(config->hostname)) < 0)
        return error_system(err, errno, "hostname: cannot be set to \"%.64s\"", config->hostname);
    if (config->domainname && config->domainname[0] &&
        setdomainname(config->domainname, strlen(config->domainname)) < 0)
        return error_system(err, errno, "domainname: cannot be set to \"%.64s\"",
                            config->domainname);
    if (network && !network->path)
        r = namespace_loopback_up(err);
    FOR_EACH(sysctl, config->linux_->sysctl)
    if (r == 0)
        r = sysctl_set(init, sysctl, err);
    return r;
}

static int hooks_run(const struct init *init, const hook_list *hooks, const char *kind,
                     enum state_status status, struct error *err)
{
    AUTO_FREE char *text = NULL;

    if (!hooks->count)
        return 0;
    init->state->pid = getpid();
    text = state_json(init->state, status);
    return text ? hook_run(hooks, kind, text, err) : error_set(err, ENOMEM, "out of memory");
}

/* The hooks of the runtime's namespace run there, then those of the container's. */
static int hooks_create(const struct init *init, int sync_fd, struct error *err)
{
    const struct hooks *hooks = init->config->hooks;
    int r;

    if (!hooks)
        return 0;
    r = sync_send(sync_fd, SYNC_MOUNTED, 0);
    if (r < 0)
        return error_system(err, -r, "cannot reach the runtime");
    r = sync_expect(sync_fd, SYNC_HOOKED, NULL, err);
    if (r == 0)
        r = hooks_run(init, &hooks->create_container, "createContainer", STATE_CREATING, err);
    return r;
}

static int terminal_make(struct init *init, int *ret_slave, struct error *err)
{
    static const char name[] = "/dev/ptmx";
    AUTO_CLOSE int master = -1, slave = -1;
    int r = device_open_terminal(&init->rootfs.root, &master, &slave, err);

    if (r == 0)
        r = device_bind_console(&init->rootfs.root, slave, err);
    if (r < 0)
        return r;
    r = socket_send_fd(init->console_fd, master, name, sizeof(name) - 1);
    if (r < 0)
        return error_system(err, -r, "cannot send the terminal to the console socket");
    *ret_slave = steal_fd(&slave);
    return 0;
}

/* A working directory that is not there is made, as other runtimes do. */
static int directory_make(struct init *init, struct error *err)
{
    AUTO_CLOSE int fd =
        path_make_directory(&init->rootfs.root, init->config->process->cwd, 0755, err);

    return fd < 0 ? fd : 0;
}

static int root_open(struct init *init, struct error *err)
{
    AUTO_CLOSE int bundle = -1;
    bool no_pivot = init->rootfs.no_pivot;
    const struct cgroup *cgroup = init->rootfs.cgroup;
    int r;

    if (!init->bundle)
        return 0;
    bundle = open(init->bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (bundle < 0)
        return error_system(err, errno, "cannot open the bundle %.256s", init->bundle);
    r = rootfs_open(&init->rootfs, init->config, cgroup, bundle, err);
    init->rootfs.no_pivot = no_pivot;
    return r;
}

static int container_build(struct init *init, int sync_fd, int *ret_terminal, struct error *err)
{
    int r = namespaces_fill(init, err);

    if (r == 0)
        r = root_open(init, err);
    if (r == 0)
        r = rootfs_build(&init->rootfs, err);
    if (r == 0)
        directory_make(init, NULL); /* what is wrong with it shows when it is entered */
    if (r == 0 && init->config->process->terminal)
        r = terminal_make(init, ret_terminal, err);
    if (r == 0)
        r = hooks_create(init, sync_fd, err);
    if (r == 0)
        r = rootfs_enter(&init->rootfs, err);
    return r;
}

/* Sleep until `start`. Opened for writing too, the fifo never ends. */
static int start_wait(const struct init *init, struct error *err)
{
    char byte;
    ssize_t n;

    do
        n = read(init->fifo_fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : error_system(err, n < 0 ? errno : EPIPE, "cannot wait for the start");
}

static int program_start(struct init *init, struct error *err)
{
    int r = start_wait(init, err);

    if (r == 0 && init->config->hooks)
        r = hooks_run(init, &init->config->hooks->start_container, "startContainer", STATE_CREATED,
                      err);
    return r < 0 ? r : process_execute(&init->process, err);
}

int init_run(int sync_fd, void *opaque, struct error *err)
{
    struct init *init = opaque;
    AUTO_CLOSE int terminal = -1;
    struct error why = {0};
    int r;

    close(init->state->dir_fd); /* and with it a share in its lock */
    init->state->dir_fd = -1;
    process_begin_session();
    r = container_build(init, sync_fd, &terminal, err);
    if (r == 0 && terminal >= 0)
        r = process_take_terminal(init->config->process, steal_fd(&terminal), err);
    if (r == 0)
        r = process_become(&init->process, false, sync_fd, err);
    if (r == 0 && (r = sync_send(sync_fd, SYNC_READY, 0)) < 0)
        r = error_system(err, -r, "cannot reach the runtime");
    /* A runtime that dies before the container is on record takes it along. */
    if (r == 0)
        r = sync_expect(sync_fd, SYNC_SAVED, NULL, err);
    if (r < 0)
        return r;
    close(sync_fd);
    program_start(init, &why);
    if (write(init->error_fd, why.text, strlen(why.text)) < 0)
        _exit(126);
    _exit(why.code == ENOENT ? 127 : 126);
}
