#include "container/launch.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "container/sync.h"

/* What the caller of clone3 and the new process share. */
struct birth {
    const struct launch *launch;
    int entries[CGROUP_TREES_MAX]; /* the v1 groups' files to enter by */
    int entry_count;
    int sync[2]; /* the runtime's end, the process's */
};

int launch_set_cpus(const char *list, struct error *err)
{
    cpu_set_t set;
    const char *at = list;

    CPU_ZERO(&set);
    while (*at) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;

        if (end == at)
            break;
        if (*end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
            if (end == at)
                break;
        }
        if (first > last || last >= CPU_SETSIZE || (*end && *end != ','))
            break;
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, &set);
        at = end + (*end == ',');
    }
    if (*at || CPU_COUNT(&set) == 0)
        return error_set(err, EINVAL, "\"%.64s\" is no list of CPUs", list);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return error_system(err, errno, "cannot run on the CPUs %.64s", list);
    return 0;
}

static pid_t clone_process(uint64_t flags, int exit_signal, int cgroup_fd)
{
    struct clone_args args = {.flags = flags, .exit_signal = (uint64_t)(unsigned)exit_signal};

    if (cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)(unsigned)cgroup_fd;
    }
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* Hard limits can be raised outside of a user namespace only; the process itself sets
 * what is wanted at last (process.c), and fails where this did not help. */
static void limits_raise(pid_t pid, const struct process *process)
{
    struct rlimit value;

    FOR_EACH(limit, process->rlimits)
    {
        __rlimit_resource_t type = (__rlimit_resource_t)limit->type;

        if (prlimit(pid, type, NULL, &value) < 0 || value.rlim_max >= (rlim_t)limit->hard.value)
            continue;
        value.rlim_max = (rlim_t)limit->hard.value;
        prlimit(pid, type, &value, NULL);
    }
}

/* In a user namespace the process is its root, where root is mapped. */
static void become_root(void)
{
    if (setresgid(0, 0, 0) == 0)
        setgroups(0, NULL);
    if (setresuid(0, 0, 0) < 0)
        return; /* the overflow id, with all capabilities */
}

static int enter_groups(struct birth *birth, struct error *err)
{
    const struct launch *launch = birth->launch;
    int r = launch->initial_cpus ? launch_set_cpus(launch->initial_cpus, err) : 0;

    limits_raise(0, launch->process);
    return r < 0 ? r : cgroup_enter(birth->entries, birth->entry_count, err);
}

