/* translator.h - the translator's own structures. Private to this folder.
 *
 * A unit is guest code of one page turned into host code. It is found by the
 * physical and the linear address of its first byte and by the mode, and lives
 * as long as its page keeps its version (code_pages.h). Each CPU has units of
 * its own, so emitted code is changed only by the thread that runs it.
 *
 * Where guest registers are. Most live in the host register of the same name.
 * A unit takes two for itself, its scratch registers: the guest's values of
 * those are in state.gpr[] ("at home"). Between units the scratch registers are
 * SCRATCH_A and SCRATCH_B, the ones that compilers use least, so that most
 * units have nothing to move. GS points to the struct translator.
 *
 * A site is a place where emitted code leaves to C. It says where the guest
 * is, and what is to be done. */
#ifndef LODGE_ENGINE_TRANSLATE_TRANSLATOR_H
#define LODGE_ENGINE_TRANSLATE_TRANSLATOR_H

#include <stddef.h>

#include "engine/interpret/code_pages.h"
#include "engine/interpret/cpu.h"
#include "engine/translate/chain.h"
#include "engine/translate/churn.h"
#include "engine/translate/elsewhere.h"
#include "engine/translate/emit.h"
#include "engine/translate/guess.h"
#include "engine/translate/inline_cache.h"
#include "engine/translate/iret.h"
#include "engine/translate/keep.h"
#include "engine/translate/together.h"

#define SCRATCH_A X86_R10
#define SCRATCH_B X86_R11
#define SCRATCH_HOME (1u << SCRATCH_A | 1u << SCRATCH_B)

enum unit_mode {
    UNIT_AC = 1 << 3,     /* supervisor accesses with AC set; below are enum cpu_mode_bits */
    UNIT_SINGLE = 1 << 4, /* a check for each access: none are merged */
    UNIT_FS = 1 << 5,     /* 32-bit: this segment reaches all of memory */
    UNIT_GS = 1 << 6,
    UNIT_UNMASKED = 1 << 7, /* user code with exceptions unmasked in MXCSR: each may trap */
    /* Code whose segments are not flat, see segment.c; two bits for each of them. */
    UNIT_CLASS_SHIFT = 8, UNIT_CLASSES = 6,
    UNIT_STACK_16 = 1 << 20, /* SP instead of ESP */
    UNIT_SEGMENTED = 1 << 21,
    UNIT_REAL = 1 << 22, UNIT_VM = 1 << 23, /* real mode, virtual-8086 mode */
};

enum site_kind {
    SITE_LINK,      /* a direct branch within the page; to be linked */
    SITE_JUMP,      /* a direct branch to another page: enter it in the jump cache */
    SITE_INDIRECT,  /* the same, the target is in scratch_target */
    SITE_MEMORY,    /* an address check failed; the address is in scratch_address */
    SITE_INTERPRET, /* an instruction for the interpreter */
    SITE_CUT,       /* the same: it lies in two pages, and the second one is another now */
    SITE_TRAP,      /* the host raised an exception at this instruction */
    SITE_ARRIVED,   /* at scratch_target by SYSCALL, SYSRET or IRET; of the code nothing is known */
    SITE_SIGNAL,    /* signals are pending */
    SITE_VECTORS,   /* vector registers are to be loaded */
    SITE_HOT,       /* the unit ran often, see hot.h */
    SITE_PATH,      /* a trace's pages may have gone elsewhere, see path.h */
    SITE_GUESS,     /* guesses were wrong, see guess.h; may go on at resume */
    SITE_FRAME,     /* a frame is not in one page of the TLB, see frame.h */
    SITE_APART,     /* ranges of a loop lay apart, see together.h; goes on at resume */
    SITE_KINDS,
};

struct unit;
struct build;

struct fallback {
    interpret_body *body;
    struct x86_insn insn;
};

/* There are hundreds of thousands: kept small. */
struct site {
    uint64_t rip;  /* of the instruction; of a direct branch, its target */
    struct unit *unit;
    uint8_t kind;
    uint8_t access;             /* SITE_MEMORY: X86_READ or X86_WRITE of this instruction */
    uint8_t checked;            /* what the check looks at: X86_WRITE if any access writes */
    uint8_t size;               /* of this instruction's access */
    bool aligned;               /* which may have to be aligned to it */
    bool backward;              /* SITE_LINK: the target must look for signals */
    bool lazy;                  /* SITE_LINK: flags are in memory */
    bool linked;
    uint8_t near_distance;      /* from where near leads unlinked to far */
    uint8_t ways;               /* SITE_INDIRECT: that follow it, see inline_cache.h */
    int16_t low;                /* the checked range, from the access's address */
    uint16_t span;
    int undo;                   /* SITE_INDIRECT: added to RSP, the step has not happened */
    struct fallback *fallback;  /* SITE_INTERPRET, SITE_TRAP; SITE_MEMORY of devices */
    uint8_t *resume;            /* SITE_MEMORY: code, to check again */
    /* Displacements to patch (writable view): SITE_LINK, and SITE_MEMORY of several accesses,
     * which a unit without groups makes. */
    uint8_t *near;              /* from within the unit's registers; may be NULL */
    uint8_t *far;               /* registers as between units; unlinked it leads behind itself */
    struct unit *target;        /* linked to it */
    struct site *next;          /* others that are linked to the same unit */
};

