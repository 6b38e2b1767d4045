#include "engine/translate/ahead.h"

#include "base/bytes.h"
#include "engine/translate/build.h"
#include "engine/translate/frame.h"
#include "engine/translate/together.h"

/* Turns between two looks at the signals when no range moves. */
#define TURNS 256
/* Ranges that move up by no more are counted together, by the one next to its page's end. */
#define MOVES_MAX 64
/* Scratch registers of a check, and where the offset next to the end is kept. */
#define TEMPORARIES 4

/* While checks are emitted. */
struct ahead {
    struct loop *loop;
    uint8_t room;            /* register for the largest offset of those counted together, then for
                                what is left behind it; or EMIT_NONE: a field */
    uint16_t home;           /* guest registers at home between pages */
    uint16_t slots, filled;  /* registers of the loop's slots; those that hold them already */
    unsigned together, alone; /* how many ranges are counted so */
    unsigned moves, span;    /* of those counted together: the most */
    bool begun, counted;     /* there is an offset; a number of turns */
};

static unsigned span_of(const struct range *r)
{
    return (unsigned)(r->high - r->memory.displacement);
}

/* What moves lies in steps of a power of two. */
static unsigned shift_of(unsigned moved)
{
    return moved > 1 ? 32u - (unsigned)__builtin_clz(moved - 1) : 0;
}

static bool counts_together(const struct range *r)
{
    return r->up && r->up <= MOVES_MAX;
}

bool ahead_counts_alone(const struct range *r)
{
    return (r->up || r->down) && !counts_together(r);
}

/* --- Registers --- */

/* A register for the checks of a page, whose ranges mention some; not one of those: free
 * ones of the loop, rather without a slot; else another one, whose value is put away. */
static uint8_t take(struct build *b, const struct ahead *a, uint16_t mentioned, uint16_t not)
{
    const uint16_t taken = (uint16_t)(a->filled | register_bit(a->room) |
                                      register_bit(X86_RSP) | mentioned | not);
    uint16_t free = a->loop->home & (uint16_t)~(taken | a->slots);
    unsigned reg;

    if (!free)
        free = a->loop->home & (uint16_t)~taken;
    if (!free)
        free = (uint16_t)~(a->loop->home | taken);
    reg = (unsigned)__builtin_ctz(free);
    branch_convert(b, b->home, b->home | register_bit(reg));
    b->home |= register_bit(reg);
    return (uint8_t)reg;
}

static uint16_t page_mentions(const struct loop *loop, unsigned page)
{
    uint16_t ret = 0;

    for (unsigned i = page; i < loop->count; i++)
        if (loop->ranges[i].page == page)
            ret |= address_registers(&loop->ranges[i].memory);
    return ret;
}

static void choose_room(struct build *b, struct ahead *a)
{
    const struct loop *loop = a->loop;
    uint16_t free = loop->home & (uint16_t)~a->slots, mentioned = register_bit(X86_RSP);

    for (unsigned k = 0; k < loop->count; k++)
        mentioned |= address_registers(&loop->ranges[k].memory);
    if (loop->counter == EMIT_NONE && a->together < 2)
        return;
    if (loop->counter != EMIT_NONE)
        free = register_bit(loop->counter);
    else if (!(free & (free - 1)))
        free = (uint16_t)~(loop->home | mentioned);
    if (!free)
        return;
    a->room = (uint8_t)__builtin_ctz(free);
    a->home |= register_bit(a->room);
    branch_convert(b, loop->home, a->home);
}

/* Whether a slot's register may be filled while the pages behind this one are to be checked:
 * they need some registers too. */
static bool may_fill(const struct ahead *a, unsigned page)
{
    const struct loop *loop = a->loop;
    unsigned most = 0;

    for (unsigned k = 0; k < loop->count; k++)
        if (loop->ranges[k].page == k &&
            (k > page || ahead_counts_alone(&loop->ranges[k])))
            most = MAX(most, (unsigned)__builtin_popcount(page_mentions(loop, k)));
    return !most ||
           (unsigned)__builtin_popcount(a->filled) + most + TEMPORARIES + 2 <= X86_GPRS;
}

/* --- Offsets --- */

static void refuse(struct build *b, struct loop *loop, unsigned condition)
{
    build_stub(b, STUB_STEP, emit_jcc(b->e, condition), NULL)->to =
        loop->together ? &loop->missed : &loop->plain;
}

