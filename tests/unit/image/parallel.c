#include "unit.h"

#include <stdatomic.h>

#include "image/parallel.h"

enum { ITEMS = 100 };

struct counts {
    atomic_uint times[ITEMS];
    size_t failing; /* the item that fails, or ITEMS */
};

static int count(void *opaque, size_t i, struct error *err)
{
    struct counts *counts = opaque;

    counts->times[i]++;
    return i == counts->failing ? error_set(err, EIO, "item %zu", i) : 0;
}

static void each_item_is_worked_on_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads < 40; threads += 7) {
        struct counts counts = {.failing = ITEMS};

        assert_int_equal(parallel_run(ITEMS, threads, count, &counts, NULL), 0);
        for (size_t i = 0; i < ITEMS; i++)
            assert_int_equal(counts.times[i], 1);
    }
    assert_int_equal(parallel_run(0, 4, count, NULL, NULL), 0);
}

static void a_failure_is_returned_and_stops_the_rest(void **state)
{
    struct counts counts = {.failing = 10};
    struct error err = {0};

    (void)state;
    assert_int_equal(parallel_run(ITEMS, 1, count, &counts, &err), -EIO);
    assert_string_equal(err.text, "item 10");
    assert_int_equal(counts.times[11], 0);
    counts = (struct counts){.failing = 50};
    assert_int_equal(parallel_run(ITEMS, 4, count, &counts, &err), -EIO);
    assert_string_equal(err.text, "item 50");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_is_worked_on_once),
        cmocka_unit_test(a_failure_is_returned_and_stops_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
