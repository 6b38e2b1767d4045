#include "cli/environment.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/guest.h"
#include "container/file.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static unsigned count_values(const struct cli *cli, const char *name)
{
    unsigned count = 0;

    while (cli_value_at(cli, name, count))
        count++;
    return count;
}

/* Cut a text into its lines, in place; returns how many are added to the list, which has room. */
static size_t add_lines(char *text, const char **list)
{
    size_t count = 0;

    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t");
        line[strcspn(line, "\r")] = 0;
        if (line[0] && line[0] != '#')
            list[count++] = line;
    }
    return count;
}

static size_t count_lines(const char *text)
{
    size_t count = 1;

    while ((text = strchr(text, '\n'))) {
        text++;
        count++;
    }
    return count;
}

int environment_read(const struct cli *cli, const char *files, const char *values, bool host,
                     struct environment *ret_environment, struct error *err)
{
    unsigned file_count = count_values(cli, files), value_count = count_values(cli, values);
    struct environment result = {.texts = calloc(file_count + 1, sizeof(*result.texts))};
    size_t room = value_count + 1, count = 0;
    int r = result.texts ? 0 : error_set(err, ENOMEM, "out of memory");

    for (char **one = environ; host && *one; one++)
        room++;
    for (unsigned i = 0; r == 0 && i < file_count; i++) {
        r = file_read(AT_FDCWD, cli_value_at(cli, files, i), FILE_BYTES_MAX, result.texts + i, NULL,
                      err);
        if (r == 0)
            room += count_lines(result.texts[i]);
    }
    result.variables = r == 0 ? calloc(room, sizeof(*result.variables)) : NULL;
    if (r == 0 && !result.variables)
        r = error_set(err, ENOMEM, "out of memory");
    if (r < 0) {
        environment_release(&result);
        return r;
    }
    for (char **one = environ; host && *one; one++)
        result.variables[count++] = *one;
    for (unsigned i = 0; i < file_count; i++)
        count += add_lines(result.texts[i], result.variables + count);
    for (unsigned i = 0; i < value_count; i++)
        result.variables[count++] = cli_value_at(cli, values, i);
    *ret_environment = result;
    return 0;
}

void environment_release(struct environment *environment)
{
    for (size_t i = 0; environment->texts && environment->texts[i]; i++)
        free(environment->texts[i]);
    free(environment->texts);
    free(environment->variables);
    *environment = (struct environment){0};
}
