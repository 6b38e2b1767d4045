/* directory.h - directories of small files, in which networks are remembered. */
#ifndef LODGE_NETWORK_DIRECTORY_H
#define LODGE_NETWORK_DIRECTORY_H

#include <dirent.h>

#include "base/error.h"

/* Make the directory and those above it, and open it: a descriptor for the caller to close. */
int directory_open(const char *path, struct error *err);

/* The entries, by name: how many; freed by directory_free. */
int directory_list(int directory_fd, struct dirent ***ret_entries, struct error *err);
void directory_free(struct dirent **entries, int count);

#endif
