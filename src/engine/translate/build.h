/* build.h - one unit while it is being made. Private to the files that emit:
 * translate.c drives, copy.c takes instructions over, memory.c makes address
 * checks, branch.c ways out. */
#ifndef LODGE_ENGINE_TRANSLATE_BUILD_H
#define LODGE_ENGINE_TRANSLATE_BUILD_H

#include "engine/translate/analyse.h"
#include "engine/translate/loop.h"
#include "engine/translate/segment.h"
#include "engine/translate/path.h"
#include "engine/translate/translator.h"

#define LOOPS 4 /* in a unit, with their addresses checked ahead */
/* REP MOVS has five, JCC one, a unit's head two; a step of a loop three more. */
#define STUBS_MAX (UNIT_STEPS * 11 + 8 + LOOPS * (LOOP_RANGES * 2 + LOOP_BESIDES + 2))

/* Each register of a set, the lowest first. */
#define EACH_REGISTER(reg, set)                                                                    \
    unsigned reg##_left = (set), reg;                                                              \
    reg##_left && (reg = (unsigned)__builtin_ctz(reg##_left), true);                               \
    reg##_left &= reg##_left - 1

/* A register as a set; none is empty. */
static inline uint16_t register_bit(unsigned reg)
{
    return reg == X86_NO_REGISTER ? 0 : (uint16_t)(1u << reg);
}

/* The registers that an address is computed from. */
static inline uint16_t address_registers(const struct x86_memory *memory)
{
    return register_bit(memory->base) | register_bit(memory->index);
}

#define FIELD(name) emit_field(offsetof(struct translator, name))
#define HOME(reg)   emit_field(offsetof(struct translator, cpu.state.gpr) + 8 * (reg))

/* How flags are made again: rebuild.c. */
struct rebuild {
    bool kept;            /* in memory: keep.c */
    bool passed_on;       /* to code in the page that may pass them on: better kept than made */
    uint16_t step;        /* else: that set them last */
    int64_t moved;        /* what was added to its first operand since */
};

/* Code that is seldom run; it is put behind the unit's own. */
struct stub {
    enum stub_kind {
        STUB_MEMORY, STUB_LEAVE, STUB_LINK, STUB_STEP, STUB_GUESS, STUB_GUARD, STUB_APART,
    } kind;
    uint8_t *from;        /* displacement that leads here; NULL: none, see trap */
    struct trap *trap;    /* leads here, or NULL */
    uint16_t home;        /* guest registers at home at that point */
    uint16_t same;        /* others whose values are there too */
    bool rcx_saved;       /* RCX is in saved_rcx */
    bool flags_saved;     /* flags are in saved_flags */
    int32_t behind;       /* what RSP is still to be moved by */
    struct site *site;    /* NULL for STUB_LINK, STUB_STEP, STUB_GUARD */
    /* STUB_MEMORY */
    struct x86_memory memory;
    uint8_t address_size;
    uint64_t next_rip;    /* what a RIP-relative address counts from */
    const struct loop *loop; /* whose turn it is part of, or NULL */
    uint64_t rip, target; /* STUB_LINK */
    bool rebuilds;        /* STUB_LINK: flags, on the way */
    struct rebuild rebuild;
    uint16_t step;        /* which it is for */
    uint8_t *const *to;   /* STUB_STEP: where the code is that it goes to */
    uint8_t scratch[2];
    uint8_t *check;       /* where to try again */
    uint8_t *back;        /* STUB_GUESS: where to go on */
    uint8_t bit;          /* of BT: the register with the bit offset, or EMIT_NONE */
    uint8_t reg;          /* STUB_GUARD: where the branch goes; EMIT_NONE: in scratch_value */
    int undo;             /* STUB_GUARD: for branch_indirect */
    uint8_t *literal;     /* STUB_GUARD: displacement of a constant to be put here, or NULL */
    uint64_t constant;
    bool wide;
};

/* Accesses off one base that one check covers: see group.c. */
struct group {
    unsigned id;          /* 0: none */
    bool write;
    bool stored;          /* in its field too */
    uint8_t base;
    int64_t low, high;    /* covered bytes, from the present value of base */
};

struct groups {
    struct group group[GROUPS];
    unsigned held;        /* whose distance is in the second scratch register; GROUPS: none */
    unsigned next;        /* to be replaced */
};