static void compare_offset(struct build *b, struct loop *loop, unsigned reg, unsigned most)
{
    emit_rr(b->e, true, 0x81, 7, reg); /* CMP */
    emit_u32(b->e, most);
    refuse(b, loop, EMIT_ABOVE);
}

/* Of what is in s1 and there, the larger or the smaller. */
static void choose(struct build *b, const struct ahead *a, bool present, bool larger)
{
    struct emit *e = b->e;

    if (b->s1 == a->room)
        return;
    if (a->room == EMIT_NONE) {
        if (present) {
            emit_rm(e, true, 0x3b, b->s1, FIELD(loop_room));                      /* CMP */
            emit_rm(e, true, larger ? 0x0f42 : 0x0f43, b->s1, FIELD(loop_room)); /* CMOVcc */
        }
        emit_store(e, FIELD(loop_room), b->s1);
    } else if (present) {
        emit_rr(e, true, 0x3b, b->s1, a->room);                      /* CMP */
        emit_rr(e, true, larger ? 0x0f47 : 0x0f42, a->room, b->s1); /* CMOVcc */
    } else {
        emit_rr(e, true, 0x8b, a->room, b->s1); /* MOV */
    }
}

/* From an offset to what is left of it to that end. */
static void room_of_offset(struct build *b, unsigned reg, unsigned end)
{
    emit_rr(b->e, true, 0xf7, 3, reg); /* NEG */
    emit_rr(b->e, true, 0x81, 0, reg); /* ADD */
    emit_u32(b->e, end);
}

/* From the offset in its page of a range that moves to the turns it allows, in reg. */
static void turns_of_offset(struct build *b, unsigned reg, bool up, unsigned span, unsigned shift)
{
    struct emit *e = b->e;

    if (up)
        room_of_offset(b, reg, (uint32_t)PAGE_SIZE - span);
    if (shift) {
        emit_rr(e, true, 0xc1, 5, reg); /* SHR */
        emit_u8(e, shift);
    } else {
        emit_rr(e, true, 0x85, reg, reg); /* TEST: a SHR by 0 sets no flags */
    }
}

/* The offset in reg is the largest of those counted together. It becomes the room behind
 * it, or the turns that there is room for when others are counted alone. */
static void finish_together(struct build *b, struct ahead *a, unsigned reg)
{
    const unsigned shift = shift_of(a->moves);

    if (a->alone) {
        compare_offset(b, a->loop, reg, (uint32_t)PAGE_SIZE - a->span - (1u << shift));
        turns_of_offset(b, reg, true, a->span, shift);
    } else {
        const unsigned most = (uint32_t)PAGE_SIZE - a->span - a->moves;

        compare_offset(b, a->loop, reg, most);
        room_of_offset(b, reg, most);
        a->loop->step = (uint8_t)a->moves;
    }
    if (reg != a->room)
        emit_store(b->e, FIELD(loop_room), reg);
    a->counted = true;
}

/* The offset in s1 of range r, which is too large if the page is another. */
static void take_offset(struct build *b, struct ahead *a, const struct range *r)
{
    const unsigned span = span_of(r), shift = shift_of((unsigned)(r->up - r->down));

    if (counts_together(r)) {
        if (a->room == EMIT_NONE && a->together == 1)
            finish_together(b, a, b->s1);
        else
            choose(b, a, a->begun, true);
        a->begun = true;
        return;
    }
    compare_offset(b, a->loop, b->s1, (uint32_t)PAGE_SIZE - span - (r->up ? 1u << shift : 0));
    if (!r->up && !r->down)
        return;
    turns_of_offset(b, b->s1, r->up, span, shift);
    if (r->down)
        refuse(b, a->loop, EMIT_EQUAL);
    choose(b, a, a->counted, false);
    a->counted = true;
}

/* --- Pages --- */

