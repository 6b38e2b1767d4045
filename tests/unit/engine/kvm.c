/* The KVM engine on hosts that there are not here. */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "fake_kvm.h"
#include "no_devices.h"
#include "state_fields.h"

#define MEMORY_SIZE 0x10000u
#define CODE        0x1000u
#define HOLE        0xa0000u

/* --- The machine --- */

struct machine {
    struct engine *engine;
    struct engine_callbacks callbacks;
    uint8_t *memory;
    uint64_t written_address, written_value;
    int ended_vector;
};

static void mmio_write(void *opaque, unsigned cpu, uint64_t address, unsigned size, uint64_t value)
{
    struct machine *m = opaque;

    (void)cpu, (void)size;
    m->written_address = address;
    m->written_value = value;
}

static void end_of_interrupt(void *opaque, unsigned cpu, uint8_t vector)
{
    struct machine *m = opaque;

    (void)cpu;
    m->ended_vector = vector;
}

static int create(struct machine *m, struct error *err)
{
    static const struct x86_cpuid cpuid = {
        .count = 2,
        .leaf = {{.function = 0, .eax = 1}, {.function = 1, .edx = 1u << 0 | 1u << 4 | 1u << 5}},
    };
    const struct engine_config config = {
        .callbacks = &m->callbacks, .opaque = m, .cpus = 1, .cpuid = &cpuid, .keep_apics = true};

    m->callbacks = no_devices;
    m->callbacks.mmio_write = mmio_write;
    m->callbacks.end_of_interrupt = end_of_interrupt;
    return kvm_engine.create(&config, &m->engine, err);
}

static int set_up(void **state)
{
    static struct machine m;

    fake_kvm_reset();
    m = (struct machine){.ended_vector = -1};
    *state = &m;
    return 0;
}

static void stop(struct machine *m)
{
    if (m->engine)
        kvm_engine.destroy(m->engine);
    if (m->memory)
        munmap(m->memory, MEMORY_SIZE);
    m->engine = NULL;
    m->memory = NULL;
}

static int tear_down(void **state)
{
    stop(*state);
    return 0;
}

static void start(struct machine *m)
{
    struct x86_state reset;
    struct error err;

    if (create(m, &err) < 0)
        fail_msg("%s", err.text);
    m->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(m->memory != MAP_FAILED);
    assert_int_equal(kvm_engine.map(m->engine, 0, MEMORY_SIZE, m->memory, 0, &err), 0);
    x86_state_reset(&reset, 0);
    reset.segment[X86_CS] = (struct x86_segment){
        .limit = 0xffff, .attributes = reset.segment[X86_CS].attributes};
    reset.rip = CODE;
    kvm_engine.set_state(m->engine->vcpus[0], &reset);
}

static void assert_says(const struct error *err, const char *what)
{
    if (!strstr(err->text, what))
        fail_msg("'%s' is not in: %s", what, err->text);
    assert_null(strchr(err->text, '\n'));
}

/* --- Hosts --- */

static void a_host_without_kvm_is_told(void **state)
{
    struct error err;

    fake.open_errno = ENOENT;
    assert_int_equal(create(*state, &err), -ENOENT);
    assert_says(&err, "/dev/kvm is missing");
}

static void whoever_may_not_open_it_learns_of_the_group(void **state)
{
    struct error err;

    fake.open_errno = EACCES;
    fake.device = (struct stat){.st_mode = S_IFCHR | 0660, .st_gid = 1}; /* daemon, everywhere */
    assert_int_equal(create(*state, &err), -EACCES);
    assert_says(&err, "join the group 'daemon'");
    fake.device.st_mode = S_IFCHR | 0600;
    assert_int_equal(create(*state, &err), -EACCES);
    assert_says(&err, "no group is let in");
}

static void another_hypervisor_on_the_cpu_is_told(void **state)
{
    struct error err;

    fake.create_errno = EBUSY;
    assert_int_equal(create(*state, &err), -EBUSY);
    assert_says(&err, "another hypervisor");
}

