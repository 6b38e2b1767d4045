/* vm_further.h - what is done in a virtual machine that runs, beside its own command: further
 * sessions with its init (channel.h). */
#ifndef LODGE_GUEST_VM_FURTHER_H
#define LODGE_GUEST_VM_FURTHER_H

#include "guest/guest.h"
#include "guest/task.h"

struct vm_streams {
    int input, output, error; /* descriptors; not owned */
};

/* Do the task in the foreground. Returns its exit status. */
int vm_further(const struct guest *guest, const struct task *task,
               const struct vm_streams *streams, struct error *err);

/* vm_copy.c: guest_copy_in and guest_copy_out of one that runs. */
int vm_copy_in(const struct guest *guest, const char *from, const char *to, struct error *err);
int vm_copy_out(const struct guest *guest, const char *from, const char *to, struct error *err);

#endif
