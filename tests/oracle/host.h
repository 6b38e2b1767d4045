/* host.h - runs code on the host CPU: the oracle.
 *
 * A signal handler swaps the whole register state in and out, so that one
 * trap starts the code and the next one ends it, be it a breakpoint or a
 * fault. There is one host: its functions belong to one thread. */
#ifndef LODGE_TESTS_ORACLE_HOST_H
#define LODGE_TESTS_ORACLE_HOST_H

#include "base/error.h"
#include "image.h"

/* Map the memory of image.h into this process and take over the signals that
 * exceptions make. */
int host_open(struct error *err);

/* Whether the host runs code of this mode at all (16 bits need modify_ldt). */
bool host_has_mode(enum x86_mode mode);

/* Whether the host has what the row belongs to. */
bool host_has_feature(enum x86_feature feature);

/* Run image over memory until it traps; both are changed in place. */
void host_run(struct image *image, struct image_memory *memory);

#endif
