#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/help.h"

#define OPTIONS_MAX 64

struct cli_args {
    const struct cli_args *outer; /* options of the verb that this one is nested in, or NULL */
    const char *around;           /* the verbs that it is nested in: "", "disk " */
    bool help;                    /* asked for; nothing behind it was looked at */
    unsigned count;
    struct cli_given {
        const struct cli_option *option;
        const char *value; /* "" for a flag */
    } given[OPTIONS_MAX];
};

const char *cli_value_at(const struct cli *cli, const char *name, unsigned n)
{
    for (unsigned i = 0; i < cli->args->count; i++)
        if (!strcmp(cli->args->given[i].option->name, name) && n-- == 0)
            return cli->args->given[i].value;
    return NULL;
}

const char *cli_value(const struct cli *cli, const char *name)
{
    for (const struct cli_args *args = cli->args; args; args = args->outer)
        for (unsigned i = args->count; i-- > 0;)
            if (!strcmp(args->given[i].option->name, name))
                return args->given[i].value;
    return NULL;
}

bool cli_flag(const struct cli *cli, const char *name)
{
    return cli_value(cli, name) != NULL;
}

/* --- Parsing --- */

static const struct cli_option *find_long(const struct verb *verb, const char *name, size_t length)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        if (strlen(o->name) == length && !strncmp(o->name, name, length))
            return o;
    return NULL;
}

static const struct cli_option *find_letter(const struct verb *verb, char letter)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

static int give(struct cli_args *args, const struct cli_option *option, const char *value,
                struct error *err)
{
    if (args->count == OPTIONS_MAX)
        return error_set(err, EINVAL, "more than %d options", OPTIONS_MAX);
    args->given[args->count].option = option;
    args->given[args->count++].value = value;
    return 0;
}

int cli_give(struct cli *cli, bool first, const char *name, const char *value, struct error *err)
{
    struct cli_args *args = cli->args;
    int r = give(args, find_long(cli->verb, name, strlen(name)), value, err);

    for (unsigned i = args->count - 1; r == 0 && first && i > 0; i--) {
        struct cli_given last = args->given[i];

        args->given[i] = args->given[i - 1];
        args->given[i - 1] = last;
    }
    return r;
}

static int unknown(const struct verb *verb, const char *text, struct cli_args *args,
                   struct error *err)
{
    args->help = !strcmp(text, "--help") || !strcmp(text, "-h");
    if (args->help)
        return 1;
    return error_set(err, EINVAL, "%s%s: there is no option %s; see 'lodge help %s%s'",
                     args->around, verb->name, text, args->around, verb->name);
}

/* "--name", "--name=value" or "--name value". Returns how many words it took. */
static int parse_long(const struct verb *verb, char **word, int left, struct cli_args *args,
                      struct error *err)
{
    const char *name = word[0] + 2, *equals = strchr(name, '=');
    const struct cli_option *option =
        find_long(verb, name, equals ? (size_t)(equals - name) : strlen(name));
    int r;

    if (!option)
        return unknown(verb, word[0], args, err);
    if (!option->value && equals)
        return error_set(err, EINVAL, "--%s takes no value", option->name);
    if (option->value && !equals && left < 2)
        return error_set(err, EINVAL, "--%s needs a value: --%s %s", option->name, option->name,
                         option->value);
    r = give(args, option, !option->value ? "" : equals ? equals + 1 : word[1], err);
    return r < 0 ? r : option->value && !equals ? 2 : 1;
}

/* "-abc", "-mVALUE" or "-m VALUE". */
static int parse_letters(const struct verb *verb, char **word, int left, struct cli_args *args,
                         struct error *err)
{
    for (const char *p = word[0] + 1; *p; p++) {
        const struct cli_option *option = find_letter(verb, *p);
        char text[3] = {'-', *p, 0};
        int r;

        if (!option)
            return unknown(verb, text, args, err);
        if (!option->value) {
            r = give(args, option, "", err);
            if (r < 0)
                return r;
            continue;
        }
        if (!p[1] && left < 2)
            return error_set(err, EINVAL, "-%c needs a value: -%c %s", *p, *p, option->value);
        r = give(args, option, p[1] ? p + 1 : word[1], err);
        return r < 0 ? r : p[1] ? 1 : 2;
    }
    return 1;
}

static int parse_option(const struct verb *verb, char **word, int left, struct cli_args *args,
                        struct error *err)
{
    return word[0][1] == '-' ? parse_long(verb, word, left, args, err)
                             : parse_letters(verb, word, left, args, err);
}