struct unit {
    uint64_t linear, physical;
    unsigned mode;
    uint16_t home;              /* guest registers at home in its body */
    bool sse, avx, x87;         /* vector registers it needs, x87 and MMX registers */
    bool hot;                   /* made again, since it runs often */
    bool loops;                 /* something in it branches back */
    bool dropped;               /* nothing leads to it any more */
    struct path *path;          /* of a trace; else NULL */
    bool cut;                   /* one instruction that goes on in the next page, see cut.c */
    uint32_t code_base, code_limit; /* of CS, when the mode has UNIT_SEGMENTED */
    uint64_t next_physical;     /* of cut: that page, */
    struct code_page *next_page; /* and the version it had */
    unsigned next_version;
    uint8_t *code;              /* where it begins; writable view, as all of these */
    uint8_t *entry;             /* registers as between units, */
    uint8_t *lazy;              /* the same, flags in memory: keep.c */
    uint8_t *body;              /* after the registers were moved */
    uint8_t *inner;             /* after the look for signals and vector registers */
    unsigned size;              /* bytes of host code */
    struct belongings belongings;
    struct site *incoming;      /* linked to it */
    struct unit *next;          /* with the same hash */
    struct unit *next_in_page, **where_in_page;
    struct unit_page *page;
    struct unit *next_in_region, **where_in_region;
};

#define PATH_PAGES 4

/* A page that a trace leads through. */
struct path_page {
    uint64_t linear, physical;
    struct code_page *page;
    unsigned version;           /* it had when it was looked at */
    struct unit *unit;          /* the trace, in the list of those that lead through the page */
    struct path_page *next, **where;
};

/* What only a trace has: see path.h. */
struct path {
    struct path_page pages[PATH_PAGES]; /* the first is the unit's own */
    unsigned page_count;
    uint8_t *stamp;             /* the constant its head compares with; NULL: none, */
    bool negated;               /* or minus that */
    uint8_t *counting;          /* code of the trial; NULL: over, or none */
    uint8_t *counted;           /* behind it */
    unsigned exits;             /* which of path_exits counts its side exits */
};

/* Units of one guest page. */
struct unit_page {
    struct code_page *page;
    unsigned version;
    struct unit *units;
    struct path_page *paths;    /* traces that lead through it and begin elsewhere */
    struct unit_page *next;     /* with the same hash */
};

/* Where the host may trap, in the order of the code. */
struct trap {
    uint8_t *at, *leave; /* writable view */
};

#define PAGE_HASH 4096u

/* A part of the cache: units come into it in turn and leave it together. */
struct code_region {
    uint8_t *begin;                   /* writable view */
    /* In its parts of the tables. */
    unsigned site_count, trap_count, unit_count, fallback_count, path_count;
    struct unit *units;
};

#define CODE_REGIONS_MAX 16u

/* The memory that code lies in: one memfd, mapped twice, never writable and
 * executable at once. Regions are filled one after the other, round and round. */
struct code_cache {
    uint8_t *write, *execute;
    size_t size, region_size;
    struct code_region regions[CODE_REGIONS_MAX];
    unsigned region_count, region; /* how many, and the one that is being filled */
    size_t region_tables;          /* what its units may take in the tables: then it is full */
    uint8_t *start;   /* after the common routines; writable view */
    struct emit emit;
    struct site *sites;
    struct trap *traps;
    unsigned table_room; /* sites of a region, and traps */
    struct unit *unit_table;
    struct fallback *fallbacks;
    unsigned unit_room;  /* units of a region, and fallbacks */
    struct path *paths;
    unsigned path_room;  /* of a region */
    struct unit_page *page_table, *free_pages;
    unsigned page_count;
    struct unit **units;   /* by hash */
    struct unit **movable; /* see elsewhere.c */
    unsigned unit_mask;    /* of hashes */
    struct unit_page *pages[PAGE_HASH];
    unsigned unit_count;
};

