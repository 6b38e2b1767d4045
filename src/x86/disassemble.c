/* A decoded instruction as text, Intel syntax, for logs and reports. */
#include "x86/decode.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "x86/decode-table.h"

struct text {
    char *buffer;
    size_t length, used;
};

__attribute__((format(printf, 2, 3))) static void append(struct text *t, const char *format, ...)
{
    va_list arguments;
    int n;

    if (t->used >= t->length)
        return;
    va_start(arguments, format);
    n = vsnprintf(t->buffer + t->used, t->length - t->used, format, arguments);
    va_end(arguments);
    t->used += n > 0 ? (size_t)n : 0;
}

static const char *const conditions[] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                         "s", "ns", "p", "np", "l", "nl", "le", "nle"};
static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};

static void append_gpr(struct text *t, unsigned reg, unsigned size, bool high_byte, bool rex)
{
    static const char *const bytes[] = {"al", "cl", "dl", "bl"};
    static const char *const high[] = {"ah", "ch", "dh", "bh"};
    static const char *const words[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};

    if (high_byte)
        append(t, "%s", high[reg & 3]);
    else if (reg >= 8)
        append(t, "r%u%s", reg, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
    else if (size == 1 && reg < 4)
        append(t, "%s", bytes[reg]);
    else if (size == 1)
        append(t, "%s%s", words[reg], rex ? "l" : "");
    else
        append(t, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", words[reg]);
}

static void append_signed(struct text *t, int64_t value, bool first)
{
    if (value < 0)
        append(t, "-0x%" PRIx64, -(uint64_t)value);
    else
        append(t, "%s0x%" PRIx64, first ? "" : "+", (uint64_t)value);
}

static const char *datum(unsigned size)
{
    switch (size) {
    case 1: return "byte ptr ";
    case 2: return "word ptr ";
    case 4: return "dword ptr ";
    case 6: return "fword ptr ";
    case 8: return "qword ptr ";
    case 10: return "tbyte ptr ";
    case 16: return "xmmword ptr ";
    case 32: return "ymmword ptr ";
    default: return "";
    }
}

static void append_memory(struct text *t, const struct x86_insn *insn, unsigned size, uint64_t rip,
                          bool destination)
{
    const struct x86_memory *m = &insn->memory;
    bool first = true;

    append(t, "%s", datum(size));
    if (destination) { /* of a string instruction: it is always ES:[rDI] */
        append(t, "%s[", insn->mode == X86_MODE_64 ? "" : "es:");
        append_gpr(t, X86_RDI, insn->address_size, false, false);
        append(t, "]");
        return;
    }
    if ((insn->prefixes & X86_PREFIX_SEGMENT) && m->segment <= X86_GS &&
        (insn->mode != X86_MODE_64 || m->segment >= X86_FS))
        append(t, "%s:", segments[m->segment]);
    append(t, "[");
    if (m->rip_relative) {
        const uint64_t target = rip + insn->length + (uint64_t)m->displacement;

        append(t, "rip:0x%" PRIx64 "]", insn->address_size == 4 ? (uint32_t)target : target);
        return;
    }
    if (m->base != X86_NO_REGISTER) {
        append_gpr(t, m->base, insn->address_size, false, false);
        first = false;
    }
    if (m->index != X86_NO_REGISTER) {
        append(t, first ? "" : "+");
        if (m->vsib)
            append(t, "%smm%u", x86_patterns[insn->row].vsib == 2 ? "y" : "x", m->index);
        else
            append_gpr(t, m->index, insn->op == X86_OP_XLAT ? 1 : insn->address_size, false, false);
        if (m->scale > 1)
            append(t, "*%u", m->scale);
        first = false;
    }
    if (m->displacement || first)
        append_signed(t, m->displacement, first);
    append(t, "]");
}

static bool string_destination(const struct x86_insn *insn, unsigned i)
{
    switch (insn->op) {
    case X86_OP_MOVS: case X86_OP_STOS: case X86_OP_INS: return i == 0;
    case X86_OP_CMPS: case X86_OP_SCAS: return i == 1;
    default: return false;
    }
}

static void append_operand(struct text *t, const struct x86_insn *insn, unsigned i, uint64_t rip,
                           bool second_immediate)
{
    const struct x86_operand *operand = &insn->operands[i];
    const int64_t immediate = second_immediate ? insn->immediate2 : insn->immediate;
    const uint64_t mask = operand->size >= 8 ? UINT64_MAX : (1ull << operand->size * 8) - 1;
    uint64_t target;

    switch (operand->kind) {
    case X86_OPERAND_GPR:
        append_gpr(t, operand->reg, operand->size, operand->high_byte, insn->rex);
        break;
    case X86_OPERAND_SEGMENT: append(t, "%s", segments[operand->reg % ARRAY_SIZE(segments)]); break;
    case X86_OPERAND_CONTROL: append(t, "cr%u", operand->reg); break;
    case X86_OPERAND_DEBUG: append(t, "dr%u", operand->reg); break;
    case X86_OPERAND_ST: append(t, "st(%u)", operand->reg); break;
    case X86_OPERAND_MMX: append(t, "mm%u", operand->reg); break;
    case X86_OPERAND_XMM: append(t, "xmm%u", operand->reg); break;
    case X86_OPERAND_YMM: append(t, "ymm%u", operand->reg); break;
    case X86_OPERAND_MEMORY:
        append_memory(t, insn, operand->size, rip, string_destination(insn, i));
        break;
    case X86_OPERAND_IMMEDIATE: append(t, "0x%" PRIx64, (uint64_t)immediate & mask); break;
    case X86_OPERAND_CONSTANT: append(t, "%" PRId64, immediate); break;
    case X86_OPERAND_RELATIVE:
        target = rip + insn->length + (uint64_t)immediate;
        if (insn->mode != X86_MODE_64)
            target &= insn->operand_size == 2 ? 0xffff : 0xffffffff;
        append(t, "0x%" PRIx64, target);
        break;
    case X86_OPERAND_FAR:
        append(t, "0x%" PRIx64 ":0x%" PRIx64, (uint64_t)insn->immediate2 & 0xffff,
               (uint64_t)insn->immediate);
        break;
    default: break;
    }
}

/* Names that go by the operand size: 2, 4 and 8 bytes. */
static const struct {
    uint16_t op;
    const char *names[3];
} by_size[] = {
    {X86_OP_CBW, {"cbw", "cwde", "cdqe"}},       {X86_OP_CWD, {"cwd", "cdq", "cqo"}},
    {X86_OP_PUSHA, {"pusha", "pushad", NULL}},   {X86_OP_POPA, {"popa", "popad", NULL}},
    {X86_OP_PUSHF, {"pushf", "pushfd", "pushfq"}}, {X86_OP_POPF, {"popf", "popfd", "popfq"}},
    {X86_OP_IRET, {"iret", "iretd", "iretq"}},   {X86_OP_JCXZ, {"jcxz", "jecxz", "jrcxz"}},
};

static const char *name_by_size(const struct x86_insn *insn)
{
    const unsigned size = insn->op == X86_OP_JCXZ ? insn->address_size : insn->operand_size;

    for (size_t i = 0; i < ARRAY_SIZE(by_size); i++)
        if (by_size[i].op == insn->op)
            return by_size[i].names[size == 8 ? 2 : size == 4 ? 1 : 0];
    return NULL;
}

/* With REX.W these move a quadword and end in q instead of d. */
static bool widens(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_MOVD: case X86_OP_VMOVD: case X86_OP_PEXTRD: case X86_OP_VPEXTRD:
    case X86_OP_PINSRD: case X86_OP_VPINSRD:
        return insn->mode == X86_MODE_64 && (insn->rex & 8);
    default:
        return false;
    }
}

static bool saves_state(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_FXSAVE: case X86_OP_FXRSTOR: case X86_OP_XSAVE: case X86_OP_XRSTOR:
    case X86_OP_XSAVEOPT: case X86_OP_XSAVEC: case X86_OP_XSAVES: case X86_OP_XRSTORS:
        return true;
    default:
        return false;
    }
}