static void another_version_of_the_interface_is_refused(void **state)
{
    struct error err;

    fake.version = 11;
    assert_int_equal(create(*state, &err), -ENOTSUP);
    assert_says(&err, "API version 11");
}

static void each_capability_that_is_missing_is_named(void **state)
{
    static const int needed[] = {
        KVM_CAP_USER_MEMORY, KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_XSAVE, KVM_CAP_VCPU_EVENTS,
        KVM_CAP_DEBUGREGS, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER,
        KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI, KVM_CAP_MP_STATE};
    struct error err;

    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        fake.lacks = needed[i];
        assert_int_equal(create(*state, &err), -ENOTSUP);
        assert_says(&err, "this host's KVM lacks");
    }
}

static void a_cpu_without_what_the_guest_was_offered_is_refused(void **state)
{
    struct error err;

    fake.knows_no_cpuid = true;
    assert_int_equal(create(*state, &err), -ENOTSUP);
    assert_says(&err, "CPUID leaf 0x1");
}

/* --- Exits --- */

static void each_exit_that_is_not_expected_ends_the_machine_with_a_line(void **state)
{
    static const uint32_t expected[] = {
        KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_EXIT_HLT,
        KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_INTR, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN,
        KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_FAIL_ENTRY,
        KVM_EXIT_DIRTY_RING_FULL};
    struct machine *m = *state;
    enum engine_exit exit;
    struct error err;

    start(m);
    for (uint32_t reason = 0; reason < 64; reason++) {
        bool known = false;
        char number[16];

        for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
            known = known || expected[i] == reason;
        if (known)
            continue;
        fake.exits[0] = reason;
        assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), -EIO);
        snprintf(number, sizeof(number), "(%u)", reason);
        assert_says(&err, "CPU 0 left KVM at 0000:1000");
        assert_says(&err, number);
    }
}

static void a_cpu_that_cannot_be_entered_is_told(void **state)
{
    struct machine *m = *state;
    enum engine_exit exit;
    struct error err;

    start(m);
    fake.exits[0] = KVM_EXIT_FAIL_ENTRY;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), -EIO);
    assert_says(&err, "cannot enter CPU 0");
    fake.exits[0] = KVM_EXIT_INTERNAL_ERROR;
    fake.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), -EIO);
    assert_says(&err, "internal error 3");
    fake.run_errno = EFAULT;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), -EFAULT);
    assert_says(&err, "cannot run CPU 0");
}

static void what_kvm_cannot_emulate_the_interpreter_does(void **state)
{
    static const uint8_t store[] = {0x66, 0xc7, 0x06, 0x10, 0, 0x78, 0x56, 0x34, 0x12};
    struct machine *m = *state;
    enum engine_exit exit = ENGINE_EXIT_HALT;
    struct x86_state before, after;
    struct error err;

    start(m);
    memcpy(m->memory + CODE, store, sizeof(store)); /* mov dword [0x10], 0x12345678 */
    kvm_engine.get_state(m->engine->vcpus[0], &before);
    before.segment[X86_DS].base = HOLE;
    kvm_engine.set_state(m->engine->vcpus[0], &before);
    fake.exits[0] = KVM_EXIT_INTERNAL_ERROR;
    fake.exits[1] = KVM_EXIT_SHUTDOWN;
    fake.exit_count = 2;
    fake.suberror = KVM_INTERNAL_ERROR_EMULATION;
    if (engine_run(m->engine->vcpus[0], &exit, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(exit, ENGINE_EXIT_SHUTDOWN);
    assert_int_equal(m->written_address, HOLE + 0x10);
    assert_int_equal(m->written_value, 0x12345678);
    kvm_engine.get_state(m->engine->vcpus[0], &after);
    assert_int_equal(after.rip, CODE + sizeof(store));
}

/* --- Interrupts, bells, writes --- */

static void the_end_of_a_level_triggered_interrupt_reaches_the_machine(void **state)
{
    struct machine *m = *state;
    enum engine_exit exit;
    struct error err;

    start(m);
    fake.exits[0] = KVM_EXIT_IOAPIC_EOI;
    fake.exits[1] = KVM_EXIT_SHUTDOWN;
    fake.exit_count = 2;
    fake.run->eoi.vector = 0x51;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), 0);
    assert_int_equal(m->ended_vector, 0x51);
}

