/* SYSCALL and SYSRET without leaving emitted code (SDM 2B): a common routine
 * for each, emitted once.
 *
 * Assumption: both enter flat segments and 64-bit code, so all that depends on
 * the mode is known beforehand. What is not as 64-bit kernels have it (flags
 * that the mask leaves alone, single steps, alignment checks, selectors that
 * wrap around, signals that wait for IF) goes to the interpreter, before
 * anything was changed.
 *
 * A routine begins with guest registers as between units, in SCRATCH_A the
 * number of a site for the interpreter (the next one is for what was not found
 * in the jump cache) and in SCRATCH_B the address of the next instruction. */
#include "engine/translate/transfer.h"

#define STATE(name) FIELD(cpu.state.name)

#define SEGMENT(attributes) ((uint64_t)(X86_SEG_P | X86_SEG_S | X86_SEG_G | X86_SEG_ACCESSED | \
                                        X86_SEG_WRITABLE | (attributes)) << 48 | 0xffffffff)

/* Selectors that leave room for what is added to them. */
#define SELECTOR_MAX 0xffc0u

void transfer_refuse_if(struct emit *e, unsigned condition, struct refusals *r)
{
    r->at[r->count++] = emit_jcc(e, condition);
}

static void put_constant(struct emit *e, struct emit_memory m, uint32_t value)
{
    emit_rm(e, false, 0xc7, 0, m); /* MOV DWORD */
    emit_u32(e, value);
}

void transfer_immediate(struct emit *e, unsigned operation, unsigned reg, uint32_t value)
{
    emit_rr(e, false, 0x81, operation, reg); /* ADD, OR, AND, SUB, XOR, CMP by operation */
    emit_u32(e, value);
}

void transfer_test_field(struct emit *e, struct emit_memory m, uint32_t bits)
{
    emit_rm(e, false, 0xf7, 0, m); /* TEST */
    emit_u32(e, bits);
}

void transfer_compare_field(struct emit *e, struct emit_memory m, unsigned value)
{
    emit_rm(e, false, 0x83, 7, m); /* CMP DWORD */
    emit_u8(e, value);
}

/* RAX goes to its home; AH and AL hold the status flags then. */
static void begin(struct emit *e)
{
    emit_store(e, FIELD(scratch_site), SCRATCH_A);
    emit_store(e, HOME(X86_RAX), X86_RAX);
    emit_flags_to_rax(e);
    transfer_test_field(e, STATE(efer), X86_EFER_SCE);
}

static void end_refused(struct translator *t, const struct refusals *r)
{
    struct emit *e = &t->cache.emit;

    for (unsigned i = 0; i < r->count; i++)
        emit_patch(r->at[i], e->at);
    emit_flags_from_rax(e);
    emit_load(e, X86_RAX, HOME(X86_RAX));
    emit_load(e, SCRATCH_A, FIELD(scratch_site));
    emit_jump_to(e, t->leave);
}

/* Of IA32_STAR: SYSCALL's at byte 4, SYSRET's at byte 6; into SCRATCH_A. */
static void load_selector(struct emit *e, size_t at)
{
    emit_rm(e, false, 0x0fb7, SCRATCH_A, /* MOVZX */
            emit_field(offsetof(struct translator, cpu.state.star) + at));
}

/* SCRATCH_A: the selector; SCRATCH_B is lost. */
static void load_segment(struct emit *e, unsigned segment, unsigned add, uint64_t value)
{
    const size_t at = offsetof(struct translator, cpu.state.segment) +
                      segment * sizeof(struct x86_segment);

    emit_constant(e, SCRATCH_B, value + ((uint64_t)add << 32));
    emit_lea(e, SCRATCH_B, emit_based(SCRATCH_B, SCRATCH_A, 0));
    emit_store(e, emit_field(at + offsetof(struct x86_segment, limit)), SCRATCH_B);
    emit_rm(e, true, 0xc7, 0, emit_field(at)); /* MOV QWORD: the base */
    emit_u32(e, 0);
}

void transfer_set_level(struct emit *e, unsigned cpl)
{
    put_constant(e, FIELD(cpu.cpl), cpl);
    put_constant(e, FIELD(cpu.mode), CPU_MODE_64 | (cpl ? CPU_MODE_USER : 0));
    put_constant(e, FIELD(cpu.rights), cpl ? TLB_USER : TLB_SUPERVISOR);
    emit_rm(e, false, 0xc6, 0, FIELD(cpu.check_alignment)); /* MOV BYTE */
    emit_u8(e, 0);
}

/* SCRATCH_A: the selector of CS, SS add beyond it. */
static void enter_level(struct emit *e, unsigned cpl, unsigned cs_add, unsigned ss_add)
{
    const unsigned level = cpl << X86_SEG_DPL_SHIFT;

    emit_rorx(e, SCRATCH_A, SCRATCH_A, 32);
    load_segment(e, X86_CS, cs_add, SEGMENT(level | X86_SEG_CODE | X86_SEG_L));
    load_segment(e, X86_SS, ss_add, SEGMENT(level | X86_SEG_DB));
    transfer_set_level(e, cpl);
}

