#include "engine/interpret/tlb.h"

#include "base/bytes.h"
#include "x86/decode.h"

static uint64_t bit_of(unsigned i)
{
    return 1ull << (i & 63);
}

static bool has_two(const struct tlb_table *table, unsigned i)
{
    return table->two[i / 64] & bit_of(i);
}

static void drop_second(struct tlb_table *table, unsigned i)
{
    struct tlb_second *second = &table->second[i];

    second->read = second->write = second->execute = tlb_invalid(i);
    table->two[i / 64] &= ~bit_of(i);
}

/* Both ways. */
static void drop(struct tlb_table *table, unsigned i)
{
    table->read[i] = table->write[i] = table->execute[i] = tlb_invalid(i);
    if (has_two(table, i))
        drop_second(table, i);
}

/* The page that three tags are of; false: they are of none. */
static bool page_of(unsigned i, uint64_t read, uint64_t write, uint64_t execute,
                    uint64_t *ret_page)
{
    const uint64_t none = tlb_invalid(i);

    *ret_page = -(read != none ? read : write != none ? write : execute);
    return read != none || write != none || execute != none;
}

static bool first_page(const struct tlb_table *table, unsigned i, uint64_t *ret_page)
{
    return page_of(i, table->read[i], table->write[i], table->execute[i], ret_page);
}

static bool second_page(const struct tlb_table *table, unsigned i, uint64_t *ret_page)
{
    const struct tlb_second *second = &table->second[i];

    return has_two(table, i) && page_of(i, second->read, second->write, second->execute, ret_page);
}

void tlb_init(struct tlb *tlb)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++) {
        struct tlb_table *table = &tlb->tables[r];

        drop(table, 0);
        drop(table, TLB_ENTRIES - 1);
        drop_second(table, 0);
        drop_second(table, TLB_ENTRIES - 1);
    }
}

/* Of what stands in the entry. */
static void make_second(struct tlb_table *table, unsigned i)
{
    table->second[i] = (struct tlb_second){.read = table->read[i],
                                           .write = table->write[i],
                                           .execute = table->execute[i],
                                           .physical = table->physical[i],
                                           .addend = table->addend[i]};
    table->two[i / 64] |= bit_of(i);
}

/* Before page is entered at i: what is there of another page becomes the second way; what
 * the second way has of this one goes. True: there are two ways then. */
static bool displace(struct tlb_table *table, unsigned i, uint64_t page)
{
    uint64_t first, second;

    if (first_page(table, i, &first) && first != page) {
        make_second(table, i);
        return true;
    }
    if (!second_page(table, i, &second))
        return false;
    if (second != page)
        return true;
    drop_second(table, i);
    return false;
}

void tlb_fill(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, uint64_t physical,
              uint8_t *host, bool read, bool write, bool execute, bool global)
{
    struct tlb_table *table = &tlb->tables[rights];
    const unsigned i = tlb_index(linear);
    const uint64_t page = linear & PAGE_MASK, bit = bit_of(i);
    const bool two = displace(table, i, page);

    table->physical[i] = physical & PAGE_MASK;
    table->read[i] = host && read ? -page : tlb_invalid(i);
    table->write[i] = host && write ? -page : tlb_invalid(i);
    table->execute[i] = host && execute ? -page : tlb_invalid(i);
    table->addend[i] = (uintptr_t)host - page;
    table->used[i / 64] |= bit;
    table->used_words[i / 4096] |= 1ull << (i / 64 & 63);
    if (!global)
        table->global[i / 64] &= ~bit;
    else if (!two)
        table->global[i / 64] |= bit;
    if (!two)
        table->large[i / 64] &= ~bit;
}

bool tlb_recall(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, unsigned access)
{
    struct tlb_table *table = &tlb->tables[rights];
    const unsigned i = tlb_index(linear);
    struct tlb_second second;

    if (!has_two(table, i))
        return false;
    second = table->second[i];
    if (!tlb_hit(access == X86_READ    ? second.read
                 : access == X86_WRITE ? second.write
                                       : second.execute,
                 linear))
        return false;
    make_second(table, i);
    table->read[i] = second.read;
    table->write[i] = second.write;
    table->execute[i] = second.execute;
    table->physical[i] = second.physical;
    table->addend[i] = second.addend;
    return true;
}

