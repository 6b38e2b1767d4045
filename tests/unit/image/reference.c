#include "unit.h"

#include "base/bytes.h"
#include "image/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void parts_are_taken_apart_and_put_together(void **state)
{
    static const struct {
        const char *text, *registry, *repository, *tag, *digest, *whole;
    } rows[] = {
        {"debian", "", "debian", "latest", "", "debian:latest"},
        {"debian:12", "", "debian", "12", "", "debian:12"},
        {"team/app", "", "team/app", "latest", "", "team/app:latest"},
        {"host.test/app:1", "host.test", "app", "1", "", "host.test/app:1"},
        {"host:5000/a/b/c", "host:5000", "a/b/c", "latest", "", "host:5000/a/b/c:latest"},
        {"localhost/app", "localhost", "app", "latest", "", "localhost/app:latest"},
        {"localhost5/app", "", "localhost5/app", "latest", "", "localhost5/app:latest"},
        {"[::1]:5000/a:b", "[::1]:5000", "a", "b", "", "[::1]:5000/a:b"},
        {"a@sha256:" HEX64, "", "a", "", "sha256:" HEX64, "a@sha256:" HEX64},
        {"a:1@sha256:" HEX64, "", "a", "1", "sha256:" HEX64, "a:1@sha256:" HEX64},
        {"a__b--c_e/f.d:_T.-9", "", "a__b--c_e/f.d", "_T.-9", "", "a__b--c_e/f.d:_T.-9"},
    };
    char whole[REFERENCE_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct reference reference;

        assert_int_equal(reference_parse(rows[i].text, &reference, NULL), 0);
        assert_string_equal(reference.registry, rows[i].registry);
        assert_string_equal(reference.repository, rows[i].repository);
        assert_string_equal(reference.tag, rows[i].tag);
        assert_string_equal(reference.digest.text, rows[i].digest);
        assert_string_equal(reference_format(&reference, whole), rows[i].whole);
    }
}

static void what_is_no_name_is_refused_and_leaves_the_output_alone(void **state)
{
    static const char *const texts[] = {
        "",           "/",    "a/",     "/a",     "a//b",    "A",
        "a:",         "a:.x", "a:-x",   "a b",    "a:b c",   "a.-b",
        "a___b",      "-a",   "a-",     "a@",     "a@md5:1", "a@sha256:" HEX64 "0",
        "a@sha256:0", "h.t/", "[::1/a", ".x.y/a", "h:x/a",   "h:123456/a",
        "a\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct reference reference = {.registry = "untouched"};
        struct error err = {0};

        assert_int_equal(reference_parse(texts[i], &reference, &err), -EINVAL);
        assert_string_equal(reference.registry, "untouched");
        assert_true(err.text[0]);
    }
}

static void parts_that_are_too_long_are_refused(void **state)
{
    char text[1024];
    struct reference reference;

    (void)state;
    for (size_t length = 254; length < 258; length++) {
        memset(text, 'a', length);
        text[length] = 0;
        assert_int_equal(reference_parse(text, &reference, NULL), length < 256 ? 0 : -EINVAL);
        strcat(text, ".b/c");
        assert_int_equal(reference_parse(text, &reference, NULL), length < 254 ? 0 : -EINVAL);
    }
    strcpy(text, "a:");
    memset(text + 2, 'b', 128);
    text[130] = 0;
    assert_int_equal(reference_parse(text, &reference, NULL), 0);
    strcat(text, "b");
    assert_int_equal(reference_parse(text, &reference, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_taken_apart_and_put_together),
        cmocka_unit_test(what_is_no_name_is_refused_and_leaves_the_output_alone),
        cmocka_unit_test(parts_that_are_too_long_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
