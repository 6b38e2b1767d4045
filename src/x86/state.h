/* state.h - the architectural state of one virtual CPU: one struct, the same
 * for every engine, so that a guest can move between engines at any exit, be
 * saved, and be compared. Plain data: copy it with assignment. */
#ifndef LODGE_X86_STATE_H
#define LODGE_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/registers.h"

/* A segment register with its hidden part (SDM 3A 3.4.3). */
struct x86_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint16_t selector;
    uint16_t attributes; /* bits 40-55 of the descriptor, see below; limit bits zero */
};

/* Attributes (SDM 3A 3.4.5): bits 40..47 and 52..55 of a descriptor, moved to 0..7 and 12..15. */
#define X86_SEG_ACCESSED (1u << 0)
#define X86_SEG_WRITABLE (1u << 1) /* data; of code: readable */
#define X86_SEG_READABLE (1u << 1)
#define X86_SEG_DOWN     (1u << 2) /* data: expand-down; of code: conforming */
#define X86_SEG_CONFORM  (1u << 2)
#define X86_SEG_CODE     (1u << 3)
#define X86_SEG_TYPE     0xfu
#define X86_SEG_S        (1u << 4) /* code or data, not system */
#define X86_SEG_DPL      (3u << 5)
#define X86_SEG_DPL_SHIFT 5
#define X86_SEG_P        (1u << 7) /* zero: the register is unusable (null selector) */
#define X86_SEG_AVL      (1u << 12)
#define X86_SEG_L        (1u << 13)
#define X86_SEG_DB       (1u << 14)
#define X86_SEG_G        (1u << 15)

struct x86_table_register {
    uint64_t base;
    uint16_t limit;
};

/* The XSAVE area, standard format (SDM 1 13.4): what FXSAVE, XSAVE and
 * KVM_GET_XSAVE use. ST(i) is relative to the top of the stack, as there. */
struct x86_xsave {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged: a bit set means the physical register is in use */
    uint8_t reserved1;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    struct {
        uint64_t significand;
        uint16_t sign_exponent;
        uint8_t reserved[6];
    } st[8];
    uint8_t xmm[16][16];
    uint8_t reserved2[96];
    uint64_t xstate_bv, xcomp_bv;
    uint64_t reserved3[6];
    uint8_t ymm_high[16][16];
} __attribute__((aligned(64)));

_Static_assert(__builtin_offsetof(struct x86_xsave, xmm) == 160, "SDM 1 10.5.1");
_Static_assert(__builtin_offsetof(struct x86_xsave, xstate_bv) == 512, "SDM 1 13.4.2");
_Static_assert(__builtin_offsetof(struct x86_xsave, ymm_high) == 576, "SDM 1 13.4.3");

/* What the CPU is doing (SDM 3A 8.4, 25: activity state). */
enum x86_activity {
    X86_RUNNING,
    X86_HALTED,        /* HLT; an interrupt, NMI or INIT wakes it */
    X86_WAIT_FOR_SIPI, /* after INIT on an application processor */
    X86_SHUTDOWN,      /* triple fault */
};

struct x86_state {
    uint64_t gpr[X86_GPRS];
    uint64_t rip;
    uint64_t rflags; /* complete: never lazy outside an engine */
    struct x86_segment segment[X86_SEGMENTS];
    struct x86_table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t pdpte[4]; /* loaded with CR3 under PAE paging (SDM 3A 4.4.1) */

    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, spec_ctrl, xss;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_variable[8][2];
    uint64_t tsc_offset; /* guest TSC = host TSC + this, modulo 2^64 */
    uint64_t tsc_adjust;

    enum x86_activity activity;
    bool interrupt_shadow; /* the next instruction is still shielded (STI, MOV SS) */
    bool nmi_blocked;      /* between NMI delivery and IRET */
    bool nmi_pending;
    bool debug_trap; /* #DB of the instruction before is due; DR6 tells of it (SDM 3B 17.2.3) */
    bool interrupt_pending; /* interrupt_vector was acknowledged, but is not delivered yet */
    uint8_t interrupt_vector;
    struct x86_xsave fpu;
};

/* The state after power-up or RESET (SDM 3A table 9-1): real mode, CS:IP
 * F000:FFF0, RDX with the CPU's signature (CPUID.1:EAX). */
void x86_state_reset(struct x86_state *state, uint32_t signature);

/* The state after INIT (same table: FPU, MSRs and TSC survive), in
 * X86_WAIT_FOR_SIPI. */
void x86_state_init(struct x86_state *state, uint32_t signature);

/* Start at vector << 12 in real mode, as a start-up IPI demands (SDM 3A 8.4.3). */
void x86_state_sipi(struct x86_state *state, uint8_t vector);

static inline unsigned x86_cpl(const struct x86_state *state)
{
    return (state->segment[X86_SS].attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

#endif
