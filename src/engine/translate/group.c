/* Groups: accesses off one base that one check covers.
 *
 * Assumption: code reaches for several fields of the same thing, and for those
 * of others in between. The check of the first access proves that all those to
 * come lie in one page; what it found, the distance from guest to host address,
 * stays in the second scratch register, and in a field when another check needs
 * that register meanwhile. A group lasts until its base changes otherwise than
 * by a constant. Where branches meet, the groups that all of them bring stay.
 *
 * Nothing but filling the TLB happens in C when a check fails and code is gone
 * on with, so what the fields hold stays true over it. */
#include "engine/translate/build.h"
#include "engine/translate/frame.h"

/* A group covers no more than that: the wider, the likelier it crosses a page. */
#define GROUP_SPAN 256

struct emit_memory group_slot_field(unsigned k)
{
    return emit_field(offsetof(struct translator, group_slots) + 8 * k);
}

void group_forget(struct build *b)
{
    struct groups groups = {.held = GROUPS};

    for (unsigned k = 0; k < GROUPS; k++)
        if (frame_is(b, k))
            groups.group[k] = b->groups.group[k];
    b->groups = groups;
}

void group_lose_register(struct build *b)
{
    struct groups *groups = &b->groups;

    if (groups->held < GROUPS && !groups->group[groups->held].stored)
        groups->group[groups->held].id = 0;
    groups->held = GROUPS;
}

/* The group that covers an access; GROUPS: none does. */
static unsigned covering(const struct build *b, const struct x86_memory *memory, unsigned size,
                         unsigned access)
{
    const int64_t low = memory->displacement;
    unsigned k;

    for (k = 0; k < GROUPS; k++) {
        const struct group *g = &b->groups.group[k];

        if (g->id && g->base == memory->base && g->low <= low && low + (int64_t)size <= g->high &&
            (g->write || !(access & X86_WRITE)))
            break;
    }
    return k;
}

bool group_covers(const struct build *b, const struct x86_memory *memory, unsigned size,
                  unsigned access)
{
    return covering(b, memory, size, access) < GROUPS;
}

bool group_reach(struct build *b, const struct x86_memory *memory, unsigned size,
                 unsigned access, struct emit_memory *ret_memory)
{
    const unsigned k = covering(b, memory, size, access);

    if (k == GROUPS)
        return false;
    if (b->groups.held != k) {
        group_lose_register(b);
        emit_load(b->e, b->s2, group_slot_field(k));
        b->holds &= (uint16_t)~(1u << b->s2);
        if (b->s2 == b->scratch[1])
            b->groups.held = k;
    }
    *ret_memory = emit_based(memory->base, b->s2,
                             (int32_t)(memory->displacement + memory_behind(b, memory->base)));
    return true;
}

/* Whether a group goes on over the step. */
static bool carries(const struct step *s)
{
    switch (s->kind) {
    case STEP_COPY: case STEP_NOTHING: case STEP_JCC: case STEP_JUMP: case STEP_PUSH:
    case STEP_POP: case STEP_CALL: case STEP_RETURN:
        return true;
    case STEP_JUMP_INDIRECT:
        return s->follows;
    default:
        return false;
    }
}

void group_plan(const struct build *b, unsigned i, struct group *g)
{
    bool interrupted = false;
    int64_t moved = 0, delta;

    for (unsigned k = i + 1; k < b->count; k++) {
        const struct step *s = &b->steps[k];
        struct x86_memory m;
        unsigned size, access;
        int64_t low, high;

        if (!memory_constant_step(b, &b->steps[k - 1], g->base, &delta) || s->loop ||
            b->met_anew[k] || !carries(s))
            return;
        moved += delta;
        interrupted |= s->mentions >> b->scratch[1] & 1;
        interrupted |= s->kind == STEP_PUSH && x86_memory_operand(&s->insn);
        if (!memory_of_step(b, s, &m, &size, &access))
            continue;
        low = m.displacement + moved;
        high = low + (int64_t)size;
        low = low < g->low ? low : g->low;
        high = high > g->high ? high : g->high;
        if (!memory_groupable(b, &m, s->kind == STEP_COPY ? s->insn.address_size : b->word) ||
            m.base != g->base || high - low > GROUP_SPAN || low < INT32_MIN || high > INT32_MAX) {
            interrupted = true;
            continue;
        }
        g->low = low;
        g->high = high;
        g->write |= !!(access & X86_WRITE);
        g->stored |= interrupted;
    }
}

void group_add(struct build *b, const struct group *planned)
{
    struct groups *groups = &b->groups;
    const bool held = b->s2 == b->scratch[1];
    unsigned k = 0;

    if (!held && !planned->stored)
        return;
    while (k < GROUPS && groups->group[k].id)
        k++;
    while (k == GROUPS || frame_is(b, k))
        k = groups->next++ % GROUPS;
    groups->group[k] = *planned;
    groups->group[k].id = ++b->group_id;
    if (planned->stored)
        emit_store(b->e, group_slot_field(k), b->s2);
    groups->held = held ? k : GROUPS;
}

void group_after_step(struct build *b, unsigned i)
{
    int64_t delta;

    for (unsigned k = 0; k < GROUPS; k++) {
        struct group *g = &b->groups.group[k];

        if (!g->id)
            continue;
        if (memory_constant_step(b, &b->steps[i], g->base, &delta)) {
            g->low -= delta;
            g->high -= delta;
            continue;
        }
        g->id = 0;
        if (b->groups.held == k)
            b->groups.held = GROUPS;
    }
}

void group_at_branch(struct build *b, unsigned i)
{
    b->groups_at[i] = b->groups;
}

/* What is in both, and in the same place. */
static void meet(struct groups *groups, const struct groups *other)
{
    for (unsigned k = 0; k < GROUPS; k++) {
        struct group *g = &groups->group[k];
        const struct group *o = &other->group[k];

        if (g->id != o->id || g->low != o->low ||
            (!g->stored && (groups->held != k || other->held != k)))
            g->id = 0;
    }
    if (groups->held != other->held || (groups->held < GROUPS && !groups->group[groups->held].id))
        groups->held = GROUPS;
}

void group_at_leader(struct build *b, unsigned i)
{
    const struct step *before = i ? &b->steps[i - 1] : NULL;
    /* Whether groups holds what one of the ways brings. */
    bool any = before && loop_passes(b, i - 1) &&
               (before->kind != STEP_JUMP || before->inside == i);

    if (b->steps[i].loop || b->met_anew[i] || !before) {
        group_forget(b);
        return;
    }
    for (unsigned k = 0; k < i; k++) {
        const struct step *s = &b->steps[k];

        if (s->inside != i || (s->kind != STEP_JCC && s->kind != STEP_JUMP) || k + 1 == i ||
            !loop_passes(b, k))
            continue;
        if (any)
            meet(&b->groups, &b->groups_at[k]);
        else
            b->groups = b->groups_at[k];
        any = true;
    }
    if (!any)
        group_forget(b);
}