/* Options before the name of a nested verb. Returns how many words they are. */
static int parse_outer(const struct verb *verb, struct cli_args *args, int argc, char **argv,
                       struct error *err)
{
    int i = 0;

    while (i < argc && !args->help && argv[i][0] == '-' && argv[i][1]) {
        int taken = parse_option(verb, argv + i, argc - i, args, err);

        if (taken < 0)
            return taken;
        i += taken;
    }
    return i;
}

/* "-1G" is a number, and not an option. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9');
}

/* Options are taken out of argv; operands move to its front. */
static int parse(const struct verb *verb, struct cli_args *args, int *argc, char **argv,
                 struct error *err)
{
    int operands = 0, i = 0;

    while (i < *argc) {
        char *word = argv[i];
        int taken;

        if (!strcmp(word, "--")) {
            i++;
            break;
        }
        if (!is_option(word)) {
            argv[operands++] = word;
            i++;
            if (verb->raw_options)
                break;
            continue;
        }
        taken = parse_option(verb, argv + i, *argc - i, args, err);
        if (taken < 0 || args->help)
            return taken;
        i += taken;
    }
    while (i < *argc)
        argv[operands++] = argv[i++];
    argv[operands] = NULL;
    *argc = operands;
    if (operands && !verb->operands && !verb->verbs)
        return error_set(err, EINVAL,
                         "%s%s takes no operand, but was given '%s'; see 'lodge help %s%s'",
                         args->around, verb->name, argv[0], args->around, verb->name);
    return 0;
}

static bool wants_help(int argc, char **argv)
{
    return argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"));
}

/* --- Running --- */

/* Everything printed must have arrived: a full disk or a closed stdout is an error. */
static int flush(struct cli *cli, int status, struct error *err)
{
    if (fflush(cli->out) == 0 && !ferror(cli->out))
        return status;
    return error_system(err, errno ? errno : EIO, "cannot write to the standard output");
}

static const struct verb *find_verb(const struct verb *const *verbs, const char *name)
{
    for (const struct verb *const *v = verbs; *v; v++)
        if (!strcmp((*v)->name, name))
            return *v;
    return NULL;
}

/* outer: the verbs that these are nested in, for help. */
static int run(struct cli *cli, const char *outer, const struct verb *const *verbs, int argc,
               char **argv, struct error *err)
{
    char nested[64];
    struct cli_args args = {.outer = cli->args, .around = outer};
    const struct verb *verb = argc ? find_verb(verbs, argv[0]) : NULL;
    int r;

    if (!argc) {
        help_overview(verbs, stderr);
        return CLI_USAGE;
    }
    if (wants_help(argc, argv)) {
        help_overview(verbs, cli->out);
        return flush(cli, CLI_OK, err);
    }
    if (!strcmp(argv[0], "--version"))
        verb = find_verb(verbs, "version");
    if (!verb)
        return error_set(err, EINVAL, "there is no verb '%s%s'; 'lodge %s--help' lists them", outer,
                         argv[0], outer);
    if (verb->verbs) {
        r = parse_outer(verb, &args, argc - 1, argv + 1, err);
        if (r < 0)
            return r;
        if (args.help) {
            help_verb(outer, verb, cli->out);
            return flush(cli, CLI_OK, err);
        }
        cli->args = &args;
        if (1 + r < argc)
            return run(cli, help_nested(outer, verb->name, nested, sizeof(nested)), verb->verbs,
                       argc - 1 - r, argv + 1 + r, err);
        if (verb->run && r > 0)
            return flush(cli, verb->run(cli, err), err);
    }
    if (!verb->run || verb->verbs) {
        help_verb(outer, verb, stderr);
        return CLI_USAGE;
    }
    cli->verb = verb;
    cli->args = &args;
    cli->argc = argc - 1;
    cli->argv = argv + 1;
    r = parse(verb, &args, &cli->argc, cli->argv, err);
    if (args.help) {
        help_verb(outer, verb, cli->out);
        r = CLI_OK;
    } else if (r == 0) {
        r = verb->run(cli, err);
    }
    return r < 0 ? r : flush(cli, r, err);
}

int cli_main(const struct verb *const *verbs, const struct log *log, int argc, char **argv)
{
    struct cli cli = {.log = log, .out = stdout};
    struct error err = {0};
    int r = run(&cli, "", verbs, argc - 1, argv + 1, &err);

    if (r >= 0)
        return r;
    fprintf(stderr, "lodge: %s\n", err.text);
    return r == -EINVAL ? CLI_USAGE : CLI_FAILED;
}
