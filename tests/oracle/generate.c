#include "generate.h"

#include <string.h>

#include "base/bytes.h"
#include "values.h"
#include "x86/decode-table.h"

/* --- Bytes --- */

/* Where a row stands in the opcode maps; some have several opcodes (+r, +cc). */
struct opcode {
    bool vex;
    uint8_t map, first, count;
};

static struct opcode find_opcode(unsigned row)
{
    static struct opcode known[4096]; /* by row; a count of 0: not looked for yet */
    struct opcode found = {0};

    if (row < ARRAY_SIZE(known) && known[row].count)
        return known[row];
    for (unsigned vex = 0; vex < 2; vex++)
        for (unsigned map = 0; map < 4; map++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                const struct x86_opcode_range *range = &x86_opcode_ranges[vex][map][opcode];

                for (unsigned i = 0; i < range->count; i++) {
                    if (x86_candidates[range->start + i] != row)
                        continue;
                    if (!found.count)
                        found = (struct opcode){vex, (uint8_t)map, (uint8_t)opcode, 0};
                    found.count++;
                }
            }
    if (row < ARRAY_SIZE(known))
        known[row] = found;
    return found;
}

struct writer {
    uint8_t *bytes;
    unsigned count;
};

static void put(struct writer *w, unsigned byte)
{
    if (w->count < X86_INSN_MAX)
        w->bytes[w->count++] = (uint8_t)byte;
}

static bool uses_vvvv(const struct x86_pattern *pattern)
{
    for (unsigned i = 0; i < pattern->operand_count; i++)
        if (pattern->operands[i].kind == P_H || pattern->operands[i].kind == P_B)
            return true;
    return false;
}

static void put_segment_override(struct random *r, struct writer *w, enum x86_mode mode)
{
    static const uint8_t overrides[] = {0x26, 0x2e, 0x36, 0x3e};

    if (mode == X86_MODE_64 && random_chance(r, 50))
        put(w, 0x65);
    else
        put(w, overrides[random_below(r, 4)]);
}

static void put_legacy(struct random *r, struct writer *w, const struct x86_pattern *pattern,
                       const struct x86_row *row, enum x86_mode mode, bool lock)
{
    static const uint8_t mandatory[] = {0, 0, 0x66, 0xf3, 0xf2};

    unsigned ignored = mode == X86_MODE_64 && random_chance(r, 3) ? 1 + random_below(r, 2) : 0;

    /* A REX that is not the last prefix counts for nothing. */
    while (ignored--)
        put(w, 0x40 | random_below(r, 16));
    if (random_chance(r, 8))
        put_segment_override(r, w, mode);
    if (random_chance(r, 8))
        put(w, 0x67);
    if (lock)
        put(w, 0xf0);
    if (pattern->prefix != 1 && pattern->prefix != 2 && random_chance(r, 25))
        put(w, 0x66);
    if (pattern->prefix >= 2 && pattern->prefix <= 4)
        put(w, mandatory[pattern->prefix]);
    else if ((pattern->prefix == 0 || pattern->prefix == 5) &&
             random_chance(r, row->attributes & X86_ATTR_STRING ? 60 : 3))
        put(w, random_chance(r, 50) ? 0xf2 : 0xf3);
    if (mode == X86_MODE_64) {
        unsigned rex = random_chance(r, 60) ? random_below(r, 8) : 0;

        if (pattern->w == 1 || (pattern->w < 0 && random_chance(r, 35)))
            rex |= 8;
        if (rex || random_chance(r, 10))
            put(w, 0x40 | rex);
    }
}