static void a_halted_cpu_waits_where_its_apic_can_wake_it(void **state)
{
    struct machine *m = *state;
    enum engine_exit exit = ENGINE_EXIT_HALT;
    struct x86_state halted;
    struct error err;

    start(m);
    kvm_engine.get_state(m->engine->vcpus[0], &halted);
    halted.activity = X86_HALTED;
    kvm_engine.set_state(m->engine->vcpus[0], &halted);
    assert_int_equal(fake.activity.mp_state, KVM_MP_STATE_HALTED);
    kvm_engine.get_state(m->engine->vcpus[0], &halted);
    assert_int_equal(halted.activity, X86_HALTED);
    fake.exits[0] = KVM_EXIT_SHUTDOWN;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), 0);
    assert_int_equal(exit, ENGINE_EXIT_SHUTDOWN);
    assert_int_equal(fake.runs, 1);
}

static void routes_are_told_when_they_change_and_only_then(void **state)
{
    struct machine *m = *state;

    start(m);
    kvm_engine.apic->route(m->engine, 9, 0xfee01000, 0xc051);
    kvm_engine.apic->route(m->engine, 9, 0xfee01000, 0xc051);
    kvm_engine.apic->route(m->engine, 4, 0, 0);
    assert_int_equal(fake.routings, 1);
    assert_int_equal(fake.routes.list.nr, 1);
    assert_int_equal(fake.routes.list.entries[0].gsi, 9);
    assert_int_equal(fake.routes.list.entries[0].u.msi.address_lo, 0xfee01000);
    assert_int_equal(fake.routes.list.entries[0].u.msi.data, 0xc051);
    kvm_engine.apic->route(m->engine, 9, 0, 0);
    assert_int_equal(fake.routings, 2);
    assert_int_equal(fake.routes.list.nr, 0);
    kvm_engine.apic->route(m->engine, KVM_PINS, 0xfee01000, 0xc051); /* there is none */
    assert_int_equal(fake.routings, 2);
    kvm_engine.apic->message(m->engine, ENGINE_NO_SOURCE, 0xfee02004, 0x4061);
    assert_int_equal(fake.message.address_lo, 0xfee02004);
    assert_int_equal(fake.message.data, 0x4061);
}

