/* Code whose segments are not flat: 16-bit code of any mode, and 32-bit code with a base or
 * a limit.
 *
 * Assumption: bases change all the time (real mode), what a segment allows hardly ever. So
 * emitted code adds the base and compares with the limit that are in the state when it
 * runs, and a unit rests on what each segment allows (in its mode), and on the base and
 * limit of CS, from which its addresses follow. Loading CS is the interpreter's, and
 * so is an access that the limit forbids: it raises what there is to raise.
 *
 * Within the translator an address of code is linear; the base is taken off where C goes
 * on, or where the guest sees one (a return address). */
#include "engine/translate/build.h"

#define SEGMENT_FIELD(segment, name)                                                               \
    emit_field(offsetof(struct translator, cpu.state.segment) +                                   \
               (segment) * sizeof(struct x86_segment) + offsetof(struct x86_segment, name))

/* What code may do through the segment, whatever its base is. */
static enum segment_class class_of(const struct cpu *cpu, unsigned number)
{
    const struct x86_segment *segment = &cpu->state.segment[number];
    const uint16_t a = segment->attributes;

    if (!(a & X86_SEG_P) || (a & (X86_SEG_CODE | X86_SEG_DOWN)) == X86_SEG_DOWN)
        return SEGMENT_NONE;
    if (cpu_protected(cpu)) {
        if ((a & (X86_SEG_CODE | X86_SEG_READABLE)) == X86_SEG_CODE)
            return SEGMENT_NONE;
        if ((a & X86_SEG_CODE) || !(a & X86_SEG_WRITABLE))
            return SEGMENT_READ;
    }
    /* What wraps around at 4 GiB crosses a page then, and is the interpreter's anyway. */
    return segment->limit == 0xffffffff && !(segment->base & ~PAGE_MASK) ? SEGMENT_ALL
                                                                         : SEGMENT_WRITE;
}

unsigned segment_mode(const struct cpu *cpu)
{
    unsigned mode = UNIT_SEGMENTED;

    for (unsigned i = 0; i < UNIT_CLASSES; i++)
        mode |= (unsigned)class_of(cpu, i) << (UNIT_CLASS_SHIFT + 2 * i);
    if (cpu->stack_mask == 0xffff)
        mode |= UNIT_STACK_16;
    if (!(cpu->state.cr0 & X86_CR0_PE))
        mode |= UNIT_REAL;
    else if (cpu->state.rflags & X86_VM)
        mode |= UNIT_VM;
    return mode;
}

enum segment_class segment_class(const struct build *b, unsigned segment)
{
    return b->unit->mode >> (UNIT_CLASS_SHIFT + 2 * segment) & 3;
}

bool segment_allows(const struct build *b, unsigned segment, unsigned access)
{
    return segment_class(b, segment) >= (access & X86_WRITE ? SEGMENT_WRITE : SEGMENT_READ);
}

unsigned segment_stack_size(const struct build *b)
{
    return b->unit->mode & UNIT_STACK_16 ? 2 : 4;
}

uint32_t segment_rip(const struct build *b, uint64_t linear)
{
    return (uint32_t)(linear - b->unit->code_base);
}

void segment_offset(struct build *b, const struct x86_memory *m, unsigned address_size,
                    unsigned reg)
{
    if (m->base == X86_NO_REGISTER && m->index == X86_NO_REGISTER) {
        emit_constant(b->e, reg, address_size == 2 ? (uint16_t)m->displacement
                                                   : (uint32_t)m->displacement);
        return;
    }
    emit_rm(b->e, false, 0x8d, reg, /* LEA */
            (struct emit_memory){m->base, m->index, m->scale, false, (int32_t)m->displacement});
    if (address_size == 2)
        emit_movzx16(b->e, reg, reg);
}

/* Out of line: the interpreter carries the instruction out. */
static struct stub *leave(struct build *b, unsigned i, uint8_t *from)
{
    return build_stub(b, STUB_LEAVE, from,
                      code_cache_site(&b->t->cache, SITE_INTERPRET, b->steps[i].rip, b->unit));
}

