/* cpuid.h - the CPU that guests are offered: what Lodge would like to show,
 * cut by each engine to what it carries out (SDM 2A, CPUID). */
#ifndef LODGE_MACHINE_CPUID_H
#define LODGE_MACHINE_CPUID_H

#include "engine/engine.h"

/* Fill list for CPU index of cpus; tsc_hz is the frequency of the TSC. */
void machine_cpuid(const struct engine_ops *engine, unsigned index, unsigned cpus, uint64_t tsc_hz,
                   struct x86_cpuid *list);

#endif
