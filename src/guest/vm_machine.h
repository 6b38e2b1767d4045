/* vm_machine.h - the machine of a guest that is one: the image's root is its disk (disk.c), Lodge's
 * init (guest/) runs the command, and what it reads and prints comes over a port of the virtio
 * console (channel.h). It lives in a child of the process that calls vm_machine_run, in the
 * sandbox (vm_process.h, base/sandbox.h). */
#ifndef LODGE_GUEST_VM_MACHINE_H
#define LODGE_GUEST_VM_MACHINE_H

#include "guest/guest.h"
#include "machine/machine.h"

#define VM_INITRD "initrd" /* in the guest's directory; removed when it was read */

/* What its kernel must be able to do (kernel.h). */
unsigned vm_features(const struct guest *guest);

/* Run a guest whose disk, initial RAM disk and config.json are there, to its end, with the caller's
 * standard streams, terminal and signals. Returns the command's exit status. */
int vm_machine_run(struct guest *guest, const struct engine_ops *engine,
                   const struct guest_run *run, struct error *err);

#endif
