#include "program.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "compare.h"
#include "excused.h"
#include "generate.h"
#include "maker.h"
#include "nest.h"
#include "values.h"

#define INSNS_MAX   50
#define DEPTH_MAX   3
/* Of loops: beside the code, where nothing else writes, or beside the data when
 * the code cannot be reached through DS. */
#define COUNTERS      (IMAGE_CODE + IMAGE_CODE_SIZE - 0x100)
#define COUNTERS_DATA (IMAGE_READONLY - 0x100)

void maker_emit(struct maker *m, const uint8_t *bytes, unsigned count)
{
    if (m->full || m->at + count > COUNTERS - 16) {
        m->full = true;
        m->left = 0;
        return;
    }
    memcpy(m->memory->code + (m->at - IMAGE_CODE), bytes, count);
    m->at += count;
    m->program->count++;
}

void maker_emit_sized(struct maker *m, const uint8_t *opcode, unsigned count, uint64_t value,
                      unsigned size)
{
    uint8_t bytes[16];

    memcpy(bytes, opcode, count);
    memcpy(bytes + count, &value, size);
    maker_emit(m, bytes, count + size);
}

/* The offset in CS of a linear address. */
static uint64_t code_offset(const struct maker *m, uint64_t linear)
{
    return linear - image_code_base(m->program->mode);
}

void maker_set_register(struct maker *m, unsigned reg, uint64_t value)
{
    switch (m->program->mode) {
    case X86_MODE_64:
        maker_emit_sized(m, (uint8_t[]){(uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7))}, 2,
                         value, 8);
        break;
    case X86_MODE_32:
        maker_emit_sized(m, (uint8_t[]){(uint8_t)(0xb8 | reg)}, 1, value, 4);
        break;
    default:
        maker_emit_sized(m, (uint8_t[]){0x66, (uint8_t)(0xb8 | reg)}, 2, value, 4);
        break;
    }
}

/* --- One instruction of the table --- */

static bool uses_stack(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_PUSH: case X86_OP_POP: case X86_OP_PUSHF: case X86_OP_PUSHA: case X86_OP_POPA:
    case X86_OP_ENTER: case X86_OP_LEAVE: case X86_OP_PUSH_SREG:
        return true;
    default:
        return false;
    }
}

/* The registers that its addresses and counts are made of. */
static uint32_t address_registers(const struct x86_insn *insn)
{
    const struct x86_memory *memory = &insn->memory;
    const struct x86_operand *second = &insn->operands[1];
    uint32_t registers = 0;

    if (x86_memory_operand(insn)) {
        if (memory->base != X86_NO_REGISTER)
            registers |= 1u << memory->base;
        if (memory->index != X86_NO_REGISTER && !memory->vsib)
            registers |= 1u << memory->index;
    }
    if (uses_stack(insn))
        registers |= 1u << X86_RSP | 1u << X86_RBP;
    if (x86_rows[insn->row].attributes & X86_ATTR_STRING)
        registers |= 1u << X86_RSI | 1u << X86_RDI | 1u << X86_RCX;
    switch (insn->op) {
    case X86_OP_BT: case X86_OP_BTS: case X86_OP_BTR: case X86_OP_BTC:
        if (second->kind == X86_OPERAND_GPR)
            registers |= 1u << second->reg;
        break;
    case X86_OP_DIV: case X86_OP_IDIV:
        registers |= 1u << X86_RAX | 1u << X86_RDX;
        break;
    default:
        break;
    }
    return registers;
}

/* Results that only one CPU gives, and what would end the program at once. */
static bool suits(const struct maker *m, const struct x86_insn *insn)
{
    const struct x86_row *row = &x86_rows[insn->row];
    const struct tolerance t = tolerance_of(insn, m->image);

    if ((row->attributes & (X86_ATTR_NONDETERMINISTIC)) ||
        (!m->program->privileged && (row->attributes & (X86_ATTR_BRANCH | X86_ATTR_PRIVILEGED))) ||
        ((row->attributes & X86_ATTR_BRANCH) && (row->attributes & X86_ATTR_DEFAULT64)))
        return false;
    if (m->program->for_host && insn->memory.vsib)
        return false;
    /* A 16-bit count in CL is undefined above 16, and CL is not known here. */
    if ((insn->op == X86_OP_SHLD || insn->op == X86_OP_SHRD) && insn->operands[0].size == 2)
        return false;
    return !t.registers && !t.to && !t.fault_any && !t.fault_registers && !t.fault_memory &&
           !(m->program->for_host && (t.fault_address || t.fault_x87));
}

