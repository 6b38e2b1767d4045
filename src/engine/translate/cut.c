/* Instructions that begin in one page and end in the next: a unit of its own
 * for each.
 *
 * Assumption: a unit is dropped when its first page is written, but its second
 * page may be another one the next time, or be written. So the unit begins with
 * a look at the TLB, for where the second page is now, and at that page's
 * version. Having looked, it may be linked to units of both pages. */
#include <string.h>

#include "engine/translate/build.h"

static uint64_t next_page(const struct unit *unit)
{
    return (unit->linear | ~PAGE_MASK) + 1;
}

/* As cpu_fetch_translate does. */
static enum tlb_rights fetch_rights(const struct unit *unit)
{
    return unit->mode & CPU_MODE_USER ? TLB_USER : TLB_SUPERVISOR;
}

bool cut_decode(struct build *b)
{
    struct cpu *cpu = &b->t->cpu;
    struct unit *unit = b->unit;
    const uint64_t next = next_page(unit);
    const unsigned i = tlb_index(next), head = (unsigned)(next - unit->linear);
    const struct tlb_table *table = &cpu->tlb.tables[fetch_rights(unit)];
    struct step *s = &b->steps[0];
    struct memory_slot *slot, *next_slot;
    const uint8_t *first, *second;
    uint64_t physical;

    if (head >= X86_INSN_MAX || !tlb_hit(table->execute[i], next))
        return false; /* the interpreter's fetch enters the translation, or faults */
    physical = table->physical[i];
    first = soft_engine_host(cpu->soft, unit->physical, &slot);
    second = soft_engine_host(cpu->soft, physical, &next_slot);
    if (!first || !second)
        return false;
    unit->next_page = &next_slot->pages[(physical - next_slot->address) >> 12];
    unit->next_version = code_page_mark(cpu, unit->next_page, physical);
    memcpy(b->cut_bytes, first, head);
    memcpy(b->cut_bytes + head, second, X86_INSN_MAX - head);
    if (x86_decode(b->cut_bytes, X86_INSN_MAX, cpu->code_size, &s->insn) != X86_DECODE_OK ||
        s->insn.length <= head)
        return false;
    s->bytes = b->cut_bytes;
    s->rip = unit->linear;
    unit->cut = true;
    unit->next_physical = physical;
    return true;
}

/* Go on only if what is in memory is value; 4 or 8 bytes. */
static void require(struct build *b, struct emit_memory m, uint64_t value, bool wide,
                    struct site *site)
{
    const bool flags_live = b->steps[0].flags_live;
    const unsigned reg = b->scratch[0];
    struct emit *e = b->e;
    uint8_t *same;

    if (!flags_live) {
        emit_constant(e, reg, value);
        emit_rm(e, wide, 0x3b, reg, m); /* CMP */
        build_stub(b, STUB_LEAVE, emit_jcc(e, EMIT_NOT_EQUAL), site);
        return;
    }
    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_rm(e, wide, 0x8b, X86_RCX, m);
    emit_constant(e, reg, wide ? -value : (uint32_t)-value);
    emit_rm(e, wide, 0x8d, X86_RCX, emit_based(X86_RCX, reg, 0)); /* LEA */
    same = emit_jrcxz(e);
    build_stub(b, STUB_LEAVE, emit_jump(e), site)->rcx_saved = true;
    emit_patch_short(same, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
}

static struct emit_memory tlb_field(const struct unit *unit, size_t within)
{
    return emit_field(offsetof(struct translator, cpu.tlb.tables) +
                      fetch_rights(unit) * sizeof(struct tlb_table) + within +
                      8 * (size_t)tlb_index(next_page(unit)));
}

void cut_guard(struct build *b)
{
    struct unit *unit = b->unit;
    struct site *site = code_cache_site(&b->t->cache, SITE_CUT, unit->linear, unit);

    require(b, tlb_field(unit, offsetof(struct tlb_table, execute)), -next_page(unit), true, site);
    require(b, tlb_field(unit, offsetof(struct tlb_table, physical)), unit->next_physical, true,
            site);
    emit_constant(b->e, b->scratch[1], (uintptr_t)&unit->next_page->version);
    require(b, emit_based(b->scratch[1], EMIT_NONE, 0), unit->next_version, false, site);
}

void cut_check(struct translator *t, struct unit *unit)
{
    const struct tlb_table *table = &t->cpu.tlb.tables[fetch_rights(unit)];
    const unsigned i = tlb_index(next_page(unit));

    /* If the TLB does not have the page, fetching the instruction enters it. */
    if (tlb_hit(table->execute[i], next_page(unit)) &&
        (table->physical[i] != unit->next_physical ||
         atomic_load_explicit(&unit->next_page->version, memory_order_acquire) !=
             unit->next_version))
        code_cache_drop_unit(t, unit);
}
