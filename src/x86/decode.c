/* The decoder: prefixes, opcode, ModRM, displacement, immediates
 * (SDM 2A chapter 2), then the row of the table and its operands. */
#include "x86/decode.h"

#include <string.h>

#include "base/bytes.h"
#include "x86/decode-table.h"

struct reader {
    const uint8_t *bytes;
    size_t available; /* never more than X86_INSN_MAX */
    size_t at;
    bool failed; /* read past the end */
};

/* Prefixes and what they say, before it is known whether they matter. */
struct prefixes {
    uint8_t seen;    /* enum x86_prefix */
    uint8_t repeat;  /* the last of F2, F3, or 0 */
    uint8_t segment; /* X86_NO_REGISTER: no override */
    uint8_t rex;
    uint8_t reg, rm; /* of ModRM, with their bits of REX */
    bool vex;
    uint8_t vex_pp; /* 0, 66, F3, F2 as 0..3 */
    uint8_t vex_vvvv, vex_length;
};

static uint8_t next_byte(struct reader *r)
{
    if (r->at >= r->available) {
        r->failed = true;
        return 0;
    }
    return r->bytes[r->at++];
}

static uint64_t next_bytes(struct reader *r, unsigned size)
{
    uint64_t value = 0;

    if (r->available - r->at < size) {
        r->failed = true;
        r->at = r->available;
        return 0;
    }
    memcpy(&value, r->bytes + r->at, size);
    r->at += size;
    return value;
}

static int64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - size * 8;

    return size >= 8 ? (int64_t)value : (int64_t)(value << shift) >> shift;
}

/* 66, 67, F0, F2, F3 and segment overrides in any order; REX only counts when
 * the opcode follows it. Returns the first byte that is none of them. */
static uint8_t read_prefixes(struct reader *r, enum x86_mode mode, struct prefixes *p)
{
    for (;;) {
        uint8_t byte = next_byte(r);

        if (r->failed)
            return 0;
        switch (byte) {
        case 0x26: case 0x2e: case 0x36: case 0x3e:
            /* Null in 64-bit mode (SDM 2A 2.2.1), unless it takes FS or GS away: it does not. */
            p->seen |= X86_PREFIX_SEGMENT;
            if (mode != X86_MODE_64)
                p->segment = (byte >> 3) & 3;
            break;
        case 0x64: case 0x65:
            p->seen |= X86_PREFIX_SEGMENT;
            p->segment = byte == 0x64 ? X86_FS : X86_GS;
            break;
        case 0x66:
            p->seen |= X86_PREFIX_OPERAND;
            break;
        case 0x67:
            p->seen |= X86_PREFIX_ADDRESS;
            break;
        case 0xf0:
            p->seen |= X86_PREFIX_LOCK;
            break;
        case 0xf2: case 0xf3:
            p->repeat = byte;
            break;
        default:
            if (mode == X86_MODE_64 && (byte & 0xf0) == 0x40) {
                p->rex = byte;
                continue;
            }
            return byte;
        }
        p->rex = 0; /* a REX before another prefix is ignored */
    }
}

/* After C4 or C5. Returns the map, or -1 when it is no VEX prefix of ours. */
static int read_vex(struct reader *r, uint8_t first, enum x86_mode mode, struct prefixes *p)
{
    uint8_t one = next_byte(r);
    uint8_t last = one;
    int map = 1;

    p->vex = true;
    /* R, X, B are stored inverted. */
    p->rex = 0x40 | (one & 0x80 ? 0 : 4);
    if (first == 0xc4) {
        map = one & 0x1f;
        p->rex |= (one & 0x40 ? 0 : 2) | (one & 0x20 ? 0 : 1);
        last = next_byte(r);
        p->rex |= last & 0x80 ? 8 : 0;
    }
    if (mode != X86_MODE_64) {
        p->rex &= 0x48; /* R must be clear here (else LDS, LES); B and X are ignored */
    }
    p->vex_vvvv = ~(last >> 3) & 0xf;
    p->vex_length = (last >> 2) & 1;
    p->vex_pp = last & 3;
    return map >= 1 && map <= 3 ? map : -1;
}

