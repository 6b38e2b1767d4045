#include "engine/translate/hot.h"

#include "engine/translate/build.h"
#include "engine/translate/path.h"

/* Making a unit again takes about 20 us, a turn some nanoseconds. */
#define HOT_TURNS 16384u

/* Units that share a count become hot sooner: no harm. */
unsigned hot_count_of(uint64_t physical)
{
    return (unsigned)((physical ^ physical >> HOT_BITS) & (HOT_COUNTS - 1));
}

void hot_init(struct translator *t, unsigned turns)
{
    t->hot_turns = turns ? turns : HOT_TURNS;
    for (unsigned i = 0; i < HOT_COUNTS; i++)
        t->hot_counts[i] = t->hot_turns;
}

void hot_count(struct build *b, const struct step *s)
{
    const struct unit *unit = b->unit;

    if (unit->hot || unit->cut || (unit->mode & UNIT_SINGLE) || s->flags_live)
        return;
    emit_rm(b->e, false, 0x83, 5, FIELD(hot_counts[hot_count_of(unit->physical)])); /* SUB, 1 */
    emit_u8(b->e, 1);
    build_stub(b, STUB_LEAVE, emit_jcc(b->e, EMIT_EQUAL),
               code_cache_site(&b->t->cache, SITE_HOT, s->rip, b->unit));
}

void hot_rebuild(struct translator *t, const struct site *site)
{
    struct unit *unit = site->unit;
    const uint64_t linear = unit->linear, physical = unit->physical;
    const unsigned mode = unit->mode;
    const enum cpu_part part = times_enter(&t->cpu.times, PART_TRANSLATE);
    bool wanted;

    t->hot_counts[hot_count_of(unit->physical)] = t->hot_turns;
    if (unit->path) {
        path_judge(t, unit);
        times_enter(&t->cpu.times, part);
        return;
    }
    wanted = site->rip == linear && !unit->loops && path_wanted(t, physical, mode);
    code_cache_drop_unit(t, unit);
    t->stats.hot++;
    if (!wanted || !path_record(t, linear, physical, mode))
        translate_unit(t, linear, physical, mode, true);
    times_enter(&t->cpu.times, part);
}
