#include "../unit.h"

#include "base/error.h"

static void an_error_carries_its_code_and_one_line(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(error_set(&err, EINVAL, "bad\nline %d", 7), -EINVAL);
    assert_int_equal(err.code, EINVAL);
    assert_string_equal(err.text, "bad line 7");
    assert_int_equal(error_system(&err, ENOENT, "cannot open '%s'", "x"), -ENOENT);
    assert_string_equal(err.text, "cannot open 'x': No such file or directory");
    assert_int_equal(error_set(NULL, EIO, "nobody listens"), -EIO);
}

static void context_goes_before(void **state)
{
    struct error err;

    (void)state;
    error_set(&err, EIO, "short read");
    error_prepend(&err, "disk '%s'", "a.qcow2");
    assert_string_equal(err.text, "disk 'a.qcow2': short read");
    assert_int_equal(err.code, EIO);
}

static void a_long_line_is_cut_visibly(void **state)
{
    struct error err;

    (void)state;
    error_set(&err, EIO, "%01000d", 1);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(err.text + sizeof(err.text) - 4, "...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_carries_its_code_and_one_line),
        cmocka_unit_test(context_goes_before),
        cmocka_unit_test(a_long_line_is_cut_visibly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
