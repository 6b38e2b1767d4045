#include "cli/help.h"

#include <ctype.h>
#include <string.h>

#include "cli/exit_status.h"

#define SUMMARY "many computers out of one: virtual machines and containers"
#define WIDTH   80

/* Words of text wrapped at WIDTH, each line behind indent spaces; '\n' starts a new line. */
static void wrap(FILE *out, const char *text, int indent)
{
    int column = 0;

    while (*text) {
        int length = (int)strcspn(text, " \n");

        if (column && column + 1 + length > WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        if (length) {
            column += fprintf(out, "%*s%.*s", column ? 1 : indent, "", length, text);
            text += length;
        }
        if (*text == '\n') {
            fputc('\n', out);
            column = 0;
        }
        text += *text != 0;
    }
    if (column)
        fputc('\n', out);
}

static void print_verbs(const struct verb *const *verbs, FILE *out)
{
    for (const struct verb *const *v = verbs; *v; v++)
        fprintf(out, "  %-12s %s\n", (*v)->name, (*v)->summary);
}

static void print_statuses(FILE *out)
{
    for (const struct exit_status *s = exit_statuses; s->status; s++)
        fprintf(out, "  %-8s %s\n", s->status, s->meaning);
}

void help_overview(const struct verb *const *verbs, FILE *out)
{
    fprintf(out, "lodge - %s\n\nusage: lodge VERB [OPTION...] [OPERAND...]\n\nVerbs:\n", SUMMARY);
    print_verbs(verbs, out);
    fputs("\n'lodge help VERB' tells more about each.\n", out);
}

const char *help_nested(const char *outer, const char *name, char *buffer, size_t length)
{
    snprintf(buffer, length, "%s%s ", outer, name);
    return buffer;
}

static void synopsis(const char *outer, const struct verb *verb, FILE *out)
{
    fprintf(out, "lodge %s%s%s%s%s", outer, verb->name, verb->options ? " [OPTION...]" : "",
            verb->operands || verb->verbs ? " " : "",
            verb->verbs ? "VERB" : verb->operands ? verb->operands : "");
}

void help_verb(const char *outer, const struct verb *verb, FILE *out)
{
    fprintf(out, "lodge %s%s - %s\n\nusage: ", outer, verb->name, verb->summary);
    synopsis(outer, verb, out);
    fputc('\n', out);
    if (verb->verbs) {
        fputs("\nVerbs:\n", out);
        print_verbs(verb->verbs, out);
    }
    if (verb->description) {
        fputc('\n', out);
        wrap(out, verb->description, 0);
    }
    if (verb->options)
        fputs("\nOptions:\n", out);
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        if (o->letter)
            fprintf(out, "  -%c, --%s%s%s\n", o->letter, o->name, o->value ? " " : "",
                    o->value ? o->value : "");
        else
            fprintf(out, "  --%s%s%s\n", o->name, o->value ? " " : "", o->value ? o->value : "");
        wrap(out, o->help, 8);
    }
    if (verb->guest_status) {
        fputs("\nExit status:\n", out);
        print_statuses(out);
    }
}

/* --- man --- */

/* Escape what roff would take for itself. */
static void roff(FILE *out, const char *text)
{
    bool line_start = true;

    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
        line_start = *text == '\n';
    }
}

static void man_verb(const char *outer, const struct verb *verb, FILE *out)
{
    char nested[WIDTH];

    fputs(".SS \"", out);
    synopsis(outer, verb, out);
    fputs("\"\n", out);
    roff(out, verb->summary);
    fputs(".\n", out);
    if (verb->description) {
        fputs(".PP\n", out);
        roff(out, verb->description);
        fputc('\n', out);
    }
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        fputs(".TP\n", out);
        if (o->letter)
            fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
        fputs("\\fB\\-\\-", out);
        roff(out, o->name);
        fprintf(out, "\\fR%s%s%s\n", o->value ? " \\fI" : "", o->value ? o->value : "",
                o->value ? "\\fR" : "");
        roff(out, o->help);
        fputc('\n', out);
    }
    for (const struct verb *const *v = verb->verbs; v && *v; v++)
        man_verb(help_nested(outer, verb->name, nested, sizeof(nested)), *v, out);
}

