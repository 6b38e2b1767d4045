/* cli.h - the `lodge` command: one file a verb, one table of verbs. Help, the
 * man page and the shell completion are all made from the rows here. */
#ifndef LODGE_CLI_CLI_H
#define LODGE_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"

/* Exit statuses. How a guest ended has statuses of its own, see `run`. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

struct cli_option {
    const char *name;  /* "memory" for --memory; NULL ends a table */
    char letter;       /* 'm' for -m, or 0 */
    const char *value; /* "SIZE" when it takes one, else NULL */
    const char *help;  /* a sentence */
    const char *words; /* completion: the values it can have, space-separated, or "FILE", or NULL */
};

struct cli_args; /* parsed options */

struct cli {
    const struct log *log;
    FILE *out;
    const struct verb *verb;     /* the one that runs */
    struct cli_args *args; /* its options, and those given to the verb around it */
    int argc;                    /* its operands */
    char **argv; /* NULL behind the last */
};

struct verb {
    const char *name; /* NULL ends a table */
    const char *summary;
    const char *operands;    /* "[COMMAND...]", or NULL when it takes none */
    const char *description; /* paragraphs for --help and the man page, or NULL */
    const struct cli_option *options; /* or NULL */
    const struct verb *const *verbs;  /* nested verbs (lodge disk create), or NULL */
    bool guest_status; /* the exit status tells how a guest ended (exit_status.h) */
    bool raw_options; /* options after the first operand belong to the operands */
    /* Returns an exit status. A negative errno with err filled is printed as
     * one line and becomes CLI_FAILED; -EINVAL becomes CLI_USAGE. */
    int (*run)(struct cli *cli, struct error *err);
};

/* The table of verbs, in the order of `lodge help`. */
extern const struct verb *const cli_verbs[]; /* NULL at its end */

/* The last value given for an option (NULL: not given), its value given as
 * flag (true when present), and the n-th value of a repeated one. */
const char *cli_value(const struct cli *cli, const char *name);
bool cli_flag(const struct cli *cli, const char *name);
const char *cli_value_at(const struct cli *cli, const char *name, unsigned n);

/* Give an option as if it stood on the command line, before all others or behind them. value
 * must last until the end. */
int cli_give(struct cli *cli, bool first, const char *name, const char *value, struct error *err);

/* The whole command: parse, run the verb, print the error. Returns the exit status. */
int cli_main(const struct verb *const *verbs, const struct log *log, int argc, char **argv);

#endif
