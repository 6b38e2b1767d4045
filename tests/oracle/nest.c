#include "nest.h"

#include "base/bytes.h"
#include "maker.h"

#define REGISTERS    (X86_GPRS - 1) /* RSP is the frame's */
#define POINTERS_MAX 4

struct nest {
    struct maker *m;
    struct random *r;
    /* In another order each time: pointers, the counters of both loops, what is computed with. */
    uint8_t registers[REGISTERS];
    unsigned pointers;
    unsigned first, last; /* of those computed with: that are now */
    unsigned inner;       /* loops deep */
};

static void shuffle(struct nest *n)
{
    unsigned count = 0;

    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (reg != X86_RSP)
            n->registers[count++] = (uint8_t)reg;
    for (unsigned i = REGISTERS - 1; i; i--) {
        const unsigned k = random_below(n->r, i + 1);
        const uint8_t other = n->registers[i];

        n->registers[i] = n->registers[k];
        n->registers[k] = other;
    }
}

static unsigned pointer(struct nest *n)
{
    return n->registers[random_below(n->r, n->pointers)];
}

static unsigned value(struct nest *n)
{
    return n->registers[n->first + random_below(n->r, n->last - n->first)];
}

static unsigned counter(const struct nest *n)
{
    return n->registers[n->pointers + n->inner];
}

/* --- Instructions --- */

static uint8_t rex(bool wide, unsigned reg, unsigned index, unsigned base)
{
    return (uint8_t)(0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3);
}

/* Between two registers. size: 1, 2, 4 or 8 bytes; opcode: of the form for more than one. */
static void operate(struct nest *n, unsigned size, unsigned opcode, unsigned reg, unsigned rm)
{
    uint8_t bytes[4];
    unsigned count = 0;

    if (size == 2)
        bytes[count++] = 0x66;
    bytes[count++] = rex(size == 8, reg, 0, rm);
    bytes[count++] = (uint8_t)(size == 1 ? opcode & 0xfe : opcode);
    bytes[count++] = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
    maker_emit(n->m, bytes, count);
}

/* One with memory; an index of RSP is none. */
static void reach(struct nest *n, unsigned size, const uint8_t *opcode, unsigned reg,
                  unsigned base, unsigned index, unsigned scale, int displacement)
{
    uint8_t bytes[12];
    unsigned count = 0;

    if (size == 2)
        bytes[count++] = 0x66;
    bytes[count++] = rex(size == 8, reg, index == X86_RSP ? 0 : index, base);
    if (opcode[0] == 0x0f)
        bytes[count++] = 0x0f;
    bytes[count++] = opcode[opcode[0] == 0x0f];
    bytes[count++] = (uint8_t)(0x84 | (reg & 7) << 3); /* SIB and 32 bits of displacement */
    bytes[count++] = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
    store_le32(bytes + count, (uint32_t)displacement);
    maker_emit(n->m, bytes, count + 4);
}

static unsigned size_of_value(struct nest *n)
{
    static const uint8_t sizes[] = {8, 8, 8, 4, 4, 4, 2, 1};

    return sizes[random_below(n->r, ARRAY_SIZE(sizes))];
}

static const uint8_t *operation(struct nest *n)
{
    /* add, or, adc, sbb, and, sub, xor, cmp, test, mov */
    static const uint8_t opcodes[] = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31,
                                      0x39, 0x85, 0x89, 0x89, 0x01, 0x39};

    return &opcodes[random_below(n->r, ARRAY_SIZE(opcodes))];
}

static void compute(struct nest *n)
{
    const unsigned kind = random_below(n->r, 100), reg = value(n), size = size_of_value(n);

    if (kind < 60) {
        operate(n, size, *operation(n), value(n), reg);
    } else if (kind < 70) { /* an operation with a constant of a byte */
        const uint8_t modrm = (uint8_t)(0xc0 | random_below(n->r, 8) << 3 | (reg & 7));

        maker_emit(n->m, (uint8_t[]){rex(size == 8, 0, 0, reg), size == 1 ? 0x80 : 0x83, modrm,
                                     (uint8_t)random_next(n->r)}, 4);
    } else if (kind < 78) { /* setcc, cmovcc */
        const unsigned other = value(n), base = kind < 74 ? 0x90 : 0x40;

        maker_emit(n->m, (uint8_t[]){rex(size == 8, other, 0, reg), 0x0f,
                                     (uint8_t)(base | random_below(n->r, 16)),
                                     (uint8_t)(0xc0 | (other & 7) << 3 | (reg & 7))}, 4);
    } else if (kind < 84) { /* of another width, a constant, or zero */
        const unsigned other = value(n);

        maker_emit(n->m, (uint8_t[]){rex(size == 8, other, 0, reg), 0x0f,
                                     (uint8_t)(0xb6 | random_below(n->r, 2) << 3),
                                     (uint8_t)(0xc0 | (other & 7) << 3 | (reg & 7))}, 4);
    } else if (kind < 88) {
        operate(n, 4, 0x31, reg, reg);
    } else if (kind < 92) {
        maker_set_register(n->m, reg, random_next(n->r));
    } else { /* inc, dec: they keep CF */
        maker_emit(n->m, (uint8_t[]){rex(size == 8, 0, 0, reg), 0xff,
                                     (uint8_t)((kind & 1 ? 0xc0 : 0xc8) | (reg & 7))}, 3);
    }
}

