/* guest.h - runs the same image in a guest of an engine, through engine.h.
 *
 * The guest is in long mode with paging; each exception goes to a handler of
 * its own at CPL 0 that halts, which ends the run. */
#ifndef LODGE_TESTS_ORACLE_GUEST_H
#define LODGE_TESTS_ORACLE_GUEST_H

#include "engine/engine.h"
#include "image.h"

struct guest;

/* A guest on the engine of that name; all CPUID features that every one of
 * `peers` (NULL-terminated) carries out too are offered. */
int guest_open(const char *engine, const char *const *peers, struct guest **ret_guest,
               struct error *err);
void guest_close(struct guest *guest);

/* Run image over memory until it traps; both are changed in place. What takes
 * longer than `milliseconds` ends with IMAGE_TIMEOUT (0: no limit). */
int guest_run(struct guest *guest, struct image *image, struct image_memory *memory,
              unsigned milliseconds, struct error *err);

#endif