static bool prefix_matches(uint8_t wanted, const struct prefixes *p)
{
    static const uint8_t vex_pp[] = {1, 2, 3, 4};
    uint8_t have;

    if (wanted == 0)
        return true;
    if (wanted == 5)
        return !p->repeat;
    if (p->vex)
        have = vex_pp[p->vex_pp];
    else if (p->repeat)
        have = p->repeat == 0xf3 ? 3 : 4;
    else
        have = p->seen & X86_PREFIX_OPERAND ? 2 : 1;
    return wanted == have;
}

static bool row_matches(const struct x86_pattern *pattern, const struct x86_row *row,
                        const struct prefixes *p, enum x86_mode mode, int modrm)
{
    /* Most rows of a group fall at this. */
    if (pattern->reg >= 0 && !pattern->fixed_count && pattern->reg != (modrm >> 3 & 7))
        return false;
    if (row->attributes & (mode == X86_MODE_64 ? X86_ATTR_NO64 : X86_ATTR_ONLY64))
        return false;
    if (!prefix_matches(pattern->prefix, p))
        return false;
    if (pattern->w >= 0 && pattern->w != !!(p->rex & 8))
        return false;
    if (pattern->vex && pattern->vex != 3 && pattern->vex != p->vex_length + 1)
        return false;
    if (!pattern->modrm) /* 90: NOP, PAUSE, or with REX.B an XCHG of R8 */
        return !((row->op == X86_OP_NOP || row->op == X86_OP_PAUSE) && (p->rex & 1));
    if (modrm < 0)
        return false;
    if (pattern->fixed_count)
        return modrm >= pattern->fixed && modrm < pattern->fixed + pattern->fixed_count;
    if (pattern->mod == MOD_MEMORY)
        return modrm < 0xc0;
    return pattern->mod != MOD_REGISTER || modrm >= 0xc0;
}

static int find_row(const struct prefixes *p, int map, uint8_t opcode, enum x86_mode mode,
                    int modrm)
{
    const struct x86_opcode_range *range = &x86_opcode_ranges[p->vex][map][opcode];

    for (unsigned i = 0; i < range->count; i++) {
        unsigned row = x86_candidates[range->start + i];

        if (row_matches(&x86_patterns[row], &x86_rows[row], p, mode, modrm))
            return (int)row;
    }
    return -1;
}

/* Whether any row of this opcode has a ModRM byte: then it is read before the
 * row is chosen. Rows of one opcode agree, PAUSE and XCHG included. */
static bool opcode_has_modrm(bool vex, int map, uint8_t opcode)
{
    return x86_opcode_ranges[vex][map][opcode].modrm;
}

static uint8_t default_segment(uint8_t base)
{
    return base == X86_RSP || base == X86_RBP ? X86_SS : X86_DS;
}

/* ModRM in 16-bit addressing (SDM 2A table 2-1). */
static void read_memory_16(struct reader *r, struct x86_insn *insn)
{
    static const uint8_t bases[] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
                                    X86_RSI, X86_RDI, X86_RBP, X86_RBX};
    static const uint8_t indexes[] = {X86_RSI, X86_RDI, X86_RSI, X86_RDI,
                                      X86_NO_REGISTER, X86_NO_REGISTER, X86_NO_REGISTER,
                                      X86_NO_REGISTER};
    struct x86_memory *m = &insn->memory;
    unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;

    m->base = bases[rm];
    m->index = indexes[rm];
    if (mod == 0 && rm == 6) {
        m->base = X86_NO_REGISTER;
        mod = 2;
    }
    m->segment = default_segment(m->base);
    if (mod) {
        unsigned size = mod == 1 ? 1 : 2;

        insn->displacement_offset = (uint8_t)r->at;
        m->displacement = sign_extend(next_bytes(r, size), size);
    }
}

