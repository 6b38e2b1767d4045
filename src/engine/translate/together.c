#include "engine/translate/together.h"

#include "engine/translate/ahead.h"
#include "engine/translate/build.h"
#include "engine/translate/frame.h"

/* So many misses are counted together, */
#define MISSES 1024u
/* and if they came more often than that, in cycles, it is given up. A miss costs a turn with
 * all checks; the end of a page counts as one too. */
#define CYCLES_PER_MISS 3000ull
/* After that many cycles other code may be there. */
#define GIVE_UP_CYCLES (1ull << 35)
/* How far a register is at most from one that it is taken to stand beside. */
#define BESIDE_MAX 256
/* Registers that the ranges of one page may mention: the check needs some more. */
#define MENTIONED_MAX 10

static unsigned slot_of(uint64_t rip)
{
    return (unsigned)((rip * 0x9e3779b97f4a7c15ull) >> 32) % TOGETHERS;
}

void together_init(struct translator *t)
{
    for (unsigned k = 0; k < TOGETHERS; k++)
        t->togethers[k].left = MISSES;
}

bool together_allowed(const struct translator *t, uint64_t rip)
{
    const struct together *together = &t->togethers[slot_of(rip)];

    return !together->given_up || __builtin_ia32_rdtsc() - together->since >= GIVE_UP_CYCLES;
}

/* --- The plan --- */

static uint64_t value_of(const struct build *b, unsigned reg)
{
    return reg == X86_NO_REGISTER ? 0 : b->t->cpu.state.gpr[reg];
}

static uint64_t page_of(const struct build *b, const struct range *r)
{
    const struct x86_memory *m = &r->memory;

    return (value_of(b, m->base) + value_of(b, m->index) * m->scale + (uint64_t)m->displacement) &
           PAGE_MASK;
}

/* Whether range k may join those in the page of range leader. */
static bool may_join(const struct build *b, const struct loop *loop, unsigned leader, unsigned k)
{
    uint16_t mentioned = address_registers(&loop->ranges[k].memory);

    for (unsigned i = leader; i < k; i++)
        if (loop->ranges[i].page == leader)
            mentioned |= address_registers(&loop->ranges[i].memory);
    return page_of(b, &loop->ranges[leader]) == page_of(b, &loop->ranges[k]) &&
           __builtin_popcount(mentioned) <= MENTIONED_MAX;
}

/* One slot for all that add the same to addresses. */
static void share_slot(struct loop *loop, unsigned k)
{
    struct range *r = &loop->ranges[k];

    for (unsigned i = r->page; i < k && r->plain; i++) {
        struct range *other = &loop->ranges[i];

        if (other->page != r->page || other->holder != i || !other->plain)
            continue;
        r->holder = (uint8_t)i;
        other->uses += r->uses;
        return;
    }
}

/* The ranges that now lie in the page of the frame, for which a loop around this one has
 * looked. */
static void find_framed(struct build *b, struct loop *loop)
{
    const struct group *frame = frame_group(b);
    uint64_t page;
    bool write = false;

    if (!frame)
        return;
    page = (value_of(b, X86_RSP) + (uint64_t)frame->low) & PAGE_MASK;
    for (unsigned k = loop->count; k-- > 0;)
        if (page_of(b, &loop->ranges[k]) == page && !ahead_counts_alone(&loop->ranges[k])) {
            loop->framed = (uint8_t)k;
            write |= loop->ranges[k].write;
        }
    if (write && !frame->write)
        loop->framed = NO_RANGE;
    loop->together |= loop->framed != NO_RANGE;
}

static const struct beside *find_beside(const struct loop *loop, unsigned base, unsigned of)
{
    for (unsigned k = 0; k < loop->beside_count; k++)
        if (loop->besides[k].base == base && loop->besides[k].of == of)
            return &loop->besides[k];
    return NULL;
}

bool together_beside(const struct build *b, const struct loop *loop, unsigned base, unsigned of,
                     int *ret_distance)
{
    const int64_t distance = (int64_t)(value_of(b, base) - value_of(b, of));

    *ret_distance = (int)distance;
    return b->unit->hot && distance >= -BESIDE_MAX && distance <= BESIDE_MAX &&
           together_allowed(b->t, b->steps[loop->first].rip) &&
           (loop->beside_count < LOOP_BESIDES || find_beside(loop, base, of));
}

void together_assume(struct loop *loop, unsigned base, unsigned of, int distance)
{
    loop->together = true;
    if (!find_beside(loop, base, of))
        loop->besides[loop->beside_count++] =
            (struct beside){(uint8_t)base, (uint8_t)of, (int16_t)distance};
}

void together_plan(struct build *b, struct loop *loop)
{
    if (!b->unit->hot || !together_allowed(b->t, b->steps[loop->first].rip))
        return;
    find_framed(b, loop);
    for (unsigned k = 1; k < loop->count; k++) {
        struct range *r = &loop->ranges[k];

        for (unsigned i = 0; i < k && r->page == k && !ahead_counts_alone(r); i++)
            if (loop->ranges[i].page == i && !ahead_counts_alone(&loop->ranges[i]) &&
                may_join(b, loop, i, k))
                r->page = (uint8_t)i;
        if (r->page != k) {
            loop->together = true;
            share_slot(loop, k);
        }
    }
}

/* --- What is emitted --- */

void together_prepare(struct build *b, struct loop *loop)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_APART, b->steps[loop->first].rip,
                                        b->unit);
    struct stub *stub = build_stub(b, STUB_APART, NULL, site);

    stub->home = b->unit->home;
    stub->loop = loop;
}

void together_stub(struct build *b, struct stub *stub)
{
    struct loop *loop = &b->loops[stub->loop - b->loops];
    struct emit *e = b->e;

    loop->missed = e->at;
    emit_rm(e, false, 0x83, 5, /* SUB, 1 */
            FIELD(togethers[slot_of(stub->site->rip)].left));
    emit_u8(e, 1);
    emit_patch(emit_jcc(e, EMIT_NOT_EQUAL), loop->plain);
    branch_convert(b, stub->home, SCRATCH_HOME);
    branch_leave(b, stub->site);
    stub->site->resume = code_of(&b->t->cache, e->at);
    branch_convert(b, SCRATCH_HOME, stub->home);
    emit_jump_to(e, loop->plain);
}

/* A loop that runs long must not go on in a unit that went, or it would never be another. */
bool together_missed(struct translator *t, const struct site *site)
{
    struct together *together = &t->togethers[slot_of(site->rip)];
    const uint64_t now = __builtin_ia32_rdtsc(), took = now - together->since;

    together->left = MISSES;
    together->since = now;
    together->given_up = took < MISSES * CYCLES_PER_MISS;
    if (!together->given_up)
        return false;
    t->stats.given_up++;
    code_cache_drop_unit(t, site->unit);
    return true;
}

void together_count(struct translator *t, const struct site *site)
{
    if (!--t->togethers[slot_of(site->rip)].left)
        together_missed(t, site);
}
