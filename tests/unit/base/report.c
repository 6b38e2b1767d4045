/* report.h: what a child says reaches its parent, and so does its silence. */
#include "base/report.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* Have a child report, or die in silence; what the parent makes of it. */
static int of_child(const struct error *why, bool dies, struct error *err)
{
    int ends[2], r;
    pid_t pid;

    assert_int_equal(report_open(ends, err), 0);
    pid = fork();
    if (pid == 0) {
        close(ends[0]);
        if (!dies)
            report_send(&ends[1], why);
        _exit(0);
    }
    close(ends[1]);
    r = report_await(ends[0], "the child", err);
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return r;
}

static void a_child_says_that_all_is_well(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(of_child(NULL, false, &err), 0);
    assert_int_equal(err.code, 0);
}

static void a_child_s_line_becomes_the_parent_s(void **state)
{
    struct error why, err = {0};

    (void)state;
    error_set(&why, ENOENT, "there is no %s", "bridge");
    assert_int_equal(of_child(&why, false, &err), -EIO);
    assert_string_equal(err.text, "there is no bridge");
}

static void a_child_that_dies_in_silence_is_named(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(of_child(NULL, true, &err), -EIO);
    assert_non_null(strstr(err.text, "the child"));
}

static void nobody_who_listens_is_no_harm(void **state)
{
    int ends[2];

    (void)state;
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(report_open(ends, NULL), 0);
    close(ends[0]);
    report_send(&ends[1], NULL);
    assert_int_equal(ends[1], -1);
    report_send(&ends[1], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_says_that_all_is_well),
        cmocka_unit_test(a_child_s_line_becomes_the_parent_s),
        cmocka_unit_test(a_child_that_dies_in_silence_is_named),
        cmocka_unit_test(nobody_who_listens_is_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
