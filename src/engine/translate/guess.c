#include "engine/translate/guess.h"

#include <string.h>

#include "engine/translate/build.h"
#include "engine/translate/stack.h"

/* So many wrong ones are counted together; */
#define MISSES 1024u
/* and if they came more often than that, in cycles, it is seen how many are right. */
#define CYCLES_PER_MISS 600ull
/* So many in turn are seen, and so many of them must be right: a wrong one costs about 30
 * cycles, a right one saves some eight. Then there are many misses until it is asked again. */
#define SAMPLES      64u
#define SAMPLES_SAME 52u
#define MISSES_GOOD  (1u << 19)
/* After that many cycles other code may be there, or memory be handed out otherwise. */
#define GIVE_UP_CYCLES (1ull << 35)

static unsigned slot_of(uint64_t rip)
{
    return (unsigned)((rip * 0x9e3779b97f4a7c15ull) >> 32) % GUESSES;
}

static struct guess *guess_at(struct translator *t, uint64_t rip)
{
    return &t->guesses[slot_of(rip)];
}

void guess_init(struct translator *t)
{
    for (unsigned k = 0; k < GUESSES; k++)
        t->guesses[k].left = MISSES;
}

static bool loads(const struct step *s)
{
    const struct x86_operand *operand = x86_memory_operand(&s->insn);

    return s->kind == STEP_COPY && operand && s->insn.op != X86_OP_LEA &&
           (operand->access & X86_READ);
}

/* --- Chains --- */

/* On which of the registers' values, at the head of a loop, a value depends, a bit each; and
 * on which by way of memory that was read with their help. */
struct origin {
    uint16_t from, through;
};

static struct origin origin_of(const struct origin origins[X86_GPRS], uint16_t registers)
{
    struct origin ret = {0, 0};

    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (registers >> reg & 1) {
            ret.from |= origins[reg].from;
            ret.through |= origins[reg].through;
        }
    return ret;
}

/* What the step computes with, beside addresses. */
static uint16_t sources(const struct step *s)
{
    uint16_t ret = s->mentions;

    for (unsigned k = 0; k < s->insn.operand_count; k++) {
        const struct x86_operand *o = &s->insn.operands[k];

        if (o->kind == X86_OPERAND_GPR && !(o->access & X86_READ) && o->size >= 4)
            ret &= (uint16_t)~register_bit(o->reg);
    }
    if (x86_memory_operand(&s->insn))
        ret &= (uint16_t)~address_registers(&s->insn.memory);
    for (unsigned k = 0; k < s->insn.operand_count; k++) {
        const struct x86_operand *o = &s->insn.operands[k];

        if (o->kind == X86_OPERAND_GPR && ((o->access & X86_READ) || o->size < 4))
            ret |= register_bit(o->reg);
    }
    return ret;
}

static void carry_out(const struct build *b, const struct step *s,
                      struct origin origins[X86_GPRS])
{
    struct origin value = origin_of(origins, sources(s));
    int64_t delta;

    if (s->kind == STEP_COPY && x86_memory_operand(&s->insn)) {
        const struct origin address = origin_of(origins, address_registers(&s->insn.memory));

        value.from |= address.from;
        value.through |= loads(s) ? address.from : address.through;
    }
    if (s->kind != STEP_COPY) /* what is popped is no pointer of the loop's */
        value = (struct origin){0, 0};
    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if ((s->writes >> reg & 1) && !memory_constant_step(b, s, reg, &delta))
            origins[reg] = value;
}

static void begin(struct origin origins[X86_GPRS])
{
    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        origins[reg] = (struct origin){register_bit(reg), 0};
}

/* Registers whose values a turn reads from where their last values lead. */
static uint16_t chained(struct origin o[X86_GPRS])
{
    uint16_t ret = 0;
    bool more = true;

    while (more) {
        more = false;
        for (unsigned r = 0; r < X86_GPRS; r++)
            for (unsigned k = 0; k < X86_GPRS; k++) {
                struct origin all = o[r];

                if (!(o[r].from >> k & 1))
                    continue;
                all.from |= o[k].from;
                all.through |= o[k].through | (o[r].through >> k & 1 ? o[k].from : 0);
                more |= all.from != o[r].from || all.through != o[r].through;
                o[r] = all;
            }
    }
    for (unsigned r = 0; r < X86_GPRS; r++)
        ret |= o[r].through & register_bit(r);
    return ret;
}

static void plan_loop(struct build *b, unsigned first, unsigned last)
{
    struct origin origins[X86_GPRS];
    uint16_t chains;

    begin(origins);
    for (unsigned i = first; i <= last; i++)
        carry_out(b, &b->steps[i], origins);
    chains = chained(origins);
    if (!chains)
        return;
    begin(origins);
    for (unsigned i = first; i <= last; i++) {
        const struct step *s = &b->steps[i];

        if (s->kind == STEP_COPY && x86_memory_operand(&s->insn) && s->insn.op != X86_OP_LEA) {
            if (origin_of(origins, register_bit(s->insn.memory.base)).from & chains)
                b->guesses[i] = GUESS_BASE_LATE;
            else if (origin_of(origins, register_bit(s->insn.memory.index)).from & chains)
                b->guesses[i] = GUESS_INDEX_LATE;
        }
        carry_out(b, s, origins);
    }
}

