/* Address checks: from a guest's linear address to host memory through the
 * software TLB, inline.
 *
 * Assumption: most accesses hit, and lie near others off the same base. So one
 * check covers several accesses (a group): it proves that the whole range lies
 * in one page that may be reached that way, and what it found, the distance
 * from guest to host address of that page, stays in a register for all of them.
 * When a group's check fails for good, C goes on in a unit without groups.
 *
 * The flags. Where nobody reads them, the check compares; where somebody does,
 * it shifts the page offset away and asks whether RCX is zero. */
#include "engine/translate/build.h"
#include "engine/translate/guess.h"

/* In 32-bit code a larger displacement is likely to wrap around. */
#define MAX_DISPLACEMENT 0x100000

#define TABLE(rights, field)                                                                       \
    (offsetof(struct translator, cpu.tlb.tables) + (rights) * sizeof(struct tlb_table) +          \
     offsetof(struct tlb_table, field))

enum tlb_rights memory_rights(unsigned mode)
{
    return mode & CPU_MODE_USER ? TLB_USER : mode & UNIT_AC ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR;
}

struct x86_memory memory_stack(int displacement)
{
    return (struct x86_memory){.base = X86_RSP,
                               .index = X86_NO_REGISTER,
                               .scale = 1,
                               .segment = X86_SS,
                               .displacement = displacement};
}

static bool is_constant(const struct x86_memory *m)
{
    return m->base == X86_NO_REGISTER && m->index == X86_NO_REGISTER;
}

bool memory_has_base_segment(const struct x86_memory *m)
{
    return m->segment == X86_FS || m->segment == X86_GS;
}

static uint64_t constant_address(const struct x86_memory *m, unsigned address_size,
                                 uint64_t next_rip)
{
    uint64_t address = (uint64_t)m->displacement + (m->rip_relative ? next_rip : 0);

    return address_size == 2   ? (uint16_t)address
           : address_size == 4 ? (uint32_t)address
                               : address;
}

int32_t memory_behind(const struct build *b, unsigned base)
{
    return base == X86_RSP ? b->behind : 0;
}

void memory_address(struct build *b, const struct x86_memory *m, unsigned address_size,
                    uint64_t next_rip, unsigned reg, unsigned other)
{
    if (b->segmented) {
        segment_offset(b, m, address_size, reg);
        segment_add_base(b, m->segment, reg, other, true);
        return;
    }
    if (is_constant(m) && m->rip_relative)
        elsewhere_constant(b, reg, constant_address(m, address_size, next_rip));
    else if (is_constant(m))
        emit_constant(b->e, reg, constant_address(m, address_size, next_rip));
    else
        emit_rm(b->e, address_size == 8, 0x8d, reg,
                (struct emit_memory){m->base, m->index, m->scale, false,
                                     (int32_t)(m->displacement + memory_behind(b, m->base))});
    if (address_size == 2 && !is_constant(m))
        emit_movzx16(b->e, reg, reg);
    if (memory_has_base_segment(m)) {
        emit_load(b->e, other,
                  emit_field(offsetof(struct translator, cpu.state.segment) +
                             m->segment * sizeof(struct x86_segment) +
                             offsetof(struct x86_segment, base)));
        emit_rm(b->e, b->word == 8, 0x8d, reg, emit_based(reg, other, 0)); /* LEA */
    }
}

/* In 32-bit code the check of a group goes without wrapping around: what would
 * wrap fails, and single accesses then do. */
bool memory_groupable(const struct build *b, const struct x86_memory *m, unsigned address_size)
{
    if (b->segmented)
        return false;
    if (b->word == 4 && ((b->unit->mode & UNIT_SINGLE) || m->displacement > MAX_DISPLACEMENT ||
                         m->displacement < -MAX_DISPLACEMENT))
        return false;
    return address_size == b->word && m->base != X86_NO_REGISTER && m->index == X86_NO_REGISTER &&
           !memory_has_base_segment(m);
}

