/* tlb.h - the software TLB: from a page of linear addresses to host memory.
 * Direct-mapped by bits 12 to 27 of the linear address. The translator emits
 * checks of these arrays inline, so their layout is fixed: an array for each
 * field, each index found by one shift and one 16-bit zero extension, which
 * leave the flags alone.
 *
 * A tag is the negated linear page address when that access may go straight to
 * host memory, so that linear + tag is the offset in the page if it hits, and
 * at least PAGE_SIZE if not. A page that code was derived from has no write
 * tag, so that writes take the slow path, which drops that code. MMIO and
 * pages whose D bit is clear have none either. Owned by the CPU's thread.
 *
 * Each entry has a second way beside it: what a fill displaces is kept there, so that
 * two pages a multiple of 256 MiB apart that are used in turn need no page walks. Who
 * misses looks there next, and changes the two over (tlb_recall, translate/second.c).
 *
 * It is large, but only what the guest reaches is ever touched: struct tlb
 * must lie in memory that was zero, and zero is an invalid entry (but for the
 * first and the last index, which tlb_init sees to). */
#ifndef LODGE_ENGINE_INTERPRET_TLB_H
#define LODGE_ENGINE_INTERPRET_TLB_H

#include <stdbool.h>
#include <stdint.h>

#define TLB_BITS    16
#define TLB_ENTRIES (1u << TLB_BITS)
#define PAGE_SIZE   4096ull
#define PAGE_MASK   (~(PAGE_SIZE - 1))

/* Which rights an entry was checked for. */
enum tlb_rights {
    TLB_USER,          /* CPL 3 */
    TLB_SUPERVISOR,    /* CPL < 3: user pages are out of reach when SMAP is on and AC clear */
    TLB_SUPERVISOR_AC, /* CPL < 3 with AC set */
    TLB_RIGHTS,
};

/* What was displaced from an entry; the tags as there. A cache line each. */
struct tlb_second {
    uint64_t read, write, execute, physical;
    uintptr_t addend;
    uint64_t unused[3];
};

/* The entries for one kind of rights. */
struct tlb_table {
    uint64_t read[TLB_ENTRIES], write[TLB_ENTRIES];
    uintptr_t addend[TLB_ENTRIES]; /* host address = linear address + addend */
    /* What only the slow path needs. */
    uint64_t execute[TLB_ENTRIES];
    uint64_t physical[TLB_ENTRIES];         /* of the page */
    uint64_t used[TLB_ENTRIES / 64];        /* filled since it was last flushed */
    uint64_t used_words[TLB_ENTRIES / 4096]; /* words of used that are not zero */
    /* Of both ways: global only if both are, large if one is. */
    uint64_t global[TLB_ENTRIES / 64];      /* survives a CR3 load */
    uint64_t large[TLB_ENTRIES / 64];       /* a piece of a large page, which INVLPG must find */
    struct tlb_second second[TLB_ENTRIES];
    uint64_t two[TLB_ENTRIES / 64];         /* the second way may hold something */
};

/* Large pages have 2 or 4 MiB and lie in one region of 4 MiB, or have 1 GiB. */
#define TLB_LARGE_SHIFT 22
#define TLB_HUGE_SHIFT  30

struct tlb {
    struct tlb_table tables[TLB_RIGHTS];
    bool large, huge; /* there may be pieces of pages of 2 or 4 MiB; of 1 GiB */
    /* What was flushed since somebody who keeps more than this TLB last asked. */
    unsigned flushed;      /* enum tlb_flushed */
    uint64_t flushed_page;
};

enum tlb_flushed { TLB_FLUSHED_PAGE = 1, TLB_FLUSHED_LOCAL = 2, TLB_FLUSHED_ALL = 4 };

static inline unsigned tlb_index(uint64_t linear)
{
    return (linear >> 12) & (TLB_ENTRIES - 1);
}

/* A tag that no access of that index hits, even one that begins up to a page
 * before: minus an address whose index is neither it nor next to it. */
static inline uint64_t tlb_invalid(unsigned index)
{
    return index == 0 || index == TLB_ENTRIES - 1 ? -((uint64_t)(TLB_ENTRIES / 2) << 12) : 0;
}

static inline bool tlb_hit(uint64_t tag, uint64_t linear)
{
    return linear + tag < PAGE_SIZE;
}

/* Host memory at linear when the TLB has the page for reading, for writing; else NULL. */
static inline uint8_t *tlb_read_host(const struct tlb *tlb, enum tlb_rights rights, uint64_t linear)
{
    const struct tlb_table *table = &tlb->tables[rights];
    const unsigned i = tlb_index(linear);

    return tlb_hit(table->read[i], linear) ? (uint8_t *)(linear + table->addend[i]) : (uint8_t *)0;
}

static inline uint8_t *tlb_write_host(const struct tlb *tlb, enum tlb_rights rights,
                                      uint64_t linear)
{
    const struct tlb_table *table = &tlb->tables[rights];
    const unsigned i = tlb_index(linear);

    return tlb_hit(table->write[i], linear) ? (uint8_t *)(linear + table->addend[i]) : (uint8_t *)0;
}

void tlb_init(struct tlb *tlb);
/* Enter a translation. host NULL: not RAM, only the physical address is kept. */
void tlb_fill(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, uint64_t physical,
              uint8_t *host, bool read, bool write, bool execute, bool global);
/* Whether the second way has the page with the tag for that access (X86_READ, X86_WRITE,
 * else to execute); then the two ways changed over. */
bool tlb_recall(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, unsigned access);
/* What was just entered for linear is a piece of a page of 1 << shift bytes. */
void tlb_note_large(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, unsigned shift);
void tlb_flush(struct tlb *tlb, bool keep_global);
/* What INVLPG of an address flushes: its page, all of it if it is a large one. */
void tlb_flush_page(struct tlb *tlb, uint64_t linear);
/* Withhold the write tag of a physical page, or of all with physical UINT64_MAX. */
void tlb_drop_writes(struct tlb *tlb, uint64_t physical);

#endif