/* What --stats counts. */
struct translate_stats {
    uint64_t units, copied, moved, insns, bytes, hot, given_up;
    uint64_t flushes, dropped, evictions, evicted;
    uint64_t exits[SITE_KINDS];
    uint64_t fills, seconds, links, steps, single, writes, churned;
    uint64_t jumps_added, jumps_replaced, jump_flushes;
    uint64_t paths, path_steps, paths_judged, paths_bad, paths_moved, records;
    uint64_t *fallbacks; /* by enum x86_op; NULL: not counted */
};

#define PATH_EXITS  1024 /* counts of traces' side exits, by hash */
#define PATH_HASHES 8192 /* of pages that traces lead through */

#define HOT_BITS   14
#define HOT_COUNTS (1u << HOT_BITS)

#define GROUPS      4  /* of accesses that one check covers, at a time: group.c */
#define LOOP_RANGES 12 /* of addresses that are checked ahead of a loop: loop.c */

struct translator {
    struct cpu cpu; /* first: GS points here */
    /* For emitted code. */
    uint64_t host_rsp;
    uint64_t enter_target;
    uint64_t saved_rcx;
    uint64_t scratch_value;   /* a value on its way from one check to another */
    uint64_t scratch_pushed;  /* what an indirect call's return address replaced */
    uint64_t scratch_address; /* of the access whose check failed */
    uint64_t scratch_target;  /* of an indirect branch that was not found */
    uint64_t group_slots[GROUPS]; /* distances of groups from guest to host */
    uint64_t frame_tag;       /* what the TLB has for the page of a frame: frame.c */
    uint64_t loop_room;       /* what a loop's ranges may still move by */
    uint64_t loop_slots[LOOP_RANGES]; /* what its ranges add to addresses */
    uint64_t saved_rax, saved_flags; /* see flags_save */
    struct kept kept;         /* flags in memory */
    uint64_t scratch_site;    /* of a SYSCALL, SYSRET or IRET on its way */
    uint64_t second_rax, second_rcx, second_rdx, second_resume; /* in second.c */
    uint64_t page_mask;       /* for the check that leaves the flags alone */
    /* Masks for PEXT and PDEP: all but one flag; LAHF and SETO to RFLAGS. */
    uint64_t low_5_bits, low_6_bits;
    uint64_t without_if, without_df, without_ac, only_df, lahf_bits, rflags_bits;
    uint8_t sse_absent, avx_absent, x87_absent; /* 0: in the host's registers */
    uint32_t host_mxcsr;
    struct guess guesses[GUESSES]; /* by hash of the instruction's address */
    struct together togethers[TOGETHERS]; /* by hash of the loop's address */
    uint32_t hot_counts[HOT_COUNTS]; /* turns until a unit is hot, by hash */
    uint32_t path_stamps[2];  /* change when code of a trace may have moved; of users' code: [1] */
    uint64_t path_exits[PATH_EXITS];
    struct jump_cache jumps[JUMP_CACHES];
    struct jump_list {
        uint16_t index[JUMP_LIST]; /* entries in use */
        unsigned count;            /* more than JUMP_LIST: look at all */
    } jump_lists[JUMP_CACHES];
    /* Linear pages with entries, by hash: which caches have them, a bit each. For those
     * in large pages, the regions too that these may lie in (interpret/tlb.h). */
    uint8_t jump_pages[8192], jump_regions[4096], jump_gigabytes[256];
    unsigned jump_modes[JUMP_CACHES]; /* whose jumps each holds */
    uint32_t jump_limits[JUMP_CACHES]; /* of CS, for those of UNIT_SEGMENTED */
    bool host_avx;
    bool offered[X86_FEATURE_COUNT]; /* to the guest, and by the host */
    bool supervisor_local;    /* JUMP_SUPERVISOR holds pages that a CR3 load changes */
    unsigned written_seen;    /* for code_pages_next_written */
    struct churn churn[CHURN_PAGES];
    unsigned hot_turns;       /* 1: all units are hot at once */
    /* Linear pages of traces, and the regions of large pages they may lie in, by hash: a bit
     * for each of path_stamps. */
    uint8_t path_pages[PATH_HASHES], path_regions[PATH_HASHES];
    bool path_bad[HOT_COUNTS];    /* heads of traces that were no good, by hash */
    bool path_local;          /* some in supervisor's code lead through pages that CR3 changes */
    uint64_t cr4;             /* whose bits the code rests on */
    struct build *build;
    FILE *trace, *perf_map;   /* NULL: not wanted */
    struct code_cache cache;
    uint8_t *enter, *leave;   /* common routines */
    uint8_t *system_call, *system_return, *interrupt_return; /* transfer.c, iret.c */
    struct known_return known_returns[KNOWN_RETURNS];
    struct predictor predictor;
    uint8_t *second_look[TLB_RIGHTS][2];  /* for reading, for writing: second.c */
    struct translate_stats stats;
    uint8_t alternate_stack[65536]; /* for signals: RSP is the guest's */
};

