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
    {"annotation", 0, "NAME=VALUE", "Say something to the OCI runtime and its hooks.", NULL},      \
    {"label-file", 0, "FILE", "The labels that the file has, one NAME[=VALUE] a line.", "FILE"},   \
    {"env-host", 0, NULL, "Have the caller's variables.", NULL},                                   \
    {"unsetenv", 0, "NAME", "Do not have a variable of the image's, or of the defaults.", NULL},   \
    {"unsetenv-all", 0, NULL, "Have none of them.", NULL},                                         \
    {"umask", 0, "MODE", "The permissions that new files lack, in octal (default 0022).", NULL},   \
    {"no-hosts", 0, NULL, "See the image's own /etc/hosts.", NULL},                                \
    {"dns-option", 0, "OPTION", "An option of /etc/resolv.conf.", NULL},                           \
    {"expose", 0, "PORT[/udp]", "A port for --publish-all, as if the image exposed it.", NULL},    \
    {"volumes-from", 0, "GUEST[:ro]", "Have the volumes and directories of another guest.", NULL}, \
    {"cidfile", 0, "FILE", "Write the guest's name to the file, which must be new.", "FILE"},      \
    {"stop-timeout", 0, "SECONDS", "How long 'lodge stop' waits before it kills (default 10).",    \
     NULL},                                                                                        \
    {"quiet", 'q', NULL, "Show no progress of a pull.", NULL},                                     \
    {"cpuset-cpus", 0, "LIST", "The host's CPUs that it may use: 0-2,5.", NULL},                   \
    {"cpuset-mems", 0, "LIST", "The host's memory nodes that it may use.", NULL},                  \
    {"cpu-shares", 0, "N", "Its part of the CPUs beside others (default 1024).", NULL},            \
    {"cpu-quota", 0, "MICROSECONDS", "What it may have of the CPUs in each period.", NULL},        \
    {"cpu-period", 0, "MICROSECONDS", "That period (default 100000).", NULL},                      \
    {"memory-swap", 0, "SIZE", "Memory and swap together (-1: any swap); needs --memory.", NULL},  \
    {"memory-reservation", 0, "SIZE", "The memory that it keeps when the host has little.", NULL}, \
    {"memory-swappiness", 0, "N", "How readily it is swapped, 0 to 100 (control groups v1).",      \
     NULL},                                                                                        \
    {"blkio-weight", 0, "N", "Its part of the disks beside others, 10 to 1000.", NULL},            \
    {"oom-score-adj", 0, "N", "How soon it is killed when memory runs out, -1000 to 1000.", NULL}, \
    RUN_CONFINE_OPTIONS                                                                            \
    {"pull", 0, "WHEN",                                                                            \
     "Get the image from its registry: when it is missing (default), always, newer (always, but "  \
     "what is here will do when the registry cannot be asked), never.",                            \
     "missing always newer never"},                                                                \
    IMAGE_REGISTRY_OPTIONS
/* clang-format on */

/* Operand 0 is the image, the others the command. Returns the command's exit status. */
int run_image(struct cli *cli, struct error *err);

#endif
