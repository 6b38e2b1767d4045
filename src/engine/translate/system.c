/* System instructions that kernels run all the time, and BT with a bit offset:
 * code of their own instead of a way to the interpreter and back.
 *
 * Assumption: while emitted code runs, the status flags are in the host's flags
 * and zero in state.rflags, which holds all others. What an instruction may do
 * follows from the unit's mode where it depends on CPL, and from CR4 at the time
 * of translation otherwise: engine.c flushes all code when those bits change. */
#include "engine/translate/build.h"

#define ALL_FLAGS ((uint16_t)(X86_STATUS_FLAGS & 0xfff))
#define BIT(reg)  ((uint16_t)(1u << (reg)))
#define STATE(name) FIELD(cpu.state.name)

static bool supervisor(const struct build *b)
{
    return !(b->unit->mode & CPU_MODE_USER);
}

/* BT and its kin with a bit offset in a register. */
static bool refine_bit_test(const struct build *b, struct step *s)
{
    const struct x86_row *row = &x86_rows[s->insn.row];

    if (s->insn.operands[0].kind != X86_OPERAND_MEMORY ||
        !build_reaches_segment(b, s->insn.memory.segment) ||
        s->insn.operands[1].kind != X86_OPERAND_GPR || s->insn.operand_size < 4 ||
        s->insn.address_size != b->word)
        return false;
    s->flags_read = 0;
    s->flags_killed = row->flags_written & ALL_FLAGS;
    return true;
}

static bool refine_tsc(const struct build *b, struct step *s)
{
    s->mentions = s->writes = BIT(X86_RAX) | BIT(X86_RDX);
    if (s->insn.op == X86_OP_RDTSCP)
        s->mentions = s->writes = BIT(X86_RAX) | BIT(X86_RDX) | BIT(X86_RCX);
    return supervisor(b) || !(b->t->cpu.state.cr4 & X86_CR4_TSD);
}

/* REP MOVS and REP STOS within a page each. */
static bool refine_string(const struct build *b, struct step *s)
{
    s->mentions = s->writes = BIT(X86_RCX) | BIT(X86_RDI) | BIT(X86_RSI);
    if (s->insn.op == X86_OP_STOS) {
        s->mentions = BIT(X86_RCX) | BIT(X86_RDI) | BIT(X86_RAX);
        s->writes = BIT(X86_RCX) | BIT(X86_RDI);
    }
    return (s->insn.prefixes & X86_PREFIX_REP) && s->insn.address_size == b->word &&
           !(s->insn.prefixes & X86_PREFIX_SEGMENT);
}

static bool refine(const struct build *b, struct step *s)
{
    const struct x86_operand *o = s->insn.operands;

    switch (s->insn.op) {
    case X86_OP_CLI: case X86_OP_STI: case X86_OP_SWAPGS:
        return supervisor(b);
    case X86_OP_STAC: case X86_OP_CLAC:
        /* The next unit is linked: there is no jump cache from mode to mode. */
        return supervisor(b) && b->word == 8 && !((s->rip ^ (s->rip + s->insn.length)) & PAGE_MASK);
    case X86_OP_SYSCALL:
        s->flags_read = ALL_FLAGS;
        return !supervisor(b) && b->word == 8;
    case X86_OP_SYSRET:
        s->flags_read = ALL_FLAGS;
        return supervisor(b) && b->word == 8 && s->insn.operand_size == 8;
    case X86_OP_IRET:
        s->flags_read = ALL_FLAGS;
        return supervisor(b) && b->word == 8 && s->insn.operand_size == 8 &&
               !(b->unit->mode & UNIT_AC);
    case X86_OP_CLD: case X86_OP_STD: case X86_OP_PAUSE:
        return true;
    case X86_OP_PUSHF:
        s->flags_read = ALL_FLAGS;
        s->mentions = BIT(X86_RSP) | BIT(X86_RAX);
        s->writes = BIT(X86_RSP);
        return s->insn.operand_size == 8;
    case X86_OP_MOV_FROM_SREG:
        return o[0].kind == X86_OPERAND_GPR;
    case X86_OP_MOV_FROM_CR:
        return supervisor(b) && o[1].reg != 8;
    case X86_OP_RDTSC: case X86_OP_RDTSCP:
        return refine_tsc(b, s);
    case X86_OP_RDFSBASE: case X86_OP_RDGSBASE: case X86_OP_WRFSBASE: case X86_OP_WRGSBASE:
        return (b->t->cpu.state.cr4 & X86_CR4_FSGSBASE) && o[0].size == 8;
    case X86_OP_BT: case X86_OP_BTS: case X86_OP_BTR: case X86_OP_BTC:
        return refine_bit_test(b, s);
    case X86_OP_MOVS: case X86_OP_STOS:
        return refine_string(b, s);
    case X86_OP_FLDCW:
        return x87_refine(b, s);
    default:
        return false;
    }
}

