/* boot_file.h - a file that a guest starts from: its kernel, its initrd. The
 * open descriptor is all that is kept of it; what is loaded goes from the file
 * straight into guest memory, at every start anew. */
#ifndef LODGE_MACHINE_LOADER_BOOT_FILE_H
#define LODGE_MACHINE_LOADER_BOOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct boot_file {
    char *path; /* NULL: there is none */
    int fd;
    uint64_t size;
};

/* Open path; what ("kernel") is for messages. A file that is empty or larger than the guest's
 * memory (bytes) is refused. */
int boot_file_open(const char *what, const char *path, uint64_t memory,
                   struct boot_file *ret_file, struct error *err);
void boot_file_close(struct boot_file *file);

/* Read exactly [offset, offset + size); -ENOEXEC when the file ends before. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *to, size_t size,
                   struct error *err);

#endif