/* ModRM and SIB in 32- and 64-bit addressing (SDM 2A tables 2-2, 2-3). */
static void read_memory_32(struct reader *r, struct x86_insn *insn, bool vsib)
{
    struct x86_memory *m = &insn->memory;
    unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7, size = mod == 1 ? 1 : mod == 2 ? 4 : 0;

    if (rm == 4) {
        uint8_t sib = next_byte(r);

        m->scale = (uint8_t)(1 << (sib >> 6));
        m->index = (uint8_t)(((sib >> 3) & 7) | (insn->rex & 2 ? 8 : 0));
        if (m->index == X86_RSP && !vsib)
            m->index = X86_NO_REGISTER;
        m->base = (uint8_t)((sib & 7) | (insn->rex & 1 ? 8 : 0));
        if ((sib & 7) == 5 && mod == 0) {
            m->base = X86_NO_REGISTER;
            size = 4;
        }
    } else if (rm == 5 && mod == 0) {
        m->rip_relative = insn->mode == X86_MODE_64;
        size = 4;
    } else {
        m->base = (uint8_t)(rm | (insn->rex & 1 ? 8 : 0));
    }
    m->segment = default_segment(m->base);
    if (size) {
        insn->displacement_offset = (uint8_t)r->at;
        m->displacement = sign_extend(next_bytes(r, size), size);
    }
}

static unsigned operand_size(const struct x86_row *row, const struct prefixes *p,
                             enum x86_mode mode, bool prefix_is_opcode)
{
    bool prefixed = (p->seen & X86_PREFIX_OPERAND) && !prefix_is_opcode;

    if (mode == X86_MODE_64) {
        if (p->rex & 8)
            return 8;
        if (row->attributes & X86_ATTR_DEFAULT64) {
            /* Near branches ignore the prefix (as Intel's do). */
            return prefixed && !(row->attributes & X86_ATTR_BRANCH) ? 2 : 8;
        }
        return prefixed ? 2 : 4;
    }
    return (mode == X86_MODE_32) != prefixed ? 4 : 2;
}

/* Of the sizes that depend on prefixes, all but SIZE_V. */
static unsigned resolve_size(unsigned size, const struct x86_insn *insn)
{
    const unsigned vector = insn->vex && insn->vex_length ? 32 : 16;

    switch (size) {
    case SIZE_Z: return MIN(insn->operand_size, 4);
    case SIZE_Y: return insn->mode == X86_MODE_64 && (insn->rex & 8) ? 8 : 4;
    case SIZE_X: return vector;
    case SIZE_X2: return vector / 2;
    case SIZE_X4: return vector / 4;
    case SIZE_X8: return vector / 8;
    case SIZE_N: return insn->mode == X86_MODE_64 ? 8 : 4;
    case SIZE_P: return insn->operand_size + 2u;
    case SIZE_A: return insn->operand_size * 2u;
    default: return size;
    }
}

static void set_gpr(struct x86_operand *operand, const struct x86_insn *insn, unsigned reg)
{
    operand->kind = X86_OPERAND_GPR;
    operand->reg = (uint8_t)reg;
    /* Without REX (or VEX) byte registers 4 to 7 are AH, CH, DH, BH. */
    if (operand->size == 1 && reg >= 4 && reg < 8 && !insn->rex) {
        operand->high_byte = true;
        operand->reg = (uint8_t)(reg - 4);
    }
}

static void set_vector(struct x86_operand *operand, unsigned reg)
{
    operand->kind = operand->size == 32 ? X86_OPERAND_YMM : X86_OPERAND_XMM;
    operand->reg = (uint8_t)reg;
}

static void set_implied_memory(struct x86_insn *insn, const struct prefixes *p,
                               struct x86_operand *operand, uint8_t kind)
{
    struct x86_memory *m = &insn->memory;

    operand->kind = X86_OPERAND_MEMORY;
    /* [rSI] is the one described when there are two. */
    if (kind == P_Y && m->base != X86_NO_REGISTER)
        return;
    *m = (struct x86_memory){.base = kind == P_X ? X86_RSI : kind == P_Y ? X86_RDI : X86_RBX,
                             .index = kind == P_XLAT ? X86_RAX : X86_NO_REGISTER,
                             .scale = 1,
                             .segment = X86_DS};
    if (kind == P_Y)
        m->segment = X86_ES; /* no override */
    else if (p->segment != X86_NO_REGISTER)
        m->segment = p->segment;
}

/* The first immediate goes to insn->immediate, a second one to immediate2. */
static void read_immediate(struct reader *r, struct x86_insn *insn, unsigned size)
{
    uint8_t offset = (uint8_t)r->at;
    int64_t value = sign_extend(next_bytes(r, size), size);

    if (insn->immediate_offset) {
        insn->immediate2 = value;
    } else {
        insn->immediate = value;
        insn->immediate_offset = offset;
    }
}

