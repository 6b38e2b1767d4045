#include "engine/translate/frame.h"

#include "base/bytes.h"
#include "engine/translate/build.h"
#include "engine/translate/together.h"

/* It covers no more than that: the wider, the likelier it crosses a page. */
#define FRAME_SPAN 512

bool frame_is(const struct build *b, unsigned k)
{
    return b->frame.last && k == b->frame.slot && b->step >= b->frame.first &&
           b->step <= b->frame.last;
}

const struct group *frame_group(const struct build *b)
{
    return frame_is(b, b->frame.slot) ? &b->frame.group : NULL;
}

void frame_load_distance(struct build *b, unsigned reg)
{
    emit_load(b->e, reg, group_slot_field(b->frame.slot));
}

/* What may come in a loop with a frame: nothing that goes to C and on. */
static bool keeps_frame(const struct step *s)
{
    return (s->kind == STEP_COPY || s->kind == STEP_NOTHING || s->kind == STEP_JCC ||
            s->kind == STEP_JUMP) && !(s->writes >> X86_RSP & 1);
}

/* The loop that begins at step i and has loops in it, entered only there and from before.
 * False: there is none. */
static bool find_loop(const struct build *b, unsigned i, unsigned *ret_last)
{
    bool nested = false;
    unsigned last = i;

    for (unsigned k = i; k < b->count; k++)
        if (b->steps[k].inside == i)
            last = k;
    for (unsigned k = 0; k < b->count; k++) {
        const struct step *s = &b->steps[k];
        const bool within = k >= i && k <= last;

        if (within && !keeps_frame(s))
            return false;
        nested |= within && k > i && s->loop;
        if (!within && s->inside != NO_STEP && s->inside >= i && s->inside <= last &&
            !(s->kind == STEP_JUMP && k + 1 == i && s->inside == i))
            return false;
    }
    *ret_last = last;
    return nested;
}

/* What accesses off RSP there are from first to last. Returns how many. */
static unsigned find_accesses(const struct build *b, unsigned first, unsigned last,
                              struct group *g)
{
    unsigned found = 0;

    for (unsigned k = first; k <= last; k++) {
        const struct step *s = &b->steps[k];
        struct x86_memory m;
        unsigned size, access;
        int64_t low, high;

        if (!memory_of_step(b, s, &m, &size, &access) || m.base != X86_RSP ||
            !memory_groupable(b, &m, s->insn.address_size))
            continue;
        low = m.displacement;
        high = low + (int64_t)size;
        if (found) {
            low = MIN(g->low, low);
            high = MAX(g->high, high);
        }
        if (high - low > FRAME_SPAN)
            continue;
        g->low = low;
        g->high = high;
        g->write |= !!(access & X86_WRITE);
        found++;
    }
    return found;
}

static bool is_wanted(const struct build *b, unsigned i)
{
    return b->unit->hot && !b->frame.last && b->word == 8 && !b->segmented &&
           !(b->unit->mode & UNIT_SINGLE) && !b->steps[i].flags_live && !b->met_anew[i] &&
           (!i || (i != b->keep_at && build_falls_through(&b->steps[i - 1]))) &&
           !(b->path && b->path->keeps[i]) && together_allowed(b->t, b->steps[i].rip);
}

static void emit_check(struct build *b, unsigned i, const struct group *g)
{
    const struct x86_memory memory = memory_stack((int)g->low);

    b->s1 = b->scratch[0];
    b->s2 = b->scratch[1];
    memory_address(b, &memory, 8, 0, b->s1, b->s2);
    memory_tag(b, b->s1, g->write ? X86_WRITE : X86_READ);
    emit_store(b->e, FIELD(frame_tag), b->s1);
    emit_lea(b->e, b->s1, emit_based(X86_RSP, b->s1, (int32_t)g->low));
    emit_rr(b->e, true, 0x81, 7, b->s1); /* CMP */
    emit_u32(b->e, (uint32_t)PAGE_SIZE - (uint32_t)(g->high - g->low));
    build_stub(b, STUB_LEAVE, emit_jcc(b->e, EMIT_ABOVE),
               code_cache_site(&b->t->cache, SITE_FRAME, b->steps[i].rip, b->unit));
    memory_page_addend(b);
}

void frame_begin(struct build *b, unsigned i)
{
    struct group g = {.base = X86_RSP, .stored = true};
    unsigned last;

    if (!is_wanted(b, i) || !find_loop(b, i, &last) || find_accesses(b, i, last, &g) < 2)
        return;
    emit_check(b, i, &g);
    group_forget(b);
    group_add(b, &g);
    b->groups.held = GROUPS; /* who comes back to the head does not bring it */
    b->frame.first = i;
    b->frame.last = last;
    b->frame.slot = 0;
    b->frame.group = g;
}
