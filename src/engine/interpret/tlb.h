/* tlb.h - the software TLB: from a page of linear addresses to host memory.
 * Direct-mapped. The translator emits checks of these entries inline, so their
 * layout is fixed: 32 bytes, index (linear >> 12) & (TLB_ENTRIES - 1).
 *
 * A tag is the linear page address when that access may go straight to host
 * memory, else TLB_INVALID. A page that code was derived from has no write
 * tag, so that writes take the slow path, which drops that code. MMIO and
 * pages whose D bit is clear have none either. Owned by the CPU's thread. */
#ifndef LODGE_ENGINE_INTERPRET_TLB_H
#define LODGE_ENGINE_INTERPRET_TLB_H

#include <stdbool.h>
#include <stdint.h>

#define TLB_BITS    10
#define TLB_ENTRIES (1u << TLB_BITS)
#define TLB_INVALID UINT64_MAX /* no linear page address */
#define PAGE_SIZE   4096ull
#define PAGE_MASK   (~(PAGE_SIZE - 1))

/* Which rights an entry was checked for. */
enum tlb_rights {
    TLB_USER,          /* CPL 3 */
    TLB_SUPERVISOR,    /* CPL < 3: user pages are out of reach when SMAP is on and AC clear */
    TLB_SUPERVISOR_AC, /* CPL < 3 with AC set */
    TLB_RIGHTS,
};

struct tlb_entry {
    uint64_t read, write, execute;
    uintptr_t addend; /* host address = linear address + addend */
};

_Static_assert(sizeof(struct tlb_entry) == 32, "emitted code counts on it");

struct tlb {
    struct tlb_entry entries[TLB_RIGHTS][TLB_ENTRIES];
    /* Beside the entries what only the slow path needs. */
    uint64_t physical[TLB_RIGHTS][TLB_ENTRIES]; /* of the page */
    uint64_t used[TLB_RIGHTS][TLB_ENTRIES / 64];   /* filled since it was last flushed */
    uint64_t global[TLB_RIGHTS][TLB_ENTRIES / 64]; /* survives a CR3 load */
    bool large; /* a large page was cached in pieces: INVLPG flushes all */
};

static inline struct tlb_entry *tlb_entry(struct tlb *tlb, enum tlb_rights rights, uint64_t linear)
{
    return &tlb->entries[rights][(linear >> 12) & (TLB_ENTRIES - 1)];
}

void tlb_init(struct tlb *tlb);
/* Enter a translation. host NULL: not RAM, only the physical address is kept. */
void tlb_fill(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, uint64_t physical,
              uint8_t *host, bool read, bool write, bool execute, bool global);
void tlb_flush(struct tlb *tlb, bool keep_global);
void tlb_flush_page(struct tlb *tlb, uint64_t linear);
/* Withhold the write tag of a physical page, or of all with physical UINT64_MAX. */
void tlb_drop_writes(struct tlb *tlb, uint64_t physical);

#endif
