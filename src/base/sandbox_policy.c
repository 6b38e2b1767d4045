#include "base/sandbox_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define ALL  (1u << SANDBOX_MAIN | 1u << SANDBOX_VCPU | 1u << SANDBOX_TIMER | 1u << SANDBOX_IO)
#define MAIN (1u << SANDBOX_MAIN)
#define VCPU (1u << SANDBOX_VCPU)
#define IO   (1u << SANDBOX_IO)

/* What must hold of a call's arguments, besides its name. */
enum check {
    ANY,
    NO_EXEC,       /* memory that is not to be run */
    KVM_IOCTL,     /* an ioctl of KVM's */
    KVM_MESSAGE,   /* the one of them that sends an interrupt message */
    TTY_IOCTL,     /* a terminal's settings and size; not what types into it (TIOCSTI) */
    DISK_IOCTL,    /* the size of a block device */
    NETWORK_IOCTL, /* what waits in a socket; what a tap device offers */
    SETTINGS,      /* fcntl of a descriptor's flags and locks; not whom it signals (F_SETOWN) */
    INTERNET,      /* sockets of IP; not those that lead to processes or to the kernel */
    READ_ONLY,     /* a file that is there, for reading */
    NEW_THREAD,    /* clone of a thread, not a process */
    OWN_PROCESS,   /* signals to this process */
};

#define EXACTLY    UINT32_MAX /* the kernel takes such arguments as 32 bits */
#define IOCTL_TYPE 0xff00u    /* asm-generic/ioctl.h: bits 8 to 15 */

/* An argument of the call, masked, must have the value; of several rows any one will do.
 * OWN_PROCESS has its value when the filter is made. */
static const struct condition {
    enum check check;
    unsigned argument;
    uint32_t mask, value;
} conditions[] = {
    {NO_EXEC, 2, PROT_EXEC, 0},
    {KVM_IOCTL, 1, IOCTL_TYPE, KVMIO << 8},
    {KVM_MESSAGE, 1, EXACTLY, KVM_SIGNAL_MSI},
    {TTY_IOCTL, 1, EXACTLY, TCGETS},
    {TTY_IOCTL, 1, EXACTLY, TCSETS},
    {TTY_IOCTL, 1, EXACTLY, TCSETSW},
    {TTY_IOCTL, 1, EXACTLY, TCSETSF},
    {TTY_IOCTL, 1, EXACTLY, TIOCGWINSZ},
    {DISK_IOCTL, 1, EXACTLY, BLKGETSIZE64},
    {NETWORK_IOCTL, 1, EXACTLY, FIONREAD},
    {NETWORK_IOCTL, 1, EXACTLY, FIONBIO},
    {NETWORK_IOCTL, 1, EXACTLY, TUNSETOFFLOAD},
    {SETTINGS, 1, EXACTLY, F_DUPFD_CLOEXEC},
    {SETTINGS, 1, EXACTLY, F_GETFD},
    {SETTINGS, 1, EXACTLY, F_SETFD},
    {SETTINGS, 1, EXACTLY, F_GETFL},
    {SETTINGS, 1, EXACTLY, F_SETFL},
    {SETTINGS, 1, EXACTLY, F_OFD_GETLK},
    {SETTINGS, 1, EXACTLY, F_OFD_SETLK},
    {INTERNET, 0, EXACTLY, AF_INET},
    {INTERNET, 0, EXACTLY, AF_INET6},
    {READ_ONLY, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY},
    {NEW_THREAD, 0, CLONE_THREAD, CLONE_THREAD},
    {OWN_PROCESS, 0, EXACTLY, 0},
};

/* A thread inherits the filter of the thread that starts it, so the main
 * thread's calls include those of all that are started after sandbox_enter. */
