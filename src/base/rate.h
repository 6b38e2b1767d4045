/* rate.h - a limit on how much of something happens a second: a bucket of
 * tokens that fills steadily, up to a tenth of a second's worth. Whatever finds
 * a token goes, and may leave a debt, so that one thing larger than the bucket
 * is not stuck. */
#ifndef LODGE_BASE_RATE_H
#define LODGE_BASE_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
    uint64_t per_second; /* 0: no limit */
    int64_t tokens;      /* in millionths, so that slow rates fill, too */
    uint64_t filled;     /* ns when tokens was true */
};

void rate_init(struct rate *rate, uint64_t per_second, uint64_t now_ns);
/* Whether something may go now; if not, *ret_when is the time to ask again. */
bool rate_ready(struct rate *rate, uint64_t now_ns, uint64_t *ret_when);
void rate_spend(struct rate *rate, uint64_t amount);

#endif
