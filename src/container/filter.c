#include "container/filter.h"

#include <ctype.h>
#include <fcntl.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/socket.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* The order is that of config.c's words. */
static const struct {
    const char *name;
    uint32_t action; /* with a number: SCMP_ACT_ERRNO(0) and SCMP_ACT_TRACE(0) */
    bool numbered;
} actions[] = {
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS, false},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP, false},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0), true},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0), true},
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW, false},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG, false},
    {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY, false},
};

static const char *const operators[] = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",        "SCMP_CMP_EQ",
    "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
};

static const char *const architectures[] = {
    "SCMP_ARCH_X86",     "SCMP_ARCH_X86_64",   "SCMP_ARCH_X32",         "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS",     "SCMP_ARCH_MIPS64",      "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",  "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",   "SCMP_ARCH_PPC64LE",  "SCMP_ARCH_S390",        "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",  "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64",
};

static const struct {
    const char *name;
    unsigned flag;
} flags[] = {
    {"SECCOMP_FILTER_FLAG_TSYNC", 0}, /* one thread: nothing to synchronize */
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
    {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
};

const char *filter_action_name(unsigned n)
{
    return n < ARRAY_SIZE(actions) ? actions[n].name : NULL;
}

const char *filter_operator_name(unsigned n)
{
    return n < ARRAY_SIZE(operators) ? operators[n] : NULL;
}

const char *filter_architecture_name(unsigned n)
{
    return n < ARRAY_SIZE(architectures) ? architectures[n] : NULL;
}

const char *filter_flag_name(unsigned n)
{
    return n < ARRAY_SIZE(flags) ? flags[n].name : NULL;
}

static uint32_t action_value(int action, const struct integer *errno_ret)
{
    uint32_t value = actions[action].action;

    if (actions[action].numbered) /* without a number it is EPERM */
        value |= errno_ret->given ? (uint32_t)errno_ret->value : EPERM;
    return value;
}

static int architectures_add(scmp_filter_ctx ctx, const struct seccomp *seccomp, struct error *err)
{
    char name[32];
    size_t i;

    FOR_EACH(architecture, seccomp->architectures)
    {
        uint32_t token;
        int r;

        if (strncmp(*architecture, "SCMP_ARCH_", 10) != 0)
            return error_set(err, EINVAL, "linux.seccomp.architectures: \"%.64s\" is not one",
                             *architecture);
        for (i = 0; (*architecture)[10 + i] && i < sizeof(name) - 1; i++)
            name[i] = (char)tolower((*architecture)[10 + i]);
        name[i] = 0;
        token = seccomp_arch_resolve_name(name);
        if (!token)
            return error_set(err, EINVAL, "linux.seccomp.architectures: %.64s is not known",
                             *architecture);
        r = seccomp_arch_add(ctx, token);
        if (r < 0 && r != -EEXIST)
            return error_system(err, -r, "linux.seccomp.architectures: cannot add %.64s",
                                *architecture);
    }
    return 0;
}

/* All conditions of a rule hold together, but those on the same argument are
 * alternatives, as runc reads them. */
static int rule_add(scmp_filter_ctx ctx, uint32_t action, int number,
                    const struct seccomp_rule *rule)
{
    struct scmp_arg_cmp conditions[6];
    unsigned count = 0, seen = 0;
    bool twice = false;
    int r = 0;

    FOR_EACH(arg, rule->args)
    {
        twice |= (seen & 1u << arg->index.value) != 0;
        seen |= 1u << arg->index.value;
    }
    FOR_EACH(arg, rule->args)
    {
        const struct scmp_arg_cmp condition = {
            .arg = (unsigned)arg->index.value,
            .op = (enum scmp_compare)arg->op,
            .datum_a = (uint64_t)arg->value.value,
            .datum_b = (uint64_t)arg->value_two.value,
        };
        if (!twice)
            conditions[count++] = condition;
        else if (r == 0 || r == -EEXIST)
            r = seccomp_rule_add_array(ctx, action, number, 1, &condition);
    }
    if (!twice)
        r = seccomp_rule_add_array(ctx, action, number, count, conditions);
    return r == -EEXIST ? 0 : r;
}

static int rules_add(scmp_filter_ctx ctx, const struct seccomp *seccomp, uint32_t default_action,
                     bool *ret_notifies, const struct log *log, struct error *err)
{
    FOR_EACH(rule, seccomp->syscalls)
    {
        size_t index = (size_t)(rule - seccomp->syscalls.items);
        uint32_t action = action_value(rule->action, &rule->errno_ret);

        FOR_EACH(arg, rule->args)
        if (arg->op == 0)
            return error_set(err, EINVAL, "linux.seccomp.syscalls[%zu].args: op is empty", index);
        if (action == SCMP_ACT_NOTIFY)
            *ret_notifies = true;
        if (action == default_action)
            continue;
        FOR_EACH(name, rule->names)
        {
            int number = seccomp_syscall_resolve_name(*name);
            int r;

            if (number == __NR_SCMP_ERROR) {
                log_debug(log, "seccomp: the system call %.64s is not known", *name);
                continue;
            }
            /* The runtime writes to say that the listener is there; nobody would answer. */
            if (action == SCMP_ACT_NOTIFY && strcmp(*name, "write") == 0)
                return error_set(err, EINVAL,
                                 "linux.seccomp.syscalls[%zu]: SCMP_ACT_NOTIFY cannot be used "
                                 "for write",
                                 index);
            r = rule_add(ctx, action, number, rule);
            if (r < 0)
                return error_system(err, -r, "linux.seccomp.syscalls[%zu]: cannot add %.64s", index,
                                    *name);
        }
    }
    return 0;
}

static int program_export(scmp_filter_ctx ctx, struct filter *program, struct error *err)
{
    AUTO_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);
    struct stat status;
    ssize_t n;
    int r;

    if (fd < 0)
        return error_system(err, errno, "cannot make a memory file");
    r = seccomp_export_bpf(ctx, fd);
    if (r < 0 || fstat(fd, &status) < 0)
        return error_system(err, r < 0 ? -r : errno, "cannot compile the seccomp filter");
    if (status.st_size > (off_t)(BPF_MAXINSNS * sizeof(*program->insns)))
        return error_set(err, E2BIG, "linux.seccomp: the filter has more than %d instructions",
                         BPF_MAXINSNS);
    program->insns = malloc((size_t)status.st_size);
    if (!program->insns)
        return error_set(err, ENOMEM, "out of memory");
    n = pread(fd, program->insns, (size_t)status.st_size, 0);
    if (n != status.st_size)
        return error_system(err, n < 0 ? errno : EIO, "cannot read the seccomp filter");
    program->count = (unsigned short)((size_t)n / sizeof(*program->insns));
    return 0;
}

