#include "../unit.h"

#include "base/size.h"

static void sizes_are_read_as_people_write_them(void **state)
{
    static const struct {
        const char *text;
        uint64_t unit, size;
    } cases[] = {
        {"0", 1, 0},           {"65536", 1, 65536},       {"512M", 1, 512ull << 20},
        {"10G", 1, 10ull << 30}, {"1.5k", 1, 1536},       {"2TiB", 1, 2ull << 40},
        {"3mb", 1, 3ull << 20},  {"128", 1 << 20, 128ull << 20}, {"15E", 1, 15ull << 60},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t size = 0;

        assert_int_equal(size_parse(cases[i].text, cases[i].unit, &size, NULL), 0);
        assert_int_equal(size, cases[i].size);
    }
}

static void what_is_no_size_is_refused_with_its_text(void **state)
{
    static const char *const cases[] = {"", "M", "-1", "1.5", "1.", "12x", "1GBs", " 1", "0x10"};
    struct error err;
    uint64_t size = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(size_parse(cases[i], 1, &size, &err), -EINVAL);
        assert_non_null(strstr(err.text, cases[i]));
    }
    assert_int_equal(size_parse("16E", 1, &size, &err), -ERANGE);
    assert_int_equal(size_parse("99999999999999999999", 1, &size, &err), -ERANGE);
    assert_int_equal(size, 7);
}

static void sizes_are_written_short(void **state)
{
    char buffer[32];

    (void)state;
    assert_string_equal(size_format(100, buffer, sizeof(buffer)), "100 B");
    assert_string_equal(size_format(1536, buffer, sizeof(buffer)), "1.5 KiB");
    assert_string_equal(size_format(512ull << 20, buffer, sizeof(buffer)), "512 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(what_is_no_size_is_refused_with_its_text),
        cmocka_unit_test(sizes_are_written_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
