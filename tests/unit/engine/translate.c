/* The translator's emitter and analysis: emitted bytes mean to the decoder what
 * was asked for, and flags are known to be free where nobody reads them. */
#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "engine/translate/build.h"
#include "engine/translate/guess.h"

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

/* What is emitted to make the flags at the end of code again; its last instruction. False:
 * they cannot be. */
static bool rebuilt(const uint8_t *code, unsigned length, unsigned reg, struct x86_insn *ret_insn)
{
    static struct build b;
    struct unit unit = {.home = SCRATCH_HOME};
    uint8_t bytes[64];
    struct emit e = {.at = bytes};
    struct rebuild rebuild;
    const uint8_t *at = bytes;

    b.unit = &unit;
    b.e = &e;
    b.word = 8;
    b.count = analysed(b.steps, code, length);
    if (!rebuild_find(&b, b.count, &rebuild))
        return false;
    rebuild_emit(&b, &rebuild, reg);
    for (; at < e.at; at += ret_insn->length)
        assert_int_equal(x86_decode(at, (size_t)(e.at - at), X86_MODE_64, ret_insn),
                         X86_DECODE_OK);
    assert_ptr_equal(at, e.at);
    return true;
}

static void flags_are_made_again_with_operands_of_the_same_size(void **state)
{
    static const struct {
        uint8_t code[8];
        unsigned length;
        enum x86_op op;
        unsigned size;
    } cases[] = {
        {{0x66, 0x29, 0xe3}, 3, X86_OP_CMP, 2},             /* sub bx, sp */
        {{0x48, 0x01, 0xc8, 0x5a}, 4, X86_OP_ADD, 8},       /* add rax, rcx; pop rdx */
        {{0x48, 0x83, 0xc4, 0x18, 0x5b}, 5, X86_OP_ADD, 8}, /* add rsp, 24; pop rbx */
        {{0x80, 0xf9, 0x05}, 3, X86_OP_CMP, 1},             /* cmp cl, 5 */
        {{0x40, 0x84, 0xf6}, 3, X86_OP_TEST, 1},            /* test sil, sil */
        {{0x31, 0xc0, 0x58}, 3, X86_OP_XOR, 4},             /* xor eax, eax; pop rax */
    };
    static const unsigned registers[] = {X86_RBX, X86_RSI, X86_RDI, X86_R11};

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (unsigned k = 0; k < 4; k++) {
            struct x86_insn insn;

            assert_true(rebuilt(cases[i].code, cases[i].length, registers[k], &insn));
            assert_int_equal(insn.op, cases[i].op);
            assert_int_equal(insn.operands[0].reg, registers[k]);
            assert_int_equal(insn.operands[0].size, cases[i].size);
            assert_false(insn.operands[0].high_byte);
        }
}

static void flags_whose_operands_are_gone_are_not_made_again(void **state)
{
    static const struct {
        uint8_t code[8];
        unsigned length;
    } cases[] = {
        {{0x48, 0x39, 0xc8, 0x58}, 4},       /* cmp rax, rcx; pop rax */
        {{0x48, 0x3b, 0x07}, 3},             /* cmp rax, [rdi] */
        {{0x48, 0x39, 0xc8, 0xff, 0xc2}, 5}, /* cmp rax, rcx; inc edx: CF is older */
        {{0x48, 0xc1, 0xe0, 0x03}, 4},       /* shl rax, 3 */
        {{0x4c, 0x39, 0xd0}, 3},             /* cmp rax, r10, which is not in place */
        {{0x48, 0x01, 0xc0}, 3},             /* add rax, rax */
        {{0x58, 0x5b}, 2},                   /* pop rax; pop rbx: none */
    };
    struct x86_insn insn;

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_false(rebuilt(cases[i].code, cases[i].length, X86_R11, &insn));
}

static void a_condition_reads_no_flags_but_its_own(void **state)
{
    /* dec ecx; jne; setc al; cmovg rax, rbx; adc eax, ebx */
    static const uint8_t code[] = {0xff, 0xc9, 0x75, 0xfc, 0x0f, 0x92, 0xc0, 0x48,
                                   0x0f, 0x4f, 0xc3, 0x11, 0xd8};
    static const uint16_t read[] = {0, X86_ZF, X86_CF, X86_ZF | X86_SF | X86_OF, X86_CF};
    struct step steps[5];

    (void)state;
    assert_int_equal(analysed(steps, code, sizeof(code)), 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(steps[i].flags_read, read[i]);
}

static void only_addresses_in_chains_of_loads_are_guessed(void **state)
{
    /* mov rax, rbx; mov rcx, [rax]; lea rbx, [rcx + 8]; mov rdx, [rsi]; add rdi, [rdx];
     * add rsi, 8; mov rdx, [r8 + rcx]; and back */
    static const uint8_t code[] = {0x48, 0x89, 0xd8, 0x48, 0x8b, 0x08, 0x48, 0x8d, 0x59,
                                   0x08, 0x48, 0x8b, 0x16, 0x48, 0x03, 0x3a, 0x48, 0x83,
                                   0xc6, 0x08, 0x49, 0x8b, 0x14, 0x08, 0xeb, 0xe6};
    static const enum guess_late guessed[8] = {[1] = GUESS_BASE_LATE, [6] = GUESS_INDEX_LATE};
    static struct build b;
    struct unit unit = {.hot = true};

    (void)state;
    b.unit = &unit;
    b.word = 8;
    b.count = analysed(b.steps, code, sizeof(code));
    assert_int_equal(b.count, 8);
    for (unsigned i = 0; i < 8; i++)
        b.steps[i].inside = NO_STEP;
    guess_plan(&b);
    for (unsigned i = 0; i < 8; i++) /* it is no loop yet */
        assert_false(b.guesses[i]);
    b.steps[0].loop = true;
    b.steps[7].inside = 0;
    guess_plan(&b);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(b.guesses[i], guessed[i]);
    unit.hot = false;
    guess_plan(&b);
    assert_false(b.guesses[1]);
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
        cmocka_unit_test(flags_are_made_again_with_operands_of_the_same_size),
        cmocka_unit_test(flags_whose_operands_are_gone_are_not_made_again),
        cmocka_unit_test(a_condition_reads_no_flags_but_its_own),
        cmocka_unit_test(only_addresses_in_chains_of_loads_are_guessed),
        cmocka_unit_test(what_cannot_be_copied_is_interpreted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