static unsigned pick_row(const struct maker *m)
{
    const bool plain = random_chance(m->r, 60), any = m->program->privileged &&
                                                      random_chance(m->r, 20);
    unsigned row;

    do
        row = random_below(m->r, x86_row_count);
    while ((!any && (excused(row) || (x86_rows[row].attributes & X86_ATTR_PRIVILEGED))) ||
           (plain && x86_rows[row].feature != X86_FEATURE_BASE));
    return row;
}

void maker_set_flags(struct maker *m)
{
    const unsigned reg = random_below(m->r, 8), other = random_below(m->r, 8);

    maker_emit(m, (uint8_t[]){0x39, (uint8_t)(0xc0 | reg << 3 | other)}, 2); /* cmp */
}

static void make_instruction(struct maker *m)
{
    struct image aimed = *m->image;
    uint8_t bytes[X86_INSN_MAX];
    struct x86_insn insn;
    uint32_t registers;
    const uint64_t room = 3 * 10; /* for the pointers that come before it */

    for (;;) {
        if (!generate_bytes(m->r, pick_row(m), m->program->mode, bytes, &insn) ||
            !suits(m, &insn))
            continue;
        aimed = *m->image;
        if (insn.memory.rip_relative || insn.memory.segment >= X86_FS) {
            /* Its displacement counts from where it will be: no pointers before it. */
            if (generate_aim(m->r, &aimed, m->memory, m->at, bytes, &insn, true))
                break;
            continue;
        }
        if (generate_aim(m->r, &aimed, m->memory, m->at + room, bytes, &insn, true))
            break;
    }
    registers = address_registers(&insn);
    if (!m->program->for_host && random_chance(m->r, 12))
        registers = 0; /* whatever they hold by now */
    if (!m->program->for_host && uses_stack(&insn) && random_chance(m->r, 80))
        registers &= ~(1u << X86_RSP | 1u << X86_RBP);
    if (insn.memory.rip_relative)
        registers = 0;
    for (unsigned i = 0; i < X86_GPRS; i++)
        if (registers >> i & 1)
            maker_set_register(m, i, aimed.gpr[i]);
    maker_emit(m, bytes, insn.length);
    if (x86_rows[insn.row].flags_undefined)
        maker_set_flags(m);
    if (m->left)
        m->left--;
}

/* --- Control flow --- */

static void make_statements(struct maker *m, unsigned depth, unsigned count);

static unsigned branch_size(const struct maker *m)
{
    return m->program->mode == X86_MODE_16 ? 2 : 4;
}

uint64_t maker_stack(struct maker *m)
{
    const unsigned kind = random_below(m->r, 100);

    if (kind < 60)
        return IMAGE_DATA + 0x800 + 8 * random_below(m->r, 64);
    if (kind < 95)
        return IMAGE_DATA + IMAGE_PAGE - 64 + random_below(m->r, 128);
    return IMAGE_DATA + 8 * random_below(m->r, 8);
}

uint64_t maker_branch(struct maker *m, const uint8_t *opcode, unsigned count)
{
    maker_emit_sized(m, opcode, count, 0, branch_size(m));
    return m->at - branch_size(m);
}

void maker_set_target(struct maker *m, uint64_t where, uint64_t target)
{
    const uint64_t displacement = target - (where + branch_size(m));

    if (!m->full) /* else it was not emitted */
        memcpy(m->memory->code + (where - IMAGE_CODE), &displacement, branch_size(m));
}

uint64_t maker_condition(struct maker *m)
{
    return maker_branch(m, (uint8_t[]){0x0f, (uint8_t)(0x80 | random_below(m->r, 16))}, 2);
}

static void make_if(struct maker *m, unsigned depth)
{
    const uint64_t over = maker_condition(m);
    uint64_t end;

    make_statements(m, depth + 1, 1 + random_below(m->r, 4));
    if (random_chance(m->r, 50)) {
        maker_set_target(m, over, m->at);
        return;
    }
    end = maker_branch(m, (uint8_t[]){0xe9}, 1);
    maker_set_target(m, over, m->at);
    make_statements(m, depth + 1, 1 + random_below(m->r, 4));
    maker_set_target(m, end, m->at);
}