void help_man(const struct verb *const *verbs, FILE *out)
{
    fprintf(out, ".TH LODGE 1 \"\" \"Lodge %s\" \"User Commands\"\n.SH NAME\nlodge \\- ",
            LODGE_VERSION);
    roff(out, SUMMARY);
    fputs("\n.SH SYNOPSIS\n\\fBlodge\\fR \\fIVERB\\fR [\\fIOPTION\\fR...] [\\fIOPERAND\\fR...]\n"
          ".SH VERBS\n",
          out);
    for (const struct verb *const *v = verbs; *v; v++)
        man_verb("", *v, out);
    fputs(".SH EXIT STATUS\n", out);
    for (const struct exit_status *s = exit_statuses; s->status; s++) {
        fprintf(out, ".TP\n%s\n", s->status);
        roff(out, s->meaning);
        fputc('\n', out);
    }
}

/* --- bash --- */

static void completion_options(const struct verb *verb, FILE *out)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        fprintf(out, " --%s", o->name);
    fputs(" --help", out);
}

static void completion_values(const struct verb *verb, FILE *out)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        if (!o->value || !o->words)
            continue;
        fprintf(out, "        %s:--%s) ", verb->name, o->name);
        if (!strcmp(o->words, "FILE"))
            fputs("COMPREPLY=($(compgen -f -- \"$word\")); return;;\n", out);
        else
            fprintf(out, "COMPREPLY=($(compgen -W '%s' -- \"$word\")); return;;\n", o->words);
    }
}

static void completion_verb(const struct verb *verb, FILE *out)
{
    fprintf(out, "        %s) COMPREPLY=($(compgen -W '", verb->name);
    for (const struct verb *const *v = verb->verbs; v && *v; v++)
        fprintf(out, " %s", (*v)->name);
    completion_options(verb, out);
    fputs("' -- \"$word\"));;\n", out);
}

void help_completion(const struct verb *const *verbs, FILE *out)
{
    fputs("# bash completion for lodge; source it or put it into the completions directory.\n"
          "_lodge() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local verb=${COMP_WORDS[1]}\n    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '",
          out);
    for (const struct verb *const *v = verbs; *v; v++)
        fprintf(out, "%s%s", v == verbs ? "" : " ", (*v)->name);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case \"$verb:$before\" in\n", out);
    for (const struct verb *const *v = verbs; *v; v++)
        completion_values(*v, out);
    fputs("    esac\n    case \"$verb\" in\n", out);
    for (const struct verb *const *v = verbs; *v; v++)
        completion_verb(*v, out);
    fputs("    esac\n}\ncomplete -o default -F _lodge lodge\n", out);
}

/* --- The verb --- */

static int help_run(struct cli *cli, struct error *err)
{
    const struct verb *const *verbs = cli_verbs;
    const struct verb *found = NULL;
    char outer[WIDTH] = "", inner[WIDTH];

    if (cli_flag(cli, "man")) {
        help_man(cli_verbs, cli->out);
        return CLI_OK;
    }
    if (cli_flag(cli, "completion")) {
        help_completion(cli_verbs, cli->out);
        return CLI_OK;
    }
    if (!cli->argc) {
        help_overview(cli_verbs, cli->out);
        return CLI_OK;
    }
    for (int i = 0; i < cli->argc; i++) {
        if (found)
            strcpy(outer, help_nested(outer, found->name, inner, sizeof(inner)));
        found = NULL;
        for (const struct verb *const *v = verbs; v && *v; v++)
            if (!strcmp((*v)->name, cli->argv[i]))
                found = *v;
        if (!found)
            return error_set(err, EINVAL, "there is no verb '%s'; 'lodge help' lists them",
                             cli->argv[i]);
        verbs = found->verbs;
    }
    help_verb(outer, found, cli->out);
    return CLI_OK;
}

static const struct cli_option help_options[] = {
    {"man", 0, NULL, "Print the man page lodge(1) as man(7) source.", NULL},
    {"completion", 0, NULL, "Print the completion for bash.", NULL},
    {0},
};

const struct verb help_command = {
    .name = "help",
    .summary = "tell about a verb",
    .operands = "[VERB...]",
    .options = help_options,
    .run = help_run,
};