static void flush_word(struct tlb_table *table, unsigned word, bool keep_global)
{
    uint64_t keep = keep_global ? table->global[word] : 0;

    for (uint64_t gone = table->used[word] & ~keep; gone; gone &= gone - 1)
        drop(table, word * 64 + (unsigned)__builtin_ctzll(gone));
    table->used[word] &= keep;
    if (!table->used[word])
        table->used_words[word / 64] &= ~(1ull << (word & 63));
}

void tlb_flush(struct tlb *tlb, bool keep_global)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        for (unsigned i = 0; i < TLB_ENTRIES / 4096; i++)
            for (uint64_t words = tlb->tables[r].used_words[i]; words; words &= words - 1)
                flush_word(&tlb->tables[r], i * 64 + (unsigned)__builtin_ctzll(words),
                           keep_global);
    tlb->flushed |= keep_global ? TLB_FLUSHED_LOCAL : TLB_FLUSHED_ALL;
    if (!keep_global)
        tlb->large = tlb->huge = false;
}

void tlb_note_large(struct tlb *tlb, enum tlb_rights rights, uint64_t linear, unsigned shift)
{
    const unsigned i = tlb_index(linear);

    tlb->tables[rights].large[i / 64] |= 1ull << (i & 63);
    if (shift > TLB_LARGE_SHIFT)
        tlb->huge = true;
    else
        tlb->large = true;
}

/* Whether the entry, or its second way, may lie where linear does, but for the lowest
 * bits. One without any tag might lie anywhere. */
static bool is_near(const struct tlb_table *table, unsigned i, uint64_t linear, unsigned shift)
{
    uint64_t first, second;

    if (!first_page(table, i, &first) || (first ^ linear) >> shift == 0)
        return true;
    return second_page(table, i, &second) && (second ^ linear) >> shift == 0;
}

/* Pieces of large pages that linear may lie in: of 1 << shift bytes at most. */
static void flush_large(struct tlb_table *table, uint64_t linear, unsigned shift)
{
    const unsigned words = 1u << (MIN(shift, TLB_BITS + 12u) - 12) >> 6;
    const unsigned first = tlb_index(linear >> shift << shift) / 64;

    for (unsigned word = first; word < first + words; word++)
        for (uint64_t some = table->used[word] & table->large[word]; some; some &= some - 1) {
            const unsigned i = word * 64 + (unsigned)__builtin_ctzll(some);

            if (is_near(table, i, linear, shift))
                drop(table, i);
        }
}

void tlb_flush_page(struct tlb *tlb, uint64_t linear)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++) {
        drop(&tlb->tables[r], tlb_index(linear));
        if (tlb->large)
            flush_large(&tlb->tables[r], linear, TLB_LARGE_SHIFT);
        if (tlb->huge)
            flush_large(&tlb->tables[r], linear, TLB_HUGE_SHIFT);
    }
    tlb->flushed |= tlb->flushed & TLB_FLUSHED_PAGE ? TLB_FLUSHED_ALL : TLB_FLUSHED_PAGE;
    tlb->flushed_page = linear & PAGE_MASK;
}

static void drop_writes_word(struct tlb_table *table, unsigned word, uint64_t physical)
{
    for (uint64_t used = table->used[word]; used; used &= used - 1) {
        unsigned i = word * 64 + (unsigned)__builtin_ctzll(used);

        if (physical == UINT64_MAX || table->physical[i] == (physical & PAGE_MASK))
            table->write[i] = tlb_invalid(i);
        if (has_two(table, i) && (physical == UINT64_MAX ||
                                  table->second[i].physical == (physical & PAGE_MASK)))
            table->second[i].write = tlb_invalid(i);
    }
}

void tlb_drop_writes(struct tlb *tlb, uint64_t physical)
{
    for (unsigned r = 0; r < TLB_RIGHTS; r++)
        for (unsigned i = 0; i < TLB_ENTRIES / 4096; i++)
            for (uint64_t words = tlb->tables[r].used_words[i]; words; words &= words - 1)
                drop_writes_word(&tlb->tables[r], i * 64 + (unsigned)__builtin_ctzll(words),
                                 physical);
}