/* How often the line was written. */
static uint64_t line_writes(void)
{
    uint64_t count = 0;

    return read((int)fake.line.fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void a_message_told_ahead_goes_by_its_event_descriptor(void **state)
{
    struct machine *m = *state;

    start(m);
    kvm_engine.apic->prepare(m->engine, 70, 0xfee01000, 0x4051);
    assert_int_equal(fake.routings, 1);
    assert_int_equal(fake.routes.list.nr, 1);
    assert_int_equal(fake.routes.list.entries[0].gsi, KVM_PINS);
    assert_int_equal(fake.routes.list.entries[0].u.msi.data, 0x4051);
    assert_int_equal(fake.line.gsi, KVM_PINS);
    kvm_engine.apic->message(m->engine, 70, 0xfee01000, 0x4051);
    assert_int_equal(line_writes(), 1);
    assert_int_equal(fake.messages, 0);
    /* Another message than was told, and one of another source. */
    kvm_engine.apic->message(m->engine, 70, 0xfee01000, 0x4052);
    kvm_engine.apic->message(m->engine, 71, 0xfee01000, 0x4051);
    assert_int_equal(line_writes(), 0);
    assert_int_equal(fake.messages, 2);
    kvm_engine.apic->prepare(m->engine, 70, 0xfee01000, 0x4052);
    assert_int_equal(fake.routings, 2);
    kvm_engine.apic->message(m->engine, 70, 0xfee01000, 0x4052);
    assert_int_equal(line_writes(), 1);
    fake.refuses_routes = true;
    kvm_engine.apic->prepare(m->engine, 70, 0xfee01000, 0x4053);
    kvm_engine.apic->prepare(m->engine, 71, 0xfee01000, 0x4054);
    kvm_engine.apic->message(m->engine, 70, 0xfee01000, 0x4053);
    kvm_engine.apic->message(m->engine, 71, 0xfee01000, 0x4054);
    assert_int_equal(line_writes(), 0);
    assert_int_equal(fake.messages, 4);
}

static void lines_are_drained_before_an_apic_is_read(void **state)
{
    struct machine *m = *state;
    struct x86_apic apic;
    struct error err;

    start(m);
    kvm_engine.apic->prepare(m->engine, 70, 0xfee01000, 0x4051);
    assert_int_equal(fake.line.flags, 0);
    assert_int_equal(kvm_engine.apic->get(m->engine->vcpus[0], &apic, &err), 0);
    assert_int_equal(fake.line.flags, KVM_IRQFD_FLAG_DEASSIGN);
    kvm_engine.apic->message(m->engine, 70, 0xfee01000, 0x4051);
    assert_int_equal(fake.messages, 1);
}

static void more_sources_than_lines_do_without(void **state)
{
    struct machine *m = *state;

    start(m);
    for (unsigned source = 0; source <= KVM_LINES_MAX; source++)
        kvm_engine.apic->prepare(m->engine, source, 0xfee01000, 0x4000 + source);
    assert_int_equal(fake.routes.list.nr, KVM_LINES_MAX);
    kvm_engine.apic->message(m->engine, KVM_LINES_MAX, 0xfee01000, 0x4000 + KVM_LINES_MAX);
    assert_int_equal(fake.messages, 1);
}

static void a_doorbell_is_put_up_and_taken_down(void **state)
{
    struct machine *m = *state;

    start(m);
    assert_int_equal(kvm_engine.doorbell(m->engine, 0x4000003000, 7, true), 0);
    assert_int_equal(fake.bell.addr, 0x4000003000);
    assert_int_equal(fake.bell.fd, 7);
    assert_int_equal(fake.bell.flags, 0);
    assert_int_equal(kvm_engine.doorbell(m->engine, 0x4000003000, 7, false), 0);
    assert_int_equal(fake.bell.flags, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static void writes_are_gathered_while_they_are_tracked(void **state)
{
    struct machine *m = *state;
    uint64_t pages = 0;
    struct error err;

    start(m);
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), -ENOENT);
    assert_int_equal(kvm_engine.track_writes(m->engine, true, &err), 0);
    assert_true(fake.region.flags & KVM_MEM_LOG_DIRTY_PAGES);
    fake.dirty = 0x5;
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    fake.dirty = 0x2;
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 0x7);
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0x1000, &pages, &err), -ENOENT);
    assert_int_equal(kvm_engine.track_writes(m->engine, false, &err), 0);
    assert_false(fake.region.flags & KVM_MEM_LOG_DIRTY_PAGES);
}

/* KVM notes a page in its ring. */
static void write_page(unsigned at, uint32_t slot, uint64_t page)
{
    fake.ring[at % FAKE_RING_LENGTH] =
        (struct kvm_dirty_gfn){.flags = KVM_DIRTY_GFN_F_DIRTY, .slot = slot, .offset = page};
}

