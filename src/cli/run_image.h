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
    {"rm", 0, NULL, "Remove the guest when it has ended, with its anonymous volumes.", NULL},      \
    {"replace", 0, NULL, "Remove the guest first that has the name.", NULL},                       \
    {"restart", 0, "POLICY",                                                                       \
     "Run it again when it has ended by itself: no (default), on-failure[:N], always.",            \
     "no on-failure always unless-stopped"},                                                       \
    {"env", 'e', "NAME[=VALUE]", "Set a variable; a name alone takes the caller's value.", NULL},  \
    {"env-file", 0, "FILE", "Set the variables that the file has, one NAME[=VALUE] a line.",       \
     "FILE"},                                                                                      \
    {"label", 'l', "NAME[=VALUE]", "Say something about the guest, for inspect.", NULL},           \
    {"user", 'u', "USER[:GROUP]", "Who the command runs as.", NULL},                               \
    {"group-add", 0, "GROUP", "A further group of the user.", NULL},                               \
    {"workdir", 'w', "DIR", "The working directory.", NULL},                                       \
    {"hostname", 0, "NAME", "The guest's own name for itself.", NULL},                             \
    {"add-host", 0, "NAME:ADDRESS", "A line of /etc/hosts.", NULL},                                \
    {"dns", 0, "ADDRESS", "A name server, in place of the network's.", NULL},                      \
    {"dns-search", 0, "DOMAIN", "Where names are looked for.", NULL},                              \
    {"volume", 'v', "[SOURCE:]TARGET[:ro]",                                                        \
     "Show a directory or file of the host in it, by its path; "                                   \
     "or a volume, by its name, which is made when it is not there; or, without a source, an "     \
     "anonymous volume of its own.", NULL},                                                        \
    {"mount", 0, "type=KIND,...",                                                                  \
     "The same by parts: type=bind or volume, source=, target=, ro; or "                           \
     "type=tmpfs, target=, tmpfs-size=.", NULL},                                                   \
    {"publish-all", 'P', NULL,                                                                     \
     "Let a free port of the host's 127.0.0.1 lead to each port that the image exposes; "          \
     "'lodge port' tells which.", NULL},                                                           \
    {"shm-size", 0, "SIZE", "The size of /dev/shm (default 64M).", NULL},                          \
    {"sysctl", 0, "NAME=VALUE", "A parameter of the kernel.", NULL},                               \
    {"stop-signal", 0, "SIGNAL", "What 'lodge stop' sends, in place of the image's.", NULL},       \
    {"entrypoint", 0, "PROGRAM", "What the command's words are given to, in place of the image's " \
     "own; or a JSON array of it and its arguments.", NULL},                                       \
    {"init", 0, NULL, "Run the command as the child of a small init, which reaps processes and "   \
     "passes signals on.", NULL},                                                                  \
    {"pid", 0, "WHOSE", "host: see the host's processes.", "host private"},                        \
    {"ipc", 0, "WHOSE", "host: share the host's memory and queues.", "host private"},              \
    {"uts", 0, "WHOSE", "host: have the host's name.", "host private"},                            \
    {"cpuset-cpus", 0, "LIST", "The host's CPUs that it may use: 0-2,5.", NULL},                   \
    {"cpu-shares", 0, "N", "Its part of the CPUs beside others (default 1024).", NULL},            \
    RUN_CONFINE_OPTIONS                                                                            \
    {"pull", 0, "WHEN",                                                                            \
     "Get the image from its registry: when it is missing (default), always, never.",              \
     "missing always never"},                                                                      \
    IMAGE_REGISTRY_OPTIONS
/* clang-format on */

/* Operand 0 is the image, the others the command. Returns the command's exit status. */
int run_image(struct cli *cli, struct error *err);

#endif