/* What was recorded of a path: see record.h. */
struct record {
    struct path_page pages[PATH_PAGES];
    unsigned page_count;
    struct unit unit;            /* its head, while it is recorded */
    unsigned depth, followed;    /* calls that are open; calls, returns and indirect branches */
    bool run;                    /* something was carried out */
    bool closed;                 /* it comes back to its head */
    uint8_t bytes[UNIT_STEPS][X86_INSN_MAX];
    bool keeps[UNIT_STEPS];      /* flags are put away before that step, */
    uint16_t read[UNIT_STEPS];   /* which itself reads these */
    bool rebuilds[UNIT_STEPS];   /* flags that go with a branch that goes elsewhere */
    struct rebuild rebuild[UNIT_STEPS];
};

struct build {
    struct translator *t;
    struct emit *e;
    struct relocations relocations; /* of the unit */
    struct unit *unit;
    struct step steps[UNIT_STEPS];
    unsigned count;
    struct record record;
    struct record *path;         /* the unit is a trace: its record; else NULL */
    uint8_t *host[UNIT_STEPS + 1]; /* code of each step, and of what follows */
    uint8_t *open[UNIT_STEPS];   /* a branch to a later step, to be patched */
    bool written;                /* by code in its pages, as far as is known: code_pages.h */
    bool cut;                    /* what stands at end_rip goes on in the next page */
    uint8_t cut_bytes[X86_INSN_MAX];
    uint64_t end_rip;            /* where the unit goes on when its last step is no branch */
    uint16_t end_live;
    bool rebuilds;               /* flags at the unit's end, which then need not be kept */
    struct rebuild rebuild;
    uint8_t *behind_keeping;     /* of a unit that passes flags on: its code, they are in memory */
    uint16_t keep_at;            /* the step before which flags are put away, or NO_STEP */
    uint8_t scratch[2];          /* the unit's own */
    unsigned word;               /* bytes of an address, a stack slot: 8 or 4 */
    bool segmented;              /* UNIT_SEGMENTED: see segment.c; word says nothing then */

    /* Of the present step. */
    uint16_t step;
    uint8_t s1, s2;              /* scratch registers */
    uint16_t home;               /* guest registers at home while it runs */
    uint16_t same;               /* others, of a loop, whose values are there too */
    uint16_t borrowed, lent;     /* taken from the guest for it; given back to it */
    uint16_t steady;             /* the same between steps */
    uint16_t holds;              /* those of them whose values their registers hold too */
    int32_t behind;              /* what RSP is still to be moved by: stack.c */
    struct groups groups;
    struct frame {
        unsigned first, last, slot; /* steps of its loop, last 0: none; its place in groups */
        struct group group;
    } frame;                     /* see frame.c */
    struct loop *loop;           /* whose turns are emitted, or NULL */

    struct groups groups_at[UNIT_STEPS]; /* that branches bring to their targets */
    uint8_t guesses[UNIT_STEPS];    /* whose address comes late: guess.c */
    bool met_anew[UNIT_STEPS + 1]; /* more ways lead to that step than those known */
    unsigned group_id;

    struct loop loops[LOOPS];
    unsigned loop_count;
    struct stub stubs[STUBS_MAX];
    unsigned stub_count;
};

/* --- memory.c --- */

/* Whether the step moves reg by a constant, and by how much. */
bool memory_constant_step(const struct build *b, const struct step *s, unsigned reg,
                          int64_t *ret_delta);
bool memory_has_base_segment(const struct x86_memory *m);
/* The rights of the accesses that code of a unit's mode makes. */
enum tlb_rights memory_rights(unsigned mode);
/* The access a step makes to memory. False: none. */
bool memory_of_step(const struct build *b, const struct step *s, struct x86_memory *ret_memory,
                    unsigned *ret_size, unsigned *ret_access);
/* Whether it may be one of several that one check covers. */
bool memory_groupable(const struct build *b, const struct x86_memory *m, unsigned address_size);

/* Emit the check for an access of size bytes by step i and say where the host
 * finds it. Uses s1 and s2. */
struct emit_memory memory_reach(struct build *b, unsigned i, const struct x86_memory *memory,
                                unsigned address_size, unsigned size, unsigned access);
/* The same for a bit test whose bit offset is in a register: the word with the bit. */
struct emit_memory memory_reach_bits(struct build *b, unsigned i, unsigned bit, bool wide,
                                     unsigned access);
