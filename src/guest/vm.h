/* vm.h - a guest isolated as a virtual machine: the image's root goes in as the
 * initial RAM disk, Lodge's init (guest/lodge-init.c) runs the command, and what it
 * reads and prints comes over the first serial port (channel.h). */
#ifndef LODGE_GUEST_VM_H
#define LODGE_GUEST_VM_H

#include "guest/guest.h"
#include "machine/machine.h"

struct vm_options {
    const char *kernel; /* a Linux kernel's file */
    const struct engine_ops *engine;
    struct log *log;
    void (*started)(void *opaque); /* the command's surroundings are up; or NULL */
    void *opaque;
};

/* Make the initial RAM disk of the guest's root, in its directory. */
int vm_prepare(struct guest *guest, const struct store *store, struct error *err);
/* Run a prepared guest to its end, with the caller's standard streams, terminal and signals.
 * Returns the command's exit status. The caller holds the guest's lock, and calls guest_end. */
int vm_run(struct guest *guest, const struct vm_options *options, struct error *err);

#endif