bool memory_constant_step(const struct build *b, const struct step *s, unsigned reg,
                          int64_t *ret_delta)
{
    const struct x86_insn *insn = &s->insn;
    const struct x86_operand *o = insn->operands;

    *ret_delta = 0;
    if (!(s->writes >> reg & 1))
        return true;
    if (b->segmented)
        return false;
    switch (s->kind) {
    case STEP_PUSH:
        *ret_delta = -(int)b->word;
        return reg == X86_RSP;
    case STEP_POP:
        *ret_delta = b->word;
        return reg == X86_RSP && o[0].reg != X86_RSP;
    case STEP_CALL: case STEP_CALL_INDIRECT:
        *ret_delta = -(int)b->word;
        return reg == X86_RSP;
    case STEP_RETURN:
        *ret_delta = (int)b->word + (insn->operand_count ? (uint16_t)insn->immediate : 0);
        return reg == X86_RSP;
    case STEP_COPY:
        break;
    default:
        return false;
    }
    if (o[0].kind != X86_OPERAND_GPR || o[0].reg != reg || o[0].size != b->word)
        return false;
    switch (insn->op) {
    case X86_OP_ADD: case X86_OP_SUB:
        if (o[1].kind != X86_OPERAND_IMMEDIATE)
            return false;
        *ret_delta = insn->op == X86_OP_ADD ? insn->immediate : -insn->immediate;
        return true;
    case X86_OP_INC: case X86_OP_DEC:
        *ret_delta = insn->op == X86_OP_INC ? 1 : -1;
        return true;
    case X86_OP_LEA:
        *ret_delta = insn->memory.displacement;
        return insn->address_size == b->word && insn->memory.base == reg &&
               insn->memory.index == X86_NO_REGISTER;
    default:
        return false;
    }
}

bool memory_of_step(const struct build *b, const struct step *s, struct x86_memory *ret_memory,
                    unsigned *ret_size, unsigned *ret_access)
{
    const struct x86_operand *operand = x86_memory_operand(&s->insn);

    switch (s->kind) {
    case STEP_PUSH: case STEP_CALL:
        *ret_memory = memory_stack(-(int)b->word);
        *ret_size = b->word;
        *ret_access = X86_WRITE;
        return true;
    case STEP_POP: case STEP_RETURN:
        *ret_memory = memory_stack(0);
        *ret_size = b->word;
        *ret_access = X86_READ;
        return true;
    case STEP_COPY:
        if (!operand || s->insn.op == X86_OP_LEA)
            return false;
        *ret_memory = s->insn.memory;
        *ret_size = operand->size;
        *ret_access = operand->access;
        return true;
    default:
        return false;
    }
}

/* Where the TLB keeps the tags of pages that may be reached so. */
static size_t tags_of(enum tlb_rights rights, unsigned access)
{
    return access & X86_WRITE ? TABLE(rights, write) : TABLE(rights, read);
}

/* The place in the TLB of the address in reg, into s2; the flags stay. */
static void find_place(struct build *b, unsigned reg)
{
    emit_rorx(b->e, b->s2, reg, 12);
    emit_movzx16(b->e, b->s2, b->s2);
}

/* Compare, when the flags are free. Returns the branch to be taken on failure. */
static uint8_t *check_comparing(struct build *b, size_t tag, unsigned span)
{
    struct emit *e = b->e;

    find_place(b, b->s1);
    emit_rm(e, true, 0x03, b->s1, emit_element(tag, b->s2)); /* ADD */
    emit_rr(e, true, 0x81, 7, b->s1);                        /* CMP */
    emit_u32(e, (uint32_t)(PAGE_SIZE - span));
    return emit_jcc(e, EMIT_ABOVE);
}

