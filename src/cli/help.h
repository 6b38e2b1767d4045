/* help.h - the tables of verbs as text for people, for man(1) and for bash. */
#ifndef LODGE_CLI_HELP_H
#define LODGE_CLI_HELP_H

#include "cli/cli.h"

void help_overview(const struct verb *const *verbs, FILE *out);
/* outer: the verbs that verb is nested in, a blank after each; "" for none. */
void help_verb(const char *outer, const struct verb *verb, FILE *out);
/* Append name and a blank to outer, in buffer; what has no room is cut. */
const char *help_nested(const char *outer, const char *name, char *buffer, size_t length);
/* The man page lodge(1) in man(7) source. */
void help_man(const struct verb *const *verbs, FILE *out);
/* Completion for bash, to be sourced. */
void help_completion(const struct verb *const *verbs, FILE *out);

extern const struct verb help_command;

#endif
