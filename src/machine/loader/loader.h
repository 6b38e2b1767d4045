/* loader.h - starting a guest without firmware: a kernel file is recognized by
 * its format, put into memory, and the boot CPU's state set to what the
 * format's boot protocol demands. One row of the table a format. */
#ifndef LODGE_MACHINE_LOADER_H
#define LODGE_MACHINE_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "machine/loader/boot_file.h"
#include "machine/machine.h"

/* What is to be booted. */
struct boot_image {
    struct boot_file kernel, initrd;
    char *append;
};

/* Open the files; initrd_path and append may be NULL. A file larger than the
 * guest's memory (bytes) is refused. */
int boot_image_open(const char *kernel_path, const char *initrd_path, const char *append,
                    uint64_t memory, struct boot_image *ret_image, struct error *err);
void boot_image_close(struct boot_image *image);

/* Load it into machine's memory and set the boot CPU's state; after
 * machine_create and after every machine_reset. */
int boot_image_load(const struct boot_image *image, struct machine *machine, struct error *err);

struct loader {
    const char *name; /* of the format, for messages */
    bool (*recognizes)(const struct boot_image *image);
    int (*load)(const struct boot_image *image, struct machine *machine, struct error *err);
};

extern const struct loader linux_loader, pvh_loader, multiboot_loader;

#endif