static const struct rule {
    int call;
    unsigned threads;  /* who may */
    unsigned features; /* any of them makes it so; 0: always */
    enum check check;
} rules[] = {
    /* descriptors that are open */
    {SCMP_SYS(read), ALL, 0, ANY},
    {SCMP_SYS(write), ALL, 0, ANY},
    {SCMP_SYS(readv), ALL, 0, ANY},
    {SCMP_SYS(writev), ALL, 0, ANY},
    {SCMP_SYS(pread64), ALL, 0, ANY},
    {SCMP_SYS(close), ALL, 0, ANY},
    {SCMP_SYS(poll), ALL, 0, ANY},
    {SCMP_SYS(ppoll), ALL, 0, ANY},
    {SCMP_SYS(fstat), ALL, 0, ANY},
    {SCMP_SYS(newfstatat), MAIN | IO, 0, ANY},
    {SCMP_SYS(lseek), MAIN | IO, 0, ANY},
    {SCMP_SYS(fcntl), MAIN, 0, SETTINGS},
    {SCMP_SYS(epoll_wait), MAIN | IO, 0, ANY},
    {SCMP_SYS(epoll_pwait), MAIN | IO, 0, ANY},
    {SCMP_SYS(epoll_ctl), ALL, 0, ANY},
    {SCMP_SYS(timerfd_settime), ALL, 0, ANY},
    {SCMP_SYS(ioctl), MAIN, 0, TTY_IOCTL},
    /* memory */
    {SCMP_SYS(brk), ALL, 0, ANY},
    {SCMP_SYS(mmap), ALL, 0, NO_EXEC},
    {SCMP_SYS(mprotect), ALL, 0, NO_EXEC},
    {SCMP_SYS(mremap), ALL, 0, ANY},
    {SCMP_SYS(munmap), ALL, 0, ANY},
    {SCMP_SYS(madvise), ALL, 0, ANY},
    /* threads, signals, time */
    {SCMP_SYS(futex), ALL, 0, ANY},
    {SCMP_SYS(clone), MAIN | IO, 0, NEW_THREAD},
    {SCMP_SYS(clone3), MAIN | IO, 0, ANY}, /* see sandbox_policy_compile */
    {SCMP_SYS(set_robust_list), MAIN | IO, 0, ANY},
    {SCMP_SYS(rseq), MAIN | IO, 0, ANY},
    {SCMP_SYS(capset), MAIN | IO, 0, ANY},  /* sandbox_thread: */
    {SCMP_SYS(seccomp), MAIN | IO, 0, ANY}, /* both only ever take away */
    {SCMP_SYS(exit), ALL, 0, ANY},
    {SCMP_SYS(exit_group), ALL, 0, ANY},
    {SCMP_SYS(getpid), ALL, 0, ANY},
    {SCMP_SYS(gettid), ALL, 0, ANY},
    {SCMP_SYS(tgkill), ALL, 0, OWN_PROCESS},
    {SCMP_SYS(rt_sigprocmask), ALL, 0, ANY},
    {SCMP_SYS(rt_sigaction), ALL, 0, ANY},
    {SCMP_SYS(rt_sigreturn), ALL, 0, ANY},
    {SCMP_SYS(sigaltstack), ALL, 0, ANY},
    {SCMP_SYS(restart_syscall), ALL, 0, ANY},
    {SCMP_SYS(sched_yield), ALL, 0, ANY},
    {SCMP_SYS(membarrier), ALL, 0, ANY},
    {SCMP_SYS(clock_gettime), ALL, 0, ANY},
    {SCMP_SYS(clock_nanosleep), ALL, 0, ANY},
    {SCMP_SYS(getrandom), ALL, 0, ANY},
    /* engines */
    {SCMP_SYS(ioctl), MAIN | VCPU, SANDBOX_KVM, KVM_IOCTL},
    {SCMP_SYS(ioctl), ALL, SANDBOX_KVM, KVM_MESSAGE},
    {SCMP_SYS(eventfd2), MAIN | VCPU, SANDBOX_KVM, ANY}, /* an irqfd */
    {SCMP_SYS(mmap), MAIN | VCPU, SANDBOX_TRANSLATE, ANY},
    {SCMP_SYS(mprotect), MAIN | VCPU, SANDBOX_TRANSLATE, ANY},
    {SCMP_SYS(newfstatat), MAIN | VCPU, SANDBOX_TRANSLATE, ANY}, /* of --trace, by stdio */
    {SCMP_SYS(memfd_create), MAIN, SANDBOX_TRANSLATE, ANY},
    {SCMP_SYS(ftruncate), MAIN, SANDBOX_TRANSLATE, ANY},
    {SCMP_SYS(arch_prctl), MAIN | VCPU, SANDBOX_TRANSLATE, ANY}, /* the GS base */
    /* listening sockets */
    {SCMP_SYS(accept4), MAIN | IO, SANDBOX_SOCKETS, ANY},
    {SCMP_SYS(recvmsg), MAIN | IO, SANDBOX_SOCKETS, ANY},
    {SCMP_SYS(sendmsg), MAIN | IO, SANDBOX_SOCKETS, ANY},
    {SCMP_SYS(sendto), MAIN, SANDBOX_SOCKETS, ANY},
    {SCMP_SYS(recvfrom), MAIN, SANDBOX_SOCKETS, ANY},
    {SCMP_SYS(unlink), MAIN, SANDBOX_SOCKETS, ANY},
    /* disks */
    {SCMP_SYS(pwrite64), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(preadv), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(pwritev), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(preadv2), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(pwritev2), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(fsync), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(fdatasync), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(fallocate), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(ftruncate), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(sync_file_range), ALL, SANDBOX_DISK, ANY},
    {SCMP_SYS(ioctl), ALL, SANDBOX_DISK, DISK_IOCTL},
    {SCMP_SYS(io_uring_enter), ALL, SANDBOX_DISK, ANY}, /* its rings are restricted */
    /* networks: the user's network connects, binds and resolves on its own */
    {SCMP_SYS(socket), MAIN | IO, SANDBOX_NETWORK, INTERNET},
    {SCMP_SYS(connect), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(unlink), MAIN, SANDBOX_NETWORK, ANY}, /* the socket of a switch */
    {SCMP_SYS(bind), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(listen), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(accept), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(accept4), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(shutdown), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(getsockname), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(getpeername), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(getsockopt), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(setsockopt), MAIN | IO, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(sendto), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(sendmsg), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(sendmmsg), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(recvfrom), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(recvmsg), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(recvmmsg), ALL, SANDBOX_NETWORK, ANY},
    {SCMP_SYS(ioctl), MAIN | IO, SANDBOX_NETWORK, NETWORK_IOCTL},
    {SCMP_SYS(fcntl), ALL, SANDBOX_NETWORK, SETTINGS},
    {SCMP_SYS(openat), MAIN | IO, SANDBOX_NETWORK, READ_ONLY}, /* /etc/resolv.conf */
    /* shared directories: below the kept ones */
    {SCMP_SYS(openat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(openat2), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(newfstatat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(statx), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fstatfs), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(statfs), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(getdents64), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(readlinkat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(mkdirat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(mknodat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(linkat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(symlinkat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(unlinkat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(renameat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(renameat2), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(faccessat2), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fchmodat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fchownat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fchmod), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fchown), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(utimensat), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fgetxattr), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fsetxattr), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(flistxattr), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(pwrite64), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(preadv), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(pwritev), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(ftruncate), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fallocate), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fsync), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fdatasync), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(fcntl), ALL, SANDBOX_SHARE, SETTINGS},
    {SCMP_SYS(dup), ALL, SANDBOX_SHARE, ANY},
    {SCMP_SYS(flock), ALL, SANDBOX_SHARE, ANY},
};

static int add_rule(scmp_filter_ctx filter, const struct rule *rule)
{
    int r = 0;

    if (rule->check == ANY)
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, rule->call, 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(conditions); i++) {
        const struct condition *c = &conditions[i];
        uint32_t value = c->value;

        if (c->check != rule->check)
            continue;
        if (c->check == OWN_PROCESS)
            value = (uint32_t)getpid();
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, rule->call, 1,
                             SCMP_CMP(c->argument, SCMP_CMP_MASKED_EQ, c->mask, value));
    }
    return r;
}

