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

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct engine_config config = {
        .callbacks = &f->callbacks, .opaque = f, .cpus = 1, .cpuid = &f->cpuid};
    struct x86_state reset;
    struct error err;

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
    if (f->ops->create(&config, &f->engine, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    f->vcpu = f->engine->vcpus[0];
    f->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f->memory == MAP_FAILED || f->ops->map(f->engine, 0, MEMORY_SIZE, f->memory, 0, &err) < 0)
        return -1;
    x86_state_reset(&reset, 0);
    reset.segment[X86_CS].selector = 0;
    reset.segment[X86_CS].base = 0;
    reset.rip = CODE;
    reset.gpr[X86_RSP] = 0x8000;
    f->ops->set_state(f->vcpu, &reset);
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

static void the_state_that_is_set_is_the_state_that_is_got(void **state)
{
    struct fixture *f = *state;
    struct x86_state before, after;

    f->ops->get_state(f->vcpu, &before);
    for (int i = 0; i < X86_GPRS; i++)
        before.gpr[i] = 0x1111111111111111ull * (unsigned)i;
    before.rflags = X86_FLAGS_ONE | X86_CF | X86_OF;
    before.cr2 = 0x1234;
    before.star = 0x0023001000000000;
    before.lstar = 0xffffffff81000000;
    before.fpu.mxcsr = 0x1fa0;
    before.fpu.xmm[3][5] = 0x77;
    before.fpu.xstate_bv = 3;
    before.segment[X86_DS].selector = 0x1234;
    before.segment[X86_DS].base = 0x12340;
    f->ops->set_state(f->vcpu, &before);
    f->ops->get_state(f->vcpu, &after);
    assert_memory_equal(after.gpr, before.gpr, sizeof(after.gpr));
    assert_int_equal(after.rip, before.rip);
    assert_int_equal(after.rflags, before.rflags);
    assert_int_equal(after.cr0, before.cr0);
    assert_int_equal(after.cr2, before.cr2);
    assert_int_equal(after.lstar, before.lstar);
    assert_int_equal(after.star, before.star);
    assert_int_equal(after.fpu.mxcsr, before.fpu.mxcsr);
    assert_memory_equal(after.fpu.xmm, before.fpu.xmm, sizeof(after.fpu.xmm));
    assert_int_equal(after.segment[X86_DS].selector, 0x1234);
    assert_int_equal(after.segment[X86_DS].base, 0x12340);
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

int main(void)
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
        cmocka_unit_test_setup_teardown(the_state_that_is_set_is_the_state_that_is_got, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_kick_from_another_thread_ends_an_endless_loop, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_kick_that_came_before_the_run_is_not_lost, set_up,
                                        tear_down),
    };
    int failed = 0;

    for (const struct engine_ops *const *ops = engine_table; *ops; ops++) {
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
