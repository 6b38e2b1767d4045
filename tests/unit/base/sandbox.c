/* The sandbox lets a thread do its work and kills the process at anything else. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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
