/* relay.h - the caller's standard streams, terminal and signals for a container's process that it
 * waits for in the foreground. */
#ifndef LODGE_CONTAINER_RELAY_H
#define LODGE_CONTAINER_RELAY_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct relay;

/* Before the process is made: signals are held from here on. terminal: the
 * descriptor to send the terminal's master to is put into ret_console_fd (the
 * caller's to close). */
int relay_open(bool terminal, struct relay **ret_relay, int *ret_console_fd, struct error *err);
/* Pass everything on until pid, a child, has ended. Returns its exit status, 128
 * and the signal when it was killed. */
int relay_run(struct relay *relay, pid_t pid, struct error *err);
void relay_close(struct relay *relay); /* NULL is ignored */

#endif
