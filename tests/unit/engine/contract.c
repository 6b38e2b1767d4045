/* What engine.h promises, held against every engine of the table: small
 * real-mode guests, fake devices behind the callbacks. */
#include "../unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "engine/engine.h"
#include "no_devices.h"
#include "state_fields.h"

#define MEMORY_SIZE 0x10000u
#define CODE        0x1000u
#define HANDLER     0x2000u
#define MMIO        0xa0000u

struct fixture {
    const struct engine_ops *ops;
    struct engine_callbacks callbacks;
    struct engine *engine;
    struct vcpu *vcpu;
    uint8_t *memory;
    struct x86_cpuid cpuid;
    /* What the fake devices saw and say. */
    uint32_t port_value, port_size, port_count;
    uint64_t mmio_value, mmio_address, mmio_size;
    atomic_int vector; /* the pending interrupt, -1: none */
    uint64_t apic_base;
    bool kicks; /* the port, the CPU that writes to it */
};

static const struct engine_ops *engine_under_test;

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t address, unsigned size)
{
    struct fixture *f = opaque;

    assert_int_equal(cpu, 0);
    f->mmio_address = address;
    f->mmio_size = size;
    return 0x1122334455667788;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t address, unsigned size, uint64_t value)
{
    struct fixture *f = opaque;

    assert_int_equal(cpu, 0);
    f->mmio_address = address;
    f->mmio_size = size;
    f->mmio_value = value;
}

static uint32_t port_read(void *opaque, unsigned cpu, uint16_t port, unsigned size)
{
    (void)opaque;
    (void)cpu;
    (void)size;
    return port == 0x70 ? 0x5a : 0xffffffff;
}

static void port_write(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct fixture *f = opaque;

    assert_int_equal(cpu, 0);
    assert_int_equal(port, 0xf4);
    f->port_value = value;
    f->port_size = size;
    f->port_count++;
    if (f->kicks)
        engine_signal(f->vcpu, ENGINE_SIGNAL_KICK);
}

static int interrupt_acknowledge(void *opaque, unsigned cpu)
{
    struct fixture *f = opaque;

    (void)cpu;
    return atomic_exchange(&f->vector, -1);
}

static bool msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret_value)
{
    struct fixture *f = opaque;

    (void)cpu;
    if (msr != X86_MSR_APIC_BASE)
        return false;
    *ret_value = f->apic_base;
    return true;
}

static bool msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct fixture *f = opaque;

    (void)cpu;
    if (msr != X86_MSR_APIC_BASE)
        return false;
    f->apic_base = value;
    return true;
}

/* An engine at CODE, in real mode. */
static void create_engine(struct fixture *f)
{
    const struct engine_config config = {
        .callbacks = &f->callbacks, .opaque = f, .cpus = 1, .cpuid = &f->cpuid};
    struct x86_state reset;
    struct error err;

    if (f->ops->create(&config, &f->engine, &err) < 0 ||
        f->ops->map(f->engine, 0, MEMORY_SIZE, f->memory, 0, &err) < 0)
        fail_msg("%s", err.text);
    f->vcpu = f->engine->vcpus[0];
    x86_state_reset(&reset, 0);
    reset.segment[X86_CS].selector = 0;
    reset.segment[X86_CS].base = 0;
    reset.rip = CODE;
    reset.gpr[X86_RSP] = 0x8000;
    f->ops->set_state(f->vcpu, &reset);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    f->ops = engine_under_test;
    f->callbacks = no_devices;
    f->callbacks.mmio_read = mmio_read;
    f->callbacks.mmio_write = mmio_write;
    f->callbacks.port_read = port_read;
    f->callbacks.port_write = port_write;
    f->callbacks.interrupt_acknowledge = interrupt_acknowledge;
    f->callbacks.msr_read = msr_read;
    f->callbacks.msr_write = msr_write;
    atomic_store(&f->vector, -1);
    f->apic_base = 0xfee00900;
    /* The smallest CPU that has MSRs and a long mode. */
    f->cpuid = (struct x86_cpuid){
        .count = 2,
        .leaf = {{.function = 0, .eax = 1},
                 {.function = 1, .edx = 1u << 0 | 1u << 4 | 1u << 5 | 1u << 9}},
    };
    f->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f->memory == MAP_FAILED)
        return -1;
    create_engine(f);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->ops->destroy(f->engine);
    munmap(f->memory, MEMORY_SIZE);
    free(f);
    return 0;
}

