/* Limits, on a clock of the test's own. */
#include "../unit.h"

#include "base/bytes.h"
#include "base/rate.h"

#define SECOND 1000000000ull

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

/* Spend pieces of up to so much for ten seconds, asking again up to late ns after the moment that
 * the limit names. Returns how much went; at no time more than the limit allows. */
static uint64_t spend(uint64_t per_second, uint64_t piece_max, uint64_t late)
{
    const uint64_t begin = 5 * SECOND, bucket = MAX(per_second / 10, 1);
    uint64_t seed = per_second, now = begin, when = 0, spent = 0;
    struct rate rate;

    rate_init(&rate, per_second, begin);
    while (now < begin + 10 * SECOND) {
        if (rate_ready(&rate, now, &when)) {
            uint64_t piece = 1 + next_random(&seed) % piece_max;
            double allowed = (double)bucket + (double)per_second * (double)(now - begin) / 1e9;

            assert_true((double)spent <= allowed + 1);
            rate_spend(&rate, piece);
            spent += piece;
        } else {
            assert_true(when > now);
            now = when + (late ? next_random(&seed) % late : 0);
        }
    }
    return spent;
}

static void no_more_goes_than_the_limit_and_a_tenth_of_a_second(void **state)
{
    const uint64_t limits[] = {1, 3, 200, 4 << 20, 10ull << 30};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
        spend(limits[i], 1 + limits[i] / 1000, SECOND / 100);
        spend(limits[i], 1 + limits[i] / 3, SECOND / 100);
    }
}

static void who_asks_in_time_gets_all_that_the_limit_allows(void **state)
{
    const uint64_t limits[] = {1, 3, 200, 5000};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(limits); i++)
        assert_true(spend(limits[i], 1, 0) >= 10 * limits[i]);
    assert_true(spend(4 << 20, 65536, 0) >= 10 * (4 << 20));
}

static void a_piece_larger_than_the_bucket_goes_and_is_paid_for(void **state)
{
    struct rate rate;
    uint64_t when;

    (void)state;
    rate_init(&rate, 1000, 0);
    assert_true(rate_ready(&rate, 0, &when));
    rate_spend(&rate, 5000);
    assert_false(rate_ready(&rate, SECOND, &when));
    assert_in_range(when, 49 * SECOND / 10, 49 * SECOND / 10 + 2);
    assert_true(rate_ready(&rate, when + SECOND / 1000, &when));
}

static void what_is_not_used_is_not_saved_up(void **state)
{
    struct rate rate;
    uint64_t when, count = 0;

    (void)state;
    rate_init(&rate, 1000, 0);
    for (; rate_ready(&rate, 3600 * SECOND, &when); count++)
        rate_spend(&rate, 1);
    assert_int_equal(count, 100);
}

static void without_a_limit_all_goes(void **state)
{
    struct rate rate;
    uint64_t when;

    (void)state;
    rate_init(&rate, 0, 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(rate_ready(&rate, 0, &when));
        rate_spend(&rate, UINT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_goes_than_the_limit_and_a_tenth_of_a_second),
        cmocka_unit_test(who_asks_in_time_gets_all_that_the_limit_allows),
        cmocka_unit_test(a_piece_larger_than_the_bucket_goes_and_is_paid_for),
        cmocka_unit_test(what_is_not_used_is_not_saved_up),
        cmocka_unit_test(without_a_limit_all_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