uint8_t *transfer_look_up(struct emit *e, enum jump_caches which)
{
    const size_t jumps = offsetof(struct translator, jumps) + which * sizeof(struct jump_cache);
    uint8_t *miss;

    emit_rorx(e, SCRATCH_A, SCRATCH_B, JUMP_SPREAD);
    emit_lea(e, SCRATCH_A, emit_based(SCRATCH_A, SCRATCH_B, 0));
    emit_movzx16(e, SCRATCH_A, SCRATCH_A);
    emit_rm(e, true, 0x03, SCRATCH_B, /* ADD */
            emit_element(jumps + offsetof(struct jump_cache, tag), SCRATCH_A));
    miss = emit_jcc(e, EMIT_NOT_EQUAL);
    emit_load(e, SCRATCH_A,
              emit_element(jumps + offsetof(struct jump_cache, code), SCRATCH_A));
    return miss;
}

static void jump_to_scratch(struct emit *e)
{
    emit_rr(e, false, 0xff, 4, SCRATCH_A);
}

void transfer_load_next_site(struct emit *e)
{
    emit_load(e, SCRATCH_A, FIELD(scratch_site));
    emit_lea(e, SCRATCH_A, emit_based(SCRATCH_A, EMIT_NONE, 1));
}

/* All status flags zero: LAHF gives bit 1. */
static void clear_flags(struct emit *e)
{
    put_constant(e, FIELD(kept.a), 0x200);
    keep_emit_how(e, KEEP_IMAGE);
}

/* x87 and MMX are rarely in the host's registers at a system call: C puts them away. */
void transfer_refuse_x87(struct emit *e, struct refusals *r)
{
    emit_rm(e, false, 0x80, 7, FIELD(x87_absent)); /* CMP BYTE */
    emit_u8(e, 0);
    transfer_refuse_if(e, EMIT_EQUAL, r);
}

void transfer_refuse_vectors(struct emit *e, struct refusals *r)
{
    emit_rm(e, false, 0x80, 7, FIELD(sse_absent)); /* CMP BYTE */
    emit_u8(e, 0);
    transfer_refuse_if(e, EMIT_EQUAL, r);
}

void transfer_compare_canonical(struct emit *e, unsigned reg, unsigned other)
{
    emit_rr(e, true, 0x8b, other, reg);
    emit_rr(e, true, 0xc1, 4, other); /* SHL */
    emit_u8(e, 16);
    emit_rr(e, true, 0xc1, 7, other); /* SAR */
    emit_u8(e, 16);
    emit_rr(e, true, 0x39, reg, other); /* CMP */
}

void transfer_put_flags(struct emit *e, unsigned other)
{
    static const uint8_t put[] = {0x88, 0xc4, 0x9e}; /* MOV AH, AL; SAHF */

    emit_rr(e, false, 0x8b, other, X86_RAX);
    emit_rr(e, false, 0xc1, 5, other); /* SHR: OF comes to bit 0 */
    emit_u8(e, 11);
    transfer_immediate(e, IMMEDIATE_AND, other, 1);
    transfer_immediate(e, 0, other, 0x7fffffff); /* ADD: overflows if it is set */
    emit_bytes(e, put, sizeof(put));
}

/* --- SYSCALL --- */

static void emit_system_call(struct translator *t)
{
    const uint32_t masked = X86_STATUS_FLAGS | X86_AC;
    struct emit *e = &t->cache.emit;
    struct refusals refusals = {0};
    uint8_t *miss;

    begin(e);
    transfer_refuse_if(e, EMIT_EQUAL, &refusals);
    transfer_refuse_x87(e, &refusals);
    emit_rm(e, false, 0x8b, SCRATCH_A, STATE(sfmask));
    transfer_immediate(e, IMMEDIATE_AND, SCRATCH_A, masked);
    transfer_immediate(e, IMMEDIATE_CMP, SCRATCH_A, masked);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &refusals);
    load_selector(e, 4);
    transfer_immediate(e, IMMEDIATE_AND, SCRATCH_A, 0xfffc);
    transfer_immediate(e, IMMEDIATE_CMP, SCRATCH_A, SELECTOR_MAX);
    transfer_refuse_if(e, EMIT_ABOVE, &refusals);

    emit_rr(e, true, 0x8b, X86_RCX, SCRATCH_B);
    enter_level(e, 0, 0, 8);
    /* R11: all flags, at its home. Those in state.rflags hold no status flags. */
    emit_rr(e, false, 0x0fb7, SCRATCH_A, X86_RAX); /* MOVZX */
    emit_rorx32(e, SCRATCH_A, SCRATCH_A, 8);
    emit_pext(e, SCRATCH_A, SCRATCH_A, FIELD(lahf_bits));
    emit_pdep(e, SCRATCH_A, SCRATCH_A, FIELD(rflags_bits));
    emit_rm(e, false, 0x8b, SCRATCH_B, STATE(rflags));
    emit_rr(e, false, 0x09, SCRATCH_B, SCRATCH_A); /* OR */
    emit_store(e, HOME(X86_R11), SCRATCH_A);
    emit_rm(e, false, 0x8b, SCRATCH_A, STATE(sfmask));
    emit_rr(e, false, 0xf7, 2, SCRATCH_A); /* NOT */
    emit_rr(e, false, 0x21, SCRATCH_B, SCRATCH_A); /* AND */
    transfer_immediate(e, IMMEDIATE_OR, SCRATCH_A, X86_FLAGS_ONE);
    emit_store(e, STATE(rflags), SCRATCH_A);
    vectors_emit_forget(t);

    emit_load(e, X86_RAX, HOME(X86_RAX));
    emit_load(e, SCRATCH_B, STATE(lstar));
    clear_flags(e);
    miss = transfer_look_up(e, JUMP_SUPERVISOR);
    jump_to_scratch(e);
    emit_patch(miss, e->at);
    emit_load(e, SCRATCH_B, STATE(lstar));
    emit_store(e, FIELD(scratch_target), SCRATCH_B);
    transfer_load_next_site(e);
    emit_jump_to(e, t->kept.leave);
    end_refused(t, &refusals);
}

