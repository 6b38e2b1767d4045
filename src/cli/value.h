/* value.h - values of options that have parts: WHAT[,NAME=VALUE][,NAME]; counts
 * and rates. */
#ifndef LODGE_CLI_VALUE_H
#define LODGE_CLI_VALUE_H

#include <stdint.h>

#include "cli/cli.h"

/* A part that a value may have. */
struct part {
    const char *name;
    bool flag; /* it stands alone, without a value */
    const char *value; /* out: NULL when it is not given; "" for a flag */
};

/* Take text (which is cut up) apart: what comes before the first comma, and the
 * parts. err names the option. */
int value_split(char *text, const char *option, struct part *parts, unsigned count,
                struct error *err);

/* A count from min to max, or otherwise when text is NULL. what begins the message. */
int value_count(const char *text, unsigned otherwise, unsigned min, unsigned max, const char *what,
                unsigned *ret_count, struct error *err);

/* The rate that an option gives in what its unit counts, suffixes allowed; 0 when it is not
 * given. */
int value_rate(const struct cli *cli, const char *option, uint64_t *ret_rate, struct error *err);

#endif
