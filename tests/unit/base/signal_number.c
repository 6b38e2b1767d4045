/* signal_number.h: all the ways to write a signal, and none that is none. */
#include "base/signal_number.h"

#include <signal.h>

#include "unit.h"

static void names_and_numbers_are_signals(void **state)
{
    (void)state;
    assert_int_equal(signal_number("TERM"), SIGTERM);
    assert_int_equal(signal_number("SIGWINCH"), SIGWINCH);
    assert_int_equal(signal_number("9"), SIGKILL);
    assert_int_equal(signal_number("64"), 64);
    assert_int_equal(signal_number("RTMIN+3"), SIGRTMIN + 3);
    assert_int_equal(signal_number("SIGRTMIN"), SIGRTMIN);
}

static void anything_else_is_none(void **state)
{
    static const char *const none[] = {"",   "0",   "65",       "-1",      "9x", "term", "SIG",
                                       "TE", "999", "RTMIN+40", "RTMIN+x", "+3", "RTMIN+"};

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_int_equal(signal_number(none[i]), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers_are_signals),
        cmocka_unit_test(anything_else_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
