#include "base/size.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char suffixes[] = "KMGTPE";

int size_parse(const char *text, uint64_t unit, uint64_t *ret_size, struct error *err)
{
    const char *p = text;
    uint64_t whole = 0, fraction = 0, scale = 1;
    const char *suffix;
    __uint128_t size;

    if (!isdigit((unsigned char)*p))
        goto invalid;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(whole, 10, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
            goto range;
    if (*p == '.') {
        if (!isdigit((unsigned char)*++p))
            goto invalid;
        for (; isdigit((unsigned char)*p); p++)
            if (scale < 1000000000) { /* nine digits are finer than any use */
                fraction = fraction * 10 + (uint64_t)(*p - '0');
                scale *= 10;
            }
    }
    suffix = *p ? strchr(suffixes, toupper((unsigned char)*p)) : NULL;
    if (suffix && *suffix) {
        unit = 1ULL << (10 * (suffix - suffixes + 1));
        p++;
        if (!strcasecmp(p, "iB") || !strcasecmp(p, "B"))
            p += strlen(p);
    } else if (scale > 1) {
        goto invalid;
    }
    if (*p)
        goto invalid;
    size = (__uint128_t)whole * unit + (__uint128_t)fraction * unit / scale;
    if (size > UINT64_MAX)
        goto range;
    *ret_size = (uint64_t)size;
    return 0;

invalid:
    return error_set(err, EINVAL,
                         "'%s' is not a size; write a number with K, M, G or T, such as 512M",
                     text);
range:
    return error_set(err, ERANGE, "'%s' is too large for a size", text);
}

const char *size_format(uint64_t bytes, char *buffer, size_t length)
{
    int step = -1;
    double value = (double)bytes;

    while (value >= 1024 && step < 5) {
        value /= 1024;
        step++;
    }
    if (step < 0)
        snprintf(buffer, length, "%llu B", (unsigned long long)bytes);
    else
        snprintf(buffer, length, value < 10 ? "%.1f %ciB" : "%.0f %ciB", value, suffixes[step]);
    return buffer;
}
