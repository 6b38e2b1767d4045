#include "container/process.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/privilege.h"
#include "container/file.h"
#include "container/launch.h"
#include "container/program.h"
#include "container/sync.h"

#define IOPRIO_WHO_SELF 1 /* IOPRIO_WHO_PROCESS; 0: the calling one */

enum { KEYCTL_JOIN = 1 }; /* KEYCTL_JOIN_SESSION_KEYRING */

/* sched_setattr(2); libc has no words for it. */
struct schedule {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static const struct {
    const char *name;
    uint64_t flag;
} schedule_flags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", 0x01},  {"SCHED_FLAG_RECLAIM", 0x02},
    {"SCHED_FLAG_DL_OVERRUN", 0x04},     {"SCHED_FLAG_KEEP_POLICY", 0x08},
    {"SCHED_FLAG_KEEP_PARAMS", 0x10},    {"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20},
    {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40},
};

int process_prepare(struct process_plan *plan, const struct process *process,
                    const struct linux_config *linux_, const struct log *log, struct error *err)
{
    struct statfs status;

    *plan = (struct process_plan){.process = process, .linux_ = linux_, .proc_fd = -1};
    plan->unprivileged = !privilege_is_full();
    plan->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (plan->proc_fd < 0 || fstatfs(plan->proc_fd, &status) < 0)
        return error_system(err, errno, "cannot open /proc");
    if (status.f_type != PROC_SUPER_MAGIC)
        return error_set(err, EINVAL, "/proc is not the kernel's; mount it first");
    capability_parse(process->capabilities, &plan->capabilities, log);
    return linux_->seccomp ? filter_compile(linux_->seccomp, &plan->filter, log, err) : 0;
}

void process_release(struct process_plan *plan)
{
    filter_release(&plan->filter);
    if (plan->proc_fd >= 0)
        close(plan->proc_fd);
    plan->proc_fd = -1;
    free(plan->env);
    free(plan->home);
    free(plan->program);
}

void process_begin_session(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
}

/* --- Limits and priorities --- */

/* At last: a limit may be too tight for what comes before. */
static int rlimits_set(const struct process *process, struct error *err)
{
    FOR_EACH(limit, process->rlimits)
    {
        const struct rlimit value = {(rlim_t)limit->soft.value, (rlim_t)limit->hard.value};

        if (setrlimit((__rlimit_resource_t)limit->type, &value) < 0)
            return error_system(err, errno, "process.rlimits[%zu]: cannot be set",
                                (size_t)(limit - process->rlimits.items));
    }
    return 0;
}

static int scheduler_set(const struct scheduler *from, struct error *err)
{
    struct schedule schedule = {
        .size = sizeof(schedule),
        .policy = (uint32_t)from->policy,
        .nice = (int32_t)from->nice.value,
        .priority = (uint32_t)from->priority.value,
        .runtime = (uint64_t)from->runtime.value,
        .deadline = (uint64_t)from->deadline.value,
        .period = (uint64_t)from->period.value,
    };

    FOR_EACH(name, from->flags)
    {
        size_t i;

        for (i = 0; i < ARRAY_SIZE(schedule_flags); i++)
            if (strcmp(schedule_flags[i].name, *name) == 0)
                break;
        if (i == ARRAY_SIZE(schedule_flags))
            return error_set(err, EINVAL, "process.scheduler.flags: \"%.64s\" is not known", *name);
        schedule.flags |= schedule_flags[i].flag;
    }
    if (syscall(SYS_sched_setattr, 0, &schedule, 0) < 0)
        return error_system(err, errno, "process.scheduler: cannot be set");
    return 0;
}

static int priorities_set(const struct process_plan *plan, struct error *err)
{
    const struct process *process = plan->process;
    int r;

    if (process->scheduler && (r = scheduler_set(process->scheduler, err)) < 0)
        return r;
    if (process->io_priority) {
        int value = IOPRIO_PRIO_VALUE(process->io_priority->class,
                                      (int)process->io_priority->priority.value);
        if (syscall(SYS_ioprio_set, IOPRIO_WHO_SELF, 0, value) < 0)
            return error_system(err, errno, "process.ioPriority: cannot be set");
    }
    return 0;
}

/* --- Labels for the program to come --- */

static int label_set(const struct process_plan *plan, const char *file, const char *text,
                     struct error *err)
{
    int r = file_put(plan->proc_fd, file, text, err);

