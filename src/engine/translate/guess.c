#include "engine/translate/guess.h"

#include "engine/translate/build.h"

/* So many wrong ones are counted together; */
#define MISSES 1024u
/* and a wrong one, which costs about 30 cycles, must come less often than that, in cycles. A
 * right one saves a few. */
#define CYCLES_PER_MISS 600ull
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

/* Which of the registers it writes depend on memory once the step is done. */
static uint16_t loaded_by(const struct build *b, const struct step *s, uint16_t loaded)
{
    uint16_t ret = 0;

    if (s->kind == STEP_POP)
        return s->writes & (uint16_t)~(1u << X86_RSP);
    if (s->kind != STEP_COPY || !(loads(s) || (s->mentions & loaded)))
        return 0;
    for (unsigned reg = 0; reg < X86_GPRS; reg++) {
        int64_t delta;

        if ((s->writes >> reg & 1) && !memory_constant_step(b, s, reg, &delta))
            ret |= (uint16_t)(1u << reg);
    }
    return ret;
}

void guess_plan(struct build *b)
{
    uint16_t before;

    b->loaded = 0;
    if (!b->unit->hot)
        return;
    do {
        before = b->loaded;
        for (unsigned i = 0; i < b->count; i++)
            b->loaded |= loaded_by(b, &b->steps[i], b->loaded);
    } while (b->loaded != before);
}

static bool is_given_up(const struct guess *guess)
{
    return guess->given_up && __builtin_ia32_rdtsc() - guess->since < GIVE_UP_CYCLES;
}

bool guess_wanted(const struct build *b, unsigned i, const struct x86_memory *memory)
{
    const uint32_t registers =
        (memory->base == X86_NO_REGISTER ? 0 : 1u << memory->base) |
        (memory->index == X86_NO_REGISTER ? 0 : 1u << memory->index);

    return (registers & b->loaded) && !b->segmented && !memory_has_base_segment(memory) &&
           !is_given_up(guess_at(b->t, b->steps[i].rip));
}

struct emit_memory guess_check(struct build *b, unsigned i, uint8_t *check)
{
    const size_t field = offsetof(struct translator, guesses) +
                         slot_of(b->steps[i].rip) * sizeof(struct guess);
    struct site *site = code_cache_site(&b->t->cache, SITE_GUESS, b->steps[i].rip, b->unit);
    struct stub *stub;

    emit_rm(b->e, true, 0x3b, b->s1, /* CMP */
            emit_field(field + offsetof(struct guess, distance)));
    stub = build_stub(b, STUB_GUESS, emit_jcc(b->e, EMIT_NOT_EQUAL), site);
    stub->scratch[0] = b->s1;
    stub->check = check;
    stub->back = b->e->at;
    return emit_field(field + offsetof(struct guess, distance));
}

void guess_stub(struct build *b, const struct stub *stub)
{
    const size_t field = offsetof(struct translator, guesses) +
                         slot_of(stub->site->rip) * sizeof(struct guess);
    struct emit *e = b->e;

    emit_store(e, emit_field(field + offsetof(struct guess, distance)), stub->scratch[0]);
    emit_rm(e, false, 0x83, 5, emit_field(field + offsetof(struct guess, left))); /* SUB, 1 */
    emit_u8(e, 1);
    emit_patch(emit_jcc(e, EMIT_NOT_EQUAL), stub->back);
    if (stub->loop)
        loop_save_counter(b, stub->loop);
    branch_convert(b, stub->home, SCRATCH_HOME);
    branch_leave(b, stub->site);
    stub->site->resume = code_of(&b->t->cache, e->at);
    branch_convert(b, SCRATCH_HOME, stub->home);
    if (stub->loop)
        loop_load_slots(b, stub->loop);
    emit_jump_to(e, stub->check);
}

/* Its code stays where it is, so that what runs of it may go on to its end. */
void guess_missed(struct translator *t, const struct site *site)
{
    struct guess *guess = guess_at(t, site->rip);
    const uint64_t now = __builtin_ia32_rdtsc(), took = now - guess->since;

    guess->left = MISSES;
    guess->since = now;
    guess->given_up = took < MISSES * CYCLES_PER_MISS;
    if (!guess->given_up)
        return;
    t->stats.given_up++;
    if (!site->unit->dropped)
        code_cache_drop_unit(t, site->unit);
}
