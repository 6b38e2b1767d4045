/* control.h - the control socket of a running machine: a client says one line,
 * gets one line back, and both hang up. Requests:
 *
 *   engine NAME   go on with another engine (machine_change_engine); its
 *                 device, open, must come along (SCM_RIGHTS), since a machine
 *                 in its sandbox opens nothing
 *   resize BYTES PATH
 *                 make the disk at PATH, absolute, larger or smaller
 *   balloon BYTES how much memory the guest is asked to give back, in all
 *
 * The reply is "ok", or "failed: " and the reason. */
#ifndef LODGE_MACHINE_CONTROL_H
#define LODGE_MACHINE_CONTROL_H

#include "base/error.h"
#include "base/loop.h"

struct machine;
struct control;

/* Listen at the socket of the machine called name (base/run_directory.h), on
 * the loop. -EADDRINUSE: a machine of that name runs. */
int control_open(const char *name, struct machine *machine, struct loop *loop,
                 struct control **ret_control, struct error *err);
/* Stop listening, remove the socket. NULL is ignored. */
void control_close(struct control *control);
const char *control_path(const struct control *control);

/* The client's side: make a request of the machine called name, fd (or -1)
 * coming along. What the machine says against it is in err. */
int control_request(const char *name, const char *request, int fd, struct error *err);

#endif