    if (r < 0)
        error_prepend(err, "cannot set the security label");
    return r;
}

static int labels_set(const struct process_plan *plan, struct error *err)
{
    const struct process *process = plan->process;
    char text[PATH_MAX];
    int r = 0;

    /* A host without the module has nothing that could confine. */
    if (process->apparmor_profile && process->apparmor_profile[0] &&
        access("/sys/module/apparmor/parameters/enabled", F_OK) == 0) {
        snprintf(text, sizeof(text), "exec %s", process->apparmor_profile);
        r = label_set(plan, "thread-self/attr/apparmor/exec", text, NULL);
        if (r < 0)
            r = label_set(plan, "thread-self/attr/exec", text, err);
    }
    if (r == 0 && process->selinux_label && process->selinux_label[0] &&
        access("/sys/fs/selinux/enforce", F_OK) == 0)
        r = label_set(plan, "thread-self/attr/exec", process->selinux_label, err);
    return r;
}

/* --- Ids --- */

static int user_set(const struct process_plan *plan, struct error *err)
{
    static const struct user root;
    const struct user *user = plan->process->user ? plan->process->user : &root;
    AUTO_FREE gid_t *groups = calloc(user->additional_gids.count + 1, sizeof(*groups));
    size_t count = 0;

    if (!groups)
        return error_set(err, ENOMEM, "out of memory");
    FOR_EACH(gid, user->additional_gids)
    groups[count++] = (gid_t)gid->value;
    umask(user->umask.given ? (mode_t)user->umask.value : 022);
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    /* A user namespace without privileges has setgroups(2) turned off for good. */
    if (setgroups(count, groups) < 0 && (count || !plan->unprivileged))
        return error_system(err, errno, "process.user.additionalGids: cannot be set");
    if (setresgid((gid_t)user->gid.value, (gid_t)user->gid.value, (gid_t)user->gid.value) < 0)
        return error_system(err, errno, "process.user.gid: cannot become %lld",
                            (long long)user->gid.value);
    if (setresuid((uid_t)user->uid.value, (uid_t)user->uid.value, (uid_t)user->uid.value) < 0)
        return error_system(err, errno, "process.user.uid: cannot become %lld",
                            (long long)user->uid.value);
    return 0;
}

/* Pipes and files handed in belong to the user now, so that /dev/stdout can be
 * opened again. Where that cannot be, it stays as it is. */
static void standard_descriptors_own(const struct process *process)
{
    uid_t uid = process->user ? (uid_t)process->user->uid.value : 0;
    struct stat status;

    for (int fd = 0; fd <= 2; fd++) {
        if (fstat(fd, &status) < 0 || status.st_uid == uid ||
            (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)))
            continue;
        if (fchown(fd, uid, (gid_t)-1) < 0)
            continue;
    }
}

/* --- The filter --- */

static int filter_load(struct process_plan *plan, int sync_fd, struct error *err)
{
    int listener, r = filter_apply(&plan->filter, &listener, err);

    filter_release(&plan->filter);
    if (r < 0 || listener < 0)
        return r;
    r = sync_send(sync_fd, SYNC_NOTIFY, listener);
    if (r < 0)
        return error_system(err, -r, "cannot report the seccomp listener");
    r = sync_expect(sync_fd, SYNC_NOTIFIED, NULL, err);
    close(listener);
    return r;
}

/* Without no_new_privs a filter is for who may administer to load (seccomp(2)): that right is
 * kept until then. */
static bool filter_is_privileged(const struct process_plan *plan)
{
    return plan->filter.insns && !plan->process->no_new_privileges;
}