/* Fill operand i from its pattern. False: this encoding is invalid after all. */
static bool set_operand(struct reader *r, struct x86_insn *insn, const struct prefixes *p,
                        const struct x86_operand_pattern *pattern, struct x86_operand *operand)
{
    const unsigned reg = p->reg, rm = p->rm;
    const bool memory = insn->has_modrm && insn->modrm < 0xc0;
    unsigned size = pattern->size;

    if (size == SIZE_V)
        size = insn->operand_size;
    else if (size >= SIZE_V)
        size = resolve_size(size, insn);
    operand->size = (uint8_t)size;
    operand->access = pattern->access;
    switch (pattern->kind) {
    case P_E: case P_M: case P_Q: case P_W:
        if (memory) {
            operand->kind = X86_OPERAND_MEMORY;
        } else if (pattern->kind == P_Q) {
            operand->kind = X86_OPERAND_MMX;
            operand->reg = insn->modrm & 7;
        } else if (pattern->kind == P_W) {
            set_vector(operand, rm);
        } else {
            set_gpr(operand, insn, rm);
        }
        return true;
    case P_R:
        set_gpr(operand, insn, rm);
        return true;
    case P_G:
        set_gpr(operand, insn, reg);
        return true;
    case P_Z:
        set_gpr(operand, insn, (insn->opcode & 7) | (insn->rex & 1 ? 8 : 0));
        return true;
    case P_B:
        operand->kind = X86_OPERAND_GPR;
        operand->reg = p->vex_vvvv & (insn->mode == X86_MODE_64 ? 15 : 7);
        return true;
    case P_V:
        set_vector(operand, reg);
        return true;
    case P_U:
        set_vector(operand, rm);
        return true;
    case P_H:
        set_vector(operand, p->vex_vvvv & (insn->mode == X86_MODE_64 ? 15 : 7));
        return true;
    case P_L:
        insn->immediate_offset = (uint8_t)r->at;
        set_vector(operand, next_byte(r) >> 4 & (insn->mode == X86_MODE_64 ? 15 : 7));
        return true;
    case P_P:
        operand->kind = X86_OPERAND_MMX;
        operand->reg = (insn->modrm >> 3) & 7;
        return true;
    case P_N:
        operand->kind = X86_OPERAND_MMX;
        operand->reg = insn->modrm & 7;
        return true;
    case P_S:
        operand->kind = X86_OPERAND_SEGMENT;
        operand->reg = (insn->modrm >> 3) & 7;
        return operand->reg <= X86_GS && !(operand->reg == X86_CS && (pattern->access & X86_WRITE));
    case P_C:
        operand->kind = X86_OPERAND_CONTROL;
        operand->reg = (uint8_t)reg;
        /* LOCK MOV CR0 is AMD's way to CR8 outside 64-bit mode. */
        if (insn->prefixes & X86_PREFIX_LOCK) {
            if (reg != 0)
                return false;
            operand->reg = 8;
        }
        return operand->reg == 0 || (operand->reg >= 2 && operand->reg <= 4) || operand->reg == 8;
    case P_D:
        operand->kind = X86_OPERAND_DEBUG;
        operand->reg = (uint8_t)reg;
        return reg < 8;
    case P_I: case P_IS: case P_J:
        size = operand->size;
        if (pattern->kind == P_IS)
            size = 1;
        else if (pattern->kind == P_J && size > 4)
            size = 4;
        read_immediate(r, insn, size);
        operand->kind = pattern->kind == P_J ? X86_OPERAND_RELATIVE : X86_OPERAND_IMMEDIATE;
        if (pattern->kind == P_IS || pattern->size == SIZE_Z)
            operand->size = insn->operand_size; /* sign-extended to it */
        return true;
    case P_O:
        operand->kind = X86_OPERAND_MEMORY;
        insn->displacement_offset = (uint8_t)r->at;
        insn->memory = (struct x86_memory){.base = X86_NO_REGISTER,
                                           .index = X86_NO_REGISTER,
                                           .scale = 1,
                                           .segment = X86_DS};
        if (p->segment != X86_NO_REGISTER)
            insn->memory.segment = p->segment;
        insn->memory.displacement = (int64_t)next_bytes(r, insn->address_size);
        return true;
    case P_A:
        operand->kind = X86_OPERAND_FAR;
        insn->immediate_offset = (uint8_t)r->at;
        insn->immediate = (int64_t)next_bytes(r, insn->operand_size);
        insn->immediate2 = (int64_t)next_bytes(r, 2);
        return true;
    case P_X: case P_Y: case P_XLAT:
        set_implied_memory(insn, p, operand, pattern->kind);
        return true;
    case P_FIXED_GPR:
        operand->kind = X86_OPERAND_GPR;
        operand->reg = pattern->reg;
        return true;
    case P_FIXED_SREG:
        operand->kind = X86_OPERAND_SEGMENT;
        operand->reg = pattern->reg;
        return true;
    case P_FIXED_ST:
        operand->kind = X86_OPERAND_ST;
        return true;
    case P_ST_I:
        operand->kind = X86_OPERAND_ST;
        operand->reg = insn->modrm & 7;
        return true;
    case P_CONSTANT:
        operand->kind = X86_OPERAND_CONSTANT;
        insn->immediate = pattern->reg;
        return true;
    default:
        return false;
    }
}