static void put_vex(struct random *r, struct writer *w, const struct x86_pattern *pattern,
                    unsigned map, enum x86_mode mode)
{
    const unsigned registers = mode == X86_MODE_64 ? 16 : 8;
    const unsigned rxb = mode == X86_MODE_64 ? random_below(r, 8) : 0; /* R 4, X 2, B 1 */
    const unsigned wide = pattern->w >= 0 ? (unsigned)pattern->w : random_below(r, 2);
    const unsigned vvvv = uses_vvvv(pattern) ? random_below(r, registers) : 0;
    const unsigned length = pattern->vex == 3 ? random_below(r, 2) : pattern->vex - 1u;
    const unsigned last = (~vvvv & 15) << 3 | length << 2 | (pattern->prefix - 1u);

    if (random_chance(r, 6))
        put_segment_override(r, w, mode);
    if (random_chance(r, 6))
        put(w, 0x67);
    if (map == 1 && !wide && !(rxb & 3) && random_chance(r, 50)) {
        put(w, 0xc5);
        put(w, (rxb & 4 ? 0 : 0x80) | last);
    } else {
        put(w, 0xc4);
        put(w, (~rxb & 7) << 5 | map);
        put(w, wide << 7 | last);
    }
}

static void put_modrm(struct random *r, struct writer *w, const struct x86_pattern *pattern,
                      bool memory)
{
    unsigned mod = 3, reg = random_below(r, 8), rm = random_below(r, 8);

    if (pattern->fixed_count) {
        put(w, pattern->fixed + random_below(r, pattern->fixed_count));
        return;
    }
    if (pattern->reg >= 0)
        reg = (unsigned)pattern->reg;
    if (memory)
        mod = random_below(r, 3);
    if (pattern->vsib)
        rm = 4;
    put(w, mod << 6 | reg << 3 | rm);
}

/* What Intel and AMD do differently, or only one of them tells. */
static bool by_vendor(const struct x86_insn *insn)
{
    const uint16_t near = X86_ATTR_BRANCH | X86_ATTR_DEFAULT64;

    switch (insn->op) {
    case X86_OP_VPEXTRD: case X86_OP_VPINSRD: case X86_OP_VPCMPESTRI: case X86_OP_VPCMPESTRM:
        /* W outside 64-bit mode: ignored, an invalid instruction, or a size. */
        return insn->mode != X86_MODE_64 && (insn->rex & 8);
    case X86_OP_MOVSXD: /* under 66 AMD reads 32 bits nevertheless */
        return insn->operand_size == 2;
    case X86_OP_XCHG: /* F3 90 with REX.B: some of Intel's take it for PAUSE */
        if (insn->opcode == 0x90 && (insn->prefixes & X86_PREFIX_REP))
            return true;
        break;
    case X86_OP_LOOPE: case X86_OP_LOOPNE:
        /* AMD takes F2 and F3 for the condition. */
        if (insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE))
            return true;
        break;
    default:
        break;
    }
    /* 66 before a near branch in 64-bit mode: Intel ignores it, AMD cuts RIP to 16 bits. */
    return insn->mode == X86_MODE_64 && (insn->prefixes & X86_PREFIX_OPERAND) &&
           (x86_rows[insn->row].attributes & near) == near;
}

bool generate_bytes(struct random *r, unsigned row, enum x86_mode mode,
                    uint8_t bytes[X86_INSN_MAX], struct x86_insn *ret_insn)
{
    const struct x86_pattern *pattern = &x86_patterns[row];
    const struct x86_row *x = &x86_rows[row];
    const struct opcode opcode = find_opcode(row);

    if (x->attributes & (mode == X86_MODE_64 ? X86_ATTR_NO64 : X86_ATTR_ONLY64))
        return false;
    for (unsigned tries = 0; tries < 50; tries++) {
        const bool memory = pattern->mod == MOD_MEMORY ||
                            (pattern->mod == MOD_ANY && random_chance(r, 55));
        const bool lock = memory && (x->attributes & X86_ATTR_LOCKABLE) && random_chance(r, 20);
        struct writer w = {bytes, 0};

        if (opcode.vex) {
            put_vex(r, &w, pattern, opcode.map, mode);
        } else {
            put_legacy(r, &w, pattern, x, mode, lock);
            if (opcode.map)
                put(&w, 0x0f);
            if (opcode.map >= 2)
                put(&w, opcode.map == 2 ? 0x38 : 0x3a);
        }
        put(&w, opcode.first + random_below(r, opcode.count));
        if (pattern->modrm)
            put_modrm(r, &w, pattern, memory);
        while (w.count + 8 <= X86_INSN_MAX) { /* SIB, displacement, immediates */
            uint64_t value = value_integer(r);

            for (unsigned i = 0; i < 8; i++)
                put(&w, (unsigned)(value >> (8 * i)) & 0xff);
        }
        while (w.count < X86_INSN_MAX)
            put(&w, (unsigned)random_next(r) & 0xff);
        if (x86_decode(bytes, X86_INSN_MAX, mode, ret_insn) == X86_DECODE_OK &&
            ret_insn->row == row && !by_vendor(ret_insn))
            return true;
    }
    return false;
}

