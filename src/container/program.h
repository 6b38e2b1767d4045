/* program.h - the program a process executes: where it is, and its
 * environment. */
#ifndef LODGE_CONTAINER_PROGRAM_H
#define LODGE_CONTAINER_PROGRAM_H

#include "base/error.h"
#include "container/config.h"

/* process.env with HOME, from the root's /etc/passwd, where it has none.
 * Both results are the caller's; ret_home may become NULL. */
int program_environment(const struct process *process, char ***ret_env, char **ret_home,
                        struct error *err);

/* Say that name cannot be executed, in the words that engines look for: Go's, which begin in
 * lower case. They give 126 or 127 as exit status by them. */
int program_error(struct error *err, int code, const char *name);

/* The file to execute for name: itself when it has a slash, else the first
 * executable one in PATH of env. */
int program_find(const char *name, char *const *env, char **ret_path, struct error *err);

#endif
