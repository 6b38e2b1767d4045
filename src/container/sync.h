/* sync.h - what the runtime and a process it has made tell each other until
 * the process becomes the container's program. One message is one packet; the
 * process's end closes itself on execve(2), which the runtime sees as the end. */
#ifndef LODGE_CONTAINER_SYNC_H
#define LODGE_CONTAINER_SYNC_H

#include <sys/types.h>

#include "base/error.h"

enum sync_step {
    SYNC_BORN,    /* from a helper: number is the pid of the process it made */
    SYNC_ADOPTED, /* to that process: it may speak now */
    SYNC_MAPPED,  /* to the process: its id maps are written */
    SYNC_MOUNTED, /* the root is put together, runtime hooks may run */
    SYNC_HOOKED,  /* to the process: they have run */
    SYNC_NOTIFY,  /* number is the descriptor of a seccomp listener */
    SYNC_NOTIFIED,
    SYNC_READY, /* only the program is left to be executed */
    SYNC_SAVED, /* to the process: it is on record */
    SYNC_FAILED,
    SYNC_CLOSED, /* the other end is gone; never sent */
};

struct sync_message {
    enum sync_step step;
    int number;
    struct error error; /* of SYNC_FAILED */
};

/* Two connected descriptors. */
int sync_pair(int ret_fds[2], struct error *err);
/* By write(2) alone: a seccomp filter may already be in force. Negative errno. */
int sync_send(int fd, enum sync_step step, int number);
void sync_send_error(int fd, const struct error *error);
/* Wait for a message. A failure of the other side is returned as its error. */
int sync_receive(int fd, struct sync_message *message, struct error *err);
/* Wait for a message of this step; the other side's death is an error too. */
int sync_expect(int fd, enum sync_step step, int *ret_number, struct error *err);

#endif
