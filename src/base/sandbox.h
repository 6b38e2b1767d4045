/* sandbox.h - what is left to a machine's process once its descriptors are
 * open: an empty file system, no network, no capabilities, few resources, and
 * for each kind of thread the system calls of its work and no others. A call
 * outside of them kills the process (seccomp(2)): whoever takes a device or an
 * engine over from inside the guest is left with what the guest had anyway.
 *
 * Three steps: sandbox_create while there is one thread, sandbox_enter on that
 * thread when all is open, sandbox_thread at the start of every other one. A
 * NULL sandbox is none: every function here then does nothing. */
#ifndef LODGE_BASE_SANDBOX_H
#define LODGE_BASE_SANDBOX_H

#include <stdbool.h>

#include "base/error.h"
#include "base/log.h"

/* Kinds of threads; a thread also keeps to what the one allows that starts it. */
enum sandbox_thread {
    SANDBOX_MAIN,  /* the event loop */
    SANDBOX_VCPU,  /* guest code, and devices on its behalf */
    SANDBOX_TIMER, /* the timers of devices */
    SANDBOX_IO,    /* files and sockets that devices wait for */
    SANDBOX_THREADS,
};

/* What the machine was given, and so which further system calls it needs. */
enum sandbox_feature {
    SANDBOX_KVM = 1 << 0,       /* ioctls of /dev/kvm */
    SANDBOX_TRANSLATE = 1 << 1, /* memory that is written, then run */
    SANDBOX_SOCKETS = 1 << 2,   /* listening sockets, removed at the end (sandbox_keep) */
    SANDBOX_DISK = 1 << 3,      /* image files, io_uring */
    SANDBOX_NETWORK = 1 << 4,   /* connections of its own, in the host's network */
    SANDBOX_SHARE = 1 << 5,     /* files of shared directories */
    SANDBOX_OWNERS = 1 << 6,    /* these are of any user: their modes do not count, and they can be
                                   given away. For directories that nothing leads out of. */
};

struct sandbox;

/* Whether this build has one. The run time of the sanitizers opens files and
 * starts processes of its own at any moment: under them there is none. */
bool sandbox_available(void);

/* In the process that is to be confined, before the first thread is started: make the filters for
 * features, forbid new privileges, and enter a mount namespace (as another user than root: by a
 * user namespace). Where the host allows no namespaces the log is told, and
 * the rest of the sandbox stands. Where there is none ret_sandbox gets NULL. */
int sandbox_create(unsigned features, const struct log *log, struct sandbox **ret_sandbox,
                   struct error *err);
void sandbox_destroy(struct sandbox *sandbox);

/* Let the directory that holds path stay where it is, with what is below it. */
int sandbox_keep(struct sandbox *sandbox, const char *path, struct error *err);

/* Close the sandbox around the process: the main thread, all descriptors open. */
int sandbox_enter(struct sandbox *sandbox, struct error *err);

/* Confine the calling thread. */
int sandbox_thread(const struct sandbox *sandbox, enum sandbox_thread kind, struct error *err);

#endif