static enum engine_exit run(struct fixture *f)
{
    enum engine_exit exit = ENGINE_EXIT_SHUTDOWN;
    struct error err = {0};

    if (engine_run(f->vcpu, &exit, &err) < 0)
        fail_msg("%s", err.text);
    return exit;
}

#define PUT(f, address, ...)                                                                       \
    do {                                                                                           \
        static const uint8_t code_[] = {__VA_ARGS__};                                              \
        memcpy((f)->memory + (address), code_, sizeof(code_));                                     \
    } while (0)

static void a_port_write_reaches_its_callback_and_hlt_exits(void **state)
{
    struct fixture *f = *state;
    struct x86_state after;

    PUT(f, CODE, 0xb0, 0x2a, 0xe6, 0xf4, 0xf4); /* mov al, 42; out 0xf4, al; hlt */
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_value, 42);
    assert_int_equal(f->port_size, 1);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.rip, CODE + 5);
    assert_int_equal(after.activity, X86_HALTED);
    assert_int_equal(run(f), ENGINE_EXIT_HALT); /* nothing came: still halted */
    assert_int_equal(f->port_count, 1);
}

static void a_port_read_gives_what_its_callback_says(void **state)
{
    struct fixture *f = *state;
    struct x86_state after;

    PUT(f, CODE, 0xe4, 0x70, 0xf4); /* in al, 0x70; hlt */
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.gpr[X86_RAX] & 0xff, 0x5a);
}

static void memory_outside_the_slots_reaches_the_mmio_callbacks(void **state)
{
    struct fixture *f = *state;
    struct x86_state after;

    /* mov ax, 0xa000; mov ds, ax; mov ax, [0x10]; mov byte [0x21], 0x7f; hlt */
    PUT(f, CODE, 0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xa1, 0x10, 0x00, 0xf4);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.gpr[X86_RAX] & 0xffff, 0x7788);
    assert_int_equal(f->mmio_address, MMIO + 0x10);
    assert_int_equal(f->mmio_size, 2);

    after.rip = CODE;
    after.activity = X86_RUNNING;
    PUT(f, CODE, 0xc6, 0x06, 0x21, 0x00, 0x7f, 0xf4);
    f->ops->set_state(f->vcpu, &after);
    f->ops->invalidate(f->engine, CODE, 16);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->mmio_address, MMIO + 0x21);
    assert_int_equal(f->mmio_size, 1);
    assert_int_equal(f->mmio_value, 0x7f);
}

/* A handler for vector 0x20 that writes 9 to the port and returns. */
static void put_handler(struct fixture *f)
{
    PUT(f, HANDLER, 0xb0, 0x09, 0xe6, 0xf4, 0xcf);
    store_le16(f->memory + 0x20 * 4, HANDLER);
    store_le16(f->memory + 0x20 * 4 + 2, 0);
}

static void an_interrupt_wakes_a_halted_cpu_when_if_is_set(void **state)
{
    struct fixture *f = *state;
    struct x86_state after;

    put_handler(f);
    PUT(f, CODE, 0xfb, 0xf4, 0xf4); /* sti; hlt; hlt */
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_count, 0);
    atomic_store(&f->vector, 0x20);
    engine_signal(f->vcpu, ENGINE_SIGNAL_INTERRUPT);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_value, 9);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.rip, CODE + 3);
    assert_int_equal(after.gpr[X86_RSP], 0x8000);
}

static void an_interrupt_waits_while_if_is_clear(void **state)
{
    struct fixture *f = *state;

    put_handler(f);
    /* out 0xf4, al (of 1); sti; nop; hlt */
    PUT(f, CODE, 0xb0, 0x01, 0xe6, 0xf4, 0xfb, 0x90, 0xf4);
    atomic_store(&f->vector, 0x20);
    engine_signal(f->vcpu, ENGINE_SIGNAL_INTERRUPT);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_count, 2);
    assert_int_equal(f->port_value, 9); /* the handler came second */
}

