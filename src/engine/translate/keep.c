/* Flags kept in memory: not they themselves, but what made them, its operands or result, in
 * one to three stores (kept.how, kept.a, kept.b).
 *
 * Assumption: where a unit goes on to code that it does not know, that mostly sets flags
 * before it reads any. So all that goes through the jump cache leaves them in memory, and
 * there are two ways into a unit. The one that the jump cache knows (unit->lazy) finds them
 * there: a unit that reads none from its head on goes ahead, one that passes them on leaves
 * them where they are, and only one that reads them has them made first. Direct links find
 * them in the host's flags. Nothing but the fields tells what they are, so that whoever
 * comes between, as an interrupt at a unit's head, can have them made. */
#include "engine/translate/build.h"
#include "engine/translate/transfer.h"

/* --- Emitted where they are kept and wanted --- */

void keep_emit_how(struct emit *e, uint32_t how)
{
    emit_rm(e, false, 0xc7, 0, FIELD(kept.how)); /* MOV DWORD */
    emit_u32(e, how);
}

void keep_emit_image(struct emit *e, unsigned reg)
{
    if (reg != X86_RAX)
        emit_rr(e, true, 0x8b, reg, X86_RAX);
    emit_flags_to_rax(e);
    emit_store(e, FIELD(kept.a), X86_RAX);
    keep_emit_how(e, KEEP_IMAGE);
    if (reg != X86_RAX)
        emit_rr(e, true, 0x8b, X86_RAX, reg);
}

/* Returns the displacement that tells where to go on. */
static uint8_t *make(const struct translator *t, struct emit *e)
{
    static const uint8_t lea_r11[] = {0x4c, 0x8d, 0x1d}; /* LEA R11, [RIP+displacement] */
    uint8_t *displacement;

    emit_bytes(e, lea_r11, sizeof(lea_r11));
    displacement = e->at;
    emit_u32(e, 0);
    emit_jump_to(e, t->kept.make);
    return displacement;
}

void keep_emit_make(const struct translator *t, struct emit *e)
{
    uint8_t *displacement = make(t, e);

    emit_patch(displacement, e->at);
}

void keep_emit_make_for(const struct translator *t, struct emit *e, const uint8_t *to)
{
    emit_patch(make(t, e), to);
}

/* --- The routines --- */

static void end(struct emit *e)
{
    emit_load(e, X86_RAX, FIELD(kept.rax));
    emit_rr(e, false, 0xff, 4, X86_R11); /* JMP */
}

/* The form for bytes of an operation between registers (SDM 2B); the others are one more. */
static void operate(struct emit *e, unsigned size_log, unsigned opcode, unsigned reg, unsigned rm)
{
    if (size_log == 1)
        emit_u8(e, 0x66);
    emit_rr(e, size_log == 3, opcode + (size_log > 0), reg, rm);
}

enum { ADD_RM = 0x00, SUB_RM = 0x28, CMP_RM = 0x38, TEST_RM = 0x84 };

/* RAX: a, R10: b. */
static void emit_operation(struct emit *e, enum keep_operation operation, unsigned size_log)
{
    switch (operation) {
    case KEEP_TEST:
        operate(e, size_log, TEST_RM, X86_R10, X86_RAX);
        break;
    case KEEP_RESULT:
        operate(e, size_log, TEST_RM, X86_RAX, X86_RAX);
        break;
    case KEEP_CMP:
        operate(e, size_log, CMP_RM, X86_R10, X86_RAX);
        break;
    case KEEP_SUB:
        operate(e, 3, ADD_RM, X86_R10, X86_RAX);
        operate(e, size_log, CMP_RM, X86_R10, X86_RAX);
        break;
    default:
        operate(e, 3, SUB_RM, X86_R10, X86_RAX);
        operate(e, size_log, ADD_RM, X86_R10, X86_RAX);
        break;
    }
}

static void emit_operations(struct translator *t, struct emit *e)
{
    for (unsigned kind = 0; kind < KEEP_IMAGE; kind++) {
        t->kept.routines[kind] = code_of(&t->cache, e->at);
        if (kind & 1) {
            emit_load(e, X86_R10, FIELD(kept.b));
        } else {
            emit_rm(e, true, 0x63, X86_R10, FIELD(kept.how)); /* MOVSXD */
            emit_rr(e, true, 0xc1, 7, X86_R10);               /* SAR */
            emit_u8(e, 8);
        }
        emit_load(e, X86_RAX, FIELD(kept.a));
        emit_operation(e, kind / 8, kind / 2 % 4);
        end(e);
    }
}

void keep_emit_routines(struct translator *t)
{
    struct emit *e = &t->cache.emit;

    t->kept.make = e->at;
    emit_store(e, FIELD(kept.rax), X86_RAX);
    emit_rm(e, false, 0x0fb6, X86_R10, FIELD(kept.how)); /* MOVZX */
    emit_rm(e, false, 0xff, 4, emit_element(offsetof(struct translator, kept.routines), X86_R10));
    emit_operations(t, e);
    t->kept.routines[KEEP_IMAGE] = code_of(&t->cache, e->at);
    emit_load(e, X86_RAX, FIELD(kept.a));
    emit_flags_from_rax(e);
    end(e);
    t->kept.routines[KEEP_RFLAGS] = code_of(&t->cache, e->at);
    emit_load(e, X86_RAX, FIELD(kept.a));
    transfer_put_flags(e, X86_R10);
    end(e);

    t->kept.leave = e->at;
    emit_store(e, FIELD(kept.site), X86_R10);
    keep_emit_make(t, e);
    emit_load(e, X86_R10, FIELD(kept.site));
    emit_jump_to(e, t->leave);
}