static int displacement_of(struct nest *n)
{
    return random_chance(n->r, 70) ? 8 * (int)random_below(n->r, 8) - 16
                                   : (int)random_below(n->r, 320) - 160;
}

/* Load, store, or operate there; now and then a vector. */
static void reach_somehow(struct nest *n, unsigned base, unsigned index, unsigned scale,
                          int displacement)
{
    static const uint8_t loads[][2] = {{0x8b}, {0x03}, {0x33}, {0x3b}, {0x8b}, {0x0f, 0xb6}};
    static const uint8_t stores[][2] = {{0x89}, {0x01}, {0x31}, {0x89}};
    static const uint8_t vectors[][2] = {{0x0f, 0x10}, {0x0f, 0x11}, {0x0f, 0x28}, {0x0f, 0x29}};
    const unsigned kind = random_below(n->r, 100), size = size_of_value(n);
    const uint8_t *opcode = kind < 55   ? loads[random_below(n->r, ARRAY_SIZE(loads))]
                            : kind < 95 ? stores[random_below(n->r, ARRAY_SIZE(stores))]
                                        : vectors[random_below(n->r, ARRAY_SIZE(vectors))];

    if (kind >= 95)
        reach(n, 4, opcode, random_below(n->r, 8), base, index, scale, displacement);
    else if (size == 1 && opcode[0] != 0x0f)
        reach(n, 1, (uint8_t[]){(uint8_t)(opcode[0] & 0xfe)}, value(n), base, index, scale,
              displacement);
    else
        reach(n, size, opcode, value(n), base, index, scale, displacement);
}

static void reach_frame(struct nest *n)
{
    const int displacement = random_chance(n->r, 85) ? 8 * (int)random_below(n->r, 10) - 16
                                                     : (int)random_below(n->r, 640) - 40;

    reach_somehow(n, X86_RSP, X86_RSP, 0, displacement);
}

/* By an index that is small. */
static void reach_element(struct nest *n)
{
    const unsigned index = value(n), mask = random_chance(n->r, 50) ? 0x38 : 7;

    if (random_chance(n->r, 30)) { /* movzx */
        const unsigned from = value(n);

        maker_emit(n->m, (uint8_t[]){rex(false, index, 0, from), 0x0f, 0xb6,
                                     (uint8_t)(0xc0 | (index & 7) << 3 | (from & 7))}, 4);
    } else { /* and */
        maker_emit(n->m, (uint8_t[]){rex(false, 0, 0, index), 0x83,
                                     (uint8_t)(0xe0 | (index & 7)), (uint8_t)mask}, 4);
    }
    reach_somehow(n, pointer(n), index, random_below(n->r, 4), displacement_of(n));
}

/* Through a register that the access then overwrites, or a part of it. */
static void reach_through(struct nest *n)
{
    static const uint8_t loads[][2] = {{0x8b}, {0x0f, 0xb6}, {0x0f, 0xb7}, {0x03}, {0x8a}};
    const unsigned reg = value(n);
    const uint8_t *opcode = loads[random_below(n->r, ARRAY_SIZE(loads))];

    if (random_chance(n->r, 30)) { /* as an index */
        maker_emit(n->m, (uint8_t[]){rex(false, 0, 0, reg), 0x83, (uint8_t)(0xe0 | (reg & 7)),
                                     0x1f}, 4);
        reach(n, opcode[0] == 0x8a ? 1 : size_of_value(n), opcode, reg, pointer(n), reg, 3, 0);
        return;
    }
    if (random_chance(n->r, 50))
        operate(n, 8, 0x89, pointer(n), reg);
    else
        reach(n, 8, (uint8_t[]){0x8d}, reg, pointer(n), X86_RSP, 0, displacement_of(n));
    if (random_chance(n->r, 30))
        compute(n); /* perhaps with that one */
    reach(n, opcode[0] == 0x8a ? 1 : size_of_value(n), opcode, reg, reg, X86_RSP, 0,
          displacement_of(n));
}