static void every_field_of_the_state_is_got_as_it_was_set(void **state)
{
    struct fixture *f = *state;
    struct x86_state base, after;

    f->ops->get_state(f->vcpu, &base);
    for (size_t i = 0; i < ARRAY_SIZE(state_fields); i++) {
        struct x86_state before = base;
        const struct state_field *difference;

        if (!state_fields[i].any_cpu)
            continue;
        state_field_put(&before, &state_fields[i]);
        f->ops->set_state(f->vcpu, &before);
        f->ops->get_state(f->vcpu, &after);
        difference = state_difference(&before, &after, true);
        if (difference)
            fail_msg("%s comes back otherwise when %s is set", difference->name,
                     state_fields[i].name);
        f->ops->destroy(f->engine); /* a signalled NMI does not go away again */
        create_engine(f);
    }
}

/* A handler of #DB that writes 9 to the port, and ends the single steps of what it returns to. */
static void put_debug_handler(struct fixture *f)
{
    /* push bp; mov bp, sp; and byte [bp+7], 0xfe; pop bp; mov al, 9; out 0xf4, al; iret */
    PUT(f, HANDLER, 0x55, 0x89, 0xe5, 0x80, 0x66, 0x07, 0xfe, 0x5d, 0xb0, 0x09, 0xe6, 0xf4, 0xcf);
    store_le16(f->memory + X86_DB * 4, HANDLER);
    store_le16(f->memory + X86_DB * 4 + 2, 0);
}

static void a_debug_trap_that_was_due_is_taken_elsewhere(void **state)
{
    struct fixture *f = *state;
    struct x86_state due, after;

    put_debug_handler(f);
    PUT(f, CODE, 0x90, 0xf4); /* nop; hlt */
    f->ops->get_state(f->vcpu, &due);
    due.debug_trap = true;
    due.dr6 |= X86_DR6_BS;
    f->ops->set_state(f->vcpu, &due);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_count, 1);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.rip, CODE + 2);
    assert_true(after.dr6 & X86_DR6_BS);
    assert_false(after.debug_trap);
}

/* The machine stops a CPU in the middle of an instruction that is stepped. */
static void a_single_step_is_taken_once_whoever_goes_on(void **state)
{
    struct fixture *f = *state;
    struct x86_state start, between;

    put_debug_handler(f);
    /* pushf; mov bp, sp; or word [bp], 0x100; popf; out 0xf4, al; hlt */
    PUT(f, CODE, 0x9c, 0x89, 0xe5, 0x81, 0x4e, 0x00, 0x00, 0x01, 0x9d, 0xe6, 0xf4, 0xf4);
    f->ops->get_state(f->vcpu, &start);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    if (f->port_count == 1 && !strcmp(f->ops->name, "kvm"))
        skip(); /* KVM's emulator does not step this instruction at all */
    assert_int_equal(f->port_count, 2);
    f->ops->set_state(f->vcpu, &start);
    f->port_count = 0;
    f->kicks = true;
    assert_int_equal(run(f), ENGINE_EXIT_KICK);
    assert_int_equal(f->port_count, 1);
    f->ops->get_state(f->vcpu, &between);
    f->ops->destroy(f->engine);
    create_engine(f);
    f->ops->set_state(f->vcpu, &between);
    f->kicks = false;
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_count, 2);
    assert_int_equal(f->port_value & 0xff, 9);
}

static void *kick_soon(void *opaque)
{
    struct fixture *f = opaque;

    usleep(20000);
    engine_signal(f->vcpu, ENGINE_SIGNAL_KICK);
    return NULL;
}

static void a_kick_from_another_thread_ends_an_endless_loop(void **state)
{
    struct fixture *f = *state;
    struct x86_state after;
    pthread_t thread;

    PUT(f, CODE, 0xeb, 0xfe); /* jmp $ */
    assert_int_equal(pthread_create(&thread, NULL, kick_soon, f), 0);
    assert_int_equal(run(f), ENGINE_EXIT_KICK);
    pthread_join(thread, NULL);
    f->ops->get_state(f->vcpu, &after);
    assert_int_equal(after.rip, CODE);
}