static int add_rules(scmp_filter_ctx filter, enum sandbox_thread kind, unsigned features)
{
    int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(rules); i++) {
        const struct rule *rule = &rules[i];

        if (!(rule->threads & 1u << kind) || (rule->features && !(rule->features & features)))
            continue;
        /* clone3 hands its flags over in memory, where a filter cannot look: as
         * on a kernel without it, the C library takes clone. */
        r = rule->call == SCMP_SYS(clone3)
                ? seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), rule->call, 0)
                : add_rule(filter, rule);
    }
    return r;
}

/* The filter as libseccomp writes it to a file. */
static int export_filter(scmp_filter_ctx filter, struct sock_fprog *ret_program)
{
    AUTO_CLOSE int fd = memfd_create("filter", MFD_CLOEXEC);
    AUTO_FREE void *bytes = NULL;
    struct stat status;
    int r;

    if (fd < 0)
        return -errno;
    r = seccomp_export_bpf(filter, fd);
    if (r < 0)
        return r;
    if (fstat(fd, &status) < 0)
        return -errno;
    bytes = malloc((size_t)status.st_size);
    if (!bytes || pread(fd, bytes, (size_t)status.st_size, 0) != status.st_size)
        return -ENOMEM;
    ret_program->len = (unsigned short)((size_t)status.st_size / sizeof(struct sock_filter));
    ret_program->filter = steal_pointer(&bytes);
    return 0;
}

int sandbox_policy_compile(enum sandbox_thread kind, unsigned features,
                           struct sock_fprog *ret_program, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = filter ? add_rules(filter, kind, features) : -ENOMEM;

    if (r == 0)
        r = export_filter(filter, ret_program);
    if (filter)
        seccomp_release(filter);
    return r < 0 ? error_system(err, -r, "cannot make the sandbox's filter of system calls") : 0;
}
