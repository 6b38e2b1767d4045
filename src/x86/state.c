#include "x86/state.h"

#include <string.h>

static void real_segment(struct x86_segment *segment, uint16_t selector, uint64_t base,
                         uint16_t type)
{
    *segment = (struct x86_segment){
        .selector = selector,
        .base = base,
        .limit = 0xffff,
        .attributes = X86_SEG_P | type,
    };
}

/* What RESET and INIT have in common (SDM 3A table 9-1). */
static void reset_common(struct x86_state *state, uint32_t signature)
{
    const uint16_t data = X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED;

    memset(state->gpr, 0, sizeof(state->gpr));
    state->gpr[X86_RDX] = signature;
    state->rip = 0xfff0;
    state->rflags = X86_FLAGS_ONE;
    for (int i = X86_ES; i <= X86_GS; i++)
        real_segment(&state->segment[i], 0, 0, data);
    real_segment(&state->segment[X86_CS], 0xf000, 0xffff0000, data | X86_SEG_CODE);
    real_segment(&state->segment[X86_LDTR], 0, 0, 2);
    real_segment(&state->segment[X86_TR], 0, 0, 11);
    state->gdtr = state->idtr = (struct x86_table_register){.limit = 0xffff};
    state->cr2 = state->cr3 = state->cr4 = state->cr8 = 0;
    memset(state->dr, 0, sizeof(state->dr));
    state->dr6 = X86_DR6_FIXED;
    state->dr7 = X86_DR7_FIXED;
    memset(state->pdpte, 0, sizeof(state->pdpte));
    state->efer = 0;
    state->interrupt_shadow = state->nmi_blocked = state->nmi_pending = state->debug_trap = false;
}

void x86_state_reset(struct x86_state *state, uint32_t signature)
{
    *state = (struct x86_state){
        .cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET,
        .xcr0 = X86_XCR0_X87,
        .pat = 0x0007040600070406,
        .misc_enable = 1, /* fast strings */
        .fpu = {.fcw = 0x40, .mxcsr = 0x1f80, .mxcsr_mask = 0xffff},
    };
    reset_common(state, signature);
}

void x86_state_init(struct x86_state *state, uint32_t signature)
{
    state->cr0 = (state->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
    reset_common(state, signature);
    state->activity = X86_WAIT_FOR_SIPI;
}

void x86_state_sipi(struct x86_state *state, uint8_t vector)
{
    state->segment[X86_CS].selector = (uint16_t)(vector << 8);
    state->segment[X86_CS].base = (uint64_t)vector << 12;
    state->rip = 0;
    state->activity = X86_RUNNING;
}