/* The offset in its page of the address in reg into s1, PAGE_SIZE or more if it
 * cannot be reached that way; then the addend into s2. */
/* From the address in s1, its page's place in the TLB into s2, and into s1 the offset
 * in the page, PAGE_SIZE or more if it cannot be reached that way. Changes flags. */
void memory_tag_offset(struct build *b, unsigned access);
/* The same, but for what is added to the address: that goes to tag. */
void memory_tag(struct build *b, unsigned tag, unsigned access);
void memory_page_offset(struct build *b, unsigned reg, unsigned access);
void memory_page_addend(struct build *b);
/* From the address in reg to that of the word with the bit; other is used. The flags
 * are kept. */
void memory_bit_word(struct build *b, unsigned bit, bool wide, unsigned reg, unsigned other);
/* The memory operand of an access to the stack, displacement from RSP. */
struct x86_memory memory_stack(int displacement);
/* The linear address into reg; other is used for a segment's base. */
void memory_address(struct build *b, const struct x86_memory *memory, unsigned address_size,
                    uint64_t next_rip, unsigned reg, unsigned other);

/* The same of RSP: what an address off base counts from that. */
int32_t memory_behind(const struct build *b, unsigned base);

/* --- second.c --- */

/* As branch_leave for a check that failed, unless the TLB's second way has the page: then
 * what is emitted next runs. */
void second_leave(struct build *b, const struct site *site, enum tlb_rights rights);

/* --- sixteen.c: instructions of such units --- */

/* What kind of step an instruction of segmented code is. */
void sixteen_refine(const struct build *b, struct step *s);
/* Whether system.c makes the same code for it as elsewhere. */
bool sixteen_knows_system(const struct x86_insn *insn);
/* Emit a step; false: it is like one of flat code. */
bool sixteen_emit(struct build *b, unsigned i);
/* The conditional branch of step i, of any code, that is no Jcc. Returns the displacement to
 * be patched. */
uint8_t *sixteen_emit_loop(struct build *b, unsigned i);

/* --- system.c --- */

/* Whether code can be made for this step, which else is interpreted: then its
 * kind, and what it does to flags and registers, is set. */
void system_refine(const struct build *b, struct step *s);
void system_emit(struct build *b, unsigned i);
/* Status flags to saved_flags and back, for steps that clobber them. */
void flags_save(struct build *b);
void flags_restore(struct build *b);

/* --- transfer.c --- */

/* A SYSCALL, SYSRET or IRET, which ends the unit. */
void transfer_emit(struct build *b, const struct step *s);

/* --- x87.c --- */

/* FLDCW, as in system.c. */
bool x87_refine(const struct build *b, struct step *s);
void x87_emit_control(struct build *b, unsigned i);

/* --- cut.c --- */

/* Decode what begins at the unit's address and goes on in the next page, as its
 * only step. False: that page cannot be looked at now. */
bool cut_decode(struct build *b);
/* At the head of such a unit: leave unless the next page is what it was. */
void cut_guard(struct build *b);

/* --- translate.c --- */

/* Put in place what the step mentions, and find it two scratch registers (s1,
 * s2) if it needs them; and put all back. */
void begin_step(struct build *b, const struct step *s, bool needs_scratch);
void end_step(struct build *b, const struct step *s);
/* Two scratch registers, or one, which then both are, for a step that has begun without. */
void begin_scratch(struct build *b, const struct step *s, unsigned count);
/* Where a loop begins anew: look whether signals are pending, and count turns. */
void build_poll(struct build *b, const struct step *s);
/* Whether an access through that segment needs no check of its limit. */
bool build_reaches_segment(const struct build *b, unsigned segment);
struct fallback *make_fallback(struct build *b, const struct step *s);

/* What kind of step the decoded instruction is; all but what resolving its branch tells. */
void build_classify(const struct build *b, struct step *s);
/* Whether what follows it in memory may follow it. */
bool build_falls_through(const struct step *s);
/* Begin a unit, whose first step is at those addresses. */
void build_begin(struct build *b, struct unit *unit);
/* Its steps are known, and where their branches go: choose registers, and find how long
 * flags live. */
void build_plan(struct build *b);
/* Emit it, and enter it. */
void build_finish(struct build *b, struct unit_page *page);

/* --- path.c --- */

/* How flags get to branches that go elsewhere than expected: before and after the
 * liveness pass for good. */
