/* debug.h - hardware breakpoints of the software CPU (SDM 3B 17.2, 17.3).
 * Private to src/engine/. All run on the CPU's own thread. */
#ifndef LODGE_ENGINE_INTERPRET_DEBUG_H
#define LODGE_ENGINE_INTERPRET_DEBUG_H

#include "engine/interpret/cpu.h"

/* Whether any breakpoint is on. */
static inline bool debug_active(const struct cpu *cpu)
{
    return cpu->state.dr7 & 0xff;
}

/* Whether data in this page is watched: it must have no TLB tags. */
bool debug_watches_page(const struct cpu *cpu, uint64_t linear);

/* Note that the instruction touched data or a port: a trap follows it. */
void debug_data_access(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access);
void debug_port_access(struct cpu *cpu, uint16_t port, unsigned size);

/* Before an instruction at linear: raises #DB when there is a breakpoint. */
void debug_check_instruction(struct cpu *cpu, uint64_t linear);

/* After an instruction: deliver the trap of what it touched, or of a single step. */
void debug_trap(struct cpu *cpu, bool single_step);

#endif