/* --- Aim --- */

struct aim {
    struct random *r;
    struct image *image;
    struct image_memory *memory;
    uint64_t address;
    uint8_t *bytes;
    struct x86_insn *insn;
    bool calm;
};

static bool in_data(uint64_t address, unsigned size)
{
    return address >= IMAGE_DATA && address + size <= IMAGE_DATA + IMAGE_DATA_SIZE;
}

/* Pages of ours and what is unmapped around them, or no address at all. */
static bool safe_address(uint64_t address)
{
    const uint64_t around = 0x100000;

    return address - (IMAGE_DATA - around) < 2 * around ||
           address - (IMAGE_CODE - around) < 2 * around ||
           (uint64_t)((int64_t)(address << 16) >> 16) != address;
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << size * 8) - 1;
}

static bool is_locked(const struct x86_insn *insn)
{
    return (insn->prefixes & X86_PREFIX_LOCK) || insn->op == X86_OP_XCHG;
}

/* A linear address for data: aligned or not, over a page boundary, in the page
 * that may not be written, beyond the end, not canonical. */
static uint64_t pick_place(struct aim *a, unsigned size)
{
    struct random *r = a->r;
    const enum x86_mode mode = a->image->mode;
    const bool calm = a->calm && random_chance(r, 90);
    const unsigned place = random_below(r, calm ? 82 : 100);
    const unsigned back = 1 + random_below(r, size ? size : 1);

    if (calm && (x86_rows[a->insn->row].attributes & X86_ATTR_ALIGNED))
        return IMAGE_DATA + 64 * random_below(r, (IMAGE_READONLY - IMAGE_DATA) / 64 - 16);
    /* Across cache lines it would lock the bus, for which some hosts make a machine wait long. */
    if (calm && is_locked(a->insn))
        return IMAGE_DATA + 16 * random_below(r, (IMAGE_READONLY - IMAGE_DATA) / 16 - 64);
    if (place < 78) {
        uint64_t offset = random_below(r, IMAGE_READONLY - IMAGE_DATA - 1024);

        return IMAGE_DATA + (random_chance(r, 70) ? ALIGN_DOWN(offset, 64ull) : offset);
    }
    if (place < 84)
        return IMAGE_DATA + IMAGE_PAGE - back;
    if (place < 90)
        return IMAGE_READONLY + ALIGN_DOWN(random_below(r, IMAGE_PAGE - 1024), 32u);
    if (place < 93)
        return IMAGE_READONLY - back;
    if (place < 96)
        return IMAGE_DATA + IMAGE_DATA_SIZE - back;
    if (place < 98 || mode != X86_MODE_64)
        return IMAGE_DATA - 1 - random_below(r, IMAGE_PAGE);
    return ALIGN_DOWN(random_next(r), 64ull) | 1ull << 62;
}

/* Few locks go over the end of a cache line: some hosts then stand still for a millisecond. */
static uint64_t pick_address(struct aim *a, unsigned size)
{
    const uint64_t address = pick_place(a, size);

    if (is_locked(a->insn) && size && random_chance(a->r, 95))
        return ALIGN_DOWN(address, 16ull);
    return address;
}

/* Set a register that an address is made of: what lies above its size does
 * not count, so anything may be there. */
static void set_pointer(struct aim *a, unsigned reg, uint64_t value, unsigned size)
{
    uint64_t *gpr = &a->image->gpr[reg];

    *gpr = (value & size_mask(size)) | (random_next(a->r) & ~size_mask(size));
    if (a->image->mode != X86_MODE_64)
        *gpr &= UINT32_MAX;
}

