/* halt.h - how the thread of a halted CPU waits for a request.
 *
 * Going to sleep and being woken takes the host tens of microseconds, which is
 * longer than CPUs of a guest that work together wait for each other. So a
 * thread that was woken soon after it slept watches for a while before it
 * sleeps the next time: its window doubles while that would have been worth it,
 * and closes when a sleep was long or others want the host CPU. A single CPU,
 * and CPUs that share host CPUs, never watch. */
#ifndef LODGE_MACHINE_HALT_H
#define LODGE_MACHINE_HALT_H

#include <stdbool.h>
#include <stdint.h>

struct machine_cpu;

struct halt {
    bool may_watch;
    uint32_t window_ns;
    uint64_t crowded_until; /* others wanted the host CPUs lately: do not watch before */
};

/* For one of that many CPUs. */
void halt_init(struct halt *halt, unsigned cpus);
/* Until there is a request, or the machine ends. */
void halt_wait(struct machine_cpu *cpu);
/* After a request was made: any thread. */
void halt_wake(struct machine_cpu *cpu);

#endif
