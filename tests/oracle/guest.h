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
 * `peers` (NULL-terminated) carries out too are offered. hot_turns: as engine_config's. */
int guest_open(const char *engine, const char *const *peers, unsigned hot_turns,
               struct guest **ret_guest, struct error *err);
void guest_close(struct guest *guest);

/* Run image over memory until it traps; both are changed in place. What takes
 * longer than `milliseconds` ends with IMAGE_TIMEOUT (0: no limit). */
int guest_run(struct guest *guest, struct image *image, struct image_memory *memory,
              unsigned milliseconds, struct error *err);

/* --- The whole machine, for code that is more than a user --- */

#define GUEST_MEMORY_SIZE 0x30000u
/* Where guest physical memory holds what image.h has, a GDT with room from
 * GUEST_GDT_FREE on, and 256 handlers that halt, GUEST_HANDLER_SIZE apart. */
#define GUEST_CODE         0x10000u
#define GUEST_DATA         0x20000u
#define GUEST_GDT          0x1000u
#define GUEST_GDT_FREE     0x50u
#define GUEST_HANDLERS     0x4000u
#define GUEST_HANDLER_SIZE 4u
#define GUEST_FREE_PAGE    0x7000u

/* The state and the memory that CPL 0 of long mode would start with. */
void guest_get_kernel(const struct guest *guest, struct x86_state *ret_state, uint8_t *ret_memory);

/* Run from *state over memory until an exit; both are changed in place. */
int guest_run_machine(struct guest *guest, struct x86_state *state, uint8_t *memory,
                      unsigned milliseconds, enum engine_exit *ret_exit, struct error *err);

/* The vCPU, for tests that look inside. */
struct vcpu *guest_vcpu(struct guest *guest);

#endif
