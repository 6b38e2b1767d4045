/* apic.h - the state of one local APIC: one struct, the same wherever the APIC
 * is kept (in the machine, or in an engine), so that it can be moved and saved.
 * Plain data: copy it with assignment. */
#ifndef LODGE_X86_APIC_H
#define LODGE_X86_APIC_H

#include <stdint.h>

/* Register offsets (SDM 3A table 10-1). */
enum x86_apic_register {
    X86_APIC_ID = 0x20, X86_APIC_VERSION = 0x30, X86_APIC_TPR = 0x80, X86_APIC_PPR = 0xa0,
    X86_APIC_EOI = 0xb0, X86_APIC_LDR = 0xd0, X86_APIC_DFR = 0xe0, X86_APIC_SVR = 0xf0,
    X86_APIC_ISR = 0x100, X86_APIC_TMR = 0x180, X86_APIC_IRR = 0x200, X86_APIC_ESR = 0x280,
    X86_APIC_ICR_LOW = 0x300, X86_APIC_ICR_HIGH = 0x310, X86_APIC_LVT_TIMER = 0x320,
    X86_APIC_LVT_ERROR = 0x370, X86_APIC_TIMER_INITIAL = 0x380, X86_APIC_TIMER_CURRENT = 0x390,
    X86_APIC_TIMER_DIVIDE = 0x3e0, X86_APIC_SELF_IPI = 0x3f0,
};

/* The clock that its timer counts. KVM's own local APIC knows no other. */
#define X86_APIC_TIMER_HZ 1000000000ull

#define X86_APIC_REGISTERS 64

struct x86_apic {
    uint64_t base;         /* IA32_APIC_BASE */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE */
    /* What the page shows at 16 * n. The ID is in bits 31 to 24 in x2APIC mode, too; TIMER_CURRENT
     * is what is left of the count. */
    uint32_t reg[X86_APIC_REGISTERS];
};

static inline uint32_t x86_apic_get(const struct x86_apic *apic, unsigned offset)
{
    return apic->reg[offset >> 4];
}

static inline void x86_apic_set(struct x86_apic *apic, unsigned offset, uint32_t value)
{
    apic->reg[offset >> 4] = value;
}

#endif