static void a_kick_that_came_before_the_run_is_not_lost(void **state)
{
    struct fixture *f = *state;

    PUT(f, CODE, 0xeb, 0xfe);
    engine_signal(f->vcpu, ENGINE_SIGNAL_KICK);
    assert_int_equal(run(f), ENGINE_EXIT_KICK);
}

static void an_nmi_that_was_only_signalled_is_part_of_the_state(void **state)
{
    struct fixture *f = *state;
    struct x86_state got;

    engine_signal(f->vcpu, ENGINE_SIGNAL_NMI);
    f->ops->get_state(f->vcpu, &got);
    assert_true(got.nmi_pending);
    /* It is taken once, by whoever is given the state. */
    PUT(f, HANDLER, 0xb0, 0x09, 0xe6, 0xf4, 0xcf);
    store_le16(f->memory + 2 * 4, HANDLER);
    store_le16(f->memory + 2 * 4 + 2, 0);
    PUT(f, CODE, 0x90, 0x90, 0xf4); /* nop; nop; hlt */
    f->ops->set_state(f->vcpu, &got);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->port_count, 1);
}

/* More may be told: hardware may let a page be written that was only read so far. */
static void pages_that_a_cpu_writes_are_told_once(void **state)
{
    const uint64_t written = 1u << 3 | 1u << 7;
    struct fixture *f = *state;
    struct x86_state before;
    struct error err;
    uint64_t pages = 0;

    if (!f->ops->track_writes)
        skip();
    if (f->ops->track_writes(f->engine, true, &err) < 0)
        fail_msg("%s", err.text);
    /* mov [0x3000], al; mov [0x7fff], al; mov al, [0x5000]; hlt */
    PUT(f, CODE, 0xa2, 0x00, 0x30, 0xa2, 0xff, 0x7f, 0xa0, 0x00, 0x50, 0xf4);
    assert_int_equal(f->ops->fetch_writes(f->engine, 0, &pages, &err), 0);
    f->ops->get_state(f->vcpu, &before);
    pages = 0;
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->ops->fetch_writes(f->engine, 0, &pages, &err), 0);
    assert_int_equal(pages & written, written);
    assert_int_equal(pages >> 8, 0);
    pages = 0;
    assert_int_equal(f->ops->fetch_writes(f->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 0);
    /* Again: what was told is watched anew. */
    f->ops->set_state(f->vcpu, &before);
    assert_int_equal(run(f), ENGINE_EXIT_HALT);
    assert_int_equal(f->ops->fetch_writes(f->engine, 0, &pages, &err), 0);
    assert_int_equal(pages & written, written);
    assert_int_equal(pages >> 8, 0);
    assert_int_equal(f->ops->track_writes(f->engine, false, &err), 0);
    assert_int_equal(f->ops->fetch_writes(f->engine, 0, &pages, &err), -ENOENT);
}

/* Of all engines, or of the one that is named. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_port_write_reaches_its_callback_and_hlt_exits, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_port_read_gives_what_its_callback_says, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(memory_outside_the_slots_reaches_the_mmio_callbacks,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_nmi_that_was_only_signalled_is_part_of_the_state,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(pages_that_a_cpu_writes_are_told_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_interrupt_wakes_a_halted_cpu_when_if_is_set, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_interrupt_waits_while_if_is_clear, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_field_of_the_state_is_got_as_it_was_set, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_debug_trap_that_was_due_is_taken_elsewhere, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_single_step_is_taken_once_whoever_goes_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_kick_from_another_thread_ends_an_endless_loop, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_kick_that_came_before_the_run_is_not_lost, set_up,
                                        tear_down),
    };
    int failed = 0;

    for (const struct engine_ops *const *ops = engine_table; *ops; ops++) {
        if (argc > 1 && strcmp(argv[1], (*ops)->name) != 0)
            continue;
        /* KVM that only emulates is enough for these; no /dev/kvm is not. */
        if (!strcmp((*ops)->name, "kvm") && access("/dev/kvm", R_OK | W_OK) != 0) {
            printf("kvm: skipped, no /dev/kvm here\n");
            continue;
        }
        engine_under_test = *ops;
        printf("engine %s\n", (*ops)->name);
        failed += cmocka_run_group_tests_name((*ops)->name, tests, NULL, NULL);
    }
    return failed;
}