/* The table's names of operations that share a mnemonic end in what tells them
 * apart ("_indirect", "_far", "_sreg"); conditions stand in the opcode. */
static void append_mnemonic(struct text *t, const struct x86_insn *insn)
{
    const char *name = x86_rows[insn->row].mnemonic;
    const char *end = strchr(name, '_'), *condition = strstr(name, "cc");
    const struct x86_operand *memory = x86_memory_operand(insn);

    if (name_by_size(insn)) {
        append(t, "%s", name_by_size(insn));
        return;
    }
    if (condition && (insn->op == X86_OP_JCC || insn->op == X86_OP_SETCC ||
                      insn->op == X86_OP_CMOVCC)) {
        append(t, "%.*s%s", (int)(condition - name), name, conditions[insn->opcode & 15]);
        return;
    }
    if (widens(insn)) {
        append(t, "%.*sq", (int)strlen(name) - 1, name);
        return;
    }
    append(t, "%.*s", end ? (int)(end - name) : (int)strlen(name), name);
    if (saves_state(insn) && insn->mode == X86_MODE_64 && (insn->rex & 8))
        append(t, "64");
    if (end && !strcmp(end, "_far"))
        append(t, " far");
    if ((x86_rows[insn->row].attributes & X86_ATTR_STRING) && memory && memory->size <= 8)
        append(t, "%c", "?bw?d???q"[memory->size]);
}

const char *x86_disassemble(const struct x86_insn *insn, uint64_t rip, char *buffer, size_t length)
{
    struct text t = {buffer, length, 0};
    unsigned immediates = 0;

    if (length)
        buffer[0] = '\0';
    if (insn->prefixes & X86_PREFIX_LOCK)
        append(&t, "lock ");
    if (x86_rows[insn->row].attributes & X86_ATTR_STRING) {
        const bool compares = insn->op == X86_OP_CMPS || insn->op == X86_OP_SCAS;

        if (insn->prefixes & X86_PREFIX_REP)
            append(&t, compares ? "repz " : "rep ");
        else if (insn->prefixes & X86_PREFIX_REPNE)
            append(&t, "repnz ");
    }
    append_mnemonic(&t, insn);
    for (unsigned i = 0; i < insn->operand_count; i++) {
        append(&t, i ? ", " : " ");
        append_operand(&t, insn, i, rip, immediates > 0);
        immediates += insn->operands[i].kind == X86_OPERAND_IMMEDIATE;
    }
    return buffer;
}
