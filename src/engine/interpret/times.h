/* times.h - where a CPU's thread spends its time, for --stats. Costs two reads of
 * the TSC a change of part when it is wanted, else a branch. The CPU's own thread. */
#ifndef LODGE_ENGINE_INTERPRET_TIMES_H
#define LODGE_ENGINE_INTERPRET_TIMES_H

#include <stdbool.h>
#include <stdint.h>

enum cpu_part {
    PART_OTHER,     /* exits, interrupts and exceptions, looking for code */
    PART_CODE,      /* translated code */
    PART_TRANSLATE,
    PART_REFILL,    /* of the software TLB */
    PART_INTERPRET,
    PART_DEVICE,    /* the machine: ports, device memory, its MSRs, its loop */
    PART_HALTED,
    CPU_PARTS,
};

struct cpu_times {
    bool wanted;
    enum cpu_part part;
    uint64_t since;            /* TSC when it began */
    uint64_t spent[CPU_PARTS]; /* TSC ticks */
};

/* From now on it is that part; returns the one before, to go back to. */
static inline enum cpu_part times_enter(struct cpu_times *times, enum cpu_part part)
{
    const enum cpu_part before = times->part;

    if (__builtin_expect(times->wanted, 0)) {
        const uint64_t now = __builtin_ia32_rdtsc();

        times->spent[before] += now - times->since;
        times->since = now;
        times->part = part;
    }
    return before;
}

#endif
