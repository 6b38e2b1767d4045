/* run_image.h - `lodge run IMAGE`: the part of run that makes guests of images. */
#ifndef LODGE_CLI_RUN_IMAGE_H
#define LODGE_CLI_RUN_IMAGE_H

#include "cli/image.h"
#include "cli/run_confine.h"

/* Its rows among run's options. */
/* clang-format off */
#define RUN_IMAGE_OPTIONS                                                                          \
    {"isolation", 0, "KIND", "What isolates the image: container (default), or vm, a virtual "     \
     "machine with a Linux of its own (Debian's, or --kernel).", "container vm"},                  \
    {"interactive", 'i', NULL, "Keep the standard input open.", NULL},                             \
    {"tty", 't', NULL, "Give it a terminal.", NULL},                                               \
    {"detach", 'd', NULL, "Run in the background, and print the guest's name.", NULL},             \
    {"rm", 0, NULL, "Remove the guest when it has ended.", NULL},                                  \
    {"env", 0, "NAME[=VALUE]", "Set a variable; a name alone takes the caller's value.", NULL},    \
    {"user", 'u', "USER[:GROUP]", "Who the command runs as.", NULL},                               \
    {"workdir", 'w', "DIR", "The working directory.", NULL},                                       \
    {"hostname", 0, "NAME", "The guest's own name for itself.", NULL},                             \
    {"volume", 'v', "SOURCE:TARGET[:ro]", "Show a directory or file of the host in it.", NULL},    \
    {"env-file", 0, "FILE", "Set the variables that the file has, one NAME[=VALUE] a line.",      \
     "FILE"},                                                                                      \
    {"entrypoint", 0, "PROGRAM", "What the command's words are given to, in place of the image's " \
     "own; or a JSON array of it and its arguments.", NULL},                                       \
    RUN_CONFINE_OPTIONS                                                                            \
    IMAGE_STORE_OPTION
/* clang-format on */

/* Operand 0 is the image, the others the command. Returns the command's exit status. */
int run_image(struct cli *cli, struct error *err);

#endif
