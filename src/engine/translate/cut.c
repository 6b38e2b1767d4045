/* Instructions that begin in one page and end in the next. Where a unit runs into
 * one, it is the unit's last instruction, and the second page drops the unit too
 * when it is written. Where it cannot be had when the unit is made, it goes to the
 * interpreter each time, decoded the first time.
 *
 * Assumption: pages that are neighbours once mostly stay so. A unit is found by
 * its first page alone, so that it asks each time whether the second one is still
 * mapped behind it: the TLB must hold it. The interpreter compares the bytes there. */
#include <string.h>

#include "engine/translate/build.h"

#define TABLE(rights, field)                                                                     \
    (offsetof(struct translator, cpu.tlb.tables) + (rights) * sizeof(struct tlb_table) +          \
     offsetof(struct tlb_table, field))

static uint64_t page_after(uint64_t rip)
{
    return (rip | ~PAGE_MASK) + 1;
}

bool cut_decode(struct build *b, struct step *s, uint64_t rip)
{
    struct cpu *cpu = &b->t->cpu;
    const unsigned head = (unsigned)(page_after(rip) - rip);
    struct memory_slot *slot;
    struct code_page *code;
    uint64_t physical;
    const uint8_t *tail;
    unsigned version;

    if (cpu->code_size != X86_MODE_64 || !cpu_canonical(page_after(rip)) ||
        !cpu_peek_translation(cpu, page_after(rip), &physical))
        return false;
    tail = soft_engine_host(cpu->soft, physical, &slot);
    if (!tail)
        return false;
    code = &slot->pages[(physical - slot->address) >> 12];
    version = code_page_mark(cpu, code, physical);
    memcpy(b->tail_bytes, s->bytes, head);
    memcpy(b->tail_bytes + head, tail, X86_INSN_MAX - head);
    if (x86_decode(b->tail_bytes, X86_INSN_MAX, X86_MODE_64, &s->insn) != X86_DECODE_OK ||
        s->insn.length <= head)
        return false;
    s->bytes = b->tail_bytes;
    b->tail_physical = physical;
    b->tail_page = code_cache_page(b->t, code, version);
    return b->tail_page;
}

/* Leave unless the word at field is value; the flags are kept. */
static void leave_unless(struct build *b, size_t field, uint64_t value, struct site *site)
{
    uint8_t *same;

    emit_load(b->e, X86_RCX, emit_field(field));
    emit_constant(b->e, b->scratch[0], -value);
    emit_lea(b->e, X86_RCX, emit_based(X86_RCX, b->scratch[0], 0));
    same = emit_jrcxz(b->e);
    build_stub(b, STUB_LEAVE, emit_jump(b->e), site)->rcx_saved = true;
    emit_patch_short(same, b->e->at);
}

void cut_emit_check(struct build *b, const struct step *s)
{
    const enum tlb_rights rights = b->unit->mode & CPU_MODE_USER ? TLB_USER : TLB_SUPERVISOR;
    const uint64_t page = page_after(s->rip);
    const size_t i = (size_t)tlb_index(page) * 8;
    struct site *site = code_cache_site(&b->t->cache, SITE_CUT, s->rip, b->unit);

    b->group.active = false;
    emit_store(b->e, FIELD(saved_rcx), X86_RCX);
    leave_unless(b, TABLE(rights, execute) + i, -page, site);
    leave_unless(b, TABLE(rights, physical) + i, b->tail_physical, site);
    emit_load(b->e, X86_RCX, FIELD(saved_rcx));
}

/* The guest's memory from the next page's begin on; NULL: no RAM. Raises. */
static const uint8_t *next_page(struct cpu *cpu)
{
    struct memory_slot *slot;

    cpu->insn_rip = cpu->state.rip;
    return soft_engine_host(cpu->soft, cpu_fetch_translate(cpu, page_after(cpu->state.rip)), &slot);
}

static bool is_same(const struct fallback *f, const uint8_t *tail)
{
    return !memcmp(tail, f->bytes + f->head, f->insn.length - f->head);
}

/* NULL: not one in two pages, or no memory. */
static struct fallback *decode_cut(struct translator *t, const struct site *site,
                                   const uint8_t *tail)
{
    struct cpu *cpu = &t->cpu;
    const unsigned offset = cpu->state.rip & ~PAGE_MASK, head = (unsigned)PAGE_SIZE - offset;
    struct memory_slot *slot;
    const uint8_t *page = soft_engine_host(cpu->soft, site->unit->physical & PAGE_MASK, &slot);
    struct fallback *f;

    if (!page || head >= X86_INSN_MAX)
        return NULL;
    f = site->fallback ? site->fallback : code_cache_fallback(&t->cache, site);
    if (!f)
        return NULL;
    f->head = (uint8_t)head;
    memcpy(f->bytes, page + offset, head);
    memcpy(f->bytes + head, tail, X86_INSN_MAX - head);
    if (x86_decode(f->bytes, X86_INSN_MAX, X86_MODE_64, &f->insn) != X86_DECODE_OK ||
        f->insn.length <= head)
        return NULL;
    f->body = cpu_body_for(cpu, &f->insn);
    return f;
}

const struct fallback *cut_fallback(struct translator *t, struct site *site)
{
    struct cpu *cpu = &t->cpu;
    const uint8_t *tail;

    if (cpu->code_size != X86_MODE_64 || !cpu_canonical(page_after(cpu->state.rip)))
        return NULL;
    tail = next_page(cpu);
    if (!tail)
        return NULL;
    if (!site->fallback || !is_same(site->fallback, tail))
        site->fallback = decode_cut(t, site, tail);
    return site->fallback;
}