/* DS begins where CS does: user code of 32 and 64 bits. */
static bool reaches_code(const struct maker *m)
{
    return m->program->mode == X86_MODE_64 ||
           (m->program->mode == X86_MODE_32 && !m->program->privileged);
}

/* mov dword [counter], n; begin: ...; dec dword [counter]; jnz begin */
static void make_loop(struct maker *m, unsigned depth)
{
    const uint64_t rounds = 2 + random_below(m->r, 12);
    const uint64_t counter =
        (reaches_code(m) ? COUNTERS : COUNTERS_DATA) + 4 * (m->loops++ & 63);
    uint64_t begin, back;

    switch (m->program->mode) {
    case X86_MODE_64:
        maker_emit_sized(m, (uint8_t[]){0xc7, 0x04, 0x25}, 3, counter | rounds << 32, 8);
        break;
    case X86_MODE_32:
        maker_emit_sized(m, (uint8_t[]){0xc7, 0x05}, 2, counter | rounds << 32, 8);
        break;
    default:
        maker_emit_sized(m, (uint8_t[]){0x66, 0xc7, 0x06}, 3,
                         (counter - IMAGE_DATA_BASE_16) | rounds << 16, 6);
        break;
    }
    begin = m->at;
    make_statements(m, depth + 1, 1 + random_below(m->r, 5));
    switch (m->program->mode) {
    case X86_MODE_64:
        maker_emit_sized(m, (uint8_t[]){0xff, 0x0c, 0x25}, 3, counter, 4);
        break;
    case X86_MODE_32:
        maker_emit_sized(m, (uint8_t[]){0xff, 0x0d}, 2, counter, 4);
        break;
    default:
        maker_emit_sized(m, (uint8_t[]){0x66, 0xff, 0x0e}, 3, counter - IMAGE_DATA_BASE_16, 2);
        break;
    }
    back = maker_branch(m, (uint8_t[]){0x0f, 0x85}, 2);
    maker_set_target(m, back, begin);
}

/* An access [base+index*scale+displacement] by an instruction that compilers use
 * in loops; EAX, EDX and XMM0 are its other operand. */
static void emit_access(struct maker *m, unsigned base, unsigned index, unsigned scale)
{
    static const uint8_t opcodes[][2] = {
        {0x8b}, {0x89}, {0x01}, {0x03}, {0x33}, {0x88}, {0x3b}, {0x0f, 0xb6}, {0x0f, 0x10},
        {0x0f, 0x11}, {0x0f, 0x28}, {0x0f, 0x29}, {0x0f, 0x10}, {0x0f, 0x11}, {0xff},
    };
    const uint8_t *opcode = opcodes[random_below(m->r, ARRAY_SIZE(opcodes))];
    const unsigned reg = opcode[0] == 0xff || random_chance(m->r, 50) ? 0 : 2;
    const bool wide = random_chance(m->r, 40);
    uint8_t bytes[8];
    unsigned count = 0;

    bytes[count++] = (uint8_t)(0x40 | wide << 3 | (index < X86_GPRS ? index >> 3 : 0) << 1 |
                               base >> 3);
    bytes[count++] = opcode[0];
    if (opcode[1])
        bytes[count++] = opcode[1];
    bytes[count++] = (uint8_t)(0x44 | reg << 3); /* SIB and eight bits of displacement */
    bytes[count++] = (uint8_t)(scale << 6 | (index < X86_GPRS ? index & 7 : 4) << 3 | (base & 7));
    bytes[count++] = (uint8_t)(random_chance(m->r, 70) ? 16 * random_below(m->r, 8)
                                                       : random_below(m->r, 256));
    maker_emit(m, bytes, count);
}

/* add reg, n; lea reg, [reg+n]; inc reg; dec reg; all up, or all down */
static void emit_move(struct maker *m, unsigned reg, bool down)
{
    const unsigned step = random_chance(m->r, 60) ? 1u << random_below(m->r, 7)
                                                  : random_below(m->r, 128);
    const uint8_t by = (uint8_t)(down ? -step : step);
    const uint8_t rex = (uint8_t)(0x48 | reg >> 3), low = reg & 7;

    switch (low == X86_RSP ? 2 : random_below(m->r, 4)) { /* R12 in LEA would need a SIB byte */
    case 0: maker_emit(m, (uint8_t[]){rex, 0xff, (uint8_t)((down ? 0xc8 : 0xc0) | low)}, 3); break;
    case 1:
        maker_emit(m, (uint8_t[]){(uint8_t)(rex | (reg >> 3) << 2), 0x8d,
                                  (uint8_t)(0x44 | low << 3), (uint8_t)(0x20 | low), by}, 5);
        break;
    default: maker_emit(m, (uint8_t[]){rex, 0x83, (uint8_t)(0xc0 | low), by}, 4); break;
    }
}

