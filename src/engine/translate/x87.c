/* x87 and MMX: while a unit that uses them runs, the host's unit is the guest's.
 *
 * Assumption: programs leave all x87 exceptions masked, and the state is changed
 * behind their back by the interpreter only. So units may use the host's unit as
 * long as no exception is unmasked or pending: then none can come, no instruction
 * waits for one, and the pointers to the last instruction and operand stay what
 * they are, as they are kept for exceptions only (interpret/x87.c). All else is
 * the interpreter's. */
#include <string.h>

#include "engine/translate/build.h"

#define X87_MASKS 0x3fu
#define FSW_ES    (1u << 7)

#define STATE(name) FIELD(cpu.state.fpu.name)

static const uint8_t select_x87[] = {
    0xb8, 1, 0, 0, 0, /* MOV EAX, 1 */
    0x31, 0xd2,       /* XOR EDX, EDX */
};

void x87_emit_load(struct emit *e)
{
    emit_rm(e, false, 0x80, 1, STATE(xstate_bv)); /* OR BYTE: else XRSTOR takes it as initial */
    emit_u8(e, 1);
    emit_bytes(e, select_x87, sizeof(select_x87));
    emit_rm(e, true, 0x0fae, 5, STATE(fcw)); /* XRSTOR64 */
}

/* All but the pointers, which are those of emitted code. C finds the unit empty. */
void x87_emit_save(struct emit *e)
{
    static const uint8_t fninit[] = {0xdb, 0xe3};

    emit_rm(e, false, 0x0fb7, X86_RBX, STATE(fop));
    emit_load(e, X86_RSI, STATE(fip));
    emit_load(e, X86_RDI, STATE(fdp));
    emit_bytes(e, select_x87, sizeof(select_x87));
    emit_rm(e, true, 0x0fae, 4, STATE(fcw)); /* XSAVE64 */
    emit_u8(e, 0x66);
    emit_rm(e, false, 0x89, X86_RBX, STATE(fop));
    emit_store(e, STATE(fip), X86_RSI);
    emit_store(e, STATE(fdp), X86_RDI);
    emit_bytes(e, fninit, sizeof(fninit));
}

bool x87_allow(struct translator *t)
{
    struct x86_state *s = &t->cpu.state;

    t->x87_absent = !t->host_avx || (s->cr0 & (X86_CR0_EM | X86_CR0_TS)) ||
                    (s->fpu.fcw & X87_MASKS) != X87_MASKS || (s->fpu.fsw & FSW_ES);
    /* XRSTOR is strict about the header, which a saved state may have brought along. */
    s->fpu.xstate_bv &= X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
    s->fpu.xcomp_bv = 0;
    memset(s->fpu.reserved3, 0, sizeof(s->fpu.reserved3));
    return !t->x87_absent;
}

bool x87_refine(const struct build *b, struct step *s)
{
    s->x87 = true;
    return build_reaches_segment(b, s->insn.memory.segment);
}

/* FLDCW that unmasks an exception is the interpreter's. */
void x87_emit_control(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    struct site *site = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);
    struct emit *e = b->e;
    uint8_t *masked;

    site->fallback = make_fallback(b, s);
    emit_rm(e, false, 0x0fb7, b->s1,
            memory_reach(b, i, &s->insn.memory, s->insn.address_size, 2, X86_READ)); /* MOVZX */
    emit_store(e, FIELD(scratch_value), b->s1);
    emit_rr(e, false, 0xf7, 2, b->s1); /* NOT, which keeps the flags */
    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_pext(e, X86_RCX, b->s1, FIELD(low_6_bits)); /* X87_MASKS */
    masked = emit_jrcxz(e);
    build_stub(b, STUB_LEAVE, emit_jump(e), site)->rcx_saved = true;
    emit_patch_short(masked, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
    emit_rm(e, false, 0xd9, 5, FIELD(scratch_value));
}