/* What range k adds to addresses into its slot, from the distance in s2; s1 is free. */
static void fill_slot(struct build *b, struct ahead *a, unsigned page, unsigned k)
{
    const struct range *r = &a->loop->ranges[k];
    const struct x86_memory *m = &r->memory;
    const bool direct = r->slot != EMIT_NONE && may_fill(a, page);
    unsigned reg = direct ? r->slot : r->plain ? b->s2 : b->s1;

    if (r->plain) {
        if (reg != b->s2)
            emit_rr(b->e, true, 0x8b, reg, b->s2); /* MOV */
    } else if (m->base == X86_NO_REGISTER && m->index == X86_NO_REGISTER) {
        emit_constant(b->e, b->s1, (uint64_t)m->displacement);
        emit_lea(b->e, reg, emit_based(b->s2, b->s1, 0));
    } else if (r->folded & register_bit(m->base)) {
        emit_lea(b->e, reg, emit_based(m->base, b->s2, 0)); /* RSP is no index */
    } else {
        emit_lea(b->e, reg, (struct emit_memory){b->s2, m->index, m->scale, false, 0});
    }
    if (!direct || a->loop->checks)
        emit_store(b->e, loop_slot_field(k), reg);
    if (direct)
        a->filled |= register_bit(reg);
}

/* The offset of another range in the page, whose tag is in that register, into s1. */
static void offset_by_tag(struct build *b, const struct range *r, unsigned tag)
{
    const struct x86_memory *m = &r->memory;
    const int32_t displacement = (int32_t)m->displacement;

    if (m->base != X86_NO_REGISTER && m->index == X86_NO_REGISTER) {
        emit_lea(b->e, b->s1, emit_based(m->base, tag, displacement));
    } else if (m->base == X86_NO_REGISTER && m->index != X86_NO_REGISTER) {
        emit_lea(b->e, b->s1,
                 (struct emit_memory){(uint8_t)tag, m->index, m->scale, false, displacement});
    } else {
        memory_address(b, m, 8, 0, b->s1, b->s2);
        emit_rr(b->e, true, 0x03, b->s1, tag); /* ADD */
    }
}

/* Where the offset of r is to be computed. */
static uint8_t offset_register(const struct ahead *a, const struct range *r, uint8_t s1)
{
    return counts_together(r) && !a->begun && a->room != EMIT_NONE ? a->room : s1;
}

/* Whether bases are where they are taken to be beside others. */
static void check_besides(struct build *b, const struct ahead *a)
{
    struct loop *loop = a->loop;

    for (unsigned k = 0; k < loop->beside_count; k++) {
        const struct beside *beside = &loop->besides[k];

        b->home = loop->home;
        b->s1 = take(b, a, register_bit(beside->base) | register_bit(beside->of), 0);
        emit_lea(b->e, b->s1, emit_based(beside->of, EMIT_NONE, beside->distance));
        emit_rr(b->e, true, 0x3b, b->s1, beside->base); /* CMP */
        refuse(b, loop, EMIT_NOT_EQUAL);
        branch_convert(b, b->home, loop->home);
    }
}

/* Whether the check of the frame has covered the range. */
static bool is_covered(const struct build *b, const struct range *r)
{
    const struct group *frame = frame_group(b);

    return r->memory.base == X86_RSP && r->memory.index == X86_NO_REGISTER && !r->up &&
           !r->down && r->memory.displacement >= frame->low && r->high <= frame->high;
}

/* Find the page of range k, which is in the frame's or looked up, and take its offset. */
static void look_up(struct build *b, struct ahead *a, const struct range *r, bool framed,
                    unsigned tag, unsigned access)
{
    if (framed) {
        emit_load(b->e, tag, FIELD(frame_tag));
        frame_load_distance(b, b->s2);
        if (is_covered(b, r))
            return;
        offset_by_tag(b, r, tag);
        take_offset(b, a, r);
        return;
    }
    memory_address(b, &r->memory, 8, 0, b->s1, b->s2);
    if (tag == EMIT_NONE) {
        memory_tag_offset(b, access);
    } else {
        memory_tag(b, tag, access);
        emit_rr(b->e, true, 0x03, b->s1, tag); /* ADD */
    }
    take_offset(b, a, r);
    memory_page_addend(b);
}