static unsigned displacement_size(const struct x86_insn *insn)
{
    if (!insn->displacement_offset)
        return 0;
    if (!insn->has_modrm) /* moffs */
        return insn->address_size;
    return insn->modrm >> 6 == 1 ? 1 : insn->address_size == 2 ? 2 : 4;
}

static void set_displacement(struct aim *a, uint64_t value)
{
    memcpy(a->bytes + a->insn->displacement_offset, &value, displacement_size(a->insn));
    x86_decode(a->bytes, X86_INSN_MAX, a->image->mode, a->insn);
}

static uint64_t index_value(const struct aim *a)
{
    const struct x86_insn *insn = a->insn;
    const uint64_t value = a->image->gpr[insn->memory.index];

    return (insn->op == X86_OP_XLAT ? (uint8_t)value : value) * insn->memory.scale;
}

static uint64_t effective_offset(const struct aim *a)
{
    return image_operand_offset(a->image, a->insn, a->address - image_code_base(a->image->mode));
}

/* Gathers: small indexes in both halves, whatever their size. */
static void set_vector_index(struct aim *a)
{
    const unsigned reg = a->insn->memory.index;
    const bool wide = !strstr(x86_rows[a->insn->row].mnemonic, "gatherd");
    uint8_t *halves[] = {a->image->fpu.xmm[reg], a->image->fpu.ymm_high[reg]};

    for (unsigned half = 0; half < 2; half++)
        for (unsigned i = 0; i < 16; i += wide ? 8 : 4) {
            int64_t value = (int64_t)random_below(a->r, 128) - 64;

            memcpy(halves[half] + i, &value, wide ? 8 : 4);
        }
}

/* Make the memory operand be at the linear address `target`, or about there. */
static void aim_memory(struct aim *a, uint64_t target)
{
    const struct x86_memory *m = &a->insn->memory;
    const unsigned size = a->insn->address_size;
    uint64_t rest = target - image_segment_base(a->image->mode, m->segment);

    if (m->vsib)
        set_vector_index(a);
    if (m->rip_relative || (m->base == X86_NO_REGISTER && m->index == X86_NO_REGISTER)) {
        if (m->rip_relative)
            rest -= a->address + a->insn->length;
        set_displacement(a, rest);
        return;
    }
    if (m->index != X86_NO_REGISTER && !m->vsib && a->insn->op != X86_OP_XLAT &&
        m->index != m->base)
        set_pointer(a, m->index, random_below(a->r, 128) - 64ull, size);
    if (m->index != X86_NO_REGISTER && !m->vsib && m->index != m->base)
        rest -= index_value(a);
    if (m->base == X86_NO_REGISTER) {
        set_displacement(a, rest);
        return;
    }
    rest -= (uint64_t)m->displacement;
    if (m->index == m->base && !m->vsib)
        rest = (rest & size_mask(size)) / (1u + m->scale);
    set_pointer(a, m->base, rest, size);
}

/* An offset in the code segment that a branch may go to: a byte that traps, or
 * a page that may not be executed or is not there; never the instruction
 * itself, which might not end. */
static uint64_t pick_target(struct aim *a)
{
    /* Of a call it may be the push that faults first, or the target. */
    const bool near = a->insn->op == X86_OP_CALL || a->insn->op == X86_OP_CALL_INDIRECT;
    uint64_t target;

    if (a->image->mode != X86_MODE_16 && random_chance(a->r, 4))
        return IMAGE_DATA + random_below(a->r, IMAGE_DATA_SIZE); /* not to be executed */
    do
        target = near || random_chance(a->r, 90)
                     ? IMAGE_CODE + random_below(a->r, IMAGE_CODE_SIZE)
                     : IMAGE_CODE - 1 - random_below(a->r, 0x8000);
    while (target - a->address < X86_INSN_MAX);
    return target - image_code_base(a->image->mode);
}

static uint64_t stack_address(const struct aim *a)
{
    if (a->image->mode == X86_MODE_16)
        return image_data_base(X86_MODE_16) + (uint16_t)a->image->gpr[X86_RSP];
    return a->image->gpr[X86_RSP];
}

static void put_memory(struct aim *a, uint64_t address, const void *bytes, unsigned size)
{
    if (in_data(address, size))
        memcpy(a->memory->data + (address - IMAGE_DATA), bytes, size);
}

