#include "engine/translate/emit.h"

#include <string.h>

void emit_bytes(struct emit *e, const void *bytes, unsigned count)
{
    memcpy(e->at, bytes, count);
    e->at += count;
}

void emit_u8(struct emit *e, unsigned value)
{
    *e->at++ = (uint8_t)value;
}

void emit_u32(struct emit *e, uint32_t value)
{
    emit_bytes(e, &value, 4);
}

void emit_u64(struct emit *e, uint64_t value)
{
    emit_bytes(e, &value, 8);
}

static unsigned scale_bits(unsigned scale)
{
    return (unsigned)__builtin_ctz(scale) << 6;
}

void emit_modrm(struct emit *e, unsigned reg, const struct emit_memory *m)
{
    const unsigned r = (reg & 7) << 3;
    const unsigned index = m->index == EMIT_NONE ? 4 << 3 : (m->index & 7u) << 3;
    unsigned mod;

    if (m->base == EMIT_NONE) { /* SIB without base: 32-bit displacement */
        emit_u8(e, r | 4);
        emit_u8(e, scale_bits(m->scale) | index | 5);
        emit_u32(e, (uint32_t)m->displacement);
        return;
    }
    /* Without displacement, a base of RBP or R13 would mean something else. */
    if (m->displacement == 0 && (m->base & 7) != 5)
        mod = 0;
    else
        mod = m->displacement == (int8_t)m->displacement ? 0x40 : 0x80;
    if (m->index == EMIT_NONE && (m->base & 7) != 4) {
        emit_u8(e, mod | r | (m->base & 7));
    } else {
        emit_u8(e, mod | r | 4);
        emit_u8(e, scale_bits(m->scale) | index | (m->base & 7));
    }
    if (mod == 0x40)
        emit_u8(e, (uint8_t)m->displacement);
    else if (mod == 0x80)
        emit_u32(e, (uint32_t)m->displacement);
}

static void emit_opcode(struct emit *e, unsigned opcode)
{
    if (opcode > 0xffff)
        emit_u8(e, opcode >> 16);
    if (opcode > 0xff)
        emit_u8(e, opcode >> 8 & 0xff);
    emit_u8(e, opcode & 0xff);
}

static unsigned high(unsigned reg)
{
    return reg == EMIT_NONE ? 0 : reg >> 3;
}

/* MOV to and from a field of the CPU's struct: half of all that is emitted. */
static void emit_move_field(struct emit *e, unsigned opcode, unsigned reg, int32_t displacement)
{
    /* GS, REX.W, the opcode, ModRM, SIB without base and index */
    const uint64_t bytes = 0x2504004865u | (uint64_t)(reg >> 3) << 10 | opcode << 16 |
                           (uint64_t)(reg & 7) << 27 | (uint64_t)(uint32_t)displacement << 40;

    memcpy(e->at, &bytes, 8);
    e->at[8] = (uint8_t)((uint32_t)displacement >> 24);
    e->at += 9;
}

void emit_rm(struct emit *e, bool wide, unsigned opcode, unsigned reg, struct emit_memory m)
{
    unsigned rex = 0x40 | wide << 3 | high(reg) << 2 | high(m.index) << 1 | high(m.base);

    if (m.gs)
        emit_u8(e, 0x65);
    if (rex != 0x40)
        emit_u8(e, rex);
    emit_opcode(e, opcode);
    emit_modrm(e, reg, &m);
}

