/* Instructions that begin in one page and end in the next. No unit has them,
 * since a unit is of one page; where one runs into such an instruction, it goes
 * to the interpreter, decoded the first time.
 *
 * Assumption: the unit's own page is watched, so the first bytes are what they
 * were as long as the unit lives. The next page is not: which one it is and
 * what stands there is asked each time. */
#include <stdlib.h>
#include <string.h>

#include "engine/translate/translator.h"

/* The guest's memory from the next page's begin on; NULL: no RAM. Raises. */
static const uint8_t *next_page(struct cpu *cpu)
{
    struct memory_slot *slot;

    cpu->insn_rip = cpu->state.rip;
    return soft_engine_host(cpu->soft,
                            cpu_fetch_translate(cpu, (cpu->state.rip | ~PAGE_MASK) + 1), &slot);
}

static bool is_same(const struct fallback *f, const uint8_t *tail)
{
    return !memcmp(tail, f->bytes + f->head, f->insn.length - f->head);
}

/* NULL: not one in two pages, or no memory. */
static struct fallback *decode_cut(struct cpu *cpu, const struct unit *unit, const uint8_t *tail)
{
    const unsigned offset = cpu->state.rip & ~PAGE_MASK, head = (unsigned)PAGE_SIZE - offset;
    struct memory_slot *slot;
    const uint8_t *page = soft_engine_host(cpu->soft, unit->physical & PAGE_MASK, &slot);
    struct fallback *f;

    if (!page || head >= X86_INSN_MAX)
        return NULL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->head = (uint8_t)head;
    memcpy(f->bytes, page + offset, head);
    memcpy(f->bytes + head, tail, X86_INSN_MAX - head);
    if (x86_decode(f->bytes, X86_INSN_MAX, X86_MODE_64, &f->insn) != X86_DECODE_OK ||
        f->insn.length <= head) {
        free(f);
        return NULL;
    }
    f->body = cpu_body_for(cpu, &f->insn);
    return f;
}

const struct fallback *cut_fallback(struct translator *t, struct site *site)
{
    struct cpu *cpu = &t->cpu;
    const uint8_t *tail;

    if (cpu->code_size != X86_MODE_64 || !cpu_canonical((cpu->state.rip | ~PAGE_MASK) + 1))
        return NULL;
    tail = next_page(cpu);
    if (!tail)
        return NULL;
    if (site->fallback && !is_same(site->fallback, tail)) {
        free(site->fallback);
        site->fallback = NULL;
    }
    if (!site->fallback)
        site->fallback = decode_cut(cpu, site->unit, tail);
    return site->fallback;
}