/* The same without touching flags; s2 becomes the addend, s1 stays the address. */
static uint8_t *check_shifting(struct build *b, size_t tag, size_t addend, unsigned span)
{
    struct emit *e = b->e;
    uint8_t *hit, *miss;

    find_place(b, b->s1);
    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_load(e, X86_RCX, emit_element(tag, b->s2));
    emit_load(e, b->s2, emit_element(addend, b->s2));
    emit_lea(e, X86_RCX, emit_based(X86_RCX, b->s1, (int32_t)span - 1));
    emit_pext(e, X86_RCX, X86_RCX, FIELD(page_mask));
    hit = emit_jrcxz(e);
    miss = emit_jump(e);
    emit_patch_short(hit, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
    return miss;
}

static struct site *memory_site(struct build *b, unsigned i, unsigned size, unsigned access)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_MEMORY, b->steps[i].rip, b->unit);

    site->size = (uint8_t)size;
    site->access = access & X86_WRITE ? X86_WRITE : X86_READ;
    site->checked = site->access;
    site->aligned = b->steps[i].can_trap;
    site->span = (uint16_t)size;
    return site;
}

/* Whether the check of an address that is known now can compare with constants. */
static bool is_plain_constant(const struct x86_memory *m, uint64_t address, unsigned size)
{
    return is_constant(m) && !memory_has_base_segment(m) && emit_fits(address) &&
           emit_fits(-(address & PAGE_MASK)) &&
           !((address ^ (address + size - 1)) & PAGE_MASK);
}

/* The check of such an address: its place in the TLB is known too. */
static struct emit_memory reach_constant(struct build *b, uint64_t address, struct stub *stub,
                                         size_t tag, size_t addend)
{
    const size_t i = (size_t)tlb_index(address) * 8;

    b->relocations.fixed |= stub->memory.rip_relative;
    emit_rm(b->e, true, 0x81, 7, emit_field(tag + i)); /* CMP */
    emit_u32(b->e, (uint32_t)-(address & PAGE_MASK));
    stub->from = emit_jcc(b->e, EMIT_NOT_EQUAL);
    emit_load(b->e, b->s2, emit_field(addend + i));
    return emit_based(b->s2, EMIT_NONE, (int32_t)address);
}

struct emit_memory memory_reach(struct build *b, unsigned i, const struct x86_memory *memory,
                                unsigned address_size, unsigned size, unsigned access)
{
    const enum tlb_rights rights = memory_rights(b->unit->mode);
    const uint64_t next_rip = b->steps[i].rip + b->steps[i].insn.length;
    const bool flags_live = b->steps[i].flags_live;
    const uint64_t constant = constant_address(memory, address_size, next_rip);
    const int64_t displacement = memory->displacement;
    const bool may_group = memory_groupable(b, memory, address_size);
    const unsigned check_size = may_group ? 8 : address_size;
    struct group group = {.base = memory->base,
                          .low = displacement,
                          .high = may_group ? displacement + (int64_t)size : displacement,
                          .write = access & X86_WRITE};
    struct x86_memory checked = *memory;
    struct site *site;
    struct stub *stub;
    uint8_t *check = b->e->at;
    struct emit_memory known, distance = {0};
    bool guessed;
    size_t tag, addend;

    if (loop_reach(b, i, &known))
        return known;
    if (may_group && group_reach(b, memory, size, access, &known))
        return known;
    group_lose_register(b);
    b->holds &= b->steps[i].mentions;
    site = memory_site(b, i, size, access);
    if (may_group && !(b->unit->mode & UNIT_SINGLE)) {
        group_plan(b, i, &group);
        checked.displacement = group.low;
        site->low = (int16_t)(group.low - displacement);
        site->span = (uint16_t)(group.high - group.low);
        site->checked = group.write ? X86_WRITE : X86_READ;
    }
    tag = tags_of(rights, site->checked);
    addend = TABLE(rights, addend);

    stub = build_stub(b, STUB_MEMORY, NULL, site);
    stub->memory = *memory;
    stub->address_size = (uint8_t)check_size;
    stub->next_rip = next_rip;
    stub->scratch[0] = b->s1;
    stub->scratch[1] = b->s2;
    stub->check = check;
    if (!flags_live && !b->segmented && is_plain_constant(memory, constant, size))
        return reach_constant(b, constant, stub, tag, addend);
    if (b->segmented)
        segment_address(b, i, memory, address_size, size);
    else
        memory_address(b, &checked, check_size, next_rip, b->s1, b->s2);
    if (flags_live) {
        stub->from = check_shifting(b, tag, addend, site->span);
        stub->rcx_saved = true;
    } else {
        stub->from = check_comparing(b, tag, site->span);
        guessed = guess_wanted(b, i, memory);
        if (guessed) {
            emit_load(b->e, b->s1, emit_element(addend, b->s2));
            distance = guess_check(b, i);
        }
        if (!may_group && (b->segmented || memory_has_base_segment(memory)))
            /* the address itself again */
            emit_rm(b->e, true, 0x2b, b->s1, emit_element(tag, b->s2)); /* SUB */
        else if (!may_group && guessed)
            return guess_reach(b, i, distance);
        else if (!may_group) /* which so need not wait for the tag */
            memory_address(b, &checked, check_size, next_rip, b->s1, b->s2);
        emit_load(b->e, b->s2, guessed ? distance : emit_element(addend, b->s2));
    }
    if (may_group && !(b->unit->mode & UNIT_SINGLE))
        group_add(b, &group);
    if (may_group)
        return emit_based(memory->base, b->s2,
                          (int32_t)(displacement + memory_behind(b, memory->base)));
    return emit_based(b->s1, b->s2, 0);
}