void emit_rr(struct emit *e, bool wide, unsigned opcode, unsigned reg, unsigned rm)
{
    unsigned rex = 0x40 | wide << 3 | high(reg) << 2 | high(rm);

    if (rex != 0x40)
        emit_u8(e, rex);
    emit_opcode(e, opcode);
    emit_u8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void emit_load(struct emit *e, unsigned reg, struct emit_memory m)
{
    if (m.gs && m.index == EMIT_NONE)
        emit_move_field(e, 0x8b, reg, m.displacement);
    else
        emit_rm(e, true, 0x8b, reg, m);
}

void emit_store(struct emit *e, struct emit_memory m, unsigned reg)
{
    if (m.gs && m.index == EMIT_NONE)
        emit_move_field(e, 0x89, reg, m.displacement);
    else
        emit_rm(e, true, 0x89, reg, m);
}

void emit_lea(struct emit *e, unsigned reg, struct emit_memory m)
{
    emit_rm(e, true, 0x8d, reg, m);
}

void emit_constant(struct emit *e, unsigned reg, uint64_t value)
{
    if (value <= UINT32_MAX) {
        if (reg >> 3)
            emit_u8(e, 0x41);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u32(e, (uint32_t)value);
    } else if (emit_fits(value)) {
        emit_rr(e, true, 0xc7, 0, reg);
        emit_u32(e, (uint32_t)value);
    } else {
        emit_u8(e, 0x48 | reg >> 3);
        emit_u8(e, 0xb8 | (reg & 7));
        emit_u64(e, value);
    }
}

static void rorx(struct emit *e, bool wide, unsigned reg, unsigned from, unsigned count)
{
    emit_u8(e, 0xc4);
    emit_u8(e, (high(reg) ? 0 : 0x80) | 0x40 | (high(from) ? 0 : 0x20) | 3); /* map 0F3A */
    emit_u8(e, 0x7b | wide << 7); /* F2 */
    emit_u8(e, 0xf0);
    emit_u8(e, 0xc0 | (reg & 7) << 3 | (from & 7));
    emit_u8(e, count);
}

void emit_rorx(struct emit *e, unsigned reg, unsigned from, unsigned count)
{
    rorx(e, true, reg, from, count);
}

void emit_rorx32(struct emit *e, unsigned reg, unsigned from, unsigned count)
{
    rorx(e, false, reg, from, count);
}

void emit_sarx(struct emit *e, unsigned reg, unsigned from, unsigned count)
{
    emit_u8(e, 0xc4);
    emit_u8(e, (high(reg) ? 0 : 0x80) | 0x40 | (high(from) ? 0 : 0x20) | 2); /* map 0F38 */
    emit_u8(e, 0x82 | (~count & 0xf) << 3); /* W1, F3 */
    emit_u8(e, 0xf7);
    emit_u8(e, 0xc0 | (reg & 7) << 3 | (from & 7));
}

static void masked(struct emit *e, unsigned prefix, unsigned reg, unsigned from,
                   struct emit_memory mask)
{
    if (mask.gs)
        emit_u8(e, 0x65);
    emit_u8(e, 0xc4);
    emit_u8(e, (high(reg) ? 0 : 0x80) | (high(mask.index) ? 0 : 0x40) |
                   (high(mask.base) ? 0 : 0x20) | 2);
    emit_u8(e, 0x80 | (~from & 0xf) << 3 | prefix); /* W1 */
    emit_u8(e, 0xf5);
    emit_modrm(e, reg, &mask);
}

void emit_pext(struct emit *e, unsigned reg, unsigned from, struct emit_memory mask)
{
    masked(e, 2, reg, from, mask); /* F3 */
}

void emit_pdep(struct emit *e, unsigned reg, unsigned from, struct emit_memory mask)
{
    masked(e, 3, reg, from, mask); /* F2 */
}

void emit_movzx16(struct emit *e, unsigned reg, unsigned from)
{
    emit_rr(e, false, 0x0fb7, reg, from);
}

void emit_flags_to_rax(struct emit *e)
{
    static const uint8_t get[] = {0x9f, 0x0f, 0x90, 0xc0}; /* LAHF; SETO AL */

    emit_bytes(e, get, sizeof(get));
}

void emit_flags_from_rax(struct emit *e)
{
    static const uint8_t put[] = {0x04, 0x7f, 0x9e}; /* ADD AL, 127; SAHF */

    emit_bytes(e, put, sizeof(put));
}

uint8_t *emit_jump(struct emit *e)
{
    emit_u8(e, 0xe9);
    emit_u32(e, 0);
    return e->at - 4;
}

uint8_t *emit_jcc(struct emit *e, unsigned condition)
{
    emit_u8(e, 0x0f);
    emit_u8(e, 0x80 | condition);
    emit_u32(e, 0);
    return e->at - 4;
}

uint8_t *emit_jrcxz(struct emit *e)
{
    emit_u8(e, 0xe3);
    emit_u8(e, 0);
    return e->at - 1;
}

void emit_patch(uint8_t *where, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (where + 4));

    memcpy(where, &distance, 4);
}

void emit_patch_short(uint8_t *where, const uint8_t *target)
{
    *where = (uint8_t)(target - (where + 1));
}

void emit_jump_to(struct emit *e, const uint8_t *target)
{
    uint8_t *displacement = emit_jump(e);

    emit_patch(displacement, target);
    if (e->relocations && target < e->relocations->common_end)
        relocate_note(e->relocations, RELOCATE_ROUTINE, displacement);
}