/* --- SYSRET --- */

static void emit_system_return(struct translator *t)
{
    const uint32_t kept = X86_IF | X86_DF | X86_IOPL | X86_NT | X86_VIF | X86_VIP | X86_ID;
    struct emit *e = &t->cache.emit;
    struct refusals refusals = {0};
    uint8_t *miss;

    begin(e);
    transfer_refuse_if(e, EMIT_EQUAL, &refusals);
    transfer_compare_field(e, FIELD(cpu.cpl), 0);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &refusals);
    transfer_compare_field(e, FIELD(cpu.signals), 0);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &refusals);
    transfer_refuse_vectors(e, &refusals);
    transfer_refuse_x87(e, &refusals);
    transfer_test_field(e, HOME(X86_R11), X86_TF | X86_AC);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &refusals);
    transfer_compare_canonical(e, X86_RCX, SCRATCH_A);
    transfer_refuse_if(e, EMIT_NOT_EQUAL, &refusals);
    load_selector(e, 6);
    transfer_immediate(e, IMMEDIATE_OR, SCRATCH_A, 3);
    transfer_immediate(e, IMMEDIATE_CMP, SCRATCH_A, SELECTOR_MAX);
    transfer_refuse_if(e, EMIT_ABOVE, &refusals);

    enter_level(e, 3, 16, 8);
    emit_load(e, X86_RAX, HOME(X86_RAX));
    emit_load(e, SCRATCH_A, HOME(X86_R11));
    emit_store(e, FIELD(kept.a), SCRATCH_A);
    keep_emit_how(e, KEEP_RFLAGS);
    transfer_immediate(e, IMMEDIATE_AND, SCRATCH_A, kept);
    transfer_immediate(e, IMMEDIATE_OR, SCRATCH_A, X86_FLAGS_ONE);
    emit_store(e, STATE(rflags), SCRATCH_A);

    emit_rr(e, true, 0x8b, SCRATCH_B, X86_RCX);
    miss = transfer_look_up(e, JUMP_USER);
    jump_to_scratch(e);
    emit_patch(miss, e->at);
    emit_store(e, FIELD(scratch_target), X86_RCX);
    transfer_load_next_site(e);
    emit_jump_to(e, t->kept.leave);
    end_refused(t, &refusals);
}

void transfer_emit_routines(struct translator *t)
{
    t->system_call = t->cache.emit.at;
    emit_system_call(t);
    t->system_return = t->cache.emit.at;
    emit_system_return(t);
    t->interrupt_return = t->cache.emit.at;
    iret_emit_routine(t);
}

void transfer_emit(struct build *b, const struct step *s)
{
    struct code_cache *cache = &b->t->cache;
    struct site *site = code_cache_site(cache, SITE_INTERPRET, s->rip, b->unit);

    site->fallback = make_fallback(b, s);
    code_cache_site(cache, SITE_ARRIVED, s->rip, b->unit);
    branch_convert(b, b->unit->home, SCRATCH_HOME);
    emit_constant(b->e, SCRATCH_A, (uint64_t)(site - cache->sites));
    relocate_note(&b->relocations, RELOCATE_SITE, b->e->at - 4);
    elsewhere_constant(b, SCRATCH_B, s->rip + s->insn.length);
    if (s->insn.op == X86_OP_IRET)
        emit_jump_to(b->e, b->t->interrupt_return);
    else
        emit_jump_to(b->e,
                     s->insn.op == X86_OP_SYSCALL ? b->t->system_call : b->t->system_return);
}