/* The ranges in the page of range k. */
static void check_page(struct build *b, struct ahead *a, unsigned k)
{
    struct loop *loop = a->loop;
    const struct range *r = &loop->ranges[k];
    const uint16_t mentioned = page_mentions(loop, k);
    uint16_t slots = 0;
    unsigned members = 0;
    const bool framed = loop->framed == k;
    bool write = false;
    uint8_t s1, tag = EMIT_NONE, distance = EMIT_NONE;

    for (unsigned i = k; i < loop->count; i++) {
        const struct range *other = &loop->ranges[i];

        if (other->page != k)
            continue;
        members++;
        write |= other->write;
        if (other->holder == i && other->slot != EMIT_NONE) {
            slots |= register_bit(other->slot);
            if (other->plain && !(a->filled & register_bit(other->slot)))
                distance = other->slot;
        }
    }
    b->home = a->home;
    s1 = take(b, a, mentioned, slots);
    b->s2 = distance != EMIT_NONE ? distance : take(b, a, mentioned, slots | register_bit(s1));
    if (members > 1 || framed)
        tag = take(b, a, mentioned, register_bit(s1) | register_bit(b->s2));
    b->s1 = offset_register(a, r, s1);
    look_up(b, a, r, framed, tag, write ? X86_WRITE : X86_READ);
    for (unsigned i = k + 1; i < loop->count; i++) {
        if (loop->ranges[i].page != k || (framed && is_covered(b, &loop->ranges[i])))
            continue;
        b->s1 = offset_register(a, &loop->ranges[i], s1);
        offset_by_tag(b, &loop->ranges[i], tag);
        take_offset(b, a, &loop->ranges[i]);
    }
    b->s1 = s1;
    for (unsigned i = k; i < loop->count; i++)
        if (loop->ranges[i].page == k && loop->ranges[i].holder == i)
            fill_slot(b, a, k, i);
    branch_convert(b, b->home, a->home);
    b->home = a->home;
}

/* The largest offset is in the register, or in the field. */
static void finish(struct build *b, struct ahead *a)
{
    uint8_t reg = a->room;

    if (reg == EMIT_NONE) {
        reg = take(b, a, 0, 0);
        emit_load(b->e, reg, FIELD(loop_room));
    }
    finish_together(b, a, reg);
    branch_convert(b, b->home, a->home);
    b->home = a->home;
}

/* From what there is to what the loop counts down. */
static void start_counter(struct build *b, const struct ahead *a)
{
    struct loop *loop = a->loop;
    struct emit *e = b->e;

    if (!a->counted) {
        if (loop->counter != EMIT_NONE)
            emit_rr(e, true, 0xc7, 0, loop->counter); /* MOV */
        else
            emit_rm(e, true, 0xc7, 0, FIELD(loop_room));
        emit_u32(e, TURNS - 1);
        return;
    }
    if (a->alone) { /* the last turn finds nothing left */
        if (a->room != EMIT_NONE)
            emit_rr(e, true, 0x83, 5, a->room); /* SUB */
        else
            emit_rm(e, true, 0x83, 5, FIELD(loop_room));
        emit_u8(e, 1);
    }
    if (a->room != EMIT_NONE && loop->counter == EMIT_NONE)
        emit_store(e, FIELD(loop_room), a->room);
    else if (a->room == EMIT_NONE && loop->counter != EMIT_NONE)
        emit_load(e, loop->counter, FIELD(loop_room));
}

void ahead_check(struct build *b, struct loop *loop)
{
    struct ahead a = {.loop = loop, .room = EMIT_NONE, .home = loop->home};

    loop->step = 1;
    for (unsigned k = 0; k < loop->count; k++) {
        const struct range *r = &loop->ranges[k];

        /* That of an address relative to RIP is known to nobody any more. */
        b->relocations.fixed |= r->memory.base == X86_NO_REGISTER &&
                                !emit_fits((uint64_t)r->memory.displacement);
        a.slots |= r->holder == k ? register_bit(r->slot) : 0;
        a.alone += ahead_counts_alone(r);
        if (counts_together(r)) {
            a.together++;
            a.moves = MAX(a.moves, (unsigned)r->up);
            a.span = MAX(a.span, span_of(r));
        }
    }
    if (loop->together)
        together_prepare(b, loop);
    branch_convert(b, b->unit->home, loop->home);
    check_besides(b, &a);
    choose_room(b, &a);
    b->home = a.home;
    for (unsigned k = 0; k < loop->count; k++)
        if (loop->ranges[k].page == k && !ahead_counts_alone(&loop->ranges[k]))
            check_page(b, &a, k);
    if (a.begun && !a.counted)
        finish(b, &a);
    for (unsigned k = 0; k < loop->count; k++)
        if (ahead_counts_alone(&loop->ranges[k]))
            check_page(b, &a, k);
    start_counter(b, &a);
    branch_convert(b, a.home, loop->home);
    for (unsigned k = 0; k < loop->count; k++)
        if (loop->ranges[k].holder == k && (register_bit(loop->ranges[k].slot) & ~a.filled))
            emit_load(b->e, loop->ranges[k].slot, loop_slot_field(k));
    b->home = loop->home;
}
