/* The two routines every change between C and emitted code goes through. They
 * are emitted once, at the start of the cache. Assumption: emitted code never
 * uses the stack, since RSP is the guest's; the host's waits in host_rsp. */
#include "engine/translate/translator.h"

#define FIELD(name) emit_field(offsetof(struct translator, name))
#define GPR(reg)    emit_field(offsetof(struct translator, cpu.state.gpr) + 8 * (reg))
#define XMM(i)      emit_field(offsetof(struct translator, cpu.state.fpu.xmm) + 16 * (i))
#define YMM_HIGH(i) emit_field(offsetof(struct translator, cpu.state.fpu.ymm_high) + 16 * (i))

/* What the C calling convention wants kept (System V ABI 3.2.1). */
static const uint8_t kept[] = {X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};

static void emit_push(struct emit *e, unsigned reg)
{
    if (reg >> 3)
        emit_u8(e, 0x41);
    emit_u8(e, 0x50 | (reg & 7));
}

static void emit_pop(struct emit *e, unsigned reg)
{
    if (reg >> 3)
        emit_u8(e, 0x41);
    emit_u8(e, 0x58 | (reg & 7));
}

/* A VEX instruction with a field as its memory operand (SDM 2A 2.3.5). */
static void emit_vex(struct emit *e, unsigned map, unsigned prefix, bool wide, unsigned vvvv,
                     unsigned opcode, unsigned reg, struct emit_memory m)
{
    emit_u8(e, 0x65);
    emit_u8(e, 0xc4);
    emit_u8(e, (reg >> 3 ? 0 : 0x80) | 0x60 | map);
    emit_u8(e, (~vvvv & 0xf) << 3 | (unsigned)wide << 2 | prefix);
    emit_u8(e, opcode);
    emit_modrm(e, reg, &m);
}

static void emit_load_low(struct emit *e)
{
    for (unsigned i = 0; i < 16; i++)
        emit_rm(e, false, 0x0f10, i, XMM(i)); /* MOVUPS */
}

/* Upper halves that are zero are left so by VZEROUPPER: while the host thinks that
 * they hold something, it makes each SSE instruction wait for what its destination
 * held before (SDM 3A 14.3 tells of such costs for Intel's CPUs; AMD's have them too). */
static void emit_load_all(struct emit *e)
{
    static const uint8_t test[] = {0xc4, 0xe2, 0x7d, 0x17, 0xc0}; /* VPTEST YMM0, YMM0 */
    static const uint8_t vzeroupper[] = {0xc5, 0xf8, 0x77};
    uint8_t *zero, *end;

    emit_vex(e, 1, 0, true, 0, 0x10, 0, YMM_HIGH(0)); /* VMOVUPS */
    for (unsigned i = 2; i < 16; i += 2)
        emit_vex(e, 1, 0, true, 0, 0x56, 0, YMM_HIGH(i)); /* VORPS */
    emit_bytes(e, test, sizeof(test));
    zero = emit_jcc(e, EMIT_EQUAL);
    for (unsigned i = 0; i < 16; i++) {
        emit_vex(e, 1, 0, false, 0, 0x10, i, XMM(i));
        emit_vex(e, 3, 1, true, i, 0x18, i, YMM_HIGH(i)); /* VINSERTF128 */
        emit_u8(e, 1);
    }
    end = emit_jump(e);
    emit_patch(zero, e->at);
    emit_bytes(e, vzeroupper, sizeof(vzeroupper));
    emit_load_low(e);
    emit_patch(end, e->at);
}

static void emit_load_vectors(struct emit *e, bool avx)
{
    if (avx)
        emit_load_all(e);
    else
        emit_load_low(e);
    emit_rm(e, false, 0x0fae, 2, FIELD(cpu.state.fpu.mxcsr)); /* LDMXCSR */
}

static void emit_save_vectors(struct emit *e, bool avx)
{
    static const uint8_t vzeroupper[] = {0xc5, 0xf8, 0x77};

    for (unsigned i = 0; i < 16; i++) {
        if (!avx) {
            emit_rm(e, false, 0x0f11, i, XMM(i));
            continue;
        }
        emit_vex(e, 1, 0, false, 0, 0x11, i, XMM(i));
        emit_vex(e, 3, 1, true, 0, 0x19, i, YMM_HIGH(i)); /* VEXTRACTF128 */
        emit_u8(e, 1);
    }
    if (avx)
        emit_bytes(e, vzeroupper, sizeof(vzeroupper));
    emit_rm(e, false, 0x0fae, 3, FIELD(cpu.state.fpu.mxcsr)); /* STMXCSR */
    emit_rm(e, false, 0x0fae, 2, FIELD(host_mxcsr));
}

/* Skip what follows when the registers of that kind are not the guest's. */
static uint8_t *emit_unless_absent(struct emit *e, struct emit_memory absent)
{
    emit_rm(e, false, 0x80, 7, absent); /* CMP BYTE, 0 */
    emit_u8(e, 0);
    return emit_jcc(e, EMIT_NOT_EQUAL);
}

void vectors_emit_forget(struct translator *t)
{
    struct emit *e = &t->cache.emit;
    uint8_t *skip = emit_unless_absent(e, FIELD(sse_absent));

    emit_save_vectors(e, t->host_avx);
    emit_rm(e, false, 0xc6, 0, FIELD(sse_absent)); /* MOV BYTE, 1 */
    emit_u8(e, 1);
    emit_rm(e, false, 0xc6, 0, FIELD(avx_absent));
    emit_u8(e, 1);
    emit_patch(skip, e->at);
}

