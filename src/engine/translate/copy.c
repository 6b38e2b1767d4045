/* Instructions that are copied: the guest's bytes are the host's, but for where memory is.
 *
 * Assumption: an instruction without system state does on the host what it would do in the
 * guest, whatever registers its address is made of (analyse.c says which ones do not). */
#include "engine/translate/build.h"
#include "engine/translate/stack.h"

static bool is_legacy_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67:
    case 0xf0: case 0xf2: case 0xf3:
        return true;
    default:
        return false;
    }
}

/* Whether 66 chooses 16 bits for the instruction, or is part of its opcode. */
static bool takes_operand_size(const struct x86_insn *insn)
{
    if (insn->op == X86_OP_CMPXCHG8B)
        return false;
    switch (x86_rows[insn->row].feature) {
    case X86_FEATURE_BASE: case X86_FEATURE_POPCNT: case X86_FEATURE_LZCNT:
    case X86_FEATURE_BMI1: case X86_FEATURE_MOVBE:
        return true;
    default:
        return insn->op == X86_OP_CRC32;
    }
}

/* Of 16-bit code, whose 66 means the opposite to the host. */
static bool wants_operand_prefix(const struct x86_insn *insn)
{
    return takes_operand_size(insn) ? insn->operand_size == 2
                                    : insn->prefixes & X86_PREFIX_OPERAND;
}

/* Prefixes that still mean something when the address is replaced. A REX goes
 * too: the last one, if nothing stands between it and the opcode, is emitted
 * anew. Returns where VEX or the opcode begins. */
static unsigned copy_prefixes(struct emit *e, const struct step *s)
{
    const bool sixteen = s->insn.mode == X86_MODE_16;
    unsigned i = 0;

    if (sixteen && wants_operand_prefix(&s->insn))
        emit_u8(e, 0x66);
    for (; is_legacy_prefix(s->bytes[i]) || (s->bytes[i] & 0xf0) == 0x40; i++)
        if (s->bytes[i] >= 0xf0 || (s->bytes[i] == 0x66 && !sixteen))
            emit_u8(e, s->bytes[i]);
    return i;
}

/* Bytes of ModRM, SIB and displacement (SDM 2A 2.1.3). */
static unsigned address_length(const uint8_t *modrm, unsigned address_size)
{
    const unsigned mod = modrm[0] >> 6, rm = modrm[0] & 7;
    unsigned length = 1;

    if (address_size == 2)
        return mod == 1 ? 2 : mod == 2 || (mod == 0 && rm == 6) ? 3 : 1;
    if (rm == 4 && mod != 3) {
        length++;
        if (mod == 0 && (modrm[1] & 7) == 5)
            return length + 4;
    }
    if (mod == 1)
        return length + 1;
    return mod == 2 || (mod == 0 && rm == 5) ? length + 4 : length;
}

static void copy_vex(struct emit *e, const struct step *s, unsigned at,
                     const struct emit_memory *m)
{
    const uint8_t *v = s->bytes + at;
    const unsigned high_bits = (m->index != EMIT_NONE && m->index >> 3 ? 0 : 0x40) |
                               (m->base >> 3 ? 0 : 0x20);

    emit_u8(e, 0xc4);
    if (v[0] == 0xc5) {
        emit_u8(e, (v[1] & 0x80) | high_bits | 1);
        emit_u8(e, v[1] & 0x7f);
    } else {
        emit_u8(e, (v[1] & 0x9f) | high_bits);
        emit_u8(e, v[2]);
    }
    emit_u8(e, s->insn.opcode);
}

/* The instruction with its memory operand replaced. */
static void copy_with_memory(struct build *b, const struct step *s, struct emit_memory m)
{
    const struct x86_insn *insn = &s->insn;
    struct emit *e = b->e;
    const unsigned at = copy_prefixes(e, s);
    unsigned rex, end;

    if (insn->vex) {
        copy_vex(e, s, at, &m);
    } else {
        rex = (insn->rex & 0x4c) | (m.index != EMIT_NONE ? (m.index >> 3) << 1 : 0) | m.base >> 3;
        if (!insn->has_modrm) /* there is no register for REX.R to extend */
            rex &= ~4u;
        if (insn->rex || rex)
            emit_u8(e, rex | 0x40);
        if (!insn->has_modrm) { /* MOV with a moffs: AL or rAX, as 88 to 8B */
            emit_u8(e, (insn->opcode & 2 ? 0x88 : 0x8a) | (insn->opcode & 1));
            emit_modrm(e, X86_RAX, &m);
            return;
        }
        emit_bytes(e, s->bytes + at, insn->opcode_offset + 1u - at);
    }
    emit_modrm(e, insn->modrm >> 3 & 7, &m);
    end = insn->modrm_offset + address_length(s->bytes + insn->modrm_offset, insn->address_size);
    emit_bytes(e, s->bytes + end, insn->length - end);
}

static void add_trap(struct build *b, const struct step *s, uint8_t *at)
{
    struct code_cache *cache = &b->t->cache;
    struct site *site = code_cache_site(cache, SITE_TRAP, s->rip, b->unit);
    struct trap *trap = code_cache_trap(cache, at);

    if (trap)
        build_stub(b, STUB_LEAVE, NULL, site)->trap = trap;
}