static void a_ring_tells_writes_where_there_is_one(void **state)
{
    struct machine *m = *state;
    uint64_t pages = 0;
    struct error err;

    fake.ring_bytes = 1 << 20;
    start(m);
    assert_int_equal(fake.ring_size, FAKE_RING_SIZE);
    assert_int_equal(kvm_engine.track_writes(m->engine, true, &err), 0);
    write_page(0, 0, 0);
    write_page(1, 0, 15);
    write_page(2, 0, 16);             /* beyond the slot */
    write_page(3, 0, UINT64_MAX);
    write_page(4, KVM_SLOTS_MAX, 1);  /* of no slot */
    write_page(5, 1, 1);              /* of one that is free */
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 0x8001);
    assert_int_equal(fake.ring_resets, 1);
    pages = 0;
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 0);
    assert_int_equal(fake.ring_resets, 1); /* nothing to take back */
    for (unsigned i = 0; i < 2 * FAKE_RING_LENGTH; i++) { /* around its end and again */
        write_page(6 + i, 0, i % 16);
        if (i % 100 == 99)
            assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    }
    assert_int_equal(pages, 0xffff);
}

static void a_ring_that_is_full_is_gathered_and_the_cpu_goes_on(void **state)
{
    struct machine *m = *state;
    enum engine_exit exit;
    uint64_t pages = 0;
    struct error err;

    fake.ring_bytes = 1 << 20;
    start(m);
    assert_int_equal(kvm_engine.track_writes(m->engine, true, &err), 0);
    for (unsigned i = 0; i < FAKE_RING_LENGTH; i++)
        write_page(i, 0, 3);
    fake.exits[0] = KVM_EXIT_DIRTY_RING_FULL;
    fake.exits[1] = KVM_EXIT_SHUTDOWN;
    fake.exit_count = 2;
    assert_int_equal(engine_run(m->engine->vcpus[0], &exit, &err), 0);
    assert_int_equal(exit, ENGINE_EXIT_SHUTDOWN);
    assert_int_equal(fake.ring_resets, 1);
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 1u << 3);
    /* What is left over when tracking ends is not told when it begins again. */
    write_page(0, 0, 5);
    assert_int_equal(kvm_engine.track_writes(m->engine, false, &err), 0);
    assert_int_equal(kvm_engine.track_writes(m->engine, true, &err), 0);
    pages = 0;
    assert_int_equal(kvm_engine.fetch_writes(m->engine, 0, &pages, &err), 0);
    assert_int_equal(pages, 0);
}

static void rings_that_are_too_small_are_left_for_the_log(void **state)
{
    struct machine *m = *state;

    fake.ring_bytes = FAKE_RING_SIZE / 2;
    start(m);
    assert_int_equal(fake.ring_size, 0);
}

static void an_nmi_that_is_only_signalled_is_part_of_the_state(void **state)
{
    struct machine *m = *state;
    struct x86_state before;

    start(m);
    kvm_engine.get_state(m->engine->vcpus[0], &before);
    assert_false(before.nmi_pending);
    engine_signal(m->engine->vcpus[0], ENGINE_SIGNAL_NMI);
    kvm_engine.get_state(m->engine->vcpus[0], &before);
    assert_true(before.nmi_pending);
}

/* With PAE paging, so that the four entries that CR3 loads are state, too. */
static void every_field_of_the_state_comes_back_as_it_was_set(void **state)
{
    struct machine *m = *state;
    struct x86_state base, after;

    for (size_t i = 0; i < ARRAY_SIZE(state_fields); i++) {
        const struct state_field *difference;
        struct x86_state before;

        start(m);
        fake.sregs2.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        kvm_engine.get_state(m->engine->vcpus[0], &base);
        base.cr0 |= X86_CR0_PE | X86_CR0_PG;
        base.cr4 |= X86_CR4_PAE;
        before = base;
        state_field_put(&before, &state_fields[i]);
        kvm_engine.set_state(m->engine->vcpus[0], &before);
        kvm_engine.get_state(m->engine->vcpus[0], &after);
        difference = state_difference(&before, &after, false);
        if (difference)
            fail_msg("%s comes back otherwise when %s is set", difference->name,
                     state_fields[i].name);
        stop(m);
    }
}