/* Half of them begin near a page's border. */
static uint64_t walk_start(struct maker *m)
{
    if (random_chance(m->r, 50))
        return IMAGE_DATA + random_below(m->r, IMAGE_DATA_SIZE);
    return IMAGE_DATA + IMAGE_PAGE * (1 + random_below(m->r, IMAGE_DATA_SIZE / IMAGE_PAGE - 1)) +
           random_below(m->r, 32) - 16;
}

/* A loop such as compilers make: pointers that walk through memory or stand
 * still, an index, a table that a byte indexes, conditions; to the end of the
 * data now and then. Its counter is ECX. */
static void make_walk(struct maker *m)
{
    static const uint8_t pointers[] = {X86_RBX, X86_RBP, X86_RSI, X86_R8, X86_R12, X86_R13};
    const unsigned used = 1 + random_below(m->r, 4), index = X86_RDI;
    const bool down = random_chance(m->r, 40);
    uint64_t begin, back, over = 0;

    for (unsigned i = 0; i < used; i++)
        maker_set_register(m, pointers[i], walk_start(m));
    maker_set_register(m, index, random_below(m->r, 64));
    maker_set_register(m, X86_RCX, 1 + random_below(m->r, random_chance(m->r, 20) ? 300 : 30));
    begin = m->at;
    for (unsigned count = 2 + random_below(m->r, 7); count; count--) {
        const unsigned reg = pointers[random_below(m->r, used)], kind = random_below(m->r, 100);

        if (over && random_chance(m->r, 50)) {
            maker_set_target(m, over, m->at);
            over = 0;
        }
        if (kind < 40)
            emit_access(m, reg, X86_NO_REGISTER, 0);
        else if (kind < 55)
            emit_access(m, reg, index, random_below(m->r, 4));
        else if (kind < 65) {
            maker_emit(m, (uint8_t[]){0x0f, 0xb6, 0xc2}, 3); /* movzx eax, dl */
            emit_access(m, reg, X86_RAX, random_below(m->r, 4));
        } else if (kind < 85)
            emit_move(m, random_chance(m->r, 30) ? index : reg, down ^ random_chance(m->r, 5));
        else if (kind < 95 && !over)
            over = maker_condition(m);
        else if (!m->program->for_host && m->left > 1)
            make_instruction(m);
    }
    if (over)
        maker_set_target(m, over, m->at);
    maker_emit(m, (uint8_t[]){0xff, 0xc9}, 2); /* dec ecx */
    back = maker_branch(m, (uint8_t[]){0x0f, 0x85}, 2);
    maker_set_target(m, back, begin);
    if (m->left)
        m->left--;
}

/* call f; ...; jmp end; f: ...; ret; end: */
static void make_call(struct maker *m, unsigned depth)
{
    uint64_t call, end;

    maker_set_register(m, X86_RSP, IMAGE_DATA + 0x800 - image_data_base(m->program->mode) +
                                       8 * random_below(m->r, 64));
    call = maker_branch(m, (uint8_t[]){0xe8}, 1);
    make_statements(m, depth + 1, 1 + random_below(m->r, 3));
    end = maker_branch(m, (uint8_t[]){0xe9}, 1);
    maker_set_target(m, call, m->at);
    if (!m->program->for_host) /* it may move the stack and return anywhere */
        make_statements(m, depth + 1, 1 + random_below(m->r, 3));
    maker_emit(m, (uint8_t[]){0xc3}, 1);
    maker_set_target(m, end, m->at);
}

