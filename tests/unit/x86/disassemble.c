/* x86_disassemble: what stands in logs. */
#include "../unit.h"

#include <stdio.h>

#include "base/bytes.h"
#include "x86/decode.h"

struct sample {
    enum x86_mode mode;
    const char *bytes; /* hexadecimal */
    const char *text;  /* at address 0x1000; NULL: invalid */
};

static const struct sample samples[] = {
    {X86_MODE_64, "90", "nop"},
    {X86_MODE_64, "48010b", "add qword ptr [rbx], rcx"},
    {X86_MODE_64, "f0480fb14c8310", "lock cmpxchg qword ptr [rbx+rax*4+0x10], rcx"},
    {X86_MODE_64, "658b042530000000", "mov eax, dword ptr gs:[0x30]"},
    {X86_MODE_64, "8b05f6ffffff", "mov eax, dword ptr [rip:0xffc]"},
    {X86_MODE_64, "74fe", "jz 0x1000"},
    {X86_MODE_64, "410f97c4", "setnbe r12b"},
    {X86_MODE_64, "4088f0", "mov al, sil"},
    {X86_MODE_64, "88f0", "mov al, dh"},
    {X86_MODE_64, "f348a5", "rep movsq qword ptr [rdi], qword ptr [rsi]"},
    {X86_MODE_64, "4898", "cdqe"},
    {X86_MODE_64, "c4e2659014b8", "vpgatherdd ymm2, dword ptr [rax+ymm7*4], ymm3"},
    {X86_MODE_64, "c4e26d9014b8", NULL}, /* the mask is the destination */
    {X86_MODE_64, "c8100001", "enter 0x10, 0x1"},
    {X86_MODE_64, "d8c3", "fadd st(0), st(3)"},
    {X86_MODE_32, "ea785634120800", "jmp far 0x8:0x12345678"},
    {X86_MODE_32, "60", "pushad"},
    {X86_MODE_16, "268b4702", "mov ax, word ptr es:[bx+0x2]"},
    {X86_MODE_16, "e3fe", "jcxz 0x1000"},
};

static size_t from_hex(const char *hex, uint8_t *bytes)
{
    size_t n = 0;
    unsigned byte;

    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        bytes[n++] = (uint8_t)byte;
    return n;
}

static void samples_read_as_an_assembler_would_write_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        uint8_t bytes[X86_INSN_MAX];
        const size_t size = from_hex(samples[i].bytes, bytes);
        struct x86_insn insn;
        char text[128];

        if (x86_decode(bytes, size, samples[i].mode, &insn) != X86_DECODE_OK) {
            assert_null(samples[i].text);
            continue;
        }
        assert_int_equal(insn.length, size);
        assert_string_equal(x86_disassemble(&insn, 0x1000, text, sizeof(text)), samples[i].text);
    }
}

static void a_short_buffer_cuts_the_text(void **state)
{
    const uint8_t bytes[] = {0x48, 0x01, 0x0b};
    struct x86_insn insn;
    char text[6] = "?????";

    (void)state;
    assert_int_equal(x86_decode(bytes, sizeof(bytes), X86_MODE_64, &insn), X86_DECODE_OK);
    assert_string_equal(x86_disassemble(&insn, 0, text, sizeof(text)), "add q");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_read_as_an_assembler_would_write_them),
        cmocka_unit_test(a_short_buffer_cuts_the_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