static void registers_of_another_engine_are_not_taken_for_initial(void **state)
{
    struct machine *m = *state;
    struct x86_xsave given;
    struct x86_state before;

    start(m);
    kvm_engine.get_state(m->engine->vcpus[0], &before);
    before.xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
    before.fpu.xstate_bv = before.fpu.xcomp_bv = 0;
    before.fpu.ymm_high[1][2] = 3;
    kvm_engine.set_state(m->engine->vcpus[0], &before);
    memcpy(&given, fake.xsave, sizeof(given));
    assert_int_equal(given.xstate_bv, before.xcr0);
    before.xcr0 = X86_XCR0_X87; /* the guest has not turned AVX on */
    kvm_engine.set_state(m->engine->vcpus[0], &before);
    memcpy(&given, fake.xsave, sizeof(given));
    assert_int_equal(given.xstate_bv, X86_XCR0_X87 | X86_XCR0_SSE);
}

static void an_interrupt_and_a_debug_trap_come_out_of_what_kvm_has_in_hand(void **state)
{
    static const struct {
        struct kvm_vcpu_events events;
        bool interrupt, trap, nmi;
    } cases[] = {
        {{.interrupt = {.injected = 1, .nr = 0x41}}, true, false, false},
        {{.interrupt = {.injected = 1, .nr = 0x80, .soft = 1}}, false, false, false}, /* INT n */
        {{.exception = {.injected = 1, .nr = X86_DB}}, false, true, false},
        {{.exception = {.injected = 1, .nr = X86_PF}}, false, false, false}, /* comes again */
        {{.exception = {.nr = X86_DB}}, false, false, false},
        {{.nmi = {.injected = 1}}, false, false, true},
        {{.nmi = {.pending = 1}}, false, false, true},
    };
    struct machine *m = *state;

    start(m);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct x86_state got;

        fake.events = cases[i].events;
        kvm_engine.get_state(m->engine->vcpus[0], &got);
        assert_int_equal(got.interrupt_pending, cases[i].interrupt);
        assert_int_equal(got.interrupt_vector, cases[i].interrupt ? 0x41 : 0);
        assert_int_equal(got.debug_trap, cases[i].trap);
        assert_int_equal(got.nmi_pending, cases[i].nmi);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_host_without_kvm_is_told),
        TEST(whoever_may_not_open_it_learns_of_the_group),
        TEST(another_hypervisor_on_the_cpu_is_told),
        TEST(another_version_of_the_interface_is_refused),
        TEST(each_capability_that_is_missing_is_named),
        TEST(a_cpu_without_what_the_guest_was_offered_is_refused),
        TEST(each_exit_that_is_not_expected_ends_the_machine_with_a_line),
        TEST(a_cpu_that_cannot_be_entered_is_told),
        TEST(what_kvm_cannot_emulate_the_interpreter_does),
        TEST(the_end_of_a_level_triggered_interrupt_reaches_the_machine),
        TEST(a_halted_cpu_waits_where_its_apic_can_wake_it),
        TEST(routes_are_told_when_they_change_and_only_then),
        TEST(a_message_told_ahead_goes_by_its_event_descriptor),
        TEST(lines_are_drained_before_an_apic_is_read),
        TEST(more_sources_than_lines_do_without),
        TEST(a_doorbell_is_put_up_and_taken_down),
        TEST(writes_are_gathered_while_they_are_tracked),
        TEST(a_ring_tells_writes_where_there_is_one),
        TEST(a_ring_that_is_full_is_gathered_and_the_cpu_goes_on),
        TEST(rings_that_are_too_small_are_left_for_the_log),
        TEST(every_field_of_the_state_comes_back_as_it_was_set),
        TEST(registers_of_another_engine_are_not_taken_for_initial),
        TEST(an_interrupt_and_a_debug_trap_come_out_of_what_kvm_has_in_hand),
        TEST(an_nmi_that_is_only_signalled_is_part_of_the_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