/* jmp reg; call reg; push reg, ret */
static void emit_indirect(struct maker *m, unsigned reg)
{
    const unsigned kind = m->program->for_host ? 0 : random_below(m->r, 100);

    if (kind < 60)
        maker_emit(m, (uint8_t[]){0xff, (uint8_t)(0xe0 | reg)}, 2);
    else if (kind < 80 || m->program->mode == X86_MODE_16)
        maker_emit(m, (uint8_t[]){0xff, (uint8_t)(0xd0 | reg)}, 2);
    else
        maker_emit(m, (uint8_t[]){(uint8_t)(0x50 | reg), 0xc3}, 2);
}

static unsigned pick_pointer(struct maker *m)
{
    static const uint8_t usable[] = {X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSI, X86_RDI};

    return usable[random_below(m->r, ARRAY_SIZE(usable))];
}

/* mov reg, next; jmp reg; next: */
static void make_indirect(struct maker *m)
{
    const unsigned reg = pick_pointer(m);
    const unsigned set = m->program->mode == X86_MODE_64   ? 10
                         : m->program->mode == X86_MODE_32 ? 5
                                                           : 6;
    const unsigned pad = random_below(m->r, 4);
    const uint64_t next = code_offset(m, m->at + set + 2 + pad);

    /* Now and then to a page that may not be executed. */
    maker_set_register(m, reg, random_chance(m->r, 5) ? IMAGE_DATA + next : next);
    emit_indirect(m, reg);
    for (unsigned i = 0; i < pad; i++)
        maker_emit(m, (uint8_t[]){0xcc}, 1);
}

/* Fill in what the MOV that ends at `end` puts into its register. */
static void set_constant(struct maker *m, uint64_t end, uint64_t value)
{
    const unsigned size = m->program->mode == X86_MODE_64 ? 8 : 4;

    if (!m->full)
        store_le32(m->memory->code + (end - size - IMAGE_CODE), (uint32_t)value);
}

/* Accesses to memory that may set flags, and need the checks that a translator makes. */
static void emit_accesses(struct maker *m)
{
    const unsigned base = X86_R8 + random_below(m->r, 2);

    if (m->program->mode != X86_MODE_64)
        return;
    maker_set_register(m, base, IMAGE_DATA + random_below(m->r, IMAGE_DATA_SIZE - 512));
    for (unsigned i = random_below(m->r, 4); i; i--)
        emit_access(m, base, X86_NO_REGISTER, 0);
}

/* The flags into AH. */
static void emit_read_flags(struct maker *m)
{
    if (random_chance(m->r, 70))
        maker_emit(m, (uint8_t[]){0x9f}, 1);
}

/* mov reg, a; jcc over; mov reg, b; over: ...; jmp reg; a: ...; b: */
static void make_choice(struct maker *m, unsigned depth)
{
    const unsigned reg = random_chance(m->r, 50) ? X86_RBX : pick_pointer(m);
    uint64_t first, second, over;

    maker_set_register(m, reg, 0);
    first = m->at;
    over = maker_condition(m);
    maker_set_register(m, reg, 0);
    second = m->at;
    maker_set_target(m, over, m->at);
    if (random_chance(m->r, 50))
        maker_set_flags(m);
    emit_accesses(m);
    emit_indirect(m, reg);
    set_constant(m, first, code_offset(m, m->at));
    emit_read_flags(m);
    make_statements(m, depth + 1, 1 + random_below(m->r, 3));
    set_constant(m, second, code_offset(m, m->at));
    emit_read_flags(m);
}

/* What compilers make most of: an operation on two registers, the flags read, or memory. */
static void emit_simple(struct maker *m)
{
    static const uint8_t regs[] = {X86_RAX, X86_RDX, X86_RSI, X86_RDI};
    static const uint8_t operations[] = {0x01, 0x09, 0x11, 0x19, 0x21,
                                         0x29, 0x31, 0x39, 0x85, 0x89};
    const unsigned to = regs[random_below(m->r, 4)], from = regs[random_below(m->r, 4)];
    const uint8_t modrm = (uint8_t)(0xc0 | from << 3 | to);
    const uint8_t rex = random_chance(m->r, 50) ? 0x48 : 0x40;
    const unsigned kind = random_below(m->r, 100);
    const unsigned base = kind < 55 ? 0x90 : 0x40;

    if (kind < 40)
        maker_emit(m, (uint8_t[]){rex, operations[random_below(m->r, ARRAY_SIZE(operations))],
                                  modrm}, 3);
    else if (kind < 50)
        maker_emit(m, (uint8_t[]){rex, 0x83, (uint8_t)(0xc0 | (from & 7) << 3 | to),
                                  (uint8_t)random_next(m->r)}, 4);
    else if (kind < 60) /* setcc, cmovcc */
        maker_emit(m, (uint8_t[]){rex, 0x0f, (uint8_t)(base | random_below(m->r, 16)), modrm}, 4);
    else if (kind < 65)
        maker_emit(m, (uint8_t[]){0x50, (uint8_t)(0x58 | to)}, 2); /* push rax; pop */
    else
        emit_access(m, X86_R8 + random_below(m->r, 2), X86_NO_REGISTER, 0);
}

