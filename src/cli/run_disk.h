/* run_disk.h - `lodge run NAME` of a disk that `lodge image build` made: one with
 * its kernel and initial RAM disk beside it, FILE.vmlinuz and FILE.initrd. */
#ifndef LODGE_CLI_RUN_DISK_H
#define LODGE_CLI_RUN_DISK_H

#include "cli/cli.h"

/* Where the disk called name is kept: NAME.qcow2 among the user's disks (/var/lib/lodge/disks for
 * root, else ~/.local/share/lodge/disks). The directory is made when make is true. */
int run_disk_path(const char *name, bool make, char *path, size_t size, struct error *err);

/* Find the disk that an operand means: a path; NAME.qcow2 in the working directory; the
 * user's disk of that name. False: there is none that can be booted. */
bool run_disk_find(const char *operand, char *path, size_t size);

/* Give run the options that boot the disk, where the command line has others to say: the disk
 * comes first, the kernel's command line is added to, and without --network it is the user's. */
int run_disk_boot(struct cli *cli, const char *path, struct error *err);

#endif