static enum step_kind kind_of(enum x86_op op)
{
    switch (op) {
    case X86_OP_STAC: case X86_OP_CLAC: return STEP_MODE;
    case X86_OP_SYSCALL: case X86_OP_SYSRET: case X86_OP_IRET: return STEP_TRANSFER;
    default: return STEP_SYSTEM;
    }
}

void system_refine(const struct build *b, struct step *s)
{
    struct step refined = *s;

    if (!b->t->offered[x86_rows[s->insn.row].feature] ||
        (b->segmented ? !sixteen_knows_system(&s->insn)
                      : b->word == 4 && (s->insn.prefixes & X86_PREFIX_ADDRESS)))
        return;
    refined.flags_read = refined.flags_killed = 0;
    if (!refine(b, &refined))
        return;
    refined.kind = kind_of(s->insn.op);
    *s = refined;
}

void flags_save(struct build *b)
{
    emit_store(b->e, FIELD(saved_rax), X86_RAX);
    emit_flags_to_rax(b->e);
    emit_store(b->e, FIELD(saved_flags), X86_RAX);
    emit_load(b->e, X86_RAX, FIELD(saved_rax));
}

void flags_restore(struct build *b)
{
    emit_store(b->e, FIELD(saved_rax), X86_RAX);
    emit_load(b->e, X86_RAX, FIELD(saved_flags));
    emit_flags_from_rax(b->e);
    emit_load(b->e, X86_RAX, FIELD(saved_rax));
}

/* A flag that lives in state.rflags. without: the mask of all others. */
static void set_flag(struct build *b, bool live, uint32_t flag, bool to, size_t without)
{
    struct emit *e = b->e;

    if (!live) {
        emit_rm(e, false, 0x81, to ? 1 : 4, STATE(rflags)); /* OR, AND */
        emit_u32(e, to ? flag : ~flag);
        return;
    }
    emit_rm(e, false, 0x8b, b->s1, STATE(rflags));
    emit_pext(e, b->s1, b->s1, emit_field(without));
    emit_pdep(e, b->s1, b->s1, emit_field(without));
    if (to)
        emit_lea(e, b->s1, emit_based(b->s1, EMIT_NONE, (int32_t)flag));
    emit_rm(e, false, 0x89, b->s1, STATE(rflags));
}

/* Without a signal that waits there is nothing to hold off for an instruction;
 * with one, the interpreter sees to the shadow. */
static void emit_sti(struct build *b, const struct step *s)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);

    site->fallback = make_fallback(b, s);
    branch_poll(b, offsetof(struct translator, cpu.signals), false, s->flags_live, site);
    set_flag(b, s->flags_live, X86_IF, true, offsetof(struct translator, without_if));
}

