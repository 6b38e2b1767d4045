#include "container/namespace.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/file.h"

#ifndef NS_GET_NSTYPE
#define NS_GET_NSTYPE _IO(0xb7, 0x3) /* ioctl_ns(2) */
#endif

enum { MAP_BYTES = 4096 }; /* the kernel takes less than a page */

static const struct {
    const char *name; /* in config.json */
    const char *file; /* in /proc/PID/ns */
    unsigned flag;
} namespaces[NAMESPACE_TYPES] = {
    [NAMESPACE_PID] = {"pid", "pid", CLONE_NEWPID},
    [NAMESPACE_NETWORK] = {"network", "net", CLONE_NEWNET},
    [NAMESPACE_MOUNT] = {"mount", "mnt", CLONE_NEWNS},
    [NAMESPACE_IPC] = {"ipc", "ipc", CLONE_NEWIPC},
    [NAMESPACE_UTS] = {"uts", "uts", CLONE_NEWUTS},
    [NAMESPACE_USER] = {"user", "user", CLONE_NEWUSER},
    [NAMESPACE_CGROUP] = {"cgroup", "cgroup", CLONE_NEWCGROUP},
    [NAMESPACE_TIME] = {"time", "time", CLONE_NEWTIME},
};

const char *namespace_name(enum namespace_type type)
{
    return namespaces[type].name;
}

unsigned namespace_flag(enum namespace_type type)
{
    return namespaces[type].flag;
}

static void set_clear(struct namespace_set *set)
{
    set->new_flags = 0;
    for (size_t i = 0; i < NAMESPACE_TYPES; i++)
        set->join_fds[i] = -1;
}

static bool namespace_is_own(enum namespace_type type, int fd)
{
    char path[64];
    struct stat theirs, own;

    snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[type].file);
    return fstat(fd, &theirs) == 0 && stat(path, &own) == 0 && theirs.st_ino == own.st_ino &&
           theirs.st_dev == own.st_dev;
}

static int namespace_open(const struct namespace *namespace, int *ret_fd, struct error *err)
{
    AUTO_CLOSE int fd = open(namespace->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum namespace_type type = (enum namespace_type) namespace->type;

    if (fd < 0)
        return error_system(err, errno, "cannot open the namespace %.256s", namespace->path);
    if (ioctl(fd, NS_GET_NSTYPE) != (int)namespaces[type].flag)
        return error_set(err, EINVAL, "%.256s is not a namespace of type \"%s\"", namespace->path,
                         namespaces[type].name);
    /* Its root is changed, and with it that of everybody in there. */
    if (type == NAMESPACE_MOUNT && namespace_is_own(type, fd))
        return error_set(err, EINVAL,
                         "%.256s is the mount namespace of the runtime itself: to stay in it, "
                         "leave \"mount\" out of linux.namespaces",
                         namespace->path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int namespace_set_open(struct namespace_set *set, const struct config *config, struct error *err)
{
    int r = 0;

    set_clear(set);
    FOR_EACH(namespace, config->linux_->namespaces)
    {
        if (!namespace->path)
            set->new_flags |= namespaces[namespace->type].flag;
        else if (r == 0)
            r = namespace_open(namespace, &set->join_fds[namespace->type], err);
    }
    if (r < 0)
        namespace_set_close(set);
    return r;
}

int namespace_set_open_pid(struct namespace_set *set, pid_t pid, struct error *err)
{
    char path[64], own_path[64];
    struct stat theirs, own;

    set_clear(set);
    for (size_t i = 0; i < NAMESPACE_TYPES; i++) {
        snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, namespaces[i].file);
        snprintf(own_path, sizeof(own_path), "/proc/self/ns/%s", namespaces[i].file);
        if (stat(own_path, &own) < 0) /* a kernel without this type */
            continue;
        if (stat(path, &theirs) < 0)
            goto fail;
        if (theirs.st_ino == own.st_ino && theirs.st_dev == own.st_dev)
            continue;
        set->join_fds[i] = open(path, O_RDONLY | O_CLOEXEC);
        if (set->join_fds[i] < 0)
            goto fail;
    }
    return 0;
fail:
    error_system(err, errno, "cannot open %s", path);
    namespace_set_close(set);
    return err ? -err->code : -EINVAL;
}

void namespace_set_close(struct namespace_set *set)
{
    for (size_t i = 0; i < NAMESPACE_TYPES; i++) {
        if (set->join_fds[i] >= 0)
            close(set->join_fds[i]);
        set->join_fds[i] = -1;
    }
}

bool namespace_needs_helper(const struct namespace_set *set)
{
    return set->join_fds[NAMESPACE_PID] >= 0 || set->join_fds[NAMESPACE_USER] >= 0;
}

int namespace_join(const struct namespace_set *set, unsigned mask, struct error *err)
{
    static const enum namespace_type order[] = {
        NAMESPACE_USER, NAMESPACE_PID,  NAMESPACE_CGROUP,  NAMESPACE_IPC,
        NAMESPACE_UTS,  NAMESPACE_TIME, NAMESPACE_NETWORK, NAMESPACE_MOUNT,
    };

    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        int fd = set->join_fds[order[i]];

        if (fd >= 0 && mask & 1u << order[i] && setns(fd, (int)namespaces[order[i]].flag) < 0)
            return error_system(err, errno, "cannot join the namespace of type \"%s\"",
                                namespaces[order[i]].name);
    }
    return 0;
}

int namespace_enter_time(const struct time_offsets *offsets, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    char text[128] = "";
    int used = 0;

    if (unshare(CLONE_NEWTIME) < 0)
        return error_system(err, errno, "cannot make a time namespace");
    if (offsets && offsets->monotonic)
        used = snprintf(text, sizeof(text), "monotonic %lld %lld\n",
                        (long long)offsets->monotonic->secs.value,
                        (long long)offsets->monotonic->nanosecs.value);
    if (offsets && offsets->boottime)
        snprintf(text + used, sizeof(text) - (size_t)used, "boottime %lld %lld\n",
                 (long long)offsets->boottime->secs.value,
                 (long long)offsets->boottime->nanosecs.value);
    if (text[0]) {
        int r = file_put(AT_FDCWD, "/proc/self/timens_offsets", text, err);
        if (r < 0)
            return r;
    }
    fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWTIME) < 0)
        return error_system(err, errno, "cannot enter the new time namespace");
    return 0;
}

