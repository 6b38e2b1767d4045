/* rootless.h - guests of images for users without privileges: the program goes into a user
 * namespace in which the user is root, with their subordinate ids (subuid(5)) behind, and into a
 * mount namespace of its own. There it may mount the layers and keep owners; the rest of the code
 * does as for root. */
#ifndef LODGE_GUEST_ROOTLESS_H
#define LODGE_GUEST_ROOTLESS_H

#include <jansson.h>

#include "base/error.h"

/* Go there, unless the program is root of one already. The calling process must have one thread.
 * Without newuidmap(1) or subordinate ids the user is alone in the namespace. -EPERM: the host
 * does not let users make one, and the process is where it was. */
int rootless_enter(struct error *err);

/* Leave out of an OCI configuration made for root what is denied to the root of a user namespace.
 */
void rootless_adapt(json_t *config);

#endif
