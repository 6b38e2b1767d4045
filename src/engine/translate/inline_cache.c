#include "engine/translate/inline_cache.h"

#include <string.h>

#include "base/bytes.h"
#include "engine/translate/build.h"

/* Misses until C looks again: while ways are free, and when all lead somewhere. */
#define LEFT_FREE 32u
#define LEFT_FULL 4096u
/* More misses than one in so many cycles, that often: it is given up. */
#define CYCLES_PER_MISS 400u
#define STRIKES         4u

static struct prediction *prediction_of(struct translator *t, const struct site *site)
{
    return &t->predictor.of[(size_t)(site - t->cache.sites) % PREDICTIONS];
}

bool inline_cache_wanted(const struct build *b)
{
    return b->unit->hot && !b->segmented && b->word == 8 && !(b->unit->mode & UNIT_SINGLE) &&
           !b->t->trace;
}

/* Flags are free. */
static void count(struct build *b, size_t field)
{
    if (!b->t->cpu.times.wanted)
        return;
    emit_rm(b->e, true, 0x83, 0, emit_field(field)); /* ADD, 1 */
    emit_u8(b->e, 1);
}

static void emit_way(struct build *b, struct site *way, bool wide)
{
    struct emit *e = b->e;

    if (wide) {
        emit_u8(e, 0x49); /* MOV SCRATCH_A with 64 bits */
        emit_u8(e, 0xb8 | (SCRATCH_A & 7));
        way->resume = e->at;
        emit_u64(e, 0);
        emit_rr(e, true, 0x3b, SCRATCH_B, SCRATCH_A); /* CMP */
    } else {
        emit_rr(e, true, 0x81, 7, SCRATCH_B); /* CMP */
        way->resume = e->at;
        emit_u32(e, 0);
    }
    way->far = emit_jcc(e, EMIT_EQUAL);
    emit_patch(way->far, e->at);
    way->lazy = true;
}

uint8_t *inline_cache_emit(struct build *b, struct site *site, enum prediction_kind kind,
                           unsigned ways)
{
    struct prediction *p = prediction_of(b->t, site);
    const size_t of = (size_t)(p - b->t->predictor.of);
    struct emit *e = b->e;
    uint8_t *begin = e->at, *leave;

    *p = (struct prediction){.left = 1};
    site->resume = begin;
    site->ways = (uint8_t)ways;
    site->size = (uint8_t)kind;
    site->checked = !emit_fits(b->unit->linear);
    count(b, offsetof(struct translator, predictor.asked) + kind * 8);
    for (unsigned i = 0; i < ways; i++)
        emit_way(b, code_cache_site(&b->t->cache, SITE_INDIRECT, site->rip, b->unit),
                 site->checked);
    count(b, offsetof(struct translator, predictor.missed) + kind * 8);
    emit_rm(e, false, 0x83, 5, FIELD(predictor.of[of].left)); /* SUB, 1 */
    emit_u8(e, 1);
    leave = emit_jcc(e, EMIT_EQUAL);
    site->near_distance = (uint8_t)(e->at - begin);
    return leave;
}

/* What is emitted behind the ways is done at once. */
static void give_up(struct translator *t, struct site *site)
{
    site->resume[0] = 0xeb; /* JMP */
    site->resume[1] = (uint8_t)(site->near_distance - 2);
    site->ways = 0;
    t->predictor.given_up[site->size]++;
}

static struct site *choose_way(struct prediction *p, struct site *site)
{
    for (unsigned i = 1; i <= site->ways; i++)
        if (!site[i].linked)
            return &site[i];
    if (p->left)
        return NULL;
    p->next = (uint8_t)((p->next + 1) % site->ways);
    return &site[1 + p->next];
}

static bool lead_to(struct translator *t, const struct site *site, struct site *way,
                    struct unit *target)
{
    if (!site->checked && !emit_fits(target->linear))
        return false;
    if (way->linked) {
        chain_forget(way);
        chain_unlink(way);
    }
    chain_link(t, way, target);
    if (!way->linked)
        return false;
    if (site->checked)
        store_le64(way->resume, target->linear);
    else
        store_le32(way->resume, (uint32_t)target->linear);
    t->predictor.learned[site->size]++;
    return true;
}

void inline_cache_learn(struct translator *t, struct site *site, struct unit *target)
{
    struct prediction *p = prediction_of(t, site);
    const uint64_t now = __builtin_ia32_rdtsc();
    const uint64_t misses = site[1].linked && site[site->ways].linked ? LEFT_FULL : LEFT_FREE;
    const bool often = !p->left && p->since && now - p->since < misses * CYCLES_PER_MISS;
    struct site *way;

    if (!site->ways)
        return;
    way = choose_way(p, site);
    if (!way)
        return;
    if (!lead_to(t, site, way, target) || (often && misses == LEFT_FULL))
        p->strikes++;
    if (p->strikes == STRIKES) {
        give_up(t, site);
        return;
    }
    p->left = site[1].linked && site[site->ways].linked ? LEFT_FULL : LEFT_FREE;
    p->since = now;
}