static uint64_t place(struct nest *n)
{
    const unsigned kind = random_below(n->r, 100);

    if (kind < 60)
        return IMAGE_DATA + 0x400 + random_below(n->r, 0x400);
    if (kind < 90)
        return IMAGE_DATA + IMAGE_PAGE - 128 + random_below(n->r, 256);
    return IMAGE_DATA + random_below(n->r, IMAGE_DATA_SIZE);
}

/* A pointer goes on, or somewhere else: beside another one, or where it is told. */
static void move_pointer(struct nest *n)
{
    const unsigned reg = pointer(n), kind = random_below(n->r, 100);

    if (kind < 50 || (n->inner && kind < 85))
        maker_emit(n->m, (uint8_t[]){rex(true, 0, 0, reg), 0x83, (uint8_t)(0xc0 | (reg & 7)),
                                     (uint8_t)(1 << random_below(n->r, 6))}, 4);
    else if (kind < 75)
        reach(n, 8, (uint8_t[]){0x8d}, reg, pointer(n), X86_RSP, 0,
              16 * (int)random_below(n->r, 5) - 32);
    else
        maker_set_register(n->m, reg, place(n));
}

/* --- Their order --- */

static void make_items(struct nest *n, unsigned count, unsigned depth);

/* What one way skips, and perhaps another that skips the first. */
static void make_meeting(struct nest *n, unsigned depth)
{
    const uint64_t over = maker_condition(n->m);
    uint64_t end;

    make_items(n, 1 + random_below(n->r, 3), depth + 1);
    if (random_chance(n->r, 60)) {
        maker_set_target(n->m, over, n->m->at);
        return;
    }
    end = maker_branch(n->m, (uint8_t[]){0xe9}, 1);
    maker_set_target(n->m, over, n->m->at);
    make_items(n, 1 + random_below(n->r, 3), depth + 1);
    maker_set_target(n->m, end, n->m->at);
}

/* Of a register, memory, or a constant. */
static void emit_push(struct nest *n)
{
    const unsigned kind = random_below(n->r, 100), reg = value(n);

    if (kind < 60)
        maker_emit(n->m, (uint8_t[]){rex(false, 0, 0, reg), (uint8_t)(0x50 | (reg & 7))}, 2);
    else if (kind < 90)
        reach(n, 4, (uint8_t[]){0xff}, 6, random_chance(n->r, 50) ? X86_RSP : pointer(n), X86_RSP,
              0, displacement_of(n));
    else
        maker_emit(n->m, (uint8_t[]){0x6a, (uint8_t)random_next(n->r)}, 2);
}

static void emit_pop(struct nest *n)
{
    const unsigned reg = value(n);

    maker_emit(n->m, (uint8_t[]){rex(false, 0, 0, reg), (uint8_t)(0x58 | (reg & 7))}, 2);
}

/* sub rsp, n; ...; add rsp, n; by LEA now and then. */
static void make_room(struct nest *n, unsigned depth)
{
    const int size = 8 * (1 + (int)random_below(n->r, 6));

    for (unsigned i = 0; i < 2; i++) {
        const uint8_t by = (uint8_t)(i ? size : -size);

        if (random_chance(n->r, 50))
            reach(n, 8, (uint8_t[]){0x8d}, X86_RSP, X86_RSP, X86_RSP, 0, (int8_t)by);
        else
            maker_emit(n->m, (uint8_t[]){0x48, 0x83, 0xc4, by}, 4); /* add */
        if (!i)
            make_items(n, random_below(n->r, 4), depth + 1);
    }
}

/* push ...; ...; pop ..., or the same in a function. */
static void make_pushes(struct nest *n, unsigned depth)
{
    const unsigned count = 1 + random_below(n->r, 3);
    const bool called = random_chance(n->r, 50);
    uint64_t call = 0, end = 0;

    if (called) {
        call = maker_branch(n->m, (uint8_t[]){0xe8}, 1);
        end = maker_branch(n->m, (uint8_t[]){0xe9}, 1);
        maker_set_target(n->m, call, n->m->at);
    }
    for (unsigned i = 0; i < count; i++)
        emit_push(n);
    make_items(n, random_below(n->r, 3), depth + 1);
    for (unsigned i = 0; i < count; i++)
        emit_pop(n);
    if (called) {
        maker_emit(n->m, (uint8_t[]){0xc3}, 1);
        maker_set_target(n->m, end, n->m->at);
    }
}

