/* build.h - one unit while it is being made. Private to the files that emit:
 * translate.c drives, memory.c makes address checks, branch.c ways out. */
#ifndef LODGE_ENGINE_TRANSLATE_BUILD_H
#define LODGE_ENGINE_TRANSLATE_BUILD_H

#include "engine/translate/analyse.h"
#include "engine/translate/translator.h"

#define UNIT_STEPS 80
#define STUBS_MAX  (UNIT_STEPS * 6 + 8) /* REP MOVS has five, JCC one, a unit's head two */

#define FIELD(name) emit_field(offsetof(struct translator, name))
#define HOME(reg)   emit_field(offsetof(struct translator, cpu.state.gpr) + 8 * (reg))

/* Code that is seldom run; it is put behind the unit's own. */
struct stub {
    enum stub_kind { STUB_MEMORY, STUB_LEAVE, STUB_LINK } kind;
    uint8_t *from;        /* displacement that leads here; NULL: none, see trap */
    struct trap *trap;    /* leads here, or NULL */
    uint16_t home;        /* guest registers at home at that point */
    bool rcx_saved;       /* RCX is in saved_rcx */
    bool flags_saved;     /* the flags are in saved_flags */
    struct site *site;    /* NULL for STUB_LINK */
    /* STUB_MEMORY */
    struct x86_memory memory;
    uint8_t address_size;
    uint64_t next_rip;    /* what a RIP-relative address counts from */
    uint64_t rip, target; /* STUB_LINK */
    uint8_t scratch[2];
    uint8_t *check;       /* where to try again */
    uint8_t bit;          /* of BT: the register with the bit offset, or EMIT_NONE */
    bool wide;
};

/* Accesses off one base that one check covers. The addend is in addend. */
struct group {
    bool active, write;
    uint8_t base, addend;
    int64_t low, high;    /* covered bytes, from the present value of base */
};

struct build {
    struct translator *t;
    struct emit *e;
    struct unit *unit;
    struct step steps[UNIT_STEPS];
    unsigned count;
    uint8_t *host[UNIT_STEPS];   /* code of each step */
    uint8_t *open[UNIT_STEPS];   /* a branch to a later step, to be patched */
    bool cut;                    /* what stands at end_rip goes on in the next page, and
                                  * is not in the unit */
    struct unit_page *tail_page; /* the last instruction ends in it; NULL: it does not */
    uint64_t tail_physical;
    uint8_t tail_bytes[X86_INSN_MAX];
    uint64_t end_rip;            /* where the unit goes on when its last step is no branch */
    uint16_t end_live;
    uint8_t scratch[2];          /* the unit's own */
    unsigned word;               /* bytes of an address, a stack slot: 8 or 4 */

    /* Of the present step. */
    uint8_t s1, s2;              /* scratch registers */
    uint16_t home;               /* guest registers at home while it runs */
    uint16_t borrowed, lent;     /* taken from the guest for it; given back to it */
    struct group group;

    struct stub stubs[STUBS_MAX];
    unsigned stub_count;
};

/* --- memory.c --- */

/* Emit the check for an access of size bytes by step i and say where the host
 * finds it. Uses s1 and s2. */
struct emit_memory memory_reach(struct build *b, unsigned i, const struct x86_memory *memory,
                                unsigned address_size, unsigned size, unsigned access);
/* The same for a bit test whose bit offset is in a register: the word with the bit. */
struct emit_memory memory_reach_bits(struct build *b, unsigned i, unsigned bit, bool wide,
                                     unsigned access);
/* The offset in its page of the address in reg into s1, PAGE_SIZE or more if it
 * cannot be reached that way; then the addend into s2. */
void memory_page_offset(struct build *b, unsigned reg, unsigned access);
void memory_page_addend(struct build *b);
/* From the address in reg to that of the word with the bit; other is used. The flags
 * are kept. */
void memory_bit_word(struct build *b, unsigned bit, bool wide, unsigned reg, unsigned other);
/* The memory operand of an access to the stack, displacement from RSP. */
struct x86_memory memory_stack(int displacement);
/* After step i: what became of the group. */
void memory_after_step(struct build *b, unsigned i);
/* The linear address into reg; other is used for a segment's base. */
void memory_address(struct build *b, const struct x86_memory *memory, unsigned address_size,
                    uint64_t next_rip, unsigned reg, unsigned other);

/* --- system.c --- */

/* Whether code can be made for this step, which else is interpreted: then its
 * kind, and what it does to flags and registers, is set. */
void system_refine(const struct build *b, struct step *s);
void system_emit(struct build *b, unsigned i);

/* --- flags.c --- */

/* The status flags to saved_flags and back; no register changes. */
void flags_emit_save(struct emit *e);
void flags_emit_restore(struct emit *e);

/* --- cut.c --- */

/* The instruction at rip, which goes on in the next page, as the last one of the
 * unit. False: it cannot be had. */
bool cut_decode(struct build *b, struct step *s, uint64_t rip);
/* Leave unless its second part is still where it was. */
void cut_emit_check(struct build *b, const struct step *s);

/* --- x87.c --- */

/* FLDCW, as in system.c. */
bool x87_refine(const struct build *b, struct step *s);
void x87_emit_control(struct build *b, unsigned i);

/* --- translate.c --- */

/* Put in place what the step mentions, and find it two scratch registers (s1,
 * s2) if it needs them; and put all back. */
void begin_step(struct build *b, const struct step *s, bool needs_scratch);
void end_step(struct build *b, const struct step *s);
/* Whether an access through that segment needs no check of its limit. */
bool build_reaches_segment(const struct build *b, unsigned segment);
struct fallback *make_fallback(struct build *b, const struct step *s);

/* --- branch.c --- */

/* Move registers so that those at home are to instead of from. */
void branch_convert(struct build *b, uint16_t from, uint16_t to);
/* Leave to C. */
void branch_leave(struct build *b, const struct site *site);
/* Go to a guest address; near: a displacement that leads here, or NULL. */
void branch_exit(struct build *b, uint64_t rip, uint64_t target, uint8_t *near);
/* Go to the guest address in reg, or in scratch_value if it is EMIT_NONE. undo:
 * what RSP is moved by if the step must not have happened. */
void branch_indirect(struct build *b, const struct step *s, unsigned reg, int undo);
/* Look whether signals are pending, or vector registers missing. */
void branch_poll(struct build *b, size_t field, bool byte, bool flags_live, struct site *site);
void branch_stubs(struct build *b);
struct stub *build_stub(struct build *b, enum stub_kind kind, uint8_t *from, struct site *site);

#endif
