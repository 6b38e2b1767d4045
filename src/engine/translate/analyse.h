/* analyse.h - what an instruction touches, and where flags live: read off the
 * instruction table, before any code is emitted. Pure.
 *
 * Assumption: what an operand list does not tell is in the short table of
 * implied registers in analyse.c. A wrong answer there is a wrong register in
 * the guest, so an instruction that is not understood is one to interpret. */
#ifndef LODGE_ENGINE_TRANSLATE_ANALYSE_H
#define LODGE_ENGINE_TRANSLATE_ANALYSE_H

#include "x86/decode.h"

/* How an instruction is carried out. */
enum step_kind {
    STEP_INTERPRET, /* leave to the interpreter's body */
    STEP_COPY,      /* its own bytes, the memory operand replaced */
    STEP_SYSTEM,    /* a system instruction that has code of its own, see system.c */
    STEP_MODE,      /* the same, and the mode changes: STAC, CLAC */
    STEP_TRANSFER,  /* the same, and it goes elsewhere: SYSCALL, SYSRET, IRET */
    STEP_NOTHING,   /* no effect: NOP, PREFETCH */
    STEP_PUSH,
    STEP_POP,
    STEP_LEAVE,
    STEP_JCC,
    STEP_JUMP,
    STEP_JUMP_INDIRECT,
    STEP_CALL,
    STEP_CALL_INDIRECT,
    STEP_RETURN,
    STEP_KINDS,
};

#define NO_STEP UINT16_MAX
#define UNIT_STEPS 80 /* of a unit, at most */

struct step {
    struct x86_insn insn;
    const uint8_t *bytes;
    uint64_t rip;
    uint64_t target;       /* of a direct branch */
    enum step_kind kind;
    uint16_t mentions;     /* general registers that must be in place, a bit each */
    uint16_t writes;       /* those of them that it may change */
    uint16_t flags_read, flags_killed;
    uint16_t flags_live;   /* that somebody reads before they are written, before this one */
    uint16_t taken_live;   /* at the target of a branch that leaves the unit */
    uint16_t inside;       /* the step a branch goes to, or NO_STEP */
    bool follows;          /* a call, return or indirect branch that goes on with the next step, */
    uint64_t expected;     /* which is there */
    bool leader;           /* something branches here */
    bool loop;             /* something later branches back here */
    bool sse, avx;         /* vector registers must be loaded */
    bool x87;              /* x87 and MMX registers must be loaded */
    bool can_trap;         /* the host may raise #DE or #GP in its place */
};

/* Everything but flags_live, taken_live, inside, follows, leader and loop. offered: the
 * guest has the feature, and so has the host. */
void analyse_step(struct step *step, bool offered);

/* Flags that are read before they are written by the code at bytes. written: by code
 * that lies there too, see analyse_stores. */
uint16_t analyse_flags_at(const uint8_t *bytes, unsigned available, enum x86_mode mode,
                          bool written);

/* Stores may change the code that follows: they read all flags. */
void analyse_stores(struct step *steps, unsigned count);

/* flags_live of all steps, from the last to the first; live_out: after the last. */
void analyse_liveness(struct step *steps, unsigned count, uint16_t live_out);

#endif
