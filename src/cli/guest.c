#include "cli/guest.h"

#include <stdlib.h>

const char **guest_values(const struct cli *cli, const char *name)
{
    unsigned count = 0;
    const char **list;

    while (cli_value_at(cli, name, count))
        count++;
    list = calloc(count + 1, sizeof(*list));
    for (unsigned i = 0; list && i < count; i++)
        list[i] = cli_value_at(cli, name, i);
    return list;
}

int guest_operand(const struct cli *cli, int least, int most, struct guest *ret_guest,
                  struct error *err)
{
    if (cli->argc < least || (most >= 0 && cli->argc > most))
        return error_set(err, EINVAL, "usage: lodge %s [OPTION...] %s", cli->verb->name,
                         cli->verb->operands);
    return guest_open(cli->argv[0], ret_guest, err) < 0 ? -EIO : 0;
}

int guest_each(struct cli *cli, int (*fn)(struct cli *cli, struct guest *guest, struct error *err),
               struct error *err)
{
    if (!cli->argc)
        return error_set(err, EINVAL, "usage: lodge %s [OPTION...] %s", cli->verb->name,
                         cli->verb->operands);
    for (int i = 0; i < cli->argc; i++) {
        struct guest guest;
        int r = guest_open(cli->argv[i], &guest, err);

        if (r == 0) {
            r = fn(cli, &guest, err);
            guest_close(&guest);
        }
        if (r < 0)
            return -EIO;
    }
    return CLI_OK;
}