/* RFLAGS of the guest into EAX, then into the host's flags without POPF, which
 * is slow: SAHF for all but OF, which an addition that overflows sets. */
static void emit_load_flags(struct emit *e)
{
    static const uint8_t code[] = {
        0x89, 0xc1,       /* MOV ECX, EAX */
        0xc1, 0xe9, 0x0b, /* SHR ECX, 11 */
        0x83, 0xe1, 0x01, /* AND ECX, 1 */
        0x80, 0xc1, 0x7f, /* ADD CL, 127 */
        0x88, 0xc4,       /* MOV AH, AL */
        0x9e,             /* SAHF */
    };

    emit_rm(e, false, 0x8b, X86_RAX, FIELD(cpu.state.rflags));
    emit_rm(e, false, 0x81, 4, FIELD(cpu.state.rflags)); /* AND: they are in one place */
    emit_u32(e, ~(uint32_t)X86_STATUS_FLAGS);
    emit_bytes(e, code, sizeof(code));
}

static void emit_save_flags(struct emit *e)
{
    emit_u8(e, 0x9c); /* PUSHF */
    emit_pop(e, X86_RAX);
    emit_u8(e, 0x25); /* AND EAX */
    emit_u32(e, X86_STATUS_FLAGS);
    emit_rm(e, false, 0x09, X86_RAX, FIELD(cpu.state.rflags)); /* OR */
}

static bool at_home(unsigned reg)
{
    return SCRATCH_HOME >> reg & 1;
}

static void emit_enter(struct translator *t, struct emit *e, bool avx)
{
    uint8_t *skip;

    for (unsigned i = 0; i < sizeof(kept); i++)
        emit_push(e, kept[i]);
    emit_store(e, FIELD(host_rsp), X86_RSP);
    emit_store(e, FIELD(enter_target), X86_RSI);
    skip = emit_unless_absent(e, FIELD(sse_absent));
    emit_load_vectors(e, avx);
    emit_patch(skip, e->at);
    skip = emit_unless_absent(e, FIELD(x87_absent));
    x87_emit_load(e);
    emit_patch(skip, e->at);
    emit_load_flags(e);
    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (!at_home(reg))
            emit_load(e, reg, GPR(reg));
    emit_rm(e, false, 0xff, 4, FIELD(enter_target)); /* JMP */
    (void)t;
}

/* R10D holds the number of the site. */
static void emit_leave(struct translator *t, struct emit *e, bool avx)
{
    uint8_t *skip;

    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (!at_home(reg))
            emit_store(e, GPR(reg), reg);
    emit_load(e, X86_RSP, FIELD(host_rsp));
    emit_save_flags(e);
    skip = emit_unless_absent(e, FIELD(sse_absent));
    emit_save_vectors(e, avx);
    emit_patch(skip, e->at);
    skip = emit_unless_absent(e, FIELD(x87_absent));
    x87_emit_save(e);
    emit_patch(skip, e->at);
    emit_rr(e, false, 0x8b, X86_RAX, X86_R10);
    for (unsigned i = sizeof(kept); i-- > 0;)
        emit_pop(e, kept[i]);
    emit_u8(e, 0xc3);
    (void)t;
}

void enter_emit_routines(struct translator *t)
{
    struct emit *e = &t->cache.emit;

    t->enter = code_of(&t->cache, e->at);
    emit_enter(t, e, t->host_avx);
    t->leave = e->at;
    emit_leave(t, e, t->host_avx);
}

unsigned enter_code(struct translator *t, const uint8_t *code)
{
    unsigned (*enter)(struct translator *, const uint8_t *) =
        (unsigned (*)(struct translator *, const uint8_t *))(uintptr_t)t->enter;

    return enter(t, code);
}

#define MXCSR_MASKS 0x1f80u

static bool unmasked(const struct x86_state *s)
{
    return (s->fpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS;
}

bool vectors_may_trap(const struct cpu *cpu)
{
    return cpu->cpl == 3 && unmasked(&cpu->state);
}

/* Whether the guest may use SSE now (SDM 3A 2.5, 13.1). The host raises unmasked
 * exceptions as signals, for which only user code is made. */
static bool sse_permitted(const struct cpu *cpu)
{
    const struct x86_state *s = &cpu->state;

    return !(s->cr0 & (X86_CR0_EM | X86_CR0_TS)) && (s->cr4 & X86_CR4_OSFXSR) &&
           (cpu->cpl == 3 || !unmasked(s)) && !(s->fpu.mxcsr >> 16);
}

bool vectors_allow(struct translator *t, bool avx)
{
    const struct x86_state *s = &t->cpu.state;
    const uint64_t needed = X86_XCR0_SSE | X86_XCR0_AVX;

    t->sse_absent = !sse_permitted(&t->cpu);
    t->avx_absent = t->sse_absent || !t->host_avx || !(s->cr4 & X86_CR4_OSXSAVE) ||
                    (s->xcr0 & needed) != needed;
    return !(avx ? t->avx_absent : t->sse_absent);
}

void vectors_forget(struct translator *t)
{
    t->sse_absent = t->avx_absent = t->x87_absent = 1;
}
