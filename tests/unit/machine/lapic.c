/* A local APIC that is saved and loaded elsewhere goes on as if nothing had been. */
#include "../unit.h"

#include <stdatomic.h>
#include <time.h>

#include "base/bytes.h"
#include "machine/lapic.h"
#include "x86/registers.h"

#define SVR_ON        0x1ffu
#define LVT_MASKED    0x10000u
#define LVT_DEADLINE  0x40000u
#define BASE_X2APIC   0x400u
#define DIVIDE_BY_1   0xbu
#define TO_SELF       0x40000u
#define ICR_ASSERT    0x4000u
#define VECTOR        0x51
#define SOURCE        7

struct board {
    struct timers timers;
    struct lapic_set before, after;
    atomic_int notified;
    bool forwards;
    unsigned source;
    uint64_t address;
    uint32_t data;
};

static void notify(void *opaque, unsigned cpu)
{
    struct board *board = opaque;

    (void)cpu;
    atomic_fetch_add(&board->notified, 1);
}

static bool forward(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct board *board = opaque;

    board->source = source;
    board->address = address;
    board->data = data;
    return board->forwards;
}

static int set_up(void **state)
{
    static struct board board;
    const struct lapic_ops ops = {.notify = notify, .forward = forward, .opaque = &board};

    board = (struct board){0};
    *state = &board;
    return timers_init(&board.timers, NULL, NULL) < 0 ||
           lapic_set_init(&board.before, 1, &board.timers, &ops, NULL) < 0 ||
           lapic_set_init(&board.after, 1, &board.timers, &ops, NULL) < 0;
}

static int tear_down(void **state)
{
    struct board *board = *state;

    timers_destroy(&board->timers);
    lapic_set_destroy(&board->before);
    lapic_set_destroy(&board->after);
    return 0;
}

static void move(struct board *board)
{
    struct x86_apic apic;

    lapic_save(&board->before.lapics[0], &apic);
    lapic_init_reset(&board->before.lapics[0]);
    lapic_load(&board->after.lapics[0], &apic);
}

static void write_register(struct lapic *lapic, unsigned offset, uint32_t value)
{
    lapic_write(lapic, offset, value);
}

static void registers_and_interrupts_move(void **state)
{
    struct board *board = *state;
    struct lapic *before = &board->before.lapics[0], *after = &board->after.lapics[0];
    static const struct {
        unsigned offset;
        uint32_t value;
    } registers[] = {
        {X86_APIC_SVR, SVR_ON},
        {X86_APIC_TPR, 0x20},
        {X86_APIC_LDR, 0x02000000},
        {X86_APIC_DFR, 0x0fffffff},
        {X86_APIC_LVT_TIMER, LVT_MASKED | 0x40},
        {X86_APIC_LVT_ERROR, 0x41},
        {X86_APIC_ICR_HIGH, 0x01000000},
        {X86_APIC_TIMER_DIVIDE, DIVIDE_BY_1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(registers); i++)
        write_register(before, registers[i].offset, registers[i].value);
    /* One in service, a second waits behind it. */
    write_register(before, X86_APIC_ICR_LOW, TO_SELF | ICR_ASSERT | 0x61);
    assert_int_equal(lapic_acknowledge(before), 0x61);
    write_register(before, X86_APIC_ICR_LOW, TO_SELF | ICR_ASSERT | VECTOR);
    assert_int_equal(lapic_acknowledge(before), -1);
    move(board);
    for (size_t i = 0; i < ARRAY_SIZE(registers); i++)
        assert_int_equal(lapic_read(after, registers[i].offset), registers[i].value);
    assert_int_equal(lapic_acknowledge(after), -1);
    write_register(after, X86_APIC_EOI, 0);
    assert_int_equal(lapic_acknowledge(after), VECTOR);
}

static void x2apic_mode_moves(void **state)
{
    struct board *board = *state;
    struct lapic *after = &board->after.lapics[0];
    uint64_t value;

    assert_true(lapic_msr_write(&board->before.lapics[0], X86_MSR_APIC_BASE,
                                LAPIC_BASE | 0x900 | BASE_X2APIC));
    move(board);
    assert_true(lapic_msr_read(after, X86_MSR_APIC_BASE, &value));
    assert_true(value & BASE_X2APIC);
    assert_true(lapic_msr_read(after, X86_MSR_X2APIC_FIRST + (X86_APIC_LDR >> 4), &value));
    assert_int_equal(value, 1);
}

static void wait_for_notification(struct board *board)
{
    const struct timespec moment = {.tv_nsec = 1000000};

    for (int i = 0; !atomic_load(&board->notified) && i < 20000; i++)
        nanosleep(&moment, NULL);
    assert_true(atomic_load(&board->notified) > 0);
}

static void a_count_goes_on_from_what_was_left_of_it(void **state)
{
    struct board *board = *state;
    struct lapic *before = &board->before.lapics[0], *after = &board->after.lapics[0];
    uint64_t start, least = 50000000;

    write_register(before, X86_APIC_SVR, SVR_ON);
    write_register(before, X86_APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    write_register(before, X86_APIC_LVT_TIMER, VECTOR);
    start = timers_now(&board->timers);
    write_register(before, X86_APIC_TIMER_INITIAL, (uint32_t)least); /* ticks are nanoseconds */
    move(board);
    assert_true(lapic_read(after, X86_APIC_TIMER_CURRENT) <= least);
    assert_int_equal(lapic_read(before, X86_APIC_TIMER_CURRENT), 0);
    wait_for_notification(board);
    assert_true(timers_now(&board->timers) - start >= least);
    assert_int_equal(lapic_acknowledge(after), VECTOR);
}

static void a_deadline_that_has_passed_meanwhile_fires_at_once(void **state)
{
    struct board *board = *state;
    struct lapic *before = &board->before.lapics[0];
    struct x86_apic apic;

    write_register(before, X86_APIC_SVR, SVR_ON);
    write_register(before, X86_APIC_LVT_TIMER, LVT_DEADLINE | VECTOR);
    lapic_save(before, &apic);
    apic.tsc_deadline = 1;
    lapic_load(&board->after.lapics[0], &apic);
    wait_for_notification(board);
    assert_int_equal(lapic_acknowledge(&board->after.lapics[0]), VECTOR);
}

static void a_message_goes_to_whoever_keeps_the_apics(void **state)
{
    struct board *board = *state;
    struct lapic *lapic = &board->before.lapics[0];

    write_register(lapic, X86_APIC_SVR, SVR_ON);
    board->forwards = true;
    lapic_message(&board->before, SOURCE, LAPIC_BASE, ICR_ASSERT | VECTOR);
    assert_int_equal(board->source, SOURCE);
    assert_int_equal(board->address, LAPIC_BASE);
    assert_int_equal(board->data, ICR_ASSERT | VECTOR);
    assert_int_equal(lapic_acknowledge(lapic), -1);
    board->forwards = false;
    lapic_message(&board->before, SOURCE, LAPIC_BASE, ICR_ASSERT | VECTOR);
    assert_int_equal(lapic_acknowledge(lapic), VECTOR);
    lapic_message(&board->before, SOURCE, 0x1000, VECTOR); /* no message at all */
    assert_int_equal(lapic_acknowledge(lapic), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_and_interrupts_move),
        TEST(x2apic_mode_moves),
        TEST(a_count_goes_on_from_what_was_left_of_it),
        TEST(a_deadline_that_has_passed_meanwhile_fires_at_once),
        TEST(a_message_goes_to_whoever_keeps_the_apics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
