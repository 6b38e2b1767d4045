/* The translator's emitter and analysis: emitted bytes mean to the decoder what
 * was asked for, and flags are known to be free where nobody reads them. */
#include "../unit.h"

#include <string.h>

#include "engine/translate/analyse.h"
#include "engine/translate/emit.h"

static struct x86_insn decoded(const struct emit *e, const uint8_t *bytes)
{
    struct x86_insn insn;

    assert_int_equal(x86_decode(bytes, (size_t)(e->at - bytes), X86_MODE_64, &insn),
                     X86_DECODE_OK);
    assert_int_equal(insn.length, e->at - bytes);
    return insn;
}

static void any_base_and_index_are_encoded_as_asked(void **state)
{
    (void)state;
    for (unsigned base = 0; base < X86_GPRS; base++)
        for (unsigned index = 0; index < X86_GPRS; index++)
            for (int displacement = -200; displacement <= 200; displacement += 100) {
                uint8_t bytes[32];
                struct emit e = {.at = bytes};
                struct x86_insn insn;

                if (index == X86_RSP) /* no index, to the hardware */
                    continue;
                emit_load(&e, 15 - base, emit_based(base, index, displacement));
                insn = decoded(&e, bytes);
                assert_int_equal(insn.op, X86_OP_MOV);
                assert_int_equal(insn.operands[0].reg, 15 - base);
                assert_int_equal(insn.memory.base, base);
                assert_int_equal(insn.memory.index, index);
                assert_int_equal(insn.memory.displacement, displacement);
            }
}

static void constants_arrive_whole_in_their_shortest_form(void **state)
{
    static const struct {
        uint64_t value;
        unsigned length;
    } cases[] = {{0, 6}, {UINT32_MAX, 6}, {UINT64_MAX, 7}, {1ull << 32, 10}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t bytes[32];
        struct emit e = {.at = bytes};
        struct x86_insn insn;

        emit_constant(&e, X86_R10, cases[i].value);
        assert_int_equal(e.at - bytes, cases[i].length);
        insn = decoded(&e, bytes);
        if (insn.operand_size == 4) /* which clears the upper half */
            insn.immediate = (uint32_t)insn.immediate;
        assert_int_equal((uint64_t)insn.immediate, cases[i].value);
    }
}

static void masks_and_rotations_name_their_registers(void **state)
{
    uint8_t bytes[32];
    struct emit e = {.at = bytes};
    struct x86_insn insn;

    (void)state;
    emit_rorx(&e, X86_R11, X86_RDX, 12);
    insn = decoded(&e, bytes);
    assert_int_equal(insn.op, X86_OP_RORX);
    assert_int_equal(insn.operands[0].reg, X86_R11);
    assert_int_equal(insn.operands[1].reg, X86_RDX);
    e.at = bytes;
    emit_pext(&e, X86_RCX, X86_R9, emit_field(0x1234));
    insn = decoded(&e, bytes);
    assert_int_equal(insn.op, X86_OP_PEXT);
    assert_int_equal(insn.operands[0].reg, X86_RCX);
    assert_int_equal(insn.operands[1].reg, X86_R9);
    assert_int_equal(insn.memory.segment, X86_GS);
    assert_int_equal(insn.memory.displacement, 0x1234);
}

/* The steps of code that ends without a branch. */
static unsigned analysed(struct step *steps, const uint8_t *bytes, unsigned length)
{
    unsigned count = 0;

    for (unsigned at = 0; at < length; count++) {
        memset(&steps[count], 0, sizeof(steps[count]));
        assert_int_equal(x86_decode(bytes + at, length - at, X86_MODE_64, &steps[count].insn),
                         X86_DECODE_OK);
        steps[count].bytes = bytes + at;
        analyse_step(&steps[count], true);
        at += steps[count].insn.length;
    }
    return count;
}

static void flags_are_free_before_they_are_written_and_not_after(void **state)
{
    /* mov rax, [rdi]; cmp rax, rcx; mov rdx, [rsi]; setz al */
    static const uint8_t code[] = {0x48, 0x8b, 0x07, 0x48, 0x39, 0xc8, 0x48, 0x8b, 0x16,
                                   0x0f, 0x94, 0xc0};
    struct step steps[4];

    (void)state;
    assert_int_equal(analysed(steps, code, sizeof(code)), 4);
    analyse_liveness(steps, 4, 0);
    assert_int_equal(steps[0].flags_live, 0);
    assert_int_equal(steps[1].flags_live, 0);
    assert_true(steps[2].flags_live & X86_ZF);
    assert_true(steps[3].flags_live & X86_ZF);
}

static void a_shift_by_cl_may_leave_the_flags_alone(void **state)
{
    static const uint8_t code[] = {0x48, 0xd3, 0xe0}; /* shl rax, cl */
    struct step step;

    (void)state;
    analysed(&step, code, sizeof(code));
    assert_int_equal(step.flags_killed, 0);
}

static void implied_registers_are_known(void **state)
{
    static const uint8_t code[] = {0x48, 0xf7, 0xf3}; /* div rbx */
    struct step step;

    (void)state;
    analysed(&step, code, sizeof(code));
    assert_int_equal(step.mentions, 1u << X86_RAX | 1u << X86_RDX | 1u << X86_RBX);
    assert_int_equal(step.writes, 1u << X86_RAX | 1u << X86_RDX);
    assert_true(step.can_trap);
}

static void what_cannot_be_copied_is_interpreted(void **state)
{
    static const uint8_t codes[][4] = {
        {0x0f, 0x01, 0xf9, 0x90}, /* rdtscp */
        {0xdb, 0xe3, 0x90, 0x90}, /* fninit: it clears the pointers too */
        {0xd9, 0x30, 0x90, 0x90}, /* fnstenv [rax] */
        {0x0f, 0xab, 0x08, 0x90}, /* bts [rax], ecx: the bit may lie anywhere */
        {0x88, 0x20, 0x90, 0x90}, /* mov [rax], ah */
    };

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        struct step steps[4];

        analysed(steps, codes[i], 4);
        assert_int_equal(steps[0].kind, STEP_INTERPRET);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_base_and_index_are_encoded_as_asked),
        cmocka_unit_test(constants_arrive_whole_in_their_shortest_form),
        cmocka_unit_test(masks_and_rotations_name_their_registers),
        cmocka_unit_test(flags_are_free_before_they_are_written_and_not_after),
        cmocka_unit_test(a_shift_by_cl_may_leave_the_flags_alone),
        cmocka_unit_test(implied_registers_are_known),
        cmocka_unit_test(what_cannot_be_copied_is_interpreted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
