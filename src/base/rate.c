#include "base/rate.h"

#define TOKEN        1000000ll    /* in millionths */
#define NS_TO_TOKENS 1000         /* one a second is a millionth every 1000 ns */
#define RATE_MAX     (1ull << 40) /* a terabyte a second: beyond it there is no limit */
#define SPEND_MAX    (1ull << 32)

/* What fits in: a tenth of a second's worth, one at least. */
static int64_t bucket(const struct rate *rate)
{
    int64_t size = (int64_t)(rate->per_second / 10);

    return (size ? size : 1) * TOKEN;
}

void rate_init(struct rate *rate, uint64_t per_second, uint64_t now_ns)
{
    *rate = (struct rate){.per_second = per_second < RATE_MAX ? per_second : 0, .filled = now_ns};
    rate->tokens = bucket(rate);
}

bool rate_ready(struct rate *rate, uint64_t now_ns, uint64_t *ret_when)
{
    uint64_t passed = now_ns - rate->filled;
    __int128 tokens;

    if (!rate->per_second)
        return true;
    tokens = rate->tokens + (__int128)passed * rate->per_second / NS_TO_TOKENS;
    rate->tokens = tokens < bucket(rate) ? (int64_t)tokens : bucket(rate);
    rate->filled = now_ns;
    if (rate->tokens > 0)
        return true;
    *ret_when =
        now_ns + (uint64_t)((1 - (__int128)rate->tokens) * NS_TO_TOKENS / rate->per_second) + 1;
    return false;
}

void rate_spend(struct rate *rate, uint64_t amount)
{
    if (rate->per_second)
        rate->tokens -= (int64_t)(amount < SPEND_MAX ? amount : SPEND_MAX) * TOKEN;
}
