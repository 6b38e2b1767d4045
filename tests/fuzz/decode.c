/* Any bytes in any mode: x86_decode stays in bounds, and what it says holds
 * together. The first byte picks the mode. */
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_operands(const struct x86_insn *insn)
{
    require(insn->operand_count <= X86_OPERANDS_MAX);
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const struct x86_operand *operand = &insn->operands[i];

        require(operand->kind != X86_OPERAND_NONE && operand->reg < 16);
        require(operand->kind != X86_OPERAND_SEGMENT || operand->reg <= X86_GS);
        require(operand->kind != X86_OPERAND_GPR || operand->size <= 8);
        require(!operand->high_byte || operand->reg < 4);
    }
    if (x86_memory_operand(insn)) {
        const struct x86_memory *m = &insn->memory;

        require(m->base < 16 || m->base == X86_NO_REGISTER);
        require(m->index < 16 || m->index == X86_NO_REGISTER);
        require(m->segment <= X86_GS);
    }
    require(insn->opcode_offset < insn->length && insn->modrm_offset < insn->length);
    require(insn->displacement_offset < insn->length && insn->immediate_offset < insn->length);
}

static void check_text(const struct x86_insn *insn)
{
    char text[128], cut[8];

    x86_disassemble(insn, 0x1000, text, sizeof(text));
    require(memchr(text, '\0', sizeof(text)) && text[0]);
    x86_disassemble(insn, 0x1000, cut, sizeof(cut));
    require(memchr(cut, '\0', sizeof(cut)) && !strncmp(cut, text, strlen(cut)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum x86_mode modes[] = {X86_MODE_64, X86_MODE_32, X86_MODE_16};
    struct x86_insn insn, again;
    enum x86_decode_result result;
    enum x86_mode mode;
    uint8_t *bytes;

    if (size < 1)
        return 0;
    mode = modes[data[0] % 3];
    size--;
    bytes = malloc(size ? size : 1); /* so that a read beyond the end is seen */
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, size);
    result = x86_decode(bytes, size, mode, &insn);
    require(insn.length <= size && insn.length <= X86_INSN_MAX);
    if (result == X86_DECODE_OK) {
        require(insn.length > 0 && insn.row < x86_row_count && insn.op == x86_rows[insn.row].op);
        check_operands(&insn);
        check_text(&insn);
        /* It needs all of its bytes and no more. */
        require(x86_decode(bytes, insn.length, mode, &again) == X86_DECODE_OK);
        require(!memcmp(&insn, &again, sizeof(insn)));
        require(x86_decode(bytes, insn.length - 1u, mode, &again) != X86_DECODE_OK);
    }
    require(result != X86_DECODE_SHORT || size < X86_INSN_MAX);
    require(result != X86_DECODE_LONG || size >= X86_INSN_MAX);
    free(bytes);
    return 0;
}