void path_plan_flags(struct build *b);
void path_keep_flags(struct build *b);
/* Flags that must not change before step i, of any unit; b->count: behind the last. */
uint16_t path_live_before(const struct build *b, unsigned i);
/* Whether flags are kept in memory when the step leaves. */
bool path_keeps(const struct build *b, unsigned step);
/* At the head of a trace: leave if its pages may have moved. */
void path_check_pages(struct build *b);
/* Where turns are counted while a trace is tried; and the side exits. */
void path_count_turn(struct build *b, const struct step *s);
void path_count_exit(struct build *b, unsigned reg);
/* Step i, whose branch goes to the address in reg, or in scratch_value if that is EMIT_NONE,
 * goes on if it is what was expected. undo: as branch_indirect's. */
void path_guard(struct build *b, unsigned i, unsigned reg, int undo);
/* What comes of it where it is not. */
void path_stub(struct build *b, const struct stub *stub);

/* --- copy.c --- */

/* A step that is copied. */
void build_copy(struct build *b, unsigned i);

/* --- group.c --- */

void group_forget(struct build *b);
/* The second scratch register is needed for something else. */
void group_lose_register(struct build *b);
/* Where the distance of group k is kept. */
struct emit_memory group_slot_field(unsigned k);
/* Where the host finds an access that a group covers; false: none does. */
bool group_reach(struct build *b, const struct x86_memory *memory, unsigned size,
                 unsigned access, struct emit_memory *ret_memory);
/* Whether it will. */
bool group_covers(const struct build *b, const struct x86_memory *memory, unsigned size,
                  unsigned access);
/* Extend a group that begins at step i to what else lies off the same base. */
void group_plan(const struct build *b, unsigned i, struct group *group);
/* It was checked, and the distance is in s2. */
void group_add(struct build *b, const struct group *planned);
/* What became of the groups after step i; at a branch; where branches meet. */
void group_after_step(struct build *b, unsigned i);
void group_at_branch(struct build *b, unsigned i);
void group_at_leader(struct build *b, unsigned i);

/* --- branch.c --- */

/* Move registers so that those at home are to instead of from. */
void branch_convert(struct build *b, uint16_t from, uint16_t to);
/* The same; same: registers whose values are at home too. */
void branch_convert_from(struct build *b, uint16_t from, uint16_t same, uint16_t to);
/* Leave to C; the same where flags are in memory. */
void branch_leave_kept(struct build *b, const struct site *site);
void branch_leave(struct build *b, const struct site *site);
/* Whether a branch to target is a link, and no jump to another page. */
bool branch_stays(const struct build *b, uint64_t target);
/* Go to a guest address; near: a displacement that leads here, or NULL. rebuild: flags
 * to be made again on the way; NULL: those there are stay. */
void branch_exit(struct build *b, uint64_t rip, uint64_t target, uint8_t *near,
                 const struct rebuild *rebuild);
/* Go to the guest address in reg, or in scratch_value if it is EMIT_NONE. undo:
 * what RSP is moved by if the step must not have happened. */
void branch_indirect(struct build *b, const struct step *s, unsigned reg, int undo,
                     const struct rebuild *rebuild);
/* Look whether signals are pending, or vector registers missing. */
void branch_poll(struct build *b, size_t field, bool byte, bool flags_live, struct site *site);
void branch_stubs(struct build *b);
struct stub *build_stub(struct build *b, enum stub_kind kind, uint8_t *from, struct site *site);

/* --- rebuild.c --- */

/* Whether the flags that step i finds can be made again, from registers that are in
 * place within the unit and between units; b->count: what follows the unit. */
bool rebuild_find(const struct build *b, unsigned i, struct rebuild *ret);
/* Whether what step s does leaves flags alone. */
bool rebuild_leaves_flags(const struct step *s);
/* See how flags that are read behind the unit get there, and then how long flags live. */
void rebuild_plan(struct build *b);
/* Make them; reg is used. Where they are kept registers are as between units, and both
 * scratch registers are used. */
void rebuild_emit(struct build *b, const struct rebuild *rebuild, unsigned reg);
/* Have them made from memory whenever they are wanted: what makes them is stored. Flags stay;
 * reg may be used. */
void rebuild_store(struct build *b, const struct rebuild *rebuild, unsigned reg);
/* The same for those that step i finds. */
void rebuild_keep(struct build *b, unsigned i);

#endif
