/* Address translation: the page walk of 32-bit, PAE and 4-level paging
 * (SDM 3A chapter 4). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"
#include "engine/interpret/code_pages.h"
#include "engine/interpret/debug.h"

/* Bits of a paging-structure entry (SDM 3A tables 4-5 to 4-20). */
#define PTE_P      (1ull << 0)
#define PTE_W      (1ull << 1)
#define PTE_U      (1ull << 2)
#define PTE_A      (1ull << 5)
#define PTE_D      (1ull << 6)
#define PTE_PS     (1ull << 7)
#define PTE_G      (1ull << 8)
#define PTE_NX     (1ull << 63)
#define PTE_FRAME  0x000ffffffffff000ull
#define PHYSICAL_BITS 46 /* what CPUID 80000008 offers at most */
#define PTE_RSVD_HIGH (0x000fffffffffffffull & ~((1ull << PHYSICAL_BITS) - 1))

struct walk {
    uint64_t physical; /* of the page's first byte as 4 KiB page */
    bool writable, user, executable, global, dirty;
    unsigned large; /* shift of its size when it is no page of 4 KiB */
    uint64_t leaf, leaf_address; /* the last entry, and its physical address */
    unsigned entry_size;
    uint32_t error; /* bits of the page-fault error code when the walk fails */
};

static void *entry_host(struct cpu *cpu, uint64_t physical)
{
    struct memory_slot *slot;

    return soft_engine_host(cpu->soft, physical, &slot);
}

static uint64_t read_entry(struct cpu *cpu, uint64_t address, unsigned size)
{
    const void *host = entry_host(cpu, address);

    if (!host)
        return 0; /* a table outside RAM reads as not present */
    return host_load(host, size);
}

/* Set A or D as hardware does: atomically, and only if the entry is still what
 * was read. False: it changed, walk again. */