/* LOCK needs a row that allows it and a memory destination; MOV CR8 by LOCK
 * (AMD) is not offered. */
static bool lock_allowed(const struct x86_insn *insn, const struct x86_row *row)
{
    if (!(insn->prefixes & X86_PREFIX_LOCK))
        return true;
    return (row->attributes & X86_ATTR_LOCKABLE) && insn->has_modrm && insn->modrm < 0xc0 &&
           insn->operands[0].kind == X86_OPERAND_MEMORY;
}

static enum x86_decode_result finish(const struct reader *r, size_t available,
                                     struct x86_insn *insn, enum x86_decode_result result)
{
    insn->length = (uint8_t)r->at;
    if (r->failed)
        return available > X86_INSN_MAX || r->available == X86_INSN_MAX ? X86_DECODE_LONG
                                                                        : X86_DECODE_SHORT;
    return result;
}

enum x86_decode_result x86_decode(const uint8_t *bytes, size_t available, enum x86_mode mode,
                                  struct x86_insn *insn)
{
    struct reader r = {.bytes = bytes, .available = MIN(available, X86_INSN_MAX)};
    struct prefixes p = {.segment = X86_NO_REGISTER};
    const struct x86_pattern *pattern;
    const struct x86_row *row;
    int map = 0, found, modrm = -1;
    uint8_t opcode;
    bool prefix_is_opcode;

    memset(insn, 0, sizeof(*insn));
    insn->mode = (uint8_t)mode;
    insn->memory.base = insn->memory.index = X86_NO_REGISTER;
    insn->memory.scale = 1;
    opcode = read_prefixes(&r, mode, &p);
    if (r.failed)
        return finish(&r, available, insn, X86_DECODE_INVALID);

    /* C4 and C5 are LES and LDS outside 64-bit mode unless the next byte would
     * be a register operand for them. */
    if ((opcode == 0xc4 || opcode == 0xc5) &&
        (mode == X86_MODE_64 || (r.at < r.available && r.bytes[r.at] >= 0xc0))) {
        bool bad = p.rex || p.repeat || (p.seen & (X86_PREFIX_OPERAND | X86_PREFIX_LOCK));

        map = read_vex(&r, opcode, mode, &p);
        opcode = next_byte(&r);
        if (r.failed || bad || map < 0)
            return finish(&r, available, insn, X86_DECODE_INVALID);
    } else if (opcode == 0x0f) {
        map = 1;
        opcode = next_byte(&r);
        if (opcode == 0x38 || opcode == 0x3a) {
            map = opcode == 0x38 ? 2 : 3;
            opcode = next_byte(&r);
        }
    }
    if (r.failed)
        return finish(&r, available, insn, X86_DECODE_INVALID);