/* A cgroup namespace begins at the group of who makes it: after entering. */
static int enter_late_namespaces(const struct launch *launch, struct error *err)
{
    unsigned flags = launch->namespaces->new_flags;

    if (flags & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
        return error_system(err, errno, "cannot make a cgroup namespace");
    if (flags & CLONE_NEWTIME)
        return namespace_enter_time(launch->linux_ ? launch->linux_->time_offsets : NULL, err);
    return 0;
}

static int process_live(struct birth *birth, bool helped, struct error *err)
{
    const struct launch *launch = birth->launch;
    const unsigned early = 1u << NAMESPACE_USER | 1u << NAMESPACE_PID;
    int r;

    /* Nothing may be said before the helper has said who was born. */
    if (helped)
        r = sync_expect(birth->sync[1], SYNC_ADOPTED, NULL, err);
    else
        r = enter_groups(birth, err);
    if (r == 0 && launch->namespaces->new_flags & CLONE_NEWUSER) {
        r = sync_expect(birth->sync[1], SYNC_MAPPED, NULL, err);
        if (r == 0)
            become_root();
    }
    if (r == 0)
        r = enter_late_namespaces(launch, err);
    if (r == 0)
        r = namespace_join(launch->namespaces, ~early, err);
    /* From here on the process is within the container's sight: not to be read or traced. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return r < 0 ? r : launch->run(birth->sync[1], launch->opaque, err);
}

static _Noreturn void process_run(struct birth *birth, bool helped)
{
    struct error err = {.code = ECANCELED};

    close(birth->sync[0]);
    process_live(birth, helped, &err);
    sync_send_error(birth->sync[1], &err);
    _exit(1);
}

/* Namespaces that the process's own clone makes. */
static uint64_t clone_flags(const struct launch *launch)
{
    return launch->namespaces->new_flags & ~(unsigned)(CLONE_NEWCGROUP | CLONE_NEWTIME);
}

static _Noreturn void helper_run(struct birth *birth)
{
    const struct launch *launch = birth->launch;
    struct error err = {0};
    pid_t pid = -1;

    close(birth->sync[0]);
    /* The container's processes see it, and its child, before the child can hide itself. A new
     * user namespace's maps could not be written then, but nobody is in there yet. */
    if (!(launch->namespaces->new_flags & CLONE_NEWUSER))
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (enter_groups(birth, &err) == 0 &&
        namespace_join(launch->namespaces, 1u << NAMESPACE_USER | 1u << NAMESPACE_PID, &err) == 0) {
        if (launch->namespaces->join_fds[NAMESPACE_USER] >= 0)
            become_root();
        pid = clone_process(clone_flags(launch) | CLONE_PARENT, 0, -1);
        if (pid == 0)
            process_run(birth, true);
        if (pid < 0)
            error_system(&err, errno, "cannot make a process in the container's namespaces");
    }
    if (pid < 0)
        sync_send_error(birth->sync[1], &err);
    else
        sync_send(birth->sync[1], SYNC_BORN, pid);
    _exit(pid < 0);
}

static int helper_wait(pid_t helper, struct birth *birth, pid_t *ret_pid, struct error *err)
{
    int r;

    close(birth->sync[1]);
    birth->sync[1] = -1;
    r = sync_expect(birth->sync[0], SYNC_BORN, ret_pid, err);
    if (r == 0 && (r = sync_send(birth->sync[0], SYNC_ADOPTED, 0)) < 0)
        r = error_system(err, -r, "cannot reach the new process");
    while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
        ;
    return r;
}

static int process_make(struct birth *birth, pid_t *ret_pid, struct error *err)
{
    const struct launch *launch = birth->launch;
    int cgroup_fd = cgroup_birth_fd(launch->cgroup);
    bool helper = namespace_needs_helper(launch->namespaces);
    pid_t pid = clone_process(helper ? 0 : clone_flags(launch), SIGCHLD, cgroup_fd);

    if (pid == 0) {
        if (helper)
            helper_run(birth);
        process_run(birth, false);
    }
    if (pid < 0)
        return error_system(err, errno, "cannot make the container's process");
    if (helper)
        return helper_wait(pid, birth, ret_pid, err);
    *ret_pid = pid;
    return 0;
}

/* Lowering it is for the host's root only, and rootless engines ask for it all the same. */
static int oom_score_write(const struct launch *launch, pid_t pid, struct error *err)
{
    char path[64], text[16];
    int r;

    if (!launch->process->oom_score_adj.given)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
    snprintf(text, sizeof(text), "%d", (int)launch->process->oom_score_adj.value);
    r = file_put(AT_FDCWD, path, text, err);
    return r == -EACCES && launch->cgroup->unprivileged ? 0 : r;
}

static int maps_write(const struct launch *launch, pid_t pid, int sync_fd, struct error *err)
{
    int r;

    if (!(launch->namespaces->new_flags & CLONE_NEWUSER))
        return 0;
    limits_raise(pid, launch->process);
    r = namespace_write_id_maps(pid, &launch->linux_->uid_mappings, &launch->linux_->gid_mappings,
                                err);
    if (r == 0 && (r = sync_send(sync_fd, SYNC_MAPPED, 0)) < 0)
        r = error_system(err, -r, "cannot reach the new process");
    return r;
}

int launch(const struct launch *launch, pid_t *ret_pid, int *ret_sync, struct error *err)
{
    struct birth birth = {.launch = launch, .sync = {-1, -1}};
    AUTO_CLOSE int sync_fd = -1;
    pid_t pid = -1;
    int r = sync_pair(birth.sync, err);

    if (r < 0)
        return r;
    sync_fd = birth.sync[0];
    birth.entry_count = cgroup_open_entries(launch->cgroup, birth.entries, err);
    r = birth.entry_count < 0 ? birth.entry_count : process_make(&birth, &pid, err);
    for (int i = 0; i < birth.entry_count; i++)
        close(birth.entries[i]);
    if (birth.sync[1] >= 0)
        close(birth.sync[1]);
    if (r == 0)
        r = oom_score_write(launch, pid, err);
    if (r == 0)
        r = maps_write(launch, pid, sync_fd, err);
    if (r < 0) {
        if (pid > 0) {
            kill(pid, SIGKILL);
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        }
        return r;
    }
    *ret_pid = pid;
    *ret_sync = steal_fd(&sync_fd);
    return 0;
}