static bool set_bits(struct cpu *cpu, uint64_t address, unsigned size, uint64_t old, uint64_t bits)
{
    void *host = entry_host(cpu, address);
    struct code_page *page;
    bool done;

    if (!host || (old & bits) == bits)
        return true;
    if (size == 4) {
        uint32_t expected = (uint32_t)old;

        done = __atomic_compare_exchange_n((uint32_t *)host, &expected, (uint32_t)(old | bits),
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        done = __atomic_compare_exchange_n((uint64_t *)host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    page = code_page_at(cpu->soft, address);
    if (page && code_page_is_marked(page))
        code_page_written(cpu->soft, page);
    return done;
}

/* 0: the walk succeeded; 1: fault, walk->error has P and RSVD; 2: try again. */
static int walk_levels(struct cpu *cpu, uint64_t linear, uint64_t table, int level,
                       unsigned entry_size, struct walk *walk, bool set_accessed)
{
    const unsigned index_bits = entry_size == 8 ? 9 : 10;
    const bool nxe = cpu->state.efer & X86_EFER_NXE;

    walk->entry_size = entry_size;
    for (;; level--) {
        const unsigned shift = 12 + index_bits * (unsigned)level;
        const uint64_t address =
            table + ((linear >> shift) & ((1u << index_bits) - 1)) * entry_size;
        const uint64_t entry = read_entry(cpu, address, entry_size);
        bool leaf = level == 0;
        uint64_t reserved = 0;

        if (!(entry & PTE_P))
            return 1;
        if (entry_size == 8) {
            reserved = PTE_RSVD_HIGH | (nxe ? 0 : PTE_NX);
            if (!cpu_long_mode(cpu))
                reserved |= 0x7ff0000000000000ull; /* PAE: bits 62:52 */
        }
        if (level && (entry & PTE_PS)) {
            if (entry_size == 4) {
                /* Without CR4.PSE bit 7 is ignored. PSE-36 holds bits 39:32 in 20:13. */
                if (cpu->state.cr4 & X86_CR4_PSE) {
                    leaf = true;
                    reserved |= 1u << 21;
                }
            } else if (level == 3) {
                reserved |= PTE_PS;
            } else {
                leaf = true;
                reserved |= ((1ull << shift) - 1) & ~0x1fffull;
            }
        }
        if (entry & reserved) {
            walk->error = X86_PFEC_P | X86_PFEC_RSVD;
            return 1;
        }
        walk->writable &= !!(entry & PTE_W);
        walk->user &= !!(entry & PTE_U);
        if (entry_size == 8 && nxe)
            walk->executable &= !(entry & PTE_NX);
        if (!leaf) {
            if (set_accessed && !set_bits(cpu, address, entry_size, entry, PTE_A))
                return 2;
            table = entry_size == 8 ? entry & PTE_FRAME : entry & 0xfffff000;
            continue;
        }
        walk->leaf = entry;
        walk->leaf_address = address;
        walk->dirty = entry & PTE_D;
        walk->global = (entry & PTE_G) && (cpu->state.cr4 & X86_CR4_PGE);
        walk->large = level > 0 ? shift : 0;
        {
            const uint64_t offset = ((1ull << shift) - 1) & PAGE_MASK;
            uint64_t frame = entry_size == 8 ? entry & PTE_FRAME : entry & 0xfffff000;

            if (entry_size == 4 && level)
                frame = (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32;
            walk->physical = (frame & ~offset) | (linear & offset);
        }
        return 0;
    }
}

static int walk_tables(struct cpu *cpu, uint64_t linear, struct walk *walk, bool set_accessed)
{
    const struct x86_state *s = &cpu->state;

    *walk = (struct walk){.writable = true, .user = true, .executable = true};
    if (cpu_long_mode(cpu))
        return walk_levels(cpu, linear, s->cr3 & PTE_FRAME, 3, 8, walk, set_accessed);
    if (!(s->cr4 & X86_CR4_PAE))
        return walk_levels(cpu, linear, s->cr3 & 0xfffff000, 1, 4, walk, set_accessed);
    /* The CPU keeps the four PDPTEs since CR3 was loaded (SDM 3A 4.4.1). */
    uint64_t pdpte = s->pdpte[(linear >> 30) & 3];

    if (!(pdpte & PTE_P))
        return 1;
    return walk_levels(cpu, linear, pdpte & PTE_FRAME, 1, 8, walk, set_accessed);
}

/* Access rights (SDM 3A 4.6.1). */
static bool permitted(const struct cpu *cpu, const struct walk *walk, unsigned access,
                      enum tlb_rights rights)
{
    const struct x86_state *s = &cpu->state;

    if (rights == TLB_USER) {
        if (!walk->user)
            return false;
        if (access == CPU_FETCH)
            return walk->executable;
        return access != X86_WRITE || walk->writable;
    }
    if (access == CPU_FETCH)
        return walk->executable && !(walk->user && (s->cr4 & X86_CR4_SMEP));
    if (walk->user && (s->cr4 & X86_CR4_SMAP) && rights == TLB_SUPERVISOR)
        return false;
    return access != X86_WRITE || walk->writable || !(s->cr0 & X86_CR0_WP);
}

static uint32_t error_code(const struct cpu *cpu, const struct walk *walk, unsigned access,
                           enum tlb_rights rights)
{
    uint32_t error = walk->error;

    if (access == X86_WRITE)
        error |= X86_PFEC_W;
    if (rights == TLB_USER)
        error |= X86_PFEC_U;
    /* I/D is told only where fetches can be told apart (SDM 3A 4.7). */
    if (access == CPU_FETCH &&
        ((cpu->state.cr4 & X86_CR4_SMEP) ||
         ((cpu->state.cr4 & X86_CR4_PAE) && (cpu->state.efer & X86_EFER_NXE))))
        error |= X86_PFEC_I;
    return error;
}

/* Enter a translation with exactly the tags that need no further work. */
static void fill(struct cpu *cpu, uint64_t linear, const struct walk *walk,
                 enum tlb_rights rights)
{
    struct memory_slot *slot;
    uint8_t *host = soft_engine_host(cpu->soft, walk->physical, &slot);
    bool read = permitted(cpu, walk, X86_READ, rights);
    bool write = walk->dirty && permitted(cpu, walk, X86_WRITE, rights);

    if (host && ((slot->flags & ENGINE_MEMORY_READONLY) ||
                 code_page_is_marked(&slot->pages[(walk->physical - slot->address) >> 12])))
        write = false;
    if (unlikely(cpu->check_alignment) ||
        (unlikely(debug_active(cpu)) && debug_watches_page(cpu, linear)))
        read = write = false;
    tlb_fill(&cpu->tlb, rights, linear, walk->physical, host, read, write,
             permitted(cpu, walk, CPU_FETCH, rights), walk->global);
    if (walk->large)
        tlb_note_large(&cpu->tlb, rights, linear, walk->large);
}

/* Whether the access at hand goes by the stack segment: a canonical violation
 * is #SS then (SDM 3A 6.15). No other access asks, so the instruction is
 * decoded once more instead of being remembered. */
static bool by_stack_segment(struct cpu *cpu, uint64_t linear)
{
    uint8_t bytes[X86_INSN_MAX];
    unsigned have = 0;
    struct x86_insn insn;
    const struct x86_operand *operand;

    if (cpu->delivering)
        return true; /* the pushes of a delivery */
    for (uint64_t at = cpu->insn_rip; have < sizeof(bytes); at++) {
        uint64_t physical;
        const uint8_t *host =
            cpu_peek_translation(cpu, at, &physical) ? entry_host(cpu, physical) : NULL;

        if (!host)
            break;
        bytes[have++] = *host;
    }
    if (x86_decode(bytes, have, cpu->code_size, &insn) != X86_DECODE_OK)
        return false;
    operand = x86_memory_operand(&insn);
    if (operand && insn.memory.segment == X86_SS)
        return true;
    switch (insn.op) {
    case X86_OP_PUSH: case X86_OP_POP: case X86_OP_PUSHF: case X86_OP_POPF: case X86_OP_CALL:
    case X86_OP_CALL_INDIRECT:
    case X86_OP_RET: case X86_OP_ENTER: case X86_OP_LEAVE: case X86_OP_IRET:
    case X86_OP_PUSH_SREG: case X86_OP_POP_SREG:
        /* The operand itself, or the stack beside it? */
        return !operand || linear - (cpu->state.gpr[X86_RSP] - 16) < 32;
    default:
        return false;
    }
}

uint64_t cpu_translate(struct cpu *cpu, uint64_t linear, unsigned access, enum tlb_rights rights)
{
    const uint64_t offset = linear & ~PAGE_MASK;
    struct walk walk;
    int r;

    if (tlb_recall(&cpu->tlb, rights, linear, access))
        return cpu->tlb.tables[rights].physical[tlb_index(linear)] | offset;
    if (!(cpu->state.cr0 & X86_CR0_PG)) {
        walk = (struct walk){.physical = linear & PAGE_MASK, .writable = true, .user = true,
                             .executable = true, .dirty = true};
        /* Nothing is a user page where there are no pages: SMEP and SMAP are idle. */
        walk.user = rights == TLB_USER;
        fill(cpu, linear, &walk, rights);
        return walk.physical | offset;
    }
    if (cpu_long_mode(cpu) && !cpu_canonical(linear))
        cpu_raise_error(
            cpu, access != CPU_FETCH && by_stack_segment(cpu, linear) ? X86_SS_FAULT : X86_GP, 0);
    for (;;) {
        r = walk_tables(cpu, linear, &walk, true);
        if (r == 2)
            continue;
        if (r == 1)
            cpu_raise_page_fault(cpu, linear, error_code(cpu, &walk, access, rights));
        if (!permitted(cpu, &walk, access, rights)) {
            walk.error |= X86_PFEC_P;
            cpu_raise_page_fault(cpu, linear, error_code(cpu, &walk, access, rights));
        }
        if (!set_bits(cpu, walk.leaf_address, walk.entry_size, walk.leaf,
                      PTE_A | (access == X86_WRITE ? PTE_D : 0)))
            continue;
        if (access == X86_WRITE)
            walk.dirty = true;
        fill(cpu, linear, &walk, rights);
        return walk.physical | offset;
    }
}

bool cpu_probe_fetch(struct cpu *cpu, uint64_t linear, uint64_t *ret_physical)
{
    const enum tlb_rights rights = cpu->cpl == 3 ? TLB_USER : TLB_SUPERVISOR;
    struct walk walk;
    int r;

    if (!(cpu->state.cr0 & X86_CR0_PG)) {
        *ret_physical = cpu_translate(cpu, linear, CPU_FETCH, rights);
        return true;
    }
    if (cpu_long_mode(cpu) && !cpu_canonical(linear))
        return false;
    do {
        while ((r = walk_tables(cpu, linear, &walk, true)) == 2)
            ;
        if (r == 1 || !permitted(cpu, &walk, CPU_FETCH, rights))
            return false;
    } while (!set_bits(cpu, walk.leaf_address, walk.entry_size, walk.leaf, PTE_A));
    fill(cpu, linear, &walk, rights);
    *ret_physical = walk.physical | (linear & ~PAGE_MASK);
    return true;
}

bool cpu_peek_translation(struct cpu *cpu, uint64_t linear, uint64_t *ret_physical)
{
    struct walk walk;

    if (!(cpu->state.cr0 & X86_CR0_PG)) {
        *ret_physical = linear;
        return true;
    }
    if (walk_tables(cpu, linear, &walk, false) != 0)
        return false;
    *ret_physical = walk.physical | (linear & ~PAGE_MASK);
    return true;
}

bool cpu_load_pdptes(struct cpu *cpu, uint64_t cr3)
{
    uint64_t pdpte[4];

    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = read_entry(cpu, (cr3 & 0xffffffe0) + 8 * i, 8);
        /* Bits 2:1, 8:5 and those above the physical width (SDM 3A 4.4.1). */
        if ((pdpte[i] & PTE_P) && (pdpte[i] & (0x1e6 | PTE_RSVD_HIGH | 0xfff0000000000000ull)))
            return false;
    }
    for (unsigned i = 0; i < 4; i++)
        cpu->state.pdpte[i] = pdpte[i];
    return true;
}
