#include "engine/translate/record.h"

#include <string.h>

#include "base/bytes.h"
#include "engine/translate/path.h"

#define STEPS_MAX (UNIT_STEPS - 1) /* and a jump to the head */
/* Code that a taken branch skips, but which is carried along: the branch then stays inside. */
#define SKIPPED_MAX 6

/* --- Fetching --- */

/* The page that linear lies in, which is marked when it is new. NULL: no RAM, or one page
 * too many. Raises what fetching raises. */
static const struct path_page *enter_page(struct build *b, uint64_t linear)
{
    struct cpu *cpu = &b->t->cpu;
    struct record *r = &b->record;
    const uint64_t physical = cpu_fetch_translate(cpu, linear);
    const struct path_page *known = path_page_at(r->pages, r->page_count, linear);
    struct memory_slot *slot;
    struct path_page *p;

    if (known)
        return known->physical == (physical & PAGE_MASK) ? known : NULL;
    if (r->page_count == PATH_PAGES || !soft_engine_host(cpu->soft, physical, &slot))
        return NULL;
    p = &r->pages[r->page_count++];
    *p = (struct path_page){.linear = linear & PAGE_MASK, .physical = physical & PAGE_MASK};
    p->page = &slot->pages[(p->physical - slot->address) >> 12];
    p->version = code_page_mark(cpu, p->page, p->physical);
    return p;
}

/* The instruction at rip as the next step. next_page: it may go on there. */
static bool fetch(struct build *b, uint64_t rip, bool next_page)
{
    struct cpu *cpu = &b->t->cpu;
    struct step *s = &b->steps[b->count];
    uint8_t *bytes = b->record.bytes[b->count];
    const unsigned offset = rip & ~PAGE_MASK;
    const unsigned head = (unsigned)MIN((uint64_t)X86_INSN_MAX, PAGE_SIZE - offset);
    const struct path_page *page = enter_page(b, rip);
    enum x86_decode_result result;
    struct memory_slot *slot;

    if (!page)
        return false;
    memcpy(bytes, soft_engine_host(cpu->soft, page->physical, &slot) + offset, head);
    result = x86_decode(bytes, head, cpu->code_size, &s->insn);
    if (result == X86_DECODE_SHORT && next_page) {
        page = enter_page(b, (rip & PAGE_MASK) + PAGE_SIZE);
        if (!page)
            return false;
        memcpy(bytes + head, soft_engine_host(cpu->soft, page->physical, &slot),
               X86_INSN_MAX - head);
        result = x86_decode(bytes, X86_INSN_MAX, cpu->code_size, &s->insn);
    }
    if (result != X86_DECODE_OK)
        return false;
    s->bytes = bytes;
    s->rip = rip;
    build_classify(b, s);
    return true;
}

/* --- Where it ends --- */

static bool is_known(const struct build *b, uint64_t rip)
{
    for (unsigned i = 0; i < b->count; i++)
        if (b->steps[i].rip == rip)
            return true;
    return false;
}

/* A loop within the path, or another one that has a unit. Loops are units of their own. */
static bool enters_loop(struct build *b, const struct step *s, uint64_t rip)
{
    struct unit *unit;

    if ((s->kind == STEP_JCC || s->kind == STEP_JUMP) && rip <= s->rip && is_known(b, rip))
        return true;
    b->t->cpu.insn_rip = rip;
    unit = code_cache_find(&b->t->cache, cpu_fetch_translate(&b->t->cpu, rip), rip,
                           b->record.unit.mode, NULL);
    return unit && unit->loops && rip != b->record.unit.linear;
}

/* What is the last step of its unit, and is not carried out here: what no code is made for, or
 * changes the mode, or returns to who knows whom. */
static bool is_last(const struct build *b, const struct step *s)
{
    return s->kind == STEP_INTERPRET || s->kind == STEP_MODE || s->kind == STEP_TRANSFER ||
           (s->kind == STEP_RETURN && !b->record.depth);
}

/* --- Branches --- */

