/* The sandbox lets a thread do its work and kills the process at anything else. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/sandbox.h"

/* Run fn in a process of its own, in a sandbox with features; its wait status. */
static int in_sandbox(unsigned features, int (*fn)(const struct sandbox *sandbox))
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct sandbox *sandbox;

        if (sandbox_create(features, NULL, &sandbox, NULL) < 0 || sandbox_enter(sandbox, NULL) < 0)
            _exit(99);
        _exit(fn(sandbox));
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void assert_passes(int status)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void assert_killed(int status)
{
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

static int ordinary_work(const struct sandbox *sandbox)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)sandbox;
    return memory == MAP_FAILED || munmap(memory, 4096) < 0 || write(1, "", 0) < 0;
}

static int opens_a_file(const struct sandbox *sandbox)
{
    (void)sandbox;
    return open("/etc/passwd", O_RDONLY) >= 0;
}

static int makes_a_socket(const struct sandbox *sandbox)
{
    (void)sandbox;
    return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int starts_a_program(const struct sandbox *sandbox)
{
    char *const none[] = {NULL};

    (void)sandbox;
    return execve("/bin/true", none, none) < 0;
}

static int starts_a_process(const struct sandbox *sandbox)
{
    (void)sandbox;
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0;
}

static int makes_code(const struct sandbox *sandbox)
{
    (void)sandbox;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}

static int gains_nothing(const struct sandbox *sandbox)
{
    (void)sandbox;
    return access("/etc/passwd", F_OK) == 0;
}

/* --- What code that has taken a thread over would try, and what that thread needs. Each is a
 * system call of three arguments. --- */

static const struct attempt {
    const char *what;
    unsigned features;
    long call;
    long arguments[3];
    bool allowed;
} attempts[] = {
    {"type into the terminal", 0, SYS_ioctl, {0, TIOCSTI}, false},
    {"type into the terminal, with disks", SANDBOX_DISK, SYS_ioctl, {0, TIOCSTI}, false},
    {"type into the terminal, with a network", SANDBOX_NETWORK, SYS_ioctl, {0, TIOCSTI}, false},
    {"type into the console", 0, SYS_ioctl, {0, TIOCLINUX}, false},
    {"take the terminal", 0, SYS_ioctl, {0, TIOCSCTTY}, false},
    {"ask the terminal's size", 0, SYS_ioctl, {0, TIOCGWINSZ}, true},
    {"send a disk commands of its own", SANDBOX_DISK, SYS_ioctl, {0, SG_IO}, false},
    {"ask the size of a disk", SANDBOX_DISK, SYS_ioctl, {0, (long)BLKGETSIZE64}, true},
    {"reconfigure a tap device", SANDBOX_NETWORK, SYS_ioctl, {0, (long)TUNSETIFF}, false},
    {"have a descriptor signal others", 0, SYS_fcntl, {0, F_SETOWN, 1}, false},
    {"choose the signal of a descriptor", 0, SYS_fcntl, {0, F_SETSIG, SIGKILL}, false},
    {"be told of others' files", SANDBOX_SHARE, SYS_fcntl, {0, F_SETLEASE, F_RDLCK}, false},
    {"read a descriptor's flags", 0, SYS_fcntl, {0, F_GETFL}, true},
    {"signal another process", 0, SYS_tgkill, {1, 1, 0}, false},
    {"signal any process", 0, SYS_kill, {-1, 0}, false},
    {"queue a signal", 0, SYS_rt_tgsigqueueinfo, {1, 1, SIGKILL}, false},
    {"make a socket of processes", SANDBOX_NETWORK, SYS_socket, {AF_UNIX, SOCK_STREAM, 0}, false},
    {"make one of the kernel's", SANDBOX_NETWORK, SYS_socket, {AF_NETLINK, SOCK_RAW, 0}, false},
    {"make one of frames", SANDBOX_NETWORK, SYS_socket, {AF_PACKET, SOCK_RAW, 0}, false},
    {"make one of IP", SANDBOX_NETWORK, SYS_socket, {AF_INET6, SOCK_DGRAM, 0}, true},
    {"make a file", SANDBOX_NETWORK, SYS_openat, {AT_FDCWD, 0, O_WRONLY | O_CREAT}, false},
    {"write a file", SANDBOX_NETWORK, SYS_openat, {AT_FDCWD, 0, O_RDWR}, false},
    {"read a file", SANDBOX_NETWORK, SYS_openat, {AT_FDCWD, 0, O_RDONLY}, true},
    {"trace a process", 0, SYS_ptrace, {0}, false},
    {"write another's memory", 0, SYS_process_vm_writev, {0}, false},
    {"change another's limits", 0, SYS_prlimit64, {1}, false},
    {"take another's descriptor", 0, SYS_pidfd_getfd, {0}, false},
    {"make a ring", SANDBOX_DISK, SYS_io_uring_setup, {1}, false},
    {"change a ring", SANDBOX_DISK, SYS_io_uring_register, {0}, false},
    {"enter namespaces", 0, SYS_setns, {0}, false},
    {"make namespaces", SANDBOX_SHARE, SYS_unshare, {0}, false},
    {"mount", SANDBOX_SHARE, SYS_mount, {0}, false},
    {"run a program in memory", SANDBOX_TRANSLATE, SYS_execveat, {0}, false},
    {"make memory that runs by its key", 0, SYS_pkey_mprotect, {0}, false},
    {"make all memory run", 0, SYS_personality, {0}, false},
    {"load a program into the kernel", 0, SYS_bpf, {0}, false},
    {"watch the CPU", 0, SYS_perf_event_open, {0}, false},
    {"serve page faults", 0, SYS_userfaultfd, {0}, false},
    {"change who one is", 0, SYS_setuid, {0}, false},
    {"send an interrupt message", SANDBOX_KVM, SYS_ioctl, {0, KVM_SIGNAL_MSI}, true},
};

static const struct attempt *attempt;

static int tries(const struct sandbox *sandbox)
{
    (void)sandbox;
    syscall(attempt->call, attempt->arguments[0], attempt->arguments[1], attempt->arguments[2]);
    return 0;
}

static void an_intruder_is_killed_at_what_leads_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        int status;

        attempt = &attempts[i];
        status = in_sandbox(attempt->features, tries);
        if (attempt->allowed != (WIFEXITED(status) && WEXITSTATUS(status) == 0))
            fail_msg("%s: wait status %x", attempt->what, status);
        if (!attempt->allowed)
            assert_killed(status);
    }
}

