/* protect.h - keep the runtime's own program out of a container's reach. A
 * process of the container can come by a descriptor of /proc/PID/exe, and
 * write to it once nobody runs it (CVE-2019-5736). So what enters a container
 * runs from a sealed copy in memory, or from a read-only mount that is in no namespace. */
#ifndef LODGE_CONTAINER_PROTECT_H
#define LODGE_CONTAINER_PROTECT_H

#include "base/error.h"

/* Run the program again from a protected place, with the same arguments
 * (as /proc/self/cmdline has them); returns 0 when it already does. */
int protect_self(struct error *err);

#endif
