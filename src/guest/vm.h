/* vm.h - a guest isolated as a virtual machine: the image's root is its disk (disk.c), Lodge's
 * init (guest/) runs the command, and what it reads and prints comes over a port of the virtio
 * console (channel.h). The machine lives in a child of the process that calls vm_run, in
 * the sandbox (vm_process.h, base/sandbox.h). */
#ifndef LODGE_GUEST_VM_H
#define LODGE_GUEST_VM_H

#include "guest/guest.h"
#include "machine/machine.h"

struct vm_options {
    const struct engine_ops *engine;
    struct log *log;
    void (*started)(void *opaque); /* the guest has its command; or NULL */
    void *opaque;
};

/* Make the guest's disk, initial RAM disk and task, in its directory. */
int vm_prepare(struct guest *guest, struct store *store, struct error *err);
/* Run a prepared guest to its end, with the caller's standard streams, terminal and signals.
 * Returns the command's exit status. The caller holds the guest's lock, and calls guest_end. */
int vm_run(struct guest *guest, const struct vm_options *options, struct error *err);

/* Run a further command in a guest that runs: text is a process object (guest_exec_text), or NULL
 * to print the processes there are. Streams, terminal and signals as above. Returns
 * the command's exit status. */
int vm_exec(const struct guest *guest, const char *text, struct error *err);

#endif
