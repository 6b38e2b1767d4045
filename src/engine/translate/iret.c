/* IRET from a 64-bit kernel without leaving emitted code (SDM 2A): a common routine,
 * emitted once, for returns to user and to kernel code of 64 bits.
 *
 * Assumption: a kernel returns with few pairs of selectors, and their descriptors stay as
 * they are. So what the interpreter loaded for a pair is kept (struct known_return), with
 * the eight bytes of each descriptor and with the base and limit of their table. The
 * routine reads these bytes again, and where all is as it was, what is loaded is what was
 * loaded: all checks of selectors and descriptors depend on nothing else, CPL being 0.
 *
 * What is not as kernels mostly have it (a frame that is not in one page that the TLB has,
 * single steps, alignment checks, nested tasks, a blocked NMI, signals that wait for IF,
 * data segments that user code must not keep) goes to the interpreter, before anything was
 * changed. RF, with which a fault returns, only holds off breakpoints, and where there are
 * some no unit runs. */
#include "base/bytes.h"
#include "engine/translate/transfer.h"

#define STATE(name) FIELD(cpu.state.name)

#define TABLE(field)                                                                               \
    (offsetof(struct translator, cpu.tlb.tables) + TLB_SUPERVISOR * sizeof(struct tlb_table) +    \
     offsetof(struct tlb_table, field))

/* The frame on the stack. */
enum { FRAME_RIP = 0, FRAME_CS = 8, FRAME_FLAGS = 16, FRAME_RSP = 24, FRAME_SS = 32,
       FRAME_SIZE = 40 };

#define NULL_SELECTOR(selector) (!((selector) & 0xfffc))

/* --- What is known --- */

/* Whether a descriptor's eight bytes are what the segment was loaded from, and loading it
 * writes nothing (SDM 3A figure 3-8). */
static bool describes(uint64_t bytes, const struct x86_segment *s)
{
    const uint64_t base = (bytes >> 16 & 0xffffff) | (bytes >> 56) << 24;
    const uint16_t attributes = bytes >> 40 & 0xf0ff;
    uint32_t limit = (uint32_t)((bytes & 0xffff) | (bytes >> 32 & 0xf0000));

    if (attributes & X86_SEG_G)
        limit = limit << 12 | 0xfff;
    return s->base == base && s->limit == limit && s->attributes == attributes &&
           (attributes & X86_SEG_ACCESSED);
}

/* The descriptor's address and bytes. False: it is not in the TLB, or in two pages. */
static bool read_descriptor(const struct cpu *cpu, uint16_t selector, uint64_t *ret_address,
                            uint64_t *ret_bytes)
{
    const uint64_t address = cpu->state.gdtr.base + (selector & 0xfff8);
    const uint8_t *host = tlb_read_host(&cpu->tlb, TLB_SUPERVISOR, address);

    *ret_address = address;
    if ((selector & 4) || (address & ~PAGE_MASK) > PAGE_SIZE - 8 || !host)
        return false;
    *ret_bytes = load_le64(host);
    return true;
}

void iret_remember(struct translator *t, unsigned cpl)
{
    const struct x86_state *s = &t->cpu.state;
    const struct x86_segment *cs = &s->segment[X86_CS], *ss = &s->segment[X86_SS];
    struct known_return known = {
        .selectors = cs->selector | (uint32_t)ss->selector << 16,
        .gdt_base = s->gdtr.base,
        .gdt_limit = s->gdtr.limit,
        .cs = *cs,
        .ss = *ss,
    };

    if (cpl != 0 || t->cpu.code_size != X86_MODE_64 || (t->cpu.cpl != 0 && t->cpu.cpl != 3) ||
        !read_descriptor(&t->cpu, cs->selector, &known.cs_address, &known.cs_descriptor) ||
        !describes(known.cs_descriptor, cs))
        return;
    if (NULL_SELECTOR(ss->selector)) {
        if (t->cpu.cpl == 0)
            t->known_returns[RETURN_NULL] = known;
        return;
    }
    if (read_descriptor(&t->cpu, ss->selector, &known.ss_address, &known.ss_descriptor) &&
        describes(known.ss_descriptor, ss) &&
        !((known.cs_address ^ known.ss_address) & PAGE_MASK))
        t->known_returns[t->cpu.cpl ? RETURN_USER : RETURN_KERNEL] = known;
}

/* --- The routine --- */

static struct emit_memory known_field(enum known_returns which, size_t within)
{
    return emit_field(offsetof(struct translator, known_returns) +
                      which * sizeof(struct known_return) + within);
}

#define KNOWN(which, name) known_field(which, offsetof(struct known_return, name))

/* All guest registers but RSP are at home, or in the scratch registers, after this, and
 * the flags in saved_flags. */
