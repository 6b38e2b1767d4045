/* hook.h - programs that config.json has run at points of a container's life
 * (config.md, POSIX-platform Hooks). */
#ifndef LODGE_CONTAINER_HOOK_H
#define LODGE_CONTAINER_HOOK_H

#include "base/error.h"
#include "base/log.h"
#include "container/config.h"

/* Run the hooks in order, each with state on its standard input. The first that
 * fails, or outlives its timeout and is killed, ends the list with an error.
 * kind is for the error's words. */
int hook_run(const hook_list *hooks, const char *kind, const char *state, struct error *err);

/* The same where the specification wants no failure to end anything (poststart, poststop): each
 * hook runs, whatever became of the one before; what fails is logged. */
void hook_run_all(const hook_list *hooks, const char *kind, const char *state,
                  const struct log *log);

#endif
