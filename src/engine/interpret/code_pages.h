/* code_pages.h - which pages of guest memory code was derived from, so that a
 * write to them makes that code go.
 *
 * Each page has a version. Derived code remembers the version it was made of
 * and is valid while the two agree. Before a page is first decoded it is
 * marked; from then on no CPU holds a write tag for it, so every write takes
 * the slow path: the bytes are stored, then the version goes up and the mark
 * goes away. Marking waits until every CPU that is in the guest has dropped
 * its write tag for the page; a CPU that waits acknowledges others meanwhile,
 * so two that mark at once do not wait for each other.
 *
 * What a CPU sees: its own writes at the next instruction (SDM 3A 11.6), other
 * CPUs' and devices' writes at the next block, which is sooner than the
 * serializing instruction that SDM 3A 8.1.3 demands of cross-modifying code. */
#ifndef LODGE_ENGINE_INTERPRET_CODE_PAGES_H
#define LODGE_ENGINE_INTERPRET_CODE_PAGES_H

#include <stdatomic.h>

#include "engine/interpret/cpu.h"

struct code_page {
    atomic_uint version;
    atomic_uchar mark;    /* 0, CODE_PAGE_PENDING, CODE_PAGE_READY */
    atomic_bool own;      /* code in it has written to it */
    atomic_uint writer;   /* the page, of the others, whose code did last: its number; 0: none */
};

/* Pending: write tags may still exist somewhere; only code_lock's holder waits
 * for them to go and makes it ready. */
enum { CODE_PAGE_PENDING = 1, CODE_PAGE_READY = 2 };

/* The page of a physical address, or NULL outside RAM. */
struct code_page *code_page_at(struct soft_engine *soft, uint64_t physical);

/* Mark the page before reading code from it; returns its version. */
unsigned code_page_mark(struct cpu *cpu, struct code_page *page, uint64_t physical);

/* After bytes of the page were written: invalidate what came of it. */
void code_page_written(struct soft_engine *soft, struct code_page *page);
/* The same after the instruction at insn_rip did, which lies in some page too: who that is,
 * is kept. The CPU's own thread. */
void code_page_stored(struct cpu *cpu, struct code_page *page, uint64_t physical);

/* Whether code in the page at physical has written to the page since it was first derived
 * from, as far as is known: of itself always, of others who did last. What is derived of both
 * together cannot rest on what the next instructions are, behind a store. */
bool code_page_was_stored(const struct code_page *page, const struct code_page *by,
                          uint64_t physical);

/* For who asked to be told of writes: the next page that was written since *at
 * (which moves on), NULL when there were too many to remember: look at all.
 * False: no more. Any thread. */
bool code_pages_next_written(struct soft_engine *soft, unsigned *at, struct code_page **ret_page);

static inline bool code_page_is_marked(const struct code_page *page)
{
    return atomic_load_explicit(&page->mark, memory_order_acquire);
}

/* Drop write tags of marked pages and say so. The CPU's own thread. */
void code_pages_acknowledge(struct cpu *cpu);

#endif