static void emit_simples(struct maker *m, unsigned most)
{
    for (unsigned i = random_below(m->r, most + 1); i; i--)
        emit_simple(m);
}

/* call f; ...; jmp end; f: ...; ret; end: */
static void emit_function(struct maker *m)
{
    const uint64_t call = maker_branch(m, (uint8_t[]){0xe8}, 1);
    uint64_t end;

    emit_simples(m, 2);
    end = maker_branch(m, (uint8_t[]){0xe9}, 1);
    maker_set_target(m, call, m->at);
    emit_simples(m, 4);
    maker_emit(m, (uint8_t[]){0xc3}, 1);
    maker_set_target(m, end, m->at);
}

/* A loop whose ways are many: conditions, calls, and branches that go here or there. */
static void make_ways(struct maker *m)
{
    uint64_t begin, where;

    maker_set_register(m, X86_RCX, 1 + random_below(m->r, 40));
    begin = m->at;
    maker_set_register(m, X86_RSP, maker_stack(m));
    for (unsigned i = 0; i < 2; i++)
        maker_set_register(m, X86_R8 + i, IMAGE_DATA + random_below(m->r, IMAGE_DATA_SIZE - 512));
    for (unsigned count = 1 + random_below(m->r, 6); count; count--) {
        const unsigned kind = random_below(m->r, 100);

        emit_simples(m, 3);
        if (kind < 25) {
            where = maker_condition(m);
            emit_simples(m, 4);
            maker_set_target(m, where, m->at);
        } else if (kind < 50) {
            emit_function(m);
        } else if (kind < 80) {
            uint64_t first, second;

            maker_set_register(m, X86_RBX, 0);
            first = m->at;
            where = maker_condition(m);
            maker_set_register(m, X86_RBX, 0);
            second = m->at;
            maker_set_target(m, where, m->at);
            emit_simples(m, 3);
            emit_indirect(m, X86_RBX);
            set_constant(m, first, m->at);
            emit_simples(m, 4);
            set_constant(m, second, m->at);
        }
    }
    emit_simples(m, 3);
    maker_emit(m, (uint8_t[]){0xff, 0xc9}, 2); /* dec ecx */
    where = maker_branch(m, (uint8_t[]){0x0f, 0x85}, 2);
    maker_set_target(m, where, begin);
    if (m->left)
        m->left--;
}

/* Make a NOP further on another instruction, just before it runs or some time
 * before. */
static void make_store_to_code(struct maker *m, unsigned depth)
{
    static const uint8_t replacements[] = {0x90, 0x98, 0x99, 0xf5, 0xf8, 0xf9, 0xfc, 0x9f};
    const uint8_t byte = replacements[random_below(m->r, ARRAY_SIZE(replacements))];
    const bool wide = m->program->mode == X86_MODE_64;
    const unsigned size = wide ? 8 : 7;
    uint64_t store = m->at;

    maker_emit_sized(m, wide ? (uint8_t[]){0xc6, 0x04, 0x25} : (uint8_t[]){0xc6, 0x05},
                     wide ? 3 : 2, (uint64_t)byte << 32, 5);
    make_statements(m, depth + 1, random_below(m->r, 3));
    if (!m->full)
        store_le32(m->memory->code + (store + size - 5 - IMAGE_CODE), (uint32_t)m->at);
    maker_emit(m, (uint8_t[]){0x90}, 1);
}

/* Loops of many turns, in 64-bit code. */
static void make_turns(struct maker *m)
{
    const unsigned kind = m->program->for_host ? 0 : random_below(m->r, 100);

    if (kind < 40)
        make_walk(m);
    else if (kind < 70)
        make_ways(m);
    else
        nest_make(m);
}

