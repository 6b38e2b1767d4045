/* program.h - another program run to its end. */
#ifndef LODGE_IMAGE_PROGRAM_H
#define LODGE_IMAGE_PROGRAM_H

#include "base/error.h"

/* Run argv[0], looked for in PATH, with the environment and the variables of
 * extra ("NAME=VALUE", NULL at the end, or NULL) on top. What it prints goes to the
 * file log, whose last line tells in err why it failed. */
int program_run(const char *const *argv, const char *const *extra, const char *log,
                struct error *err);

#endif