static int privileges_drop(struct process_plan *plan, struct error *err)
{
    struct capability_sets sets = plan->capabilities;
    int r = capability_bound(&sets, err);

    if (filter_is_privileged(plan)) {
        sets.permitted |= 1ull << CAP_SYS_ADMIN;
        sets.effective |= 1ull << CAP_SYS_ADMIN;
    }
    if (r == 0)
        r = user_set(plan, err);
    if (r == 0)
        r = capability_apply(&sets, err);
    if (r == 0 && plan->process->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = error_system(err, errno, "cannot set no_new_privs");
    return r;
}

/* After all that a filter may deny. One that needs no privileges waits for the program, but
 * for a listener, which is the runtime's to send, and that does not wait so long. */
static int filter_enter(struct process_plan *plan, int sync_fd, struct error *err)
{
    bool privileged = filter_is_privileged(plan);
    int r;

    if (!privileged && !plan->filter.notifies)
        return 0;
    r = filter_load(plan, sync_fd, err);
    return r < 0 || !privileged ? r : capability_apply(&plan->capabilities, err);
}

/* --- The whole --- */

static int keyring_join(const char *name, struct error *err)
{
    if (!name || syscall(SYS_keyctl, KEYCTL_JOIN, name) >= 0 || errno == ENOSYS || errno == EPERM ||
        errno == EDQUOT)
        return 0;
    return error_system(err, errno, "cannot make a session keyring");
}

/* The working directory, never by a magic link to a descriptor that leads out
 * (CVE-2024-21626). */
static int directory_open(const struct process *process, int *ret_fd)
{
    struct path_root root = {.fd = AT_FDCWD};
    AUTO_CLOSE int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    root.fd = top;
    *ret_fd = top < 0 ? -errno : path_open(&root, process->cwd, O_PATH | O_DIRECTORY);
    return *ret_fd < 0 ? *ret_fd : 0;
}

/* As the user, who must be allowed to be there. */
static int directory_enter(const struct process *process, int fd, struct error *err)
{
    AUTO_CLOSE int later = -1;
    char path[PATH_MAX];

    /* Root may be kept out of it (NFS, FUSE) where the user is not. */
    if (fd < 0) {
        int r = directory_open(process, &later);
        if (r < 0)
            return error_system(err, -r, "process.cwd: cannot open %.128s", process->cwd);
        fd = later;
    }
    if (fchdir(fd) < 0)
        return error_system(err, errno, "process.cwd: cannot enter %.128s", process->cwd);
    if (!getcwd(path, sizeof(path)) || path[0] != '/')
        return error_set(err, ENOENT, "process.cwd: %.128s is outside the root", process->cwd);
    return 0;
}

/* Nothing but what was asked for goes along with the program (CVE-2024-21626). */
static int descriptors_close(const struct process_plan *plan, struct error *err)
{
    if (syscall(SYS_close_range, 3 + plan->preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return error_system(err, errno, "cannot close the runtime's descriptors");
    return 0;
}

int process_become(struct process_plan *plan, bool is_exec, int sync_fd, struct error *err)
{
    const struct process *process = plan->process;
    const struct cpu_affinity *affinity = process->exec_cpu_affinity;
    AUTO_CLOSE int directory = -1;
    int r;

    if (plan->linux_->personality && plan->linux_->personality->domain &&
        personality(PER_LINUX32) < 0)
        return error_system(err, errno, "linux.personality: cannot be set");
    if ((r = keyring_join(plan->keyring, err)) < 0 || (r = priorities_set(plan, err)) < 0 ||
        (r = labels_set(plan, err)) < 0)
        return r;
    if (is_exec && affinity && affinity->final && affinity->final[0] &&
        (r = launch_set_cpus(affinity->final, err)) < 0)
        return r;
    standard_descriptors_own(process);
    r = program_environment(process, &plan->env, &plan->home, err);
    if (r < 0)
        return r;
    if (directory_open(process, &directory) == -ENOENT)
        return error_system(err, ENOENT, "process.cwd: cannot open %.128s", process->cwd);
    r = privileges_drop(plan, err);
    if (r == 0)
        r = directory_enter(process, directory, err);
    if (r == 0)
        r = program_find(process->args.items[0], plan->env, &plan->program, err);
    if (r == 0)
        r = rlimits_set(process, err);
    if (r == 0)
        r = descriptors_close(plan, err);
    return r < 0 ? r : filter_enter(plan, sync_fd, err);
}

int process_take_terminal(const struct process *process, int terminal, struct error *err)
{
    const struct console_size *size = process->console_size;
    uid_t uid = process->user ? (uid_t)process->user->uid.value : 0;

    if (size && size->width.given && size->height.given) {
        const struct winsize window = {.ws_row = (unsigned short)size->height.value,
                                       .ws_col = (unsigned short)size->width.value};
        if (ioctl(terminal, TIOCSWINSZ, &window) < 0)
            return error_system(err, errno, "process.consoleSize: cannot be set");
    }
    if (fchown(terminal, uid, (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL)
        return error_system(err, errno, "cannot give the terminal to user %u", uid);
    if (ioctl(terminal, TIOCSCTTY, 0) < 0)
        return error_system(err, errno, "cannot take the terminal for the session");
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(terminal, fd) < 0)
            return error_system(err, errno, "cannot take the terminal as descriptor %d", fd);
    close(terminal);
    return 0;
}

int process_execute(struct process_plan *plan, struct error *err)
{
    char *const *argv = (char *const *)(uintptr_t)plan->process->args.items;
    int listener, r;

    if (plan->filter.insns && (r = filter_apply(&plan->filter, &listener, err)) < 0)
        return r;
    execve(plan->program, argv, plan->env);
    return program_error(err, errno, plan->program);
}