void guess_plan(struct build *b)
{
    memset(b->guesses, 0, sizeof(b->guesses));
    for (unsigned i = 0; i < b->count && b->unit->hot; i++) {
        unsigned last = i;

        for (unsigned k = i; k < b->count && b->steps[i].loop; k++)
            if (b->steps[k].inside == i)
                last = k;
        if (b->steps[i].loop)
            plan_loop(b, i, last);
    }
}

/* --- What is emitted --- */

static bool is_given_up(const struct guess *guess)
{
    return guess->given_up && __builtin_ia32_rdtsc() - guess->since < GIVE_UP_CYCLES;
}

bool guess_wanted(const struct build *b, unsigned i, const struct x86_memory *memory)
{
    return b->guesses[i] && !b->segmented && !memory_has_base_segment(memory) &&
           !is_given_up(guess_at(b->t, b->steps[i].rip));
}

struct emit_memory guess_check(struct build *b, unsigned i)
{
    const size_t field = offsetof(struct translator, guesses) +
                         slot_of(b->steps[i].rip) * sizeof(struct guess);
    struct site *site = code_cache_site(&b->t->cache, SITE_GUESS, b->steps[i].rip, b->unit);
    struct stub *stub;

    emit_rm(b->e, true, 0x3b, b->s1, /* CMP */
            emit_field(field + offsetof(struct guess, expected)));
    stub = build_stub(b, STUB_GUESS, emit_jcc(b->e, EMIT_NOT_EQUAL), site);
    stub->scratch[0] = b->s1;
    stub->back = b->e->at;
    return emit_field(field + offsetof(struct guess, distance));
}

struct emit_memory guess_reach(struct build *b, unsigned i, struct emit_memory distance)
{
    const struct x86_memory *m = &b->steps[i].insn.memory;
    const int32_t displacement = (int32_t)(m->displacement + memory_behind(b, m->base));
    const bool swap = b->guesses[i] == GUESS_BASE_LATE && m->scale == 1;
    struct emit_memory early = emit_based(m->base, b->s2, displacement); /* RSP is no index */
    struct emit_memory late = {b->s2, m->index, m->scale, false, 0};

    if (swap && m->index != X86_NO_REGISTER) {
        early = emit_based(m->index, b->s2, displacement);
        late = emit_based(m->base, b->s2, 0);
    } else if (m->base == X86_NO_REGISTER) {
        early = emit_based(b->s2, EMIT_NONE, displacement);
    }
    emit_load(b->e, b->s2, distance);
    emit_lea(b->e, b->s2, early);
    return late;
}

void guess_stub(struct build *b, const struct stub *stub)
{
    const size_t field = offsetof(struct translator, guesses) +
                         slot_of(stub->site->rip) * sizeof(struct guess);
    struct emit *e = b->e;

    emit_store(e, emit_field(field + offsetof(struct guess, distance)), stub->scratch[0]);
    emit_store(e, emit_field(field + offsetof(struct guess, expected)), stub->scratch[0]);
    emit_rm(e, false, 0x83, 5, emit_field(field + offsetof(struct guess, left))); /* SUB, 1 */
    emit_u8(e, 1);
    emit_patch(emit_jcc(e, EMIT_NOT_EQUAL), stub->back);
    if (stub->loop)
        loop_save_counter(b, stub->loop);
    stack_move(b, stub->behind);
    branch_convert(b, stub->home, SCRATCH_HOME);
    branch_leave(b, stub->site);
    stub->site->resume = code_of(&b->t->cache, e->at);
    stack_move(b, -stub->behind);
    branch_convert(b, SCRATCH_HOME, stub->home);
    if (stub->loop)
        loop_load_slots(b, stub->loop);
    emit_jump_to(e, stub->back);
}

/* No distance is its complement, since all are multiples of a page. */
static void sample(struct guess *guess)
{
    guess->samples--;
    guess->last = guess->distance;
    guess->expected = ~guess->distance;
    guess->left = 1;
}

/* The unit's code stays where it is, so that what runs of it may go on to its end. */
void guess_missed(struct translator *t, const struct site *site)
{
    struct guess *guess = guess_at(t, site->rip);
    const uint64_t now = __builtin_ia32_rdtsc(), took = now - guess->since;

    if (guess->samples) {
        guess->same += guess->distance == guess->last;
        sample(guess);
        if (guess->samples)
            return;
        guess->expected = guess->distance;
        guess->left = MISSES_GOOD;
        guess->since = now;
        guess->given_up = guess->same < SAMPLES_SAME;
        t->stats.given_up += guess->given_up;
        if (guess->given_up)
            code_cache_drop_unit(t, site->unit);
        return;
    }
    guess->left = MISSES;
    guess->since = now;
    if (took >= MISSES * CYCLES_PER_MISS)
        return;
    guess->samples = SAMPLES;
    guess->same = 0;
    sample(guess);
}
