/* lodge engines: which engines there are, and which work on this host. */
#include "cli/verbs.h"
#include "engine/engine.h"

static int engines_run(struct cli *cli, struct error *err)
{
    const struct engine_ops *chosen = NULL;

    (void)err;
    engine_find("auto", &chosen, NULL);
    for (unsigned i = 0; engine_table[i]; i++) {
        const struct engine_ops *engine = engine_table[i];
        struct error why = {0};
        bool works = engine->probe(&why) == 0;

        fprintf(cli->out, "%c %-10s %-11s %s\n", engine == chosen ? '*' : ' ', engine->name,
                works ? "works" : "unavailable", works ? engine->summary : why.text);
    }
    fputs("\n* is what --engine auto takes.\n", cli->out);
    return CLI_OK;
}

const struct verb engines_command = {
    .name = "engines",
    .summary = "list the engines and tell which work on this host",
    .run = engines_run,
};