static void emit_access_rights(struct build *b, const struct step *s)
{
    const bool set = s->insn.op == X86_OP_STAC;

    set_flag(b, s->flags_live, X86_AC, set, offsetof(struct translator, without_ac));
    emit_rm(b->e, false, 0xc7, 0, FIELD(cpu.rights));
    emit_u32(b->e, set ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR);
}

static void emit_swapgs(struct build *b)
{
    emit_load(b->e, b->s1, STATE(segment[X86_GS].base));
    emit_load(b->e, b->s2, STATE(kernel_gs_base));
    emit_store(b->e, STATE(segment[X86_GS].base), b->s2);
    emit_store(b->e, STATE(kernel_gs_base), b->s1);
}

static void emit_pushf(struct build *b, unsigned i)
{
    struct x86_memory stack = memory_stack(-8);
    struct emit *e = b->e;
    struct emit_memory m;

    emit_rr(e, true, 0x8b, b->s1, X86_RAX);
    emit_flags_to_rax(e);
    emit_rr(e, false, 0x0fb7, b->s2, X86_RAX);
    emit_flags_from_rax(e);
    emit_rr(e, true, 0x8b, X86_RAX, b->s1);
    emit_rorx32(e, b->s2, b->s2, 8);
    emit_pext(e, b->s2, b->s2, FIELD(lahf_bits));
    emit_pdep(e, b->s2, b->s2, FIELD(rflags_bits));
    emit_rm(e, false, 0x8b, b->s1, STATE(rflags));
    emit_lea(e, b->s1, emit_based(b->s1, b->s2, -2)); /* bit 1 came with LAHF too */
    emit_store(e, FIELD(scratch_value), b->s1);
    m = memory_reach(b, i, &stack, 8, 8, X86_WRITE);
    emit_load(e, b->s1, FIELD(scratch_value));
    emit_store(e, m, b->s1);
    emit_lea(e, X86_RSP, emit_based(X86_RSP, EMIT_NONE, -8));
}

static void emit_from_segment(struct build *b, const struct step *s)
{
    struct emit_memory selector = emit_field(offsetof(struct translator, cpu.state.segment) +
                                             s->insn.operands[1].reg * sizeof(struct x86_segment) +
                                             offsetof(struct x86_segment, selector));

    if (s->insn.operand_size == 2) {
        emit_u8(b->e, 0x66);
        emit_rm(b->e, false, 0x8b, s->insn.operands[0].reg, selector);
    } else {
        emit_rm(b->e, false, 0x0fb7, s->insn.operands[0].reg, selector);
    }
}

static void emit_from_control(struct build *b, const struct step *s)
{
    static const size_t fields[5] = {
        offsetof(struct translator, cpu.state.cr0), 0, offsetof(struct translator, cpu.state.cr2),
        offsetof(struct translator, cpu.state.cr3), offsetof(struct translator, cpu.state.cr4),
    };

    emit_load(b->e, s->insn.operands[0].reg, emit_field(fields[s->insn.operands[1].reg]));
}

static void emit_tsc(struct build *b, const struct step *s)
{
    static const uint8_t rdtsc[] = {0x0f, 0x31};
    static const uint8_t lfence[] = {0x0f, 0xae, 0xe8};
    struct emit *e = b->e;

    if (s->insn.op == X86_OP_RDTSCP)
        emit_bytes(e, lfence, sizeof(lfence));
    emit_bytes(e, rdtsc, sizeof(rdtsc));
    emit_rorx(e, X86_RDX, X86_RDX, 32);
    emit_lea(e, X86_RAX, emit_based(X86_RAX, X86_RDX, 0));
    emit_load(e, X86_RDX, STATE(tsc_offset));
    emit_lea(e, X86_RDX, emit_based(X86_RAX, X86_RDX, 0));
    emit_rr(e, false, 0x8b, X86_RAX, X86_RDX);
    emit_rorx(e, X86_RDX, X86_RDX, 32);
    emit_rr(e, false, 0x8b, X86_RDX, X86_RDX);
    if (s->insn.op == X86_OP_RDTSCP)
        emit_rm(e, false, 0x8b, X86_RCX, STATE(tsc_aux));
}