/* RCX holds what is negative if all is well: leave otherwise. The flags are kept. */
static void require_negative(struct build *b, unsigned i)
{
    struct emit *e = b->e;
    uint8_t *good;

    emit_rr(e, true, 0xf7, 2, X86_RCX); /* NOT */
    emit_rorx(e, X86_RCX, X86_RCX, 32);
    emit_rr(e, false, 0x8b, X86_RCX, X86_RCX);
    good = emit_jrcxz(e);
    leave(b, i, emit_jump(e))->rcx_saved = true;
    emit_patch_short(good, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
}

/* Whether size bytes at the offset in s1 lie within the limit. */
static void check_limit(struct build *b, unsigned i, unsigned segment, unsigned address_size,
                        unsigned size)
{
    const int32_t last = (int32_t)size - 1;
    struct emit *e = b->e;

    if (b->steps[i].flags_live) {
        emit_store(e, FIELD(saved_rcx), X86_RCX);
        emit_rm(e, false, 0x8b, X86_RCX, SEGMENT_FIELD(segment, limit));
        emit_rr(e, true, 0xf7, 2, X86_RCX); /* NOT: -limit - 1 */
        emit_lea(e, X86_RCX, emit_based(X86_RCX, b->s1, last));
        require_negative(b, i);
    } else if (address_size == 2 || size == 1) {
        if (last)
            emit_rm(e, false, 0x8d, b->s2, emit_based(b->s1, EMIT_NONE, last)); /* LEA */
        emit_rm(e, false, 0x3b, last ? b->s2 : b->s1, SEGMENT_FIELD(segment, limit)); /* CMP */
        leave(b, i, emit_jcc(e, EMIT_ABOVE));
    } else { /* the sum may have 33 bits */
        emit_lea(e, b->s2, emit_based(b->s1, EMIT_NONE, last));
        emit_rr(e, true, 0x8b, b->s1, b->s2);
        emit_rm(e, false, 0x8b, b->s2, SEGMENT_FIELD(segment, limit));
        emit_rr(e, true, 0x3b, b->s1, b->s2); /* CMP */
        leave(b, i, emit_jcc(e, EMIT_ABOVE));
        emit_lea(e, b->s1, emit_based(b->s1, EMIT_NONE, -last));
    }
}

void segment_address(struct build *b, unsigned i, const struct x86_memory *m,
                     unsigned address_size, unsigned size)
{
    segment_offset(b, m, address_size, b->s1);
    if (segment_class(b, m->segment) != SEGMENT_ALL)
        check_limit(b, i, m->segment, address_size, size);
    segment_add_base(b, m->segment, b->s1, b->s2, b->steps[i].flags_live);
}

void segment_add_base(struct build *b, unsigned segment, unsigned reg, unsigned other,
                      bool flags_live)
{
    if (flags_live) {
        emit_rm(b->e, false, 0x8b, other, SEGMENT_FIELD(segment, base));
        emit_rm(b->e, false, 0x8d, reg, emit_based(reg, other, 0)); /* LEA */
    } else {
        emit_rm(b->e, false, 0x03, reg, SEGMENT_FIELD(segment, base)); /* ADD */
    }
}

void segment_require(struct build *b, unsigned i, unsigned reg, uint32_t most)
{
    emit_store(b->e, FIELD(saved_rcx), X86_RCX);
    emit_constant(b->e, X86_RCX, -(uint64_t)most - 1);
    emit_lea(b->e, X86_RCX, emit_based(X86_RCX, reg, 0));
    require_negative(b, i);
}

void segment_check_target(struct build *b, unsigned i, unsigned reg, unsigned size)
{
    if (b->unit->code_limit < (size == 2 ? 0xffff : 0xffffffff))
        segment_require(b, i, reg, b->unit->code_limit);
}

void segment_emit_key(struct build *b, unsigned reg, unsigned other)
{
    const uint32_t base = b->unit->code_base;

    if (!base)
        return;
    emit_constant(b->e, other, unit_key(base, base));
    emit_lea(b->e, reg, emit_based(reg, other, 0));
}

void segment_emit_selector(struct build *b, unsigned segment, unsigned reg)
{
    emit_rm(b->e, false, 0x0fb7, reg, SEGMENT_FIELD(segment, selector)); /* MOVZX */
}

bool segment_loads_simply(const struct build *b, unsigned segment)
{
    return (b->unit->mode & (UNIT_REAL | UNIT_VM)) && segment != X86_CS && segment != X86_SS &&
           segment_class(b, segment) == SEGMENT_WRITE;
}

void segment_emit_load(struct build *b, unsigned segment, unsigned selector, unsigned other)
{
    const uint32_t v86 = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED | X86_SEG_DPL;
    struct emit *e = b->e;

    emit_lea(e, other, (struct emit_memory){EMIT_NONE, (uint8_t)selector, 8, false, 0});
    emit_lea(e, other, emit_based(other, other, 0));
    emit_store(e, SEGMENT_FIELD(segment, base), other);
    emit_u8(e, 0x66);
    emit_rm(e, false, 0x89, selector, SEGMENT_FIELD(segment, selector));
    if (!(b->unit->mode & UNIT_VM))
        return; /* limit and attributes stay, see segment_set_real */
    emit_rm(e, false, 0xc7, 0, SEGMENT_FIELD(segment, limit));
    emit_u32(e, 0xffff);
    emit_u8(e, 0x66);
    emit_rm(e, false, 0xc7, 0, SEGMENT_FIELD(segment, attributes));
    emit_bytes(e, &v86, 2);
}
