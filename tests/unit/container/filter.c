/* linux.seccomp compiled, loaded in a child, and asked. */
#include "../unit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/filter.h"

#define CONFIG                                                                                     \
    "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"r\"},\"process\":{\"cwd\":\"/\",\"args\":["    \
    "\"x\"]},\"linux\":{\"namespaces\":[{\"type\":\"mount\"}],\"seccomp\":%s}}"

static int compile(const char *seccomp, struct config *config, struct filter *filter,
                   struct error *err)
{
    char text[4096];

    snprintf(text, sizeof(text), CONFIG, seccomp);
    assert_int_equal(config_read(config, text, strlen(text), err), 0);
    return filter_compile(config->linux_->seccomp, filter, NULL, err);
}

/* What errno getpriority(which, 0) ends with under the filter; 128 and the signal that kills. */
static int ask(const char *seccomp, int which)
{
    struct config config;
    struct filter filter;
    struct error err = {0};
    int status, listener;
    pid_t pid;

    assert_int_equal(compile(seccomp, &config, &filter, &err), 0);
    pid = fork();
    if (pid == 0) {
        signal(SIGSYS, SIG_DFL); /* cmocka catches it */
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (filter_apply(&filter, &listener, NULL) < 0)
            _exit(99);
        _exit(syscall(SYS_getpriority, (long)which, 0L) < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    filter_release(&filter);
    config_release(&config);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void actions_are_those_asked_for(void **state)
{
#define RULE(action)                                                                               \
    "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"getpriority\"," action "}]}"
    (void)state;
    assert_int_equal(ask(RULE("\"no_such_call\"],\"action\":\"SCMP_ACT_ERRNO\""), 0), EPERM);
    assert_int_equal(ask(RULE("\"x\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":28"), 0), ENOSPC);
    assert_int_equal(ask(RULE("\"x\"],\"action\":\"SCMP_ACT_LOG\""), 0), 0);
    assert_int_equal(ask(RULE("\"x\"],\"action\":\"SCMP_ACT_KILL_PROCESS\""), 0), 128 + 31);
    assert_int_equal(ask(RULE("\"x\"],\"action\":\"SCMP_ACT_TRAP\""), 0), 128 + 31);
    assert_int_equal(ask(RULE("\"x\"],\"action\":\"SCMP_ACT_TRACE\""), 0), ENOSYS);
}

static void conditions_choose_the_calls(void **state)
{
    static const char only_one[] =
        RULE("\"x\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":1,"
             "\"op\":\"SCMP_CMP_EQ\"}]");
    static const char either[] =
        RULE("\"x\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":1,"
             "\"op\":\"SCMP_CMP_EQ\"},{\"index\":0,\"value\":2,\"op\":\"SCMP_CMP_EQ\"}]");
    static const char masked[] =
        RULE("\"x\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":2,"
             "\"valueTwo\":2,\"op\":\"SCMP_CMP_MASKED_EQ\"}]");

    (void)state;
    assert_int_equal(ask(only_one, 0), 0);
    assert_int_equal(ask(only_one, 1), EPERM);
    assert_int_equal(ask(either, 0), 0);
    assert_int_equal(ask(either, 1), EPERM);
    assert_int_equal(ask(either, 2), EPERM);
    assert_int_equal(ask(masked, 0), 0);
    assert_int_equal(ask(masked, 2), EPERM);
}

static void what_cannot_work_is_refused(void **state)
{
    static const struct {
        const char *seccomp, *named;
    } cases[] = {
        {"{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "defaultAction"},
        {RULE("\"x\"],\"action\":\"SCMP_ACT_NOTIFY\""), "listenerPath"},
        {RULE("\"write\"],\"action\":\"SCMP_ACT_NOTIFY\""), "write"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"X\"]}", "flags"},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"X\"]}", "architectures"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config;
        struct filter filter = {0};
        struct error err = {0};

        assert_true(compile(cases[i].seccomp, &config, &filter, &err) < 0);
        assert_non_null(strstr(err.text, cases[i].named));
        assert_null(filter.insns);
        config_release(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(actions_are_those_asked_for),
        cmocka_unit_test(conditions_choose_the_calls),
        cmocka_unit_test(what_cannot_work_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