static bool is_constant_address(const struct x86_memory *m)
{
    return m->base == X86_NO_REGISTER && m->index == X86_NO_REGISTER;
}

/* 40 to 4F of 32-bit code, which are REX prefixes for the host. */
static void emit_short_increment(struct build *b, const struct step *s)
{
    if (s->insn.operand_size == 2)
        emit_u8(b->e, 0x66);
    emit_rr(b->e, false, 0xff, s->insn.op == X86_OP_DEC, s->insn.operands[0].reg);
}

/* An address that does not depend on registers; relative to RIP, or in a form
 * that the host would take for that. */
static void emit_lea_constant(struct build *b, const struct step *s)
{
    uint64_t address = (uint64_t)s->insn.memory.displacement;

    if (s->insn.memory.rip_relative)
        address += s->rip + s->insn.length;

    if (s->insn.address_size == 4 || s->insn.operand_size == 4)
        address = (uint32_t)address;
    if (s->insn.memory.rip_relative)
        elsewhere_constant(b, s->insn.operands[0].reg, address);
    else
        emit_constant(b->e, s->insn.operands[0].reg, address);
}

/* LEA outside 64-bit code: addresses of 16 bits, and results of 16 bits. */
static void emit_lea_legacy(struct build *b, const struct step *s)
{
    const struct x86_memory *m = &s->insn.memory;
    const unsigned reg = s->insn.operands[0].reg, size = s->insn.operand_size;

    if (is_constant_address(m) && size == 2) {
        emit_u8(b->e, 0x66);
        emit_rr(b->e, false, 0xc7, 0, reg); /* MOV */
        emit_bytes(b->e, &m->displacement, 2);
        return;
    }
    if (is_constant_address(m)) {
        emit_constant(b->e, reg, s->insn.address_size == 2 ? (uint16_t)m->displacement
                                                           : (uint32_t)m->displacement);
        return;
    }
    if (size == 2)
        emit_u8(b->e, 0x66);
    emit_rm(b->e, false, 0x8d, reg,
            (struct emit_memory){m->base, m->index, m->scale, false, (int32_t)m->displacement});
    if (size == 4 && s->insn.address_size == 2)
        emit_movzx16(b->e, reg, reg);
}

/* What has no memory operand. */
static void copy_plain(struct build *b, const struct step *s)
{
    unsigned at;

    if (s->insn.op == X86_OP_LEA && s->insn.mode != X86_MODE_64) {
        emit_lea_legacy(b, s);
    } else if (s->insn.op == X86_OP_LEA && is_constant_address(&s->insn.memory)) {
        emit_lea_constant(b, s);
    } else if (!s->insn.has_modrm && (s->insn.op == X86_OP_INC || s->insn.op == X86_OP_DEC)) {
        emit_short_increment(b, s);
    } else if (s->insn.mode == X86_MODE_16) {
        at = copy_prefixes(b->e, s);
        emit_bytes(b->e, s->bytes + at, s->insn.length - at);
    } else {
        emit_bytes(b->e, s->bytes, s->insn.length);
    }
}

static bool has_high_byte(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].high_byte)
            return true;
    return false;
}

/* AH to BH cannot be named beside R8 to R15: the address goes to one of the other registers,
 * which is given back after the step. */
static struct emit_memory move_low(struct build *b, const struct step *s, struct emit_memory m)
{
    const uint16_t taken = (uint16_t)(s->mentions | b->home | b->steady | 1u << X86_RSP |
                                      1u << b->s1 | 1u << b->s2);
    unsigned reg = X86_RDI;

    while (taken >> reg & 1)
        reg--;
    emit_store(b->e, HOME(reg), reg);
    b->lent |= (uint16_t)(1u << reg);
    b->home |= (uint16_t)(1u << reg);
    emit_lea(b->e, reg, m);
    return emit_based(reg, EMIT_NONE, 0);
}

/* Whether a group knows where the memory operand is. */
static bool is_covered(const struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const struct x86_operand *memory = x86_memory_operand(insn);

    return memory_groupable(b, &insn->memory, insn->address_size) &&
           group_covers(b, &insn->memory, memory->size, memory->access);
}

void build_copy(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *memory = x86_memory_operand(&s->insn);
    const bool reaches = memory && s->insn.op != X86_OP_LEA;
    struct emit_memory m;
    uint8_t *at;

    if (stack_moves(b, i))
        return;
    begin_step(b, s, false);
    if (reaches && loop_needs_scratch(b, i))
        begin_scratch(b, s, is_covered(b, i) ? 1 : 2);
    if (reaches) {
        m = memory_reach(b, i, &s->insn.memory, s->insn.address_size, memory->size,
                         memory->access);
        if (has_high_byte(&s->insn))
            m = move_low(b, s, m);
        at = b->e->at;
        copy_with_memory(b, s, m);
    } else {
        at = b->e->at;
        copy_plain(b, s);
    }
    if (s->can_trap || (s->sse && (b->unit->mode & UNIT_UNMASKED)))
        add_trap(b, s, at);
    end_step(b, s);
}