/* Take along what a taken branch skips, if that is little and simple. */
static bool take_skipped(struct build *b, const struct step *s)
{
    const unsigned before = b->count;
    uint64_t rip = s->rip + s->insn.length;

    if (s->target <= rip || s->target - rip > SKIPPED_MAX * X86_INSN_MAX ||
        (s->target ^ rip) & PAGE_MASK)
        return false;
    for (b->count++; rip < s->target; b->count++) {
        const struct step *skipped = &b->steps[b->count];

        if (b->count - before > SKIPPED_MAX || b->count + 1 >= STEPS_MAX || !fetch(b, rip, false) ||
            (skipped->kind != STEP_COPY && skipped->kind != STEP_NOTHING))
            break;
        rip += skipped->insn.length;
    }
    if (rip == s->target) {
        b->count--; /* the last one, which counts when the branch does */
        return true;
    }
    b->count = before;
    return false;
}

/* The branch went to rip: make it one that goes on there. */
static void follow(struct build *b, struct step *s, uint64_t rip)
{
    struct record *r = &b->record;
    const uint64_t next = s->rip + s->insn.length;

    switch (s->kind) {
    case STEP_JCC:
        if (rip == next || rip == r->unit.linear || take_skipped(b, s))
            return;
        s->insn.opcode ^= 1;
        s->target = next;
        return;
    case STEP_JUMP:
        s->inside = (uint16_t)(b->count + 1);
        return;
    case STEP_CALL: case STEP_CALL_INDIRECT:
        r->depth++;
        break;
    case STEP_RETURN:
        r->depth--;
        break;
    case STEP_JUMP_INDIRECT:
        break;
    default:
        return;
    }
    s->follows = true;
    s->expected = rip;
    r->followed++;
}

/* Nothing comes behind the last step: its branch leaves the unit, to rip. */
static void end_at(struct build *b, uint64_t rip)
{
    struct step *s;

    b->end_rip = rip;
    if (!b->count)
        return;
    s = &b->steps[b->count - 1];
    if (s->kind == STEP_JUMP)
        s->inside = NO_STEP;
    b->record.followed -= s->follows;
    s->follows = false;
}

static void close_path(struct build *b)
{
    struct step *s = &b->steps[b->count - 1];
    const uint64_t head = b->record.unit.linear, rip = s->rip;

    b->record.closed = true;
    b->end_rip = s->rip + s->insn.length;
    if (s->kind == STEP_JUMP)
        s->inside = 0;
    if (s->kind == STEP_JUMP || (s->kind == STEP_JCC && s->target == head))
        return;
    s = &b->steps[b->count++];
    *s = (struct step){.kind = STEP_JUMP, .rip = rip, .target = head, .inside = 0};
}

void record_run(struct build *b, uint64_t linear, uint64_t physical, unsigned mode)
{
    struct record *r = &b->record;
    struct cpu *cpu = &b->t->cpu;

    *r = (struct record){.unit = {.linear = linear, .physical = physical, .mode = mode}};
    build_begin(b, &r->unit);
    while (b->count < STEPS_MAX) {
        struct step *s = &b->steps[b->count];
        const uint64_t rip = cpu->state.rip;

        cpu->insn_rip = rip; /* what fetching raises is raised there */
        if (!fetch(b, rip, true))
            break;
        if (is_last(b, s)) {
            b->count++;
            b->end_rip = rip + s->insn.length;
            return;
        }
        r->run = true;
        translator_step(b->t);
        if (translator_mode(cpu) != mode ||
            (s->kind < STEP_JCC && cpu->state.rip != rip + s->insn.length)) {
            end_at(b, rip);
            return;
        }
        follow(b, s, cpu->state.rip);
        b->count++;
        if (cpu->state.rip == linear &&
            (!r->depth || s->kind == STEP_JCC || s->kind == STEP_JUMP)) {
            close_path(b);
            return;
        }
        if (translator_must_step(cpu) || atomic_load(&cpu->attention) ||
            (s->kind >= STEP_JCC && enters_loop(b, s, cpu->state.rip)))
            break;
    }
    end_at(b, cpu->state.rip);
}
