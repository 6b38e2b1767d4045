/* A second opinion on decoding: x86_decode and Zydis on the same bytes, made
 * from the table (length, mnemonic, operands) and at random (length, and that
 * neither knows an instruction of Lodge's sets that the other does not).
 *
 *   decode [--seed N] [--count N] [--seconds N] */
#include <Zydis/Zydis.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "generate.h"
#include "x86/decode.h"

#define SHOWN_MAX 20

struct mode {
    enum x86_mode mode;
    ZydisMachineMode machine;
    ZydisStackWidth stack;
};

static const struct mode modes[] = {
    {X86_MODE_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    {X86_MODE_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
    {X86_MODE_16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
};

struct opinion {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

struct tally {
    unsigned long same, invalid, failed;
};

static bool ask(const struct mode *mode, const uint8_t *bytes, struct opinion *ret)
{
    /* Extensions that Lodge does not have: their encodings are NOPs. */
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET,
                                           ZYDIS_DECODER_MODE_CLDEMOTE,
                                           ZYDIS_DECODER_MODE_WBNOINVD};
    ZydisDecoder decoder;

    ZydisDecoderInit(&decoder, mode->machine, mode->stack);
    for (size_t i = 0; i < ARRAY_SIZE(off); i++)
        ZydisDecoderEnableMode(&decoder, off[i], ZYAN_FALSE);
    return ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(&decoder, bytes, X86_INSN_MAX, &ret->insn, ret->operands));
}

static void complain(struct tally *tally, const struct mode *mode, const uint8_t *bytes,
                     const struct x86_insn *insn, const struct opinion *opinion, const char *what)
{
    char text[128] = "(invalid)";

    if (tally->failed++ >= SHOWN_MAX)
        return;
    if (insn)
        x86_disassemble(insn, 0, text, sizeof(text));
    printf("%u bits: ", mode->mode);
    for (unsigned i = 0; i < X86_INSN_MAX; i++)
        printf("%02x", bytes[i]);
    printf(": %s: %s (%u) / %s (%u)\n", what, text, insn ? insn->length : 0,
           opinion ? ZydisMnemonicGetString(opinion->insn.mnemonic) : "(invalid)",
           opinion ? opinion->insn.length : 0);
}

/* Zydis names the kinds of prefetch, INT1, and what became of the 8087. */
static bool same_mnemonic(const char *ours, const char *theirs)
{
    if (!strcmp(ours, "prefetch"))
        return !strncmp(theirs, "prefetch", 8);
    if (!strcmp(ours, "fnop") && strstr(theirs, "_nop"))
        return true;
    if (!strcmp(ours, "icebp"))
        return !strcmp(theirs, "int1");
    return !strcmp(ours, theirs);
}

/* The first word of the disassembly that is no prefix. */
static void mnemonic_of(const struct x86_insn *insn, char *word, size_t length)
{
    char text[128];
    const char *at = x86_disassemble(insn, 0, text, sizeof(text));
    size_t n;

    for (;;) {
        n = strcspn(at, " ");
        if (strncmp(at, "lock ", 5) && strncmp(at, "rep", 3))
            break;
        at += n + 1;
    }
    snprintf(word, length, "%.*s", (int)n, at);
}

static ZydisRegister address_register(unsigned reg, unsigned size)
{
    return ZydisRegisterEncode(size == 8   ? ZYDIS_REGCLASS_GPR64
                               : size == 4 ? ZYDIS_REGCLASS_GPR32
                                           : ZYDIS_REGCLASS_GPR16,
                               (ZyanU8)reg);
}

static const char *compare_memory(const struct x86_insn *insn, unsigned size,
                                  const ZydisDecodedOperand *theirs)
{
    const struct x86_memory *m = &insn->memory;
    const ZydisDecodedOperandMem *z = &theirs->mem;
    ZydisRegister base = ZYDIS_REGISTER_NONE, index = ZYDIS_REGISTER_NONE;

    if (m->base != X86_NO_REGISTER)
        base = address_register(m->base, insn->address_size);
    else if (m->rip_relative)
        base = insn->address_size == 4 ? ZYDIS_REGISTER_EIP : ZYDIS_REGISTER_RIP;
    if (m->index != X86_NO_REGISTER && !m->vsib && insn->op != X86_OP_XLAT)
        index = address_register(m->index, insn->address_size);
    if (m->vsib || insn->op == X86_OP_XLAT)
        index = z->index;
    /* Zydis 4.0 has REX.B make a base of none where addresses have 32 bits (SDM 2A, table 2-5). */
    if (insn->address_size == 4 && base == ZYDIS_REGISTER_NONE && z->base == ZYDIS_REGISTER_R13D)
        base = z->base;
    if (z->base != base)
        return "base";
    if (z->index != index)
        return "index";
    if (index != ZYDIS_REGISTER_NONE && !m->vsib && insn->op != X86_OP_XLAT &&
        z->scale != m->scale)
        return "scale";
    if (z->disp.has_displacement && z->disp.value != m->displacement &&
        insn->address_size == 8)
        return "displacement";
    /* A cache line is named by one of its bytes. */
    if (size && size != theirs->size / 8 && insn->op != X86_OP_CLFLUSH &&
        insn->op != X86_OP_CLFLUSHOPT && insn->op != X86_OP_CLWB)
        return "size of memory";
    return NULL;
}

/* What differs between operand i of both, or NULL. */
static const char *compare_operand(const struct x86_insn *insn, unsigned i,
                                   const ZydisDecodedOperand *theirs)
{
    const struct x86_operand *ours = &insn->operands[i];
    unsigned reg;

    switch (ours->kind) {
    case X86_OPERAND_GPR:
        if (theirs->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return "kind of operand";
        reg = (unsigned)ZydisRegisterGetId(theirs->reg.value);
        if (ZydisRegisterGetClass(theirs->reg.value) == ZYDIS_REGCLASS_GPR8) {
            /* AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8B... */
            static const uint8_t numbers[] = {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7};
            const bool high = reg >= 4 && reg < 8;

            reg = reg < 12 ? numbers[reg] : reg - 4;
            if (high != ours->high_byte)
                return "high byte";
        }
        return reg != ours->reg ? "register" : NULL;
    case X86_OPERAND_SEGMENT: case X86_OPERAND_CONTROL: case X86_OPERAND_DEBUG:
    case X86_OPERAND_ST: case X86_OPERAND_MMX: case X86_OPERAND_XMM: case X86_OPERAND_YMM:
        if (theirs->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return "kind of operand";
        return (unsigned)ZydisRegisterGetId(theirs->reg.value) != ours->reg ? "register" : NULL;
    case X86_OPERAND_MEMORY:
        if (theirs->type != ZYDIS_OPERAND_TYPE_MEMORY)
            return "kind of operand";
        if (x86_rows[insn->row].attributes & X86_ATTR_STRING)
            return NULL; /* one of two; both are implied */
        return compare_memory(insn, ours->size, theirs);
    case X86_OPERAND_IMMEDIATE:
        if (theirs->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return "kind of operand";
        return ((theirs->imm.value.u ^ (uint64_t)insn->immediate) & 0xff) &&
                       ((theirs->imm.value.u ^ (uint64_t)insn->immediate2) & 0xff)
                   ? "immediate"
                   : NULL;
    default:
        return NULL;
    }
}

static const char *compare_insn(const struct x86_insn *insn, const struct opinion *opinion)
{
    char mnemonic[32];

    if (insn->length != opinion->insn.length)
        return "length";
    mnemonic_of(insn, mnemonic, sizeof(mnemonic));
    if (!same_mnemonic(mnemonic, ZydisMnemonicGetString(opinion->insn.mnemonic)))
        return "mnemonic";
    /* Where both list the same operands; implied ones, and those that nothing
     * reads, are a matter of taste. */
    if (insn->operand_count != opinion->insn.operand_count_visible || insn->op == X86_OP_NOP ||
        insn->op == X86_OP_UD0 || insn->op == X86_OP_UD1)
        return NULL;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const char *what = compare_operand(insn, i, &opinion->operands[i]);

        if (what)
            return what;
    }
    return NULL;
}

static void try_table(struct tally *tally, uint64_t seed, unsigned count)
{
    for (unsigned row = 0; row < x86_row_count; row++)
        for (size_t m = 0; m < ARRAY_SIZE(modes); m++)
            for (unsigned i = 0; i < count; i++) {
                struct random r = random_case(seed, row, i * ARRAY_SIZE(modes) + m);
                uint8_t bytes[X86_INSN_MAX];
                struct opinion opinion;
                struct x86_insn insn;
                const char *what;

                if (!generate_bytes(&r, row, modes[m].mode, bytes, &insn))
                    break;
                if (!ask(&modes[m], bytes, &opinion)) {
                    complain(tally, &modes[m], bytes, &insn, NULL, "validity");
                    continue;
                }
                what = compare_insn(&insn, &opinion);
                if (what)
                    complain(tally, &modes[m], bytes, &insn, &opinion, what);
                else
                    tally->same++;
            }
}

/* Sets that Lodge has whole; an instruction of another may be invalid to it. */
static bool ours(const struct opinion *opinion)
{
    switch (opinion->insn.meta.isa_set) {
    case ZYDIS_ISA_SET_ADOX_ADCX: case ZYDIS_ISA_SET_AES: case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2: case ZYDIS_ISA_SET_AVX2GATHER: case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_BMI1: case ZYDIS_ISA_SET_BMI2: case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B: case ZYDIS_ISA_SET_F16C: case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FMA: case ZYDIS_ISA_SET_I186: case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486: case ZYDIS_ISA_SET_I86: case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE: case ZYDIS_ISA_SET_LZCNT: case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PCLMULQDQ: case ZYDIS_ISA_SET_PENTIUMMMX: case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_PPRO: case ZYDIS_ISA_SET_RDRAND: case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2: case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3: case ZYDIS_ISA_SET_SSE4: case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSSE3: case ZYDIS_ISA_SET_SSSE3MMX: case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_XSAVE:
        return true;
    default:
        return false;
    }
}

static void try_random(struct tally *tally, uint64_t seed, unsigned long count)
{
    struct random r = random_case(seed, 0, 0);

    for (unsigned long i = 0; i < count; i++) {
        const struct mode *mode = &modes[i % ARRAY_SIZE(modes)];
        uint8_t bytes[X86_INSN_MAX + 1];
        struct opinion opinion;
        struct x86_insn insn;
        bool valid, theirs;

        store_le64(bytes, random_next(&r));
        store_le64(bytes + 8, random_next(&r));
        if (random_chance(&r, 50)) /* one of the two-byte opcodes */
            bytes[0] = 0x0f;
        valid = x86_decode(bytes, X86_INSN_MAX, mode->mode, &insn) == X86_DECODE_OK;
        theirs = ask(mode, bytes, &opinion);
        if (valid && theirs && insn.length != opinion.insn.length)
            complain(tally, mode, bytes, &insn, &opinion, "length");
        else if (valid && !theirs)
            complain(tally, mode, bytes, &insn, NULL, "validity");
        else if (!valid && theirs && ours(&opinion))
            complain(tally, mode, bytes, NULL, &opinion, "validity");
        else if (valid)
            tally->same++;
        else
            tally->invalid++;
    }
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'}, {"count", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'}, {NULL, 0, NULL, 0},
    };
    const time_t start = time(NULL);
    struct tally tally = {0};
    unsigned count = 20, seconds = 0;
    uint64_t seed = 1;
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
        switch (c) {
        case 's': seed = strtoull(optarg, NULL, 0); break;
        case 'n': count = (unsigned)strtoul(optarg, NULL, 0); break;
        case 't': seconds = (unsigned)strtoul(optarg, NULL, 0); break;
        default: return 2;
        }
    do {
        try_table(&tally, seed, count);
        try_random(&tally, seed, 20000ul * count);
        printf("seed %llu: %lu the same, %lu invalid, %lu failed\n", (unsigned long long)seed,
               tally.same, tally.invalid, tally.failed);
        seed++;
    } while (!tally.failed && time(NULL) - start < (time_t)seconds);
    return tally.failed != 0;
}