static int map_format(const id_map_list *map, char *text, size_t size, struct error *err)
{
    size_t used = 0;

    FOR_EACH(entry, *map)
    {
        int n = snprintf(text + used, size - used, "%lld %lld %lld\n",
                         (long long)entry->container_id.value, (long long)entry->host_id.value,
                         (long long)entry->size.value);
        used += (size_t)n;
        if (used >= size)
            return error_set(err, E2BIG, "the id mappings are longer than %zu bytes", size);
    }
    return 0;
}

/* newuidmap PID CONTAINER HOST SIZE ...; the program checks /etc/subuid. */
static int map_run(const char *program, pid_t pid, const id_map_list *map, struct error *err)
{
    AUTO_FREE char *text = NULL;
    AUTO_FREE char **argv = NULL;
    size_t n = 0;
    pid_t child;
    int status;

    text = calloc(map->count + 1, 3 * 24);
    argv = calloc(3 * map->count + 3, sizeof(*argv));
    if (!text || !argv)
        return error_set(err, ENOMEM, "out of memory");
    argv[n++] = (char *)(uintptr_t)program;
    argv[n++] = text;
    snprintf(text, 24, "%d", pid);
    FOR_EACH(entry, *map)
    {
        const int64_t numbers[] = {entry->container_id.value, entry->host_id.value,
                                   entry->size.value};
        for (size_t i = 0; i < 3; i++, n++) {
            argv[n] = text + 24 * n;
            snprintf(argv[n], 24, "%lld", (long long)numbers[i]);
        }
    }
    child = fork();
    if (child == 0) {
        int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC); /* its words are ours to say */

        if (quiet >= 0)
            dup2(quiet, STDERR_FILENO);
        execvp(program, argv);
        _exit(127);
    }
    if (child < 0)
        return error_system(err, errno, "cannot start %s", program);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return error_set(err, ENOENT, "%s is needed for these id mappings, but not installed",
                         program);
    return error_set(err, EPERM, "%s refused the id mappings; see /etc/subuid and /etc/subgid",
                     program);
}

static bool map_is_own(const id_map_list *map, int64_t id)
{
    return map->count == 1 && map->items[0].size.value == 1 && map->items[0].host_id.value == id;
}

int namespace_write_id_maps(pid_t pid, const id_map_list *uids, const id_map_list *gids,
                            struct error *err)
{
    char path[64], text[MAP_BYTES];
    bool privileged = geteuid() == 0;
    int r;

    snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
    if (privileged || map_is_own(gids, getegid())) {
        if (!privileged) {
            /* user_namespaces(7): without privileges groups must be given up first. */
            snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
            if ((r = file_put(AT_FDCWD, path, "deny", err)) < 0)
                return r;
            snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
        }
        r = map_format(gids, text, sizeof(text), err);
        if (r == 0)
            r = file_put(AT_FDCWD, path, text, err);
    } else {
        r = map_run("newgidmap", pid, gids, err);
    }
    if (r < 0)
        return r;
    if (!privileged && !map_is_own(uids, geteuid()))
        return map_run("newuidmap", pid, uids, err);
    snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
    r = map_format(uids, text, sizeof(text), err);
    return r < 0 ? r : file_put(AT_FDCWD, path, text, err);
}

int namespace_make_user(const id_map_list *uids, const id_map_list *gids, struct error *err)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    char path[64];
    pid_t pid;
    int fd = -1, r;

    pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0) {
        pause();
        _exit(0);
    }
    if (pid < 0)
        return error_system(err, errno, "cannot make a user namespace");
    r = namespace_write_id_maps(pid, uids, gids, err);
    if (r == 0) {
        snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            r = error_system(err, errno, "cannot open %s", path);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return r < 0 ? r : fd;
}

int64_t namespace_host_id(const id_map_list *map, int64_t container_id)
{
    FOR_EACH(entry, *map)
    {
        int64_t offset = container_id - entry->container_id.value;
        if (offset >= 0 && offset < entry->size.value)
            return entry->host_id.value + offset;
    }
    return -1;
}

int namespace_loopback_up(struct error *err)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return error_system(err, errno, "cannot bring up the loopback interface");
    return 0;
}
