/* session.h - the host's end of a session with Lodge's init in a virtual machine (channel.h): a
 * command with the caller's standard streams, terminal and signals. The guest is not trusted:
 * frames are bounded, and it gets no more input than its window. */
#ifndef LODGE_GUEST_SESSION_H
#define LODGE_GUEST_SESSION_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/loop.h"

struct session;

/* All on the loop's thread. */
struct session_events {
    void (*started)(void *opaque); /* the command runs; may be NULL */
    /* status: the command's, or -1 with why. The last call. */
    void (*ended)(void *opaque, int status, const struct error *why);
    void *opaque;
};

struct session_task {
    const char *text; /* of the caller, until session_close */
    size_t length;
    bool terminal; /* that of the input is made raw, and its size is passed on */
    int input, output, error; /* descriptors; not owned */
};

/* Connect to the port of that number of the guest whose directory is directory_fd, and send the
 * task there; port -1: the first of the further ones that is free. */
int session_open(int directory_fd, int port, const struct session_task *task, struct loop *loop,
                 const struct session_events *events, struct session **ret_session,
                 struct error *err);
/* Restores the terminal. NULL is ignored. */
void session_close(struct session *session);

/* Take in what has come already: the machine has ended. */
void session_drain(struct session *session);

/* SIGKILL cannot be watched: this one asks for it. */
#define SESSION_SIGKILL (SIGRTMIN + 5)

/* Watch the signals that a command in the foreground gets; call before there are threads. They
 * are passed on, or fn is called when nobody is there to take them. */
int session_watch_signals(int *ret_fd, struct error *err);
void session_take_signals(struct session *session, int fd, void (*nobody)(void *opaque),
                          void *opaque);

#endif