static int flags_read(const struct seccomp *seccomp, unsigned *ret_flags, struct error *err)
{
    *ret_flags = 0;
    FOR_EACH(flag, seccomp->flags)
    {
        size_t i;

        for (i = 0; i < ARRAY_SIZE(flags) && strcmp(flags[i].name, *flag) != 0; i++)
            ;
        if (i == ARRAY_SIZE(flags))
            return error_set(err, EINVAL, "linux.seccomp.flags: \"%.64s\" is not known", *flag);
        *ret_flags |= flags[i].flag;
    }
    return 0;
}

int filter_compile(const struct seccomp *seccomp, struct filter *ret_filter, const struct log *log,
                   struct error *err)
{
    struct filter program = {0};
    uint32_t default_action = action_value(seccomp->default_action, &seccomp->default_errno_ret);
    scmp_filter_ctx ctx;
    int r;

    if (default_action == SCMP_ACT_NOTIFY)
        return error_set(err, EINVAL, "linux.seccomp.defaultAction: cannot be SCMP_ACT_NOTIFY");
    if ((r = flags_read(seccomp, &program.flags, err)) < 0)
        return r;
    ctx = seccomp_init(default_action);
    if (!ctx)
        return error_set(err, ENOMEM, "cannot begin a seccomp filter");
    r = architectures_add(ctx, seccomp, err);
    if (r == 0)
        r = rules_add(ctx, seccomp, default_action, &program.notifies, log, err);
    if (r == 0 && program.notifies && (!seccomp->listener_path || !seccomp->listener_path[0]))
        r = error_set(err, EINVAL, "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs one");
    if (r == 0)
        r = program_export(ctx, &program, err);
    seccomp_release(ctx);
    if (r < 0)
        filter_release(&program);
    else
        *ret_filter = program;
    return r;
}

void filter_release(struct filter *filter)
{
    free(filter->insns);
    *filter = (struct filter){0};
}

int filter_apply(const struct filter *filter, int *ret_listener, struct error *err)
{
    struct sock_fprog program = {.len = filter->count, .filter = filter->insns};
    unsigned how = filter->flags | (filter->notifies ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, how, &program);

    if (r < 0)
        return error_system(err, errno, "cannot load the seccomp filter");
    *ret_listener = filter->notifies ? (int)r : -1;
    return 0;
}

int filter_send_listener(const char *path, const char *metadata, pid_t pid, int listener,
                         const char *state_json, struct error *err)
{
    AUTO_CLOSE int process = pidfd_open(pid, 0), fd = -1, socket_fd = -1;
    AUTO_FREE char *text = NULL;
    json_t *message;
    int r;

    fd = process < 0 ? -1 : pidfd_getfd(process, listener, 0);
    if (fd < 0)
        return error_system(err, errno, "cannot take the seccomp listener");
    socket_fd = socket_connect(path, err);
    if (socket_fd < 0)
        return socket_fd;
    message = json_pack("{s:s, s:[s], s:i, s:s, s:o?}", "ociVersion", "1.2.0", "fds", "seccompFd",
                        "pid", (int)pid, "metadata", metadata ? metadata : "", "state",
                        json_loads(state_json, 0, NULL));
    text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = socket_send_fd(socket_fd, fd, text, strlen(text));
    return r < 0 ? error_system(err, -r, "cannot send the seccomp listener to %s", path) : 0;
}
