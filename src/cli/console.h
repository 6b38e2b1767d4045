/* console.h - the guest's first serial port at the user's side: a terminal
 * (raw, with an escape key), a file, or a socket that clients connect to. */
#ifndef LODGE_CLI_CONSOLE_H
#define LODGE_CLI_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

struct console_end; /* opaque */

/* What the console asks of the one who opened it. All on the loop's thread,
 * except failed, which any thread may call. */
struct console_events {
    /* Bytes for the guest; returns how many it took. */
    size_t (*input)(void *opaque, const uint8_t *bytes, size_t length);
    void (*quit)(void *opaque); /* Ctrl-] q */
    /* Output cannot be written any more; why is one line. */
    void (*failed)(void *opaque, const char *why);
    void *opaque;
};

/* where: "stdio", "none", "unix:PATH" (listens there), else a file's path
 * (made, emptied, 0600). */
int console_open(const char *where, struct loop *loop, const struct console_events *events,
                 struct console_end **ret_console, struct error *err);
/* Restores the terminal, removes the socket. NULL is ignored. */
void console_close(struct console_end *console);

/* Guest output. Any thread. */
void console_write(struct console_end *console, const uint8_t *bytes, size_t length);
/* The guest takes input again. Any thread. */
void console_ready(struct console_end *console);

#endif