static void make_statements(struct maker *m, unsigned depth, unsigned count)
{
    while (count-- && m->left) {
        const unsigned kind = depth < DEPTH_MAX ? random_below(m->r, 100) : 0;

        if (m->program->ways && m->program->mode == X86_MODE_64 && kind > 60)
            random_chance(m->r, 50) ? make_ways(m) : nest_make(m);
        else if (kind < 78)
            make_instruction(m);
        else if (kind < 86)
            make_if(m, depth);
        else if (kind < 88 || (kind < 91 && m->program->mode != X86_MODE_64))
            make_loop(m, depth);
        else if (kind < 91)
            make_turns(m);
        else if (kind < 94)
            make_call(m, depth);
        else if (kind < 98 || !reaches_code(m))
            random_chance(m->r, 40) ? make_indirect(m) : make_choice(m, depth);
        else
            make_store_to_code(m, depth);
    }
}

/* A stack that is one, and registers half of which point to data. */
static void set_pointers(struct random *r, struct image *image)
{
    const uint64_t base = image_data_base(image->mode);

    for (unsigned i = 0; i < (image->mode == X86_MODE_64 ? X86_GPRS : 8u); i++)
        if (random_chance(r, 50))
            image->gpr[i] = IMAGE_DATA + random_below(r, IMAGE_DATA_SIZE) - base;
    image->gpr[X86_RSP] = IMAGE_DATA + 0xc00 + 8 * random_below(r, 64) - base;
}

void program_make(struct random *r, struct program *program, struct image *image,
                  struct image_memory *memory)
{
    struct maker m = {.r = r, .image = image, .memory = memory, .program = program};

    *image = (struct image){.mode = program->mode};
    values_fill(r, image, memory);
    set_pointers(r, image);
    image->rflags &= ~(uint64_t)X86_DF;
    program->start = IMAGE_CODE + random_below(r, 0x200);
    if (random_chance(r, 30)) /* over the page boundary */
        program->start = IMAGE_CODE + IMAGE_PAGE - random_below(r, 0x100);
    m.at = program->start;
    m.left = 2 + random_below(r, INSNS_MAX - 1);
    while (m.left)
        make_statements(&m, 0, m.left);
    program->length = (unsigned)(m.at - program->start);
    image->rip = code_offset(&m, program->start);
}

void program_noise(struct random *r, enum x86_mode mode, struct image *image,
                   struct image_memory *memory, struct program *ret_program)
{
    *image = (struct image){.mode = mode};
    values_fill(r, image, memory);
    set_pointers(r, image);
    *ret_program = (struct program){.mode = mode, .start = IMAGE_CODE + random_below(r, 0x1800)};
    for (unsigned i = 0; i < IMAGE_CODE_SIZE; i += 8)
        store_le64(memory->code + i, random_next(r));
    /* Half of it instructions, so that it gets somewhere. */
    for (uint64_t at = ret_program->start; at < IMAGE_CODE + IMAGE_CODE_SIZE - 32;) {
        uint8_t bytes[X86_INSN_MAX];
        struct x86_insn insn;

        if (random_chance(r, 50)) {
            at += random_below(r, 4);
            continue;
        }
        if (!generate_bytes(r, random_below(r, x86_row_count), mode, bytes, &insn))
            continue;
        memcpy(memory->code + (at - IMAGE_CODE), bytes, insn.length);
        at += insn.length;
        if (at - ret_program->start > 256)
            break;
    }
    ret_program->length = 64;
    image->rip = ret_program->start - image_code_base(mode);
}

void program_print(const struct program *program, const struct image_memory *memory)
{
    uint64_t at = program->start;

    while (at < program->start + program->length) {
        const uint8_t *bytes = memory->code + (at - IMAGE_CODE);
        const size_t left = IMAGE_CODE + IMAGE_CODE_SIZE - at;
        char text[128], hex[2 * X86_INSN_MAX + 1] = "";
        struct x86_insn insn;

        if (x86_decode(bytes, left, program->mode, &insn) != X86_DECODE_OK) {
            insn.length = 1;
            snprintf(text, sizeof(text), "(bad)");
        } else {
            x86_disassemble(&insn, at - image_code_base(program->mode), text, sizeof(text));
        }
        for (unsigned i = 0; i < insn.length; i++)
            snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
        printf("    %" PRIx64 "  %-30s  %s\n", at - image_code_base(program->mode), hex, text);
        at += insn.length;
    }
}