static bool aim_branch(struct aim *a)
{
    const struct x86_insn *insn = a->insn;
    const struct x86_operand *operand = &insn->operands[0];
    const uint64_t target = pick_target(a);
    const uint64_t next = a->address - image_code_base(a->image->mode) + insn->length;

    if (insn->op == X86_OP_RET) {
        put_memory(a, stack_address(a), &target, insn->operand_size);
    } else if (operand->kind == X86_OPERAND_RELATIVE && operand->size > 1) {
        const uint64_t displacement = target - next;

        memcpy(a->bytes + insn->immediate_offset, &displacement, operand->size > 2 ? 4 : 2);
        x86_decode(a->bytes, X86_INSN_MAX, a->image->mode, a->insn);
    } else if (operand->kind == X86_OPERAND_RELATIVE) {
        if (next + (uint64_t)insn->immediate - (next - insn->length) < insn->length)
            return false;
    } else if (operand->kind == X86_OPERAND_GPR) {
        if (operand->reg == X86_RSP) /* is its stack or its target wrong first? */
            return false;
        a->image->gpr[operand->reg] = target;
    } else if (operand->kind == X86_OPERAND_MEMORY) {
        const uint64_t address =
            effective_offset(a) + image_segment_base(insn->mode, insn->memory.segment);

        put_memory(a, address, &target, insn->operand_size);
    }
    return true;
}

static void aim_string(struct aim *a)
{
    const struct x86_insn *insn = a->insn;
    const unsigned size = insn->address_size;
    const uint64_t source = pick_address(a, 8);
    const uint64_t destination = pick_address(a, 8);
    const unsigned segment = insn->memory.base == X86_RSI ? insn->memory.segment : X86_DS;

    set_pointer(a, X86_RSI, source - image_segment_base(a->image->mode, segment), size);
    set_pointer(a, X86_RDI, destination - image_segment_base(a->image->mode, X86_ES), size);
    /* INS and OUTS with a count of 0 may check their rights or not. */
    if (insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE))
        set_pointer(a, X86_RCX,
                    (insn->op == X86_OP_INS || insn->op == X86_OP_OUTS) +
                        random_below(a->r, random_chance(a->r, 80) ? 6 : 40), size);
    /* Comparisons that go on: the same there and here. */
    if (random_chance(a->r, 50) && in_data(source, 64) && in_data(destination, 64)) {
        uint8_t *data = a->memory->data;

        memmove(data + (destination - IMAGE_DATA), data + (source - IMAGE_DATA), 64);
    }
}

/* Bit offsets that stay near; a quotient that fits. */
static void aim_operands(struct aim *a)
{
    const struct x86_insn *insn = a->insn;
    const struct x86_memory *m = &insn->memory;
    const struct x86_operand *second = &insn->operands[1];
    uint64_t *gpr = a->image->gpr;

    switch (insn->op) {
    case X86_OP_BT: case X86_OP_BTS: case X86_OP_BTR: case X86_OP_BTC:
        if (second->kind == X86_OPERAND_GPR && second->reg != m->base && second->reg != m->index)
            set_pointer(a, second->reg, random_below(a->r, 8192) - 4096ull, second->size);
        break;
    case X86_OP_DIV: case X86_OP_IDIV:
        if (random_chance(a->r, 70) && m->base != X86_RDX && m->index != X86_RDX &&
            m->base != X86_RAX && m->index != X86_RAX) {
            const bool negative = insn->op == X86_OP_IDIV && random_chance(a->r, 50);

            gpr[X86_RDX] = negative ? size_mask(a->image->mode == X86_MODE_64 ? 8 : 4) : 0;
            if (insn->operand_size == 1)
                gpr[X86_RAX] = (uint16_t)(negative ? -random_below(a->r, 999)
                                                   : random_below(a->r, 999));
        }
        break;
    default:
        break;
    }
}

/* Images that FXRSTOR and its kin accept: MXCSR without reserved bits, a
 * header that names known components. False: no such use. */
