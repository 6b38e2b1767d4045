/* json.h - what a verb's --json prints. */
#ifndef LODGE_CLI_JSON_H
#define LODGE_CLI_JSON_H

#include <jansson.h>

#include "cli/cli.h"

/* Print tree, indented, and let it go; NULL is as if there were no memory for it. Returns an exit
 * status, or negative with err filled unless it is already. */
int cli_print_json(const struct cli *cli, json_t *tree, struct error *err);

#endif