static void begin(struct emit *e)
{
    emit_store(e, FIELD(scratch_site), SCRATCH_A);
    emit_store(e, HOME(X86_RAX), X86_RAX);
    emit_flags_to_rax(e);
    emit_store(e, FIELD(saved_flags), X86_RAX);
    emit_store(e, HOME(X86_RCX), X86_RCX);
    emit_store(e, HOME(X86_RDX), X86_RDX);
}

static void restore_registers(struct emit *e)
{
    emit_load(e, X86_RAX, HOME(X86_RAX));
    emit_load(e, X86_RCX, HOME(X86_RCX));
    emit_load(e, X86_RDX, HOME(X86_RDX));
}

static void end_refused(struct translator *t, const struct refusals *r)
{
    struct emit *e = &t->cache.emit;

    for (unsigned i = 0; i < r->count; i++)
        emit_patch(r->at[i], e->at);
    emit_load(e, X86_RAX, FIELD(saved_flags));
    emit_flags_from_rax(e);
    restore_registers(e);
    emit_load(e, SCRATCH_A, FIELD(scratch_site));
    emit_jump_to(e, t->leave);
}

static void refuse_unless_zero(struct emit *e, struct emit_memory byte, struct refusals *r)
{
    emit_rm(e, false, 0x80, 7, byte); /* CMP BYTE */
    emit_u8(e, 0);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, r);
}

/* The distance to host memory of the page at the address in reg into to, if size bytes
 * from there on lie in it; reg is lost. */
static void reach(struct emit *e, unsigned reg, unsigned to, unsigned size, struct refusals *r)
{
    emit_rorx(e, to, reg, 12);
    emit_movzx16(e, to, to);
    emit_rm(e, true, 0x03, reg, emit_element(TABLE(read), to)); /* ADD */
    emit_rr(e, true, 0x81, 7, reg);                              /* CMP */
    emit_u32(e, (uint32_t)(PAGE_SIZE - size));
    transfer_refuse_if(e, EMIT_ABOVE, r);
    emit_load(e, to, emit_element(TABLE(addend), to));
}

/* RAX: the distance to the page of the descriptors. */
static void compare_descriptor(struct emit *e, struct emit_memory address,
                               struct emit_memory bytes, struct refusals *r)
{
    emit_load(e, SCRATCH_A, address);
    emit_load(e, SCRATCH_A, emit_based(SCRATCH_A, X86_RAX, 0));
    emit_rm(e, true, 0x3b, SCRATCH_A, bytes); /* CMP */
    transfer_refuse_if(e, EMIT_NOT_EQUAL, r);
}

static void compare_descriptors(struct emit *e, enum known_returns which, struct refusals *r)
{
    emit_load(e, SCRATCH_A, STATE(gdtr.base));
    emit_rm(e, true, 0x3b, SCRATCH_A, KNOWN(which, gdt_base)); /* CMP */
    transfer_refuse_if(e, EMIT_NOT_EQUAL, r);
    emit_rm(e, false, 0x0fb7, SCRATCH_A, STATE(gdtr.limit)); /* MOVZX */
    emit_rm(e, false, 0x3b, SCRATCH_A, KNOWN(which, gdt_limit));
    transfer_refuse_if(e, EMIT_NOT_EQUAL, r);
    emit_load(e, SCRATCH_A, KNOWN(which, cs_address));
    reach(e, SCRATCH_A, X86_RAX, 8, r);
    compare_descriptor(e, KNOWN(which, cs_address), KNOWN(which, cs_descriptor), r);
    if (which != RETURN_NULL)
        compare_descriptor(e, KNOWN(which, ss_address), KNOWN(which, ss_descriptor), r);
}

/* An outer level must not keep an inner one's data segments; here it has none at all. */
static void refuse_data_segments(struct emit *e, struct refusals *r)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < sizeof(data); i++)
        emit_rm(e, false, i ? 0x0b : 0x8b, SCRATCH_A, /* OR, MOV */
                emit_field(offsetof(struct translator, cpu.state.segment) +
                           data[i] * sizeof(struct x86_segment) +
                           offsetof(struct x86_segment, selector)));
    transfer_immediate(e, IMMEDIATE_AND, SCRATCH_A, X86_SEG_P << 16);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, r);
}

static void load_segment(struct emit *e, unsigned segment, enum known_returns which,
                         size_t within)
{
    const size_t to = offsetof(struct translator, cpu.state.segment) +
                      segment * sizeof(struct x86_segment);

    for (unsigned i = 0; i < sizeof(struct x86_segment); i += 8) {
        emit_load(e, SCRATCH_A, known_field(which, within + i));
        emit_store(e, emit_field(to + i), SCRATCH_A);
    }
}