void memory_tag_offset(struct build *b, unsigned access)
{
    find_place(b, b->s1);
    emit_rm(b->e, true, 0x03, b->s1, /* ADD */
            emit_element(tags_of(memory_rights(b->unit->mode), access), b->s2));
}

void memory_tag(struct build *b, unsigned tag, unsigned access)
{
    find_place(b, b->s1);
    emit_load(b->e, tag, emit_element(tags_of(memory_rights(b->unit->mode), access), b->s2));
}

void memory_page_offset(struct build *b, unsigned reg, unsigned access)
{
    find_place(b, reg);
    emit_load(b->e, b->s1, emit_element(tags_of(memory_rights(b->unit->mode), access), b->s2));
    emit_lea(b->e, b->s1, emit_based(b->s1, reg, 0));
}

void memory_page_addend(struct build *b)
{
    emit_load(b->e, b->s2, emit_element(TABLE(memory_rights(b->unit->mode), addend), b->s2));
}

void memory_bit_word(struct build *b, unsigned bit, bool wide, unsigned reg, unsigned other)
{
    struct emit *e = b->e;

    emit_rr(e, true, wide ? 0x8b : 0x63, other, bit); /* MOV, MOVSXD */
    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_constant(e, X86_RCX, wide ? 6 : 5);
    emit_sarx(e, other, other, X86_RCX);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
    emit_lea(e, reg, (struct emit_memory){(uint8_t)reg, (uint8_t)other, wide ? 8 : 4, false, 0});
}

struct emit_memory memory_reach_bits(struct build *b, unsigned i, unsigned bit, bool wide,
                                     unsigned access)
{
    const enum tlb_rights rights = memory_rights(b->unit->mode);
    const struct step *s = &b->steps[i];
    const uint64_t next_rip = s->rip + s->insn.length;
    const unsigned size = wide ? 8 : 4;
    struct site *site = memory_site(b, i, size, access);
    const size_t tag = tags_of(rights, access);
    uint8_t *check = b->e->at;
    struct stub *stub;

    memory_address(b, &s->insn.memory, s->insn.address_size, next_rip, b->s1, b->s2);
    memory_bit_word(b, bit, wide, b->s1, b->s2);
    stub = build_stub(b, STUB_MEMORY, NULL, site);
    if (s->flags_live) {
        stub->from = check_shifting(b, tag, TABLE(rights, addend), size);
        stub->rcx_saved = true;
    } else {
        stub->from = check_comparing(b, tag, size);
        emit_rm(b->e, true, 0x2b, b->s1, emit_element(tag, b->s2)); /* SUB: the address again */
        emit_load(b->e, b->s2, emit_element(TABLE(rights, addend), b->s2));
    }
    stub->memory = s->insn.memory;
    stub->address_size = s->insn.address_size;
    stub->next_rip = next_rip;
    stub->scratch[0] = b->s1;
    stub->scratch[1] = b->s2;
    stub->check = check;
    stub->bit = (uint8_t)bit;
    stub->wide = wide;
    return emit_based(b->s1, b->s2, 0);
}
