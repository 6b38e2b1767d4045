#include "cli/json.h"

#include "base/cleanup.h"

int cli_print_json(const struct cli *cli, json_t *tree, struct error *err)
{
    AUTO_FREE char *text = tree ? json_dumps(tree, JSON_INDENT(2)) : NULL;

    json_decref(tree);
    if (!text)
        return err && err->code ? -err->code : error_set(err, ENOMEM, "out of memory");
    fprintf(cli->out, "%s\n", text);
    return CLI_OK;
}