static inline struct translator *translator_of(struct cpu *cpu)
{
    return (struct translator *)cpu;
}

/* --- cache.c --- */

int code_cache_create(struct code_cache *cache, size_t size, struct error *err);
void code_cache_destroy(struct code_cache *cache);
/* What is before here is no unit's and stays. Once. */
void code_cache_keep(struct code_cache *cache);
/* See to it that there is room for another unit, at the cost of the oldest ones. */
void code_cache_make_room(struct translator *t);
/* Let all units go. */
void code_cache_flush(struct translator *t);
/* cs: in segmented code it must have that base and limit. */
struct unit *code_cache_find(struct code_cache *cache, uint64_t physical, uint64_t linear,
                             unsigned mode, const struct x86_segment *cs);
/* A new unit, and its fallbacks, for who makes it; both go with their region. The
 * fallback of a site that is older: of its own region. NULL: no room. */
struct unit *code_cache_unit(struct code_cache *cache);
struct fallback *code_cache_fallback(struct code_cache *cache, const struct site *site);
/* For a new unit that is a trace; NULL: no room. */
struct path *code_cache_path(struct code_cache *cache);
/* The last one is not needed after all. */
void code_cache_give_back(struct code_cache *cache);
/* The unit is for another linear address from now on. */
void code_cache_rename(struct code_cache *cache, struct unit *unit, uint64_t linear);
void code_cache_add(struct translator *t, struct unit *unit, struct unit_page *page);
/* The trace leads through that page too, which then drops it when it is written. */
void code_cache_add_to_page(struct path_page *p, struct unit *unit, struct unit_page *page);
/* The page's record, made if need be; units of an older version go. NULL: no memory. */
struct unit_page *code_cache_page(struct translator *t, struct code_page *page, unsigned version);
/* Drop the units of pages that were written. */
void code_cache_drop_stale(struct translator *t);
/* What still runs of it may have had it dropped before. */
void code_cache_drop_unit(struct translator *t, struct unit *unit);
struct site *code_cache_site(struct code_cache *cache, enum site_kind kind, uint64_t rip,
                             struct unit *unit);
/* NULL: no room. */
struct trap *code_cache_trap(struct code_cache *cache, uint8_t *at);
/* Where to leave for an exception of the host at code; NULL: not there. */
uint8_t *code_cache_find_trap(const struct code_cache *cache, const uint8_t *at);

static inline uint8_t *code_of(const struct code_cache *cache, uint8_t *writable)
{
    return writable + (cache->execute - cache->write);
}

/* --- engine.c --- */

/* The mode of units for the CPU as it is now. */
unsigned translator_mode(const struct cpu *cpu);
/* Whether the next instruction goes alone. */
bool translator_must_step(const struct cpu *cpu);
/* Have the interpreter carry it out. Raises. */
void translator_step(struct translator *t);

/* --- translate.c --- */

/* Translate code at linear, whose physical address is given and whose first
 * instruction lies in one page. hot: it runs often. NULL: there is none that can be
 * translated. */
struct unit *translate_unit(struct translator *t, uint64_t linear, uint64_t physical,
                            unsigned mode, bool hot);

/* An instruction with its body; NULL: no memory. The site it is put in owns it. */
struct fallback *fallback_for(struct translator *t, const struct site *site,
                              const struct x86_insn *insn);

/* --- cut.c --- */

/* After a unit that is cut found its second page changed: it goes, if that is so. */
void cut_check(struct translator *t, struct unit *unit);

/* --- enter.c: the way into emitted code and out of it --- */

void enter_emit_routines(struct translator *t);
/* Run code (executable view) until it leaves; returns the number of the site. */
unsigned enter_code(struct translator *t, const uint8_t *code);
/* From the next entry on the vector registers are the host's own of the same
 * name; what is left of emitted code is saved each time. False: the guest may
 * not use them now. */
bool vectors_allow(struct translator *t, bool avx);
/* Whether user code has exceptions unmasked in MXCSR. */
bool vectors_may_trap(const struct cpu *cpu);
/* Do without them, and without x87 and MMX, until a unit asks for them again. */
void vectors_forget(struct translator *t);
/* Code that does without the vector registers, if they are there; changes flags. */
void vectors_emit_forget(struct translator *t);

/* --- second.c --- */

void second_emit_routines(struct translator *t);

/* --- transfer.c --- */

void transfer_emit_routines(struct translator *t);

/* --- x87.c --- */

/* The same for x87 and MMX. False: not now, or exceptions are unmasked or pending. */
bool x87_allow(struct translator *t);
/* Move the state into the host's unit and back; all registers but RSP and GS are free. */
void x87_emit_load(struct emit *e);
void x87_emit_save(struct emit *e);

#endif