/* A timer's thread must not reach KVM but for messages. */
static void *timer_that_maps_memory(void *opaque)
{
    if (sandbox_thread(opaque, SANDBOX_TIMER, NULL) < 0)
        _exit(98);
    ioctl(0, KVM_SET_USER_MEMORY_REGION, NULL);
    return NULL;
}

static void *vcpu_that_starts_a_thread(void *opaque)
{
    pthread_t thread;

    if (sandbox_thread(opaque, SANDBOX_VCPU, NULL) < 0)
        _exit(98);
    pthread_create(&thread, NULL, vcpu_that_starts_a_thread, opaque);
    return NULL;
}

static void *vcpu_that_works(void *opaque)
{
    if (sandbox_thread(opaque, SANDBOX_VCPU, NULL) < 0)
        _exit(98);
    return malloc(1 << 20);
}

/* The C library may give what a thread has freed back to the kernel. */
static void *vcpu_that_frees_memory(void *opaque)
{
    enum { PIECES = 4000, SIZE = 8000 };
    static void *pieces[PIECES];

    if (sandbox_thread(opaque, SANDBOX_VCPU, NULL) < 0)
        _exit(98);
    for (unsigned i = 0; i < PIECES; i++)
        pieces[i] = malloc(SIZE);
    for (unsigned i = PIECES; i-- > 0;)
        free(pieces[i]);
    return NULL;
}

static int run_thread(const struct sandbox *sandbox, void *(*fn)(void *opaque))
{
    pthread_t thread;

    return pthread_create(&thread, NULL, fn, (void *)sandbox) || pthread_join(thread, NULL);
}

static int runs_a_vcpu(const struct sandbox *sandbox)
{
    return run_thread(sandbox, vcpu_that_works);
}

static int runs_a_vcpu_that_starts_a_thread(const struct sandbox *sandbox)
{
    return run_thread(sandbox, vcpu_that_starts_a_thread);
}

static int runs_a_vcpu_that_frees_memory(const struct sandbox *sandbox)
{
    return run_thread(sandbox, vcpu_that_frees_memory);
}

static void an_ordinary_call_passes(void **state)
{
    (void)state;
    assert_passes(in_sandbox(0, ordinary_work));
    assert_passes(in_sandbox(0, runs_a_vcpu));
}

static int runs_a_timer_that_maps_memory(const struct sandbox *sandbox)
{
    return run_thread(sandbox, timer_that_maps_memory);
}

static void a_forbidden_call_kills_the_process(void **state)
{
    (void)state;
    assert_killed(in_sandbox(0, opens_a_file));
    assert_killed(in_sandbox(0, makes_a_socket));
    assert_killed(in_sandbox(0, starts_a_program));
    assert_killed(in_sandbox(0, starts_a_process));
    assert_killed(in_sandbox(0, makes_code));
    assert_killed(in_sandbox(0, gains_nothing));
}

static void a_feature_brings_its_calls_and_no_others(void **state)
{
    (void)state;
    assert_passes(in_sandbox(SANDBOX_NETWORK, makes_a_socket));
    assert_passes(in_sandbox(SANDBOX_TRANSLATE, makes_code));
    assert_killed(in_sandbox(SANDBOX_NETWORK, starts_a_program));
    assert_killed(in_sandbox(SANDBOX_TRANSLATE, makes_a_socket));
}

static void a_thread_has_less_than_the_main_thread(void **state)
{
    (void)state;
    assert_killed(in_sandbox(0, runs_a_vcpu_that_starts_a_thread));
    assert_killed(in_sandbox(SANDBOX_KVM, runs_a_timer_that_maps_memory));
}

static void a_thread_may_free_all_its_memory(void **state)
{
    (void)state;
    assert_passes(in_sandbox(0, runs_a_vcpu_that_frees_memory));
}

static void no_sandbox_does_nothing(void **state)
{
    (void)state;
    assert_int_equal(sandbox_enter(NULL, NULL), 0);
    assert_int_equal(sandbox_thread(NULL, SANDBOX_VCPU, NULL), 0);
    assert_int_equal(sandbox_keep(NULL, "/none", NULL), 0);
    sandbox_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ordinary_call_passes),
        cmocka_unit_test(a_forbidden_call_kills_the_process),
        cmocka_unit_test(an_intruder_is_killed_at_what_leads_out),
        cmocka_unit_test(a_feature_brings_its_calls_and_no_others),
        cmocka_unit_test(a_thread_has_less_than_the_main_thread),
        cmocka_unit_test(a_thread_may_free_all_its_memory),
        cmocka_unit_test(no_sandbox_does_nothing),
    };

    if (!sandbox_available()) {
        puts("the sanitizers make system calls of their own");
        return 77; /* meson: skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