/* RCX: the target, RDX: the flags, SCRATCH_B: where the host finds the frame. */
static void emit_return(struct translator *t, enum known_returns which, struct refusals *r)
{
    const uint32_t kept = X86_IF | X86_DF | X86_IOPL | X86_VIF | X86_VIP | X86_ID;
    const unsigned cpl = which == RETURN_USER ? 3 : 0;
    struct emit *e = &t->cache.emit;
    uint8_t *miss;

    compare_descriptors(e, which, r);
    if (cpl)
        refuse_data_segments(e, r);
    load_segment(e, X86_CS, which, offsetof(struct known_return, cs));
    load_segment(e, X86_SS, which, offsetof(struct known_return, ss));
    transfer_set_level(e, cpl);
    emit_rr(e, false, 0x8b, X86_RAX, X86_RDX);
    transfer_immediate(e, IMMEDIATE_AND, X86_RAX, kept);
    transfer_immediate(e, IMMEDIATE_OR, X86_RAX, X86_FLAGS_ONE);
    emit_store(e, STATE(rflags), X86_RAX);
    emit_load(e, X86_RSP, emit_based(SCRATCH_B, EMIT_NONE, FRAME_RSP));

    emit_store(e, FIELD(kept.a), X86_RDX);
    keep_emit_how(e, KEEP_RFLAGS);
    emit_rr(e, true, 0x8b, SCRATCH_B, X86_RCX);
    miss = transfer_look_up(e, cpl ? JUMP_USER : JUMP_SUPERVISOR);
    restore_registers(e);
    emit_rr(e, false, 0xff, 4, SCRATCH_A); /* JMP */
    emit_patch(miss, e->at);
    emit_store(e, FIELD(scratch_target), X86_RCX);
    transfer_load_next_site(e);
    restore_registers(e);
    emit_jump_to(e, t->kept.leave);
}

void iret_emit_routine(struct translator *t)
{
    struct emit *e = &t->cache.emit;
    struct refusals common = {0}, refusals[KNOWN_RETURNS] = {0};
    uint8_t *known[KNOWN_RETURNS];

    begin(e);
    transfer_compare_field(e, FIELD(cpu.cpl), 0);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &common);
    transfer_compare_field(e, FIELD(cpu.signals), 0);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &common);
    transfer_refuse_vectors(e, &common);
    transfer_refuse_x87(e, &common);
    refuse_unless_zero(e, STATE(nmi_blocked), &common);
    refuse_unless_zero(e, STATE(nmi_pending), &common);
    transfer_test_field(e, STATE(rflags), X86_NT);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &common);

    emit_rr(e, true, 0x8b, SCRATCH_A, X86_RSP);
    reach(e, SCRATCH_A, SCRATCH_B, FRAME_SIZE, &common);
    emit_lea(e, SCRATCH_B, emit_based(X86_RSP, SCRATCH_B, 0));
    emit_load(e, X86_RCX, emit_based(SCRATCH_B, EMIT_NONE, FRAME_RIP));
    transfer_compare_canonical(e, X86_RCX, X86_RAX);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &common);
    emit_load(e, X86_RDX, emit_based(SCRATCH_B, EMIT_NONE, FRAME_FLAGS));
    emit_rr(e, false, 0x8b, X86_RAX, X86_RDX);
    transfer_immediate(e, IMMEDIATE_AND, X86_RAX, X86_TF | X86_NT | X86_AC);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &common);

    /* EAX: both selectors. That of CS is not null, as no known one is. */
    emit_rm(e, false, 0x0fb7, X86_RAX, emit_based(SCRATCH_B, EMIT_NONE, FRAME_CS)); /* MOVZX */
    emit_rm(e, false, 0x0fb7, SCRATCH_A, emit_based(SCRATCH_B, EMIT_NONE, FRAME_SS));
    emit_rr(e, false, 0xc1, 4, SCRATCH_A); /* SHL */
    emit_u8(e, 16);
    emit_rr(e, false, 0x09, SCRATCH_A, X86_RAX); /* OR */
    emit_rr(e, false, 0x8b, SCRATCH_A, X86_RAX);
    transfer_immediate(e, IMMEDIATE_AND, SCRATCH_A, 0xffff);
    transfer_refuse_if(e, EMIT_EQUAL, &common);
    for (unsigned i = 0; i < KNOWN_RETURNS; i++) {
        emit_rm(e, false, 0x3b, X86_RAX, KNOWN(i, selectors)); /* CMP */
        known[i] = emit_jcc(e, EMIT_EQUAL);
    }
    common.at[common.count++] = emit_jump(e);
    for (unsigned i = 0; i < KNOWN_RETURNS; i++) {
        emit_patch(known[i], e->at);
        emit_return(t, i, &refusals[i]);
        end_refused(t, &refusals[i]);
    }
    end_refused(t, &common);
}
