#include "cli/value.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

int value_split(char *text, const char *option, struct part *parts, unsigned count,
                struct error *err)
{
    char *save = NULL;

    strtok_r(text, ",", &save);
    for (char *word; (word = strtok_r(NULL, ",", &save));) {
        char *equals = strchr(word, '=');
        unsigned i;

        if (equals)
            *equals = 0;
        for (i = 0; i < count && strcmp(parts[i].name, word) != 0; i++)
            ;
        if (i == count)
            return error_set(err, EINVAL, "--%s does not know '%s'", option, word);
        if (!equals != parts[i].flag)
            return error_set(err, EINVAL, "--%s: '%s' %s", option, word,
                             equals ? "takes no value" : "needs a value");
        parts[i].value = equals ? equals + 1 : "";
    }
    return 0;
}

int value_count(const char *text, unsigned otherwise, unsigned min, unsigned max, const char *what,
                unsigned *ret_count, struct error *err)
{
    char *end;
    unsigned long n;

    if (!text) {
        *ret_count = otherwise;
        return 0;
    }
    n = strtoul(text, &end, 10);
    if (*end || end == text || *text == '-' || n < min || n > max)
        return error_set(err, EINVAL, "%s '%s' is no number from %u to %u", what, text, min, max);
    *ret_count = (unsigned)n;
    return 0;
}

int value_rate(const struct cli *cli, const char *option, uint64_t *ret_rate, struct error *err)
{
    const char *text = cli_value(cli, option);

    *ret_rate = 0;
    if (text && size_parse(text, 1, ret_rate, err) < 0) {
        error_prepend(err, "--%s", option);
        return -EINVAL;
    }
    if (text && !*ret_rate)
        return error_set(err, EINVAL, "--%s: a rate of nothing", option);
    return 0;
}