/* To the interpreter, with the flags as they were. */
static void leave_if(struct build *b, unsigned condition, bool flags_live, struct site *leave)
{
    build_stub(b, STUB_LEAVE, emit_jcc(b->e, condition), leave)->flags_saved = flags_live;
}

/* The host's own; now and then the interpreter's, which gives way to other threads. */
static void emit_pause(struct build *b, const struct step *s)
{
    static const uint8_t pause[] = {0xf3, 0x90};
    struct site *leave = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);
    struct emit *e = b->e;

    leave->fallback = make_fallback(b, s);
    if (s->flags_live)
        flags_save(b);
    emit_rm(e, false, 0x83, 0, FIELD(cpu.pauses)); /* ADD */
    emit_u8(e, 1);
    emit_rm(e, false, 0x83, 7, FIELD(cpu.pauses)); /* CMP */
    emit_u8(e, CPU_PAUSES - 1);
    leave_if(b, EMIT_ABOVE, s->flags_live, leave);
    emit_bytes(e, pause, sizeof(pause));
    if (s->flags_live)
        flags_restore(b);
}

/* A base that is not canonical is for the interpreter: #GP. */
static void emit_write_base(struct build *b, const struct step *s, unsigned segment)
{
    const unsigned reg = s->insn.operands[0].reg;
    struct site *leave = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);
    struct emit *e = b->e;

    leave->fallback = make_fallback(b, s);
    if (s->flags_live)
        flags_save(b);
    emit_rr(e, true, 0x8b, b->s1, reg);
    emit_rr(e, true, 0xc1, 4, b->s1); /* SHL */
    emit_u8(e, 16);
    emit_rr(e, true, 0xc1, 7, b->s1); /* SAR */
    emit_u8(e, 16);
    emit_rr(e, true, 0x39, reg, b->s1); /* CMP */
    leave_if(b, EMIT_NOT_EQUAL, s->flags_live, leave);
    emit_store(e, emit_field(offsetof(struct translator, cpu.state.segment) +
                             segment * sizeof(struct x86_segment)), reg);
    if (s->flags_live)
        flags_restore(b);
}

/* The word that the bit lies in, then the bit in it (SDM 2A BT). ZF is kept. */
static void emit_bit_test(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *o = s->insn.operands;
    const bool wide = s->insn.operand_size == 8;
    const unsigned bit = o[1].reg;
    struct emit *e = b->e;
    struct emit_memory m;

    m = memory_reach_bits(b, i, bit, wide, o[0].access);
    if (s->insn.op == X86_OP_BT) {
        emit_rm(e, wide, 0x8b, b->s1, m);
        emit_rr(e, wide, 0x0fa3, bit, b->s1);
        return;
    }
    emit_lea(e, b->s1, m);
    emit_pext(e, b->s2, bit, wide ? FIELD(low_6_bits) : FIELD(low_5_bits));
    if (s->insn.prefixes & X86_PREFIX_LOCK)
        emit_u8(e, 0xf0);
    emit_rm(e, wide, 0x0f00 | s->insn.opcode, b->s2, emit_based(b->s1, EMIT_NONE, 0));
}

/* The addend of the page at reg into s2, if the whole run lies in it; else to leave. */
static void reach_run(struct build *b, const struct step *s, unsigned reg, unsigned access,
                      struct site *leave)
{
    const unsigned size = s->insn.operands[0].size;
    static const uint8_t test_rcx[] = {0x48, 0x81, 0xf9}; /* CMP RCX */
    struct emit *e = b->e;

