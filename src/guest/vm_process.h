/* vm_process.h - the two processes of a guest that is a virtual machine. One has the machine, and
 * is what the sandbox (base/sandbox.h) is around; the other one, its parent, stays outside, waits,
 * and may write down how it ended. Whoever takes the machine's process over from inside the guest
 * can send the parent reports, and nothing else: they are checked. */
#ifndef LODGE_GUEST_VM_PROCESS_H
#define LODGE_GUEST_VM_PROCESS_H

#include <stdbool.h>

#include "base/error.h"

struct vm_process; /* as the machine's process knows its parent */

/* Have body run in a child. Its return, an exit status or negative with a line, is returned.
 * Signals that others send to the caller are passed on to the child; the set is that of
 * session_watch_signals, which stays blocked. When the caller dies, the child is killed.
 * started(opaque), or NULL, is called here when the child says vm_process_started. */
int vm_process_run(int (*body)(struct vm_process *process, void *opaque, struct error *err),
                   void (*started)(void *opaque), void *opaque, struct error *err);

/* In the child: the guest has its command. */
void vm_process_started(struct vm_process *process);

#endif