    /* For MASKMOVQ and MASKMOVDQU, which store at [rDI] without saying so. */
    insn->memory.segment = p.segment != X86_NO_REGISTER ? p.segment : X86_DS;
    insn->prefixes = p.seen;
    if (p.repeat)
        insn->prefixes |= p.repeat == 0xf3 ? X86_PREFIX_REP : X86_PREFIX_REPNE;
    insn->rex = p.rex;
    insn->vex = p.vex;
    insn->vex_length = p.vex_length;
    insn->opcode = opcode;
    insn->opcode_offset = (uint8_t)(r.at - 1);
    if (mode == X86_MODE_64)
        insn->address_size = p.seen & X86_PREFIX_ADDRESS ? 4 : 8;
    else
        insn->address_size = (mode == X86_MODE_32) != !!(p.seen & X86_PREFIX_ADDRESS) ? 4 : 2;

    if (opcode_has_modrm(p.vex, map, opcode)) {
        insn->modrm_offset = (uint8_t)r.at;
        modrm = insn->modrm = next_byte(&r);
        insn->has_modrm = true;
        p.reg = (insn->modrm >> 3 & 7) | (p.rex << 1 & 8);
        p.rm = (insn->modrm & 7) | (p.rex << 3 & 8);
        if (r.failed)
            return finish(&r, available, insn, X86_DECODE_INVALID);
    }
    found = find_row(&p, map, opcode, mode, modrm);
    if (found < 0)
        return finish(&r, available, insn, X86_DECODE_INVALID);
    pattern = &x86_patterns[found];
    row = &x86_rows[found];
    insn->row = (uint16_t)found;
    insn->op = row->op;
    /* 66 is part of the opcode when it chose the row. */
    prefix_is_opcode = pattern->prefix == 2;
    if (pattern->prefix == 3 || pattern->prefix == 4)
        insn->prefixes &= (uint8_t) ~(X86_PREFIX_REP | X86_PREFIX_REPNE);
    insn->operand_size = (uint8_t)operand_size(row, &p, mode, prefix_is_opcode);

    if (modrm >= 0 && modrm < 0xc0 && !pattern->fixed_count &&
        !(row->op == X86_OP_MOV_FROM_CR || row->op == X86_OP_MOV_TO_CR ||
          row->op == X86_OP_MOV_FROM_DR || row->op == X86_OP_MOV_TO_DR)) {
        if (insn->address_size == 2)
            read_memory_16(&r, insn);
        else
            read_memory_32(&r, insn, pattern->vsib);
        if (p.segment != X86_NO_REGISTER)
            insn->memory.segment = p.segment;
        insn->memory.vsib = pattern->vsib;
        if (pattern->vsib && ((insn->modrm & 7) != 4 || insn->address_size == 2))
            return finish(&r, available, insn, X86_DECODE_INVALID);
    }
    bool vvvv_used = false;

    for (unsigned i = 0; i < pattern->operand_count; i++) {
        insn->operand_count = (uint8_t)(i + 1);
        if (!set_operand(&r, insn, &p, &pattern->operands[i], &insn->operands[i]))
            return finish(&r, available, insn, X86_DECODE_INVALID);
        if (insn->operands[i].kind == X86_OPERAND_MEMORY && !insn->memory_operand)
            insn->memory_operand = (uint8_t)(i + 1);
        vvvv_used |= pattern->operands[i].kind == P_H || pattern->operands[i].kind == P_B;
    }
    if (insn->operand_count && insn->operands[0].size == 1 &&
        insn->operands[0].kind != X86_OPERAND_IMMEDIATE &&
        insn->operands[0].kind != X86_OPERAND_RELATIVE &&
        !(row->op == X86_OP_MOVZX || row->op == X86_OP_MOVSX))
        insn->operand_size = 1;
    if (p.vex && !vvvv_used && p.vex_vvvv)
        return finish(&r, available, insn, X86_DECODE_INVALID);
    /* A gather's destination, mask and index differ (SDM 2 VPGATHERDD). */
    if (pattern->vsib && (insn->operands[0].reg == insn->operands[2].reg ||
                          insn->operands[0].reg == insn->memory.index ||
                          insn->operands[2].reg == insn->memory.index))
        return finish(&r, available, insn, X86_DECODE_INVALID);
    if (!lock_allowed(insn, row))
        return finish(&r, available, insn, X86_DECODE_INVALID);
    return finish(&r, available, insn, X86_DECODE_OK);
}