static bool aim_state_image(struct aim *a, uint64_t address)
{
    struct image other = {.mode = a->image->mode};
    static struct image_memory scratch;

    values_fill(a->r, &other, &scratch);
    other.fpu.xstate_bv = random_below(a->r, 8);
    switch (a->insn->op) {
    case X86_OP_LDMXCSR: case X86_OP_VLDMXCSR:
        put_memory(a, address, &other.fpu.mxcsr, 4);
        break;
    case X86_OP_FXRSTOR:
        put_memory(a, address, &other.fpu, 512);
        break;
    case X86_OP_XRSTOR:
        if (random_chance(a->r, 90))
            put_memory(a, address, &other.fpu, sizeof(other.fpu));
        /* fall through */
    case X86_OP_XSAVE: case X86_OP_XSAVEC: case X86_OP_XSAVEOPT:
        /* EDX:EAX asks for components that a guest has too. */
        if (a->insn->memory.base == X86_RAX || a->insn->memory.index == X86_RAX ||
            a->insn->memory.base == X86_RDX || a->insn->memory.index == X86_RDX)
            return false;
        a->image->gpr[X86_RAX] = random_below(a->r, 8);
        a->image->gpr[X86_RDX] = 0;
        break;
    default:
        break;
    }
    return true;
}

static bool must_align(const struct x86_insn *insn, const struct x86_operand *operand)
{
    return (x86_rows[insn->row].attributes & X86_ATTR_ALIGNED) || !operand->size;
}

static bool stores_by_rdi(const struct x86_insn *insn)
{
    return insn->op == X86_OP_MASKMOVQ || insn->op == X86_OP_MASKMOVDQU ||
           insn->op == X86_OP_VMASKMOVDQU;
}

bool generate_aim(struct random *r, struct image *image, struct image_memory *memory,
                  uint64_t address, uint8_t *bytes, struct x86_insn *insn, bool calm)
{
    struct aim a = {r, image, memory, address, bytes, insn, calm};
    const uint16_t attributes = x86_rows[insn->row].attributes;
    const struct x86_operand *operand = x86_memory_operand(insn);
    const unsigned stack_size = image->mode == X86_MODE_64 ? 8 : image->mode == X86_MODE_32 ? 4 : 2;

    if (image->mode != X86_MODE_64 ? insn->memory.segment >= X86_FS
                                   : insn->memory.segment == X86_FS)
        return false;
    set_pointer(&a, X86_RSP, pick_address(&a, 8) - image_data_base(image->mode),
                stack_size);
    set_pointer(&a, X86_RBP, pick_address(&a, 8) - image_data_base(image->mode),
                stack_size);
    if (attributes & X86_ATTR_STRING) {
        aim_string(&a);
    } else if (operand || stores_by_rdi(insn)) {
        uint64_t target = pick_address(&a, operand ? operand->size : 16);

        if (operand) {
            aim_memory(&a, target);
        } else {
            target -= image_segment_base(image->mode, insn->memory.segment);
            set_pointer(&a, X86_RDI, target, insn->address_size);
        }
        if (operand && insn->op != X86_OP_LEA) {
            target = effective_offset(&a) + image_segment_base(image->mode, insn->memory.segment);
            /* SHA on unaligned memory faults on Intel, not on AMD. An address that is
             * neither aligned nor canonical may be called either. */
            if (!safe_address(target) ||
                (target >> 47 && (target & 63) && must_align(insn, operand)) ||
                (x86_rows[insn->row].feature == X86_FEATURE_SHA && (target & 15)))
                return false;
            for (unsigned i = 0; i < 32; i += 16) {
                uint8_t value[16];

                value_vector(r, value);
                put_memory(&a, target + i, value, sizeof(value));
            }
            if (!aim_state_image(&a, target))
                return false;
        }
    }
    aim_operands(&a);
    if (operand && insn->op != X86_OP_LEA &&
        !safe_address(effective_offset(&a) + image_segment_base(image->mode, insn->memory.segment)))
        return false;
    if ((attributes & X86_ATTR_BRANCH) && !aim_branch(&a))
        return false;
    if (image->mode != X86_MODE_64)
        for (unsigned i = 0; i < 8; i++)
            image->gpr[i] &= UINT32_MAX;
    return true;
}
