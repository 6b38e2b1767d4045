#include "engine/interpret/tlb.h"

#include <string.h>

void tlb_init(struct tlb *tlb)
{
    memset(tlb, 0, sizeof(*tlb));
    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            tlb->entries[r][i] = (struct tlb_entry){TLB_INVALID, TLB_INVALID, TLB_INVALID, 0};
}

void tlb_fill(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, uint64_t physical,
              uint8_t *host, bool read, bool write, bool execute, bool global)
{
    const unsigned i = (linear >> 12) & (TLB_ENTRIES - 1);
    const uint64_t page = linear & PAGE_MASK, bit = 1ull << (i & 63);

    physical &= PAGE_MASK;
    tlb->physical[rights][i] = physical;
    tlb->entries[rights][i] = (struct tlb_entry){
        .read = host && read ? page : TLB_INVALID,
        .write = host && write ? page : TLB_INVALID,
        .execute = host && execute ? page : TLB_INVALID,
        .addend = (uintptr_t)host - page,
    };
    tlb->used[rights][i / 64] |= bit;
    if (global)
        tlb->global[rights][i / 64] |= bit;
    else
        tlb->global[rights][i / 64] &= ~bit;
}

static void drop(struct tlb *tlb, unsigned rights, unsigned i)
{
    struct tlb_entry *entry = &tlb->entries[rights][i];

    entry->read = entry->write = entry->execute = TLB_INVALID;
}

void tlb_flush(struct tlb *tlb, bool keep_global)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        for (unsigned word = 0; word < TLB_ENTRIES / 64; word++) {
            uint64_t keep = keep_global ? tlb->global[r][word] : 0;
            uint64_t gone = tlb->used[r][word] & ~keep;

            tlb->used[r][word] &= keep;
            while (gone) {
                drop(tlb, r, word * 64 + (unsigned)__builtin_ctzll(gone));
                gone &= gone - 1;
            }
        }
    if (!keep_global)
        tlb->large = false;
}

void tlb_flush_page(struct tlb *tlb, uint64_t linear)
{
    const unsigned i = (linear >> 12) & (TLB_ENTRIES - 1);

    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        drop(tlb, r, i);
}

void tlb_drop_writes(struct tlb *tlb, uint64_t physical)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        for (unsigned word = 0; word < TLB_ENTRIES / 64; word++)
            for (uint64_t used = tlb->used[r][word]; used; used &= used - 1) {
                unsigned i = word * 64 + (unsigned)__builtin_ctzll(used);

                if (physical == UINT64_MAX || tlb->physical[r][i] == (physical & PAGE_MASK))
                    tlb->entries[r][i].write = TLB_INVALID;
            }
}