    emit_bytes(e, test_rcx, sizeof(test_rcx)); /* else RCX * size could overflow */
    emit_u32(e, PAGE_SIZE);
    leave_if(b, EMIT_ABOVE, s->flags_live, leave);
    memory_page_offset(b, reg, access);
    emit_lea(e, b->s1, (struct emit_memory){b->s1, X86_RCX, (uint8_t)size, false, 0});
    emit_rr(e, true, 0x81, 7, b->s1); /* CMP */
    emit_u32(e, PAGE_SIZE);
    leave_if(b, EMIT_ABOVE, s->flags_live, leave);
    memory_page_addend(b);
}

static void emit_string(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const bool moves = s->insn.op == X86_OP_MOVS;
    struct site *leave = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);
    struct emit *e = b->e;

    leave->fallback = make_fallback(b, s);
    if (s->flags_live)
        flags_save(b);
    emit_rm(e, false, 0xf7, 0, STATE(rflags)); /* TEST */
    emit_u32(e, X86_DF);
    leave_if(b, EMIT_NOT_EQUAL, s->flags_live, leave);
    if (moves) {
        reach_run(b, s, X86_RSI, X86_READ, leave);
        emit_store(e, FIELD(scratch_value), b->s2);
    }
    reach_run(b, s, X86_RDI, X86_WRITE, leave);
    if (moves) {
        emit_load(e, b->s1, FIELD(scratch_value));
        emit_lea(e, X86_RSI, emit_based(X86_RSI, b->s1, 0));
    }
    emit_lea(e, X86_RDI, emit_based(X86_RDI, b->s2, 0));
    emit_bytes(e, s->bytes, s->insn.length);
    emit_rr(e, true, 0x29, b->s2, X86_RDI); /* SUB */
    if (moves)
        emit_rr(e, true, 0x29, b->s1, X86_RSI);
    if (b->word == 4) { /* past the last page they wrap around */
        emit_rr(e, false, 0x8b, X86_RDI, X86_RDI);
        if (moves)
            emit_rr(e, false, 0x8b, X86_RSI, X86_RSI);
    }
    if (s->flags_live)
        flags_restore(b);
}

void system_emit(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    if (s->kind == STEP_TRANSFER) {
        transfer_emit(b, s);
        return;
    }
    begin_step(b, s, true);
    group_forget(b);
    switch (s->insn.op) {
    case X86_OP_CLI:
        set_flag(b, s->flags_live, X86_IF, false, offsetof(struct translator, without_if));
        break;
    case X86_OP_CLD:
        set_flag(b, s->flags_live, X86_DF, false, offsetof(struct translator, without_df));
        break;
    case X86_OP_STD:
        set_flag(b, s->flags_live, X86_DF, true, offsetof(struct translator, without_df));
        break;
    case X86_OP_STI: emit_sti(b, s); break;
    case X86_OP_STAC: case X86_OP_CLAC: emit_access_rights(b, s); break;
    case X86_OP_SWAPGS: emit_swapgs(b); break;
    case X86_OP_PUSHF: emit_pushf(b, i); break;
    case X86_OP_MOV_FROM_SREG: emit_from_segment(b, s); break;
    case X86_OP_MOV_FROM_CR: emit_from_control(b, s); break;
    case X86_OP_RDTSC: case X86_OP_RDTSCP: emit_tsc(b, s); break;
    case X86_OP_RDFSBASE:
        emit_load(b->e, s->insn.operands[0].reg, STATE(segment[X86_FS].base));
        break;
    case X86_OP_RDGSBASE:
        emit_load(b->e, s->insn.operands[0].reg, STATE(segment[X86_GS].base));
        break;
    case X86_OP_FLDCW: x87_emit_control(b, i); break;
    case X86_OP_PAUSE: emit_pause(b, s); break;
    case X86_OP_WRFSBASE: emit_write_base(b, s, X86_FS); break;
    case X86_OP_WRGSBASE: emit_write_base(b, s, X86_GS); break;
    case X86_OP_MOVS: case X86_OP_STOS:
        emit_string(b, i);
        break;
    default: emit_bit_test(b, i); break;
    }
    end_step(b, s);
}