static void make_items(struct nest *n, unsigned count, unsigned depth)
{
    while (count--) {
        const unsigned kind = random_below(n->r, 100);

        if (kind < 38)
            compute(n);
        else if (kind < 54)
            reach_somehow(n, pointer(n), X86_RSP, 0, displacement_of(n));
        else if (kind < 68)
            reach_frame(n);
        else if (kind < 74)
            reach_element(n);
        else if (kind < 79)
            reach_through(n);
        else if (kind < 83)
            move_pointer(n);
        else if (kind < 92 && depth < 2)
            make_meeting(n, depth);
        else if (kind < 98 && depth < 2)
            random_chance(n->r, 30) ? make_room(n, depth) : make_pushes(n, depth);
        else if (kind == 99)
            maker_emit(n->m, (uint8_t[]){0xfc}, 1); /* cld */
    }
}

/* dec reg; jnz begin */
static void end_loop(struct nest *n, unsigned reg, uint64_t begin)
{
    uint64_t back;

    operate(n, 4, 0xff, 1, reg);
    back = maker_branch(n->m, (uint8_t[]){0x0f, 0x85}, 2);
    maker_set_target(n->m, back, begin);
}

/* Some of the registers computed with, so that others are free. A way out may lead past what
 * follows the loop. */
static void make_inner(struct nest *n)
{
    const unsigned first = n->first, last = n->last;
    const bool breaks = random_chance(n->r, 30);
    uint64_t begin, leave = 0;

    n->inner = 1;
    n->first += random_below(n->r, last - first - 1);
    n->last = n->first + 1 + random_below(n->r, last - n->first);
    maker_set_register(n->m, counter(n), 1 + random_below(n->r, 20));
    begin = n->m->at;
    if (random_chance(n->r, 90))
        operate(n, 8, 0x39, value(n), value(n));
    make_items(n, 1 + random_below(n->r, 5), 0);
    if (breaks)
        leave = maker_condition(n->m);
    make_items(n, random_below(n->r, 4), 0);
    end_loop(n, counter(n), begin);
    n->first = first;
    n->last = last;
    n->inner = 0;
    if (breaks) {
        make_items(n, 1 + random_below(n->r, 3), 0);
        maker_set_target(n->m, leave, n->m->at);
    }
}

/* A loop that leaves no register to who translates it, and comes to a page's end. */
static void make_crowd(struct nest *n)
{
    uint64_t begin;

    maker_set_register(n->m, counter(n), 1 + random_below(n->r, 100));
    begin = n->m->at;
    for (unsigned i = n->pointers + 1; i < REGISTERS - 1; i++)
        operate(n, 8, *operation(n), n->registers[i], n->registers[i + 1]);
    for (unsigned i = 0; i < n->pointers; i++)
        if (random_chance(n->r, 80))
            reach_somehow(n, n->registers[i], X86_RSP, 0, displacement_of(n));
    make_items(n, random_below(n->r, 8), 0);
    n->inner = 1;
    move_pointer(n);
    n->inner = 0;
    end_loop(n, counter(n), begin);
}

/* mov reg, next; jmp reg; next: what follows is a unit of its own, made when registers are
 * what they are there. */
static void begin_anew(struct nest *n)
{
    const unsigned reg = value(n);

    maker_set_register(n->m, reg, n->m->at + 10 + 3);
    maker_emit(n->m, (uint8_t[]){rex(false, 0, 0, reg), 0xff, (uint8_t)(0xe0 | (reg & 7))}, 3);
}

/* Where the frame may cross a page's border too, as a whole or in part. */
static uint64_t frame(struct nest *n)
{
    if (random_chance(n->r, 70))
        return maker_stack(n->m);
    return IMAGE_DATA + IMAGE_PAGE - random_below(n->r, 640);
}

void nest_make(struct maker *m)
{
    struct nest n = {.m = m, .r = m->r, .pointers = 1 + random_below(m->r, POINTERS_MAX),
                     .last = REGISTERS};
    const uint64_t near = place(&n);
    const bool crowded = random_chance(m->r, 25);
    uint64_t begin;

    shuffle(&n);
    n.first = n.pointers + 2;
    maker_set_register(m, X86_RSP, frame(&n));
    for (unsigned i = 0; i < n.pointers; i++)
        maker_set_register(m, n.registers[i],
                           random_chance(m->r, 60) ? near + 16 * random_below(m->r, 16)
                                                   : place(&n));
    maker_set_register(m, counter(&n), 1 + random_below(m->r, 12));
    if (random_chance(m->r, 75))
        begin_anew(&n);
    begin = m->at;
    if (!crowded) {
        if (random_chance(m->r, 90))
            operate(&n, 8, 0x39, value(&n), value(&n));
        make_items(&n, random_below(m->r, 6), 0);
        for (unsigned i = 1 + random_chance(m->r, 30); i; i--) {
            make_inner(&n);
            make_items(&n, random_below(m->r, 5), 0);
        }
        end_loop(&n, counter(&n), begin);
    } else {
        make_crowd(&n);
    }
    if (m->left)
        m->left--;
}
