#include "machine/machine.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "machine/acpi.h"
#include "machine/cpuid.h"
#include "machine/machine-private.h"

#define CACHE_MIN (64ull << 20) /* for translated code, unless somebody says how much */
#define CACHE_MAX (256ull << 20)

static int check_config(const struct machine_config *config, struct error *err)
{
    if (config->cpus == 0)
        return error_set(err, EINVAL, "a machine needs at least 1 CPU");
    if (config->cpus > ENGINE_CPUS_MAX)
        return error_set(err, EINVAL, "%u CPUs are too many; a machine has up to %d", config->cpus,
                         ENGINE_CPUS_MAX);
    return 0;
}

/* --- What local APICs ask --- */

static void apic_notify(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;

    machine_cpu_request(&m->cpus[cpu], CPU_REQUEST_WAKE);
}

static void apic_nmi(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;

    pthread_rwlock_rdlock(&m->engine_lock);
    engine_signal(m->cpus[cpu].vcpu, ENGINE_SIGNAL_NMI);
    pthread_rwlock_unlock(&m->engine_lock);
    machine_cpu_request(&m->cpus[cpu], CPU_REQUEST_WAKE);
}

static void apic_init(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;

    machine_cpu_request(&m->cpus[cpu], CPU_REQUEST_INIT);
}

static void apic_startup(void *opaque, unsigned cpu, uint8_t vector)
{
    struct machine *m = opaque;

    atomic_store(&m->cpus[cpu].sipi_vector, vector);
    machine_cpu_request(&m->cpus[cpu], CPU_REQUEST_SIPI);
}

static void apic_end_of_interrupt(void *opaque, uint8_t vector)
{
    struct machine *m = opaque;

    ioapic_end_of_interrupt(&m->ioapic, vector);
}

static bool apic_forward(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;
    bool taken;

    pthread_rwlock_rdlock(&m->engine_lock);
    taken = machine_engine_keeps_apics(m);
    if (taken)
        m->engine->ops->apic->message(m->engine, source, address, data);
    pthread_rwlock_unlock(&m->engine_lock);
    return taken;
}

static uint64_t apic_tsc_offset(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;

    return atomic_load(&m->cpus[cpu].tsc_offset);
}

/* --- Making --- */

static void memory_written(void *opaque, uint64_t address, uint64_t size)
{
    struct machine *m = opaque;

    pthread_rwlock_rdlock(&m->engine_lock);
    m->engine->ops->invalidate(m->engine, address, size);
    pthread_rwlock_unlock(&m->engine_lock);
}

bool machine_apics_wanted(const struct machine *machine, const struct engine_ops *ops)
{
    return ops->apic && !machine->config.own_apics;
}

/* An eighth of the guest's memory: large systems have more code. */
static uint64_t translation_cache(const struct machine_config *c)
{
    return c->translation_cache ? c->translation_cache
                                : MIN(MAX(c->memory / 8, CACHE_MIN), CACHE_MAX);
}

int machine_create_engine(struct machine *machine, const struct engine_ops *ops, int device_fd,
                          struct engine **ret_engine, struct error *err)
{
    const struct machine_config *c = &machine->config;
    const struct engine_config config = {
        .callbacks = &machine_engine_callbacks,
        .opaque = machine,
        .cpus = c->cpus,
        .cpuid = machine->cpuid,
        .log = c->log,
        .translation_cache = translation_cache(c),
        .hot_turns = c->hot_turns,
        .stats = c->stats,
        .trace_path = c->trace_path,
        .perf_map = c->perf_map,
        .device_fd = device_fd,
        .keep_apics = machine_apics_wanted(machine, ops),
    };
    struct engine *engine;
    int r = ops->create(&config, &engine, err);

    if (r < 0)
        return r;
    for (unsigned i = 0; r == 0 && i < machine->memory->region_count; i++) {
        const struct guest_memory_region *region = &machine->memory->region[i];

        r = ops->map(engine, region->address, region->size, region->host, 0, err);
    }
    if (r < 0) {
        ops->destroy(engine);
        return r;
    }
    *ret_engine = engine;
    return 0;
}

static int create_cpus(struct machine *m, struct error *err)
{
    int r;

    m->cpuid = calloc(m->config.cpus, sizeof(*m->cpuid));
    if (!m->cpuid)
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; i < m->config.cpus; i++)
        machine_cpuid(m->config.engine, i, m->config.cpus, m->timers.tsc_hz, &m->cpuid[i]);
    m->signature = x86_cpuid_find(&m->cpuid[0], 1, 0)->eax;
    r = machine_create_engine(m, m->config.engine, 0, &m->engine, err);
    m->keeps_apics = machine_apics_wanted(m, m->config.engine);
    for (unsigned i = 0; r == 0 && i < m->config.cpus; i++) {
        m->cpus[i].machine = m;
        m->cpus[i].index = i;
        m->cpus[i].vcpu = m->engine->vcpus[i];
        m->cpus[i].held_vector = -1;
        halt_init(&m->cpus[i].halt, m->config.cpus);
    }
    return r;
}

int machine_create(const struct machine_config *config, struct machine **ret_machine,
                   struct error *err)
{
    struct machine *m;
    const struct lapic_ops apic_ops = {
        .notify = apic_notify, .nmi = apic_nmi, .init = apic_init, .startup = apic_startup,
        .end_of_interrupt = apic_end_of_interrupt, .forward = apic_forward,
    };
    struct lapic_ops ops = apic_ops;
    int r = check_config(config, err);

    if (r < 0)
        return r;
    m = calloc(1, sizeof(*m));
    if (!m)
        return error_set(err, ENOMEM, "out of memory");
    m->config = *config;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->parked, NULL);
    pthread_rwlock_init(&m->engine_lock, NULL);
    ops.opaque = m;
    r = config->huge_pages ? guest_memory_create_huge(config->memory, &m->memory, err)
                           : guest_memory_create(config->memory, &m->memory, err);
    if (r < 0)
        goto free_machine;
    r = timers_init(&m->timers, config->sandbox, err);
    if (r < 0)
        goto free_memory;
    doorbells_init(&m->doorbells);
    pvclock_init(&m->pvclock, m->memory, &m->timers);
    r = create_cpus(m, err);
    if (r < 0)
        goto free_engine;
    m->memory->written = memory_written;
    m->memory->written_opaque = m;
    r = lapic_set_init(&m->lapics, config->cpus, &m->timers, &ops, err);
    if (r < 0)
        goto free_engine;
    m->lapics.tsc_offset = apic_tsc_offset;
    r = board_create(m, err);
    if (r < 0)
        goto free_board;
    machine_reset(m);
    *ret_machine = m;
    return 0;

free_board:
    board_destroy(m);
    timers_destroy(&m->timers);
    lapic_set_destroy(&m->lapics);
    m->config.engine->destroy(m->engine);
    goto free_memory;
free_engine:
    timers_destroy(&m->timers);
    if (m->engine)
        m->config.engine->destroy(m->engine);
free_memory:
    guest_memory_destroy(m->memory);
free_machine:
    free(m->cpuid);
    free(m);
    return r;
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    timers_destroy(&machine->timers); /* no timer fires into what goes away now */
    board_destroy(machine);
    lapic_set_destroy(&machine->lapics);
    doorbells_destroy(&machine->doorbells);
    pvclock_destroy(&machine->pvclock);
    machine->config.engine->destroy(machine->engine);
    guest_memory_destroy(machine->memory);
    pthread_rwlock_destroy(&machine->engine_lock);
    pthread_cond_destroy(&machine->parked);
    pthread_mutex_destroy(&machine->lock);
    free(machine->cpuid);
    free(machine);
}

/* Give the engine, where it keeps the APICs, what board_reset has made of the machine's. */
static void reset_engine_apic(struct machine_cpu *cpu)
{
    struct machine *m = cpu->machine;
    struct x86_apic apic;
    struct error err;

    if (!machine_engine_keeps_apics(m))
        return;
    lapic_save(&m->lapics.lapics[cpu->index], &apic);
    if (m->engine->ops->apic->set(cpu->vcpu, &apic, &err) < 0)
        log_error(m->config.log, "%s", err.text);
}

void machine_reset(struct machine *machine)
{
    const uint64_t tsc_offset = -(uint64_t)__rdtsc();

    board_reset(machine);
    pvclock_reset(&machine->pvclock, tsc_offset);
    x86_state_reset(&machine->boot_state, machine->signature);
    machine->boot_state.tsc_offset = tsc_offset;
    memset(&machine->outcome, 0, sizeof(machine->outcome));
    atomic_store(&machine->ending, false);
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        struct machine_cpu *cpu = &machine->cpus[i];
        struct x86_state state;

        x86_state_reset(&state, machine->signature);
        state.tsc_offset = tsc_offset;
        if (i)
            state.activity = X86_WAIT_FOR_SIPI;
        atomic_store(&cpu->requests, 0);
        atomic_store(&cpu->tsc_offset, tsc_offset);
        cpu->held_vector = -1;
        cpu->vcpu->ops->set_state(cpu->vcpu, &state);
        reset_engine_apic(cpu);
    }
}

struct guest_memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

uint64_t machine_rsdp(const struct machine *machine)
{
    (void)machine;
    return ACPI_RSDP;
}

void machine_set_boot_state(struct machine *machine, const struct x86_state *state)
{
    machine->boot_state = *state;
}

void machine_get_boot_state(struct machine *machine, struct x86_state *ret_state)
{
    *ret_state = machine->boot_state;
}

/* --- Running --- */

void machine_end(struct machine *machine, enum machine_end end, unsigned code, const char *why)
{
    bool first;

    pthread_mutex_lock(&machine->lock);
    first = !atomic_load(&machine->ending);
    if (first) {
        machine->outcome.end = end;
        machine->outcome.code = code;
        if (why)
            error_set(&machine->outcome.why, EIO, "%s", why);
        atomic_store(&machine->ending, true);
    } else if (end == MACHINE_STOPPED && machine->outcome.end == MACHINE_REBOOT) {
        machine->outcome.end = end; /* nothing is to start again */
    }
    pthread_mutex_unlock(&machine->lock);
    if (!first)
        return;
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        struct machine_cpu *cpu = &machine->cpus[i];

        pthread_rwlock_rdlock(&machine->engine_lock);
        engine_signal(cpu->vcpu, ENGINE_SIGNAL_KICK);
        pthread_rwlock_unlock(&machine->engine_lock);
        atomic_fetch_or(&cpu->requests, CPU_REQUEST_WAKE);
        syscall(SYS_futex, &cpu->requests, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

int machine_start(struct machine *machine,
                  void (*ended)(void *opaque, const struct machine_outcome *outcome),
                  void *opaque, struct error *err)
{
    struct vcpu *boot = machine->cpus[0].vcpu;
    int r = acpi_write_tables(machine->memory, machine->config.cpus, err);

    if (r < 0)
        return r;
    machine->ended = ended;
    machine->ended_opaque = opaque;
    for (unsigned i = 0; i < machine->memory->region_count; i++)
        machine->config.engine->invalidate(machine->engine, machine->memory->region[i].address,
                                           machine->memory->region[i].size);
    boot->ops->set_state(boot, &machine->boot_state);
    machine->threads_running = machine->config.cpus;
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        struct machine_cpu *cpu = &machine->cpus[i];
        int code = thread_start(&cpu->thread, machine_cpu_main, cpu);

        if (code) {
            /* Those that run end; the rest never were. */
            error_system(err, code, "cannot start the thread of CPU %u", i);
            machine_end(machine, MACHINE_FAILED, 0, err ? err->text : "no thread");
            pthread_mutex_lock(&machine->lock);
            machine->threads_running += i - machine->config.cpus;
            pthread_mutex_unlock(&machine->lock);
            for (unsigned k = 0; k < i; k++)
                pthread_join(machine->cpus[k].thread, NULL);
            machine->threads_started = 0;
            return -code;
        }
        machine->threads_started++;
    }
    return 0;
}

void machine_stop(struct machine *machine)
{
    machine_end(machine, MACHINE_STOPPED, 0, NULL);
}

void machine_power_button(struct machine *machine)
{
    acpi_pm_power_button(&machine->pm);
}

size_t machine_console_input(struct machine *machine, const uint8_t *bytes, size_t length)
{
    return serial_input(&machine->serial, bytes, length);
}

size_t machine_console_room(struct machine *machine)
{
    return serial_room(&machine->serial);
}

/* Where each CPU stands. */
static void print_cpu(const struct machine_cpu *cpu, FILE *out)
{
    static const char *const activities[] = {"running", "halted", "waiting for SIPI", "shut down"};
    struct x86_state s;

    cpu->vcpu->ops->get_state(cpu->vcpu, &s);
    fprintf(out,
            "cpu %u: %s at %04x:%llx rsp %llx rflags %llx cr0 %llx cr2 %llx cr3 %llx cr4 %llx\n",
            cpu->index, activities[s.activity], s.segment[X86_CS].selector,
            (unsigned long long)s.rip, (unsigned long long)s.gpr[X86_RSP],
            (unsigned long long)s.rflags, (unsigned long long)s.cr0, (unsigned long long)s.cr2,
            (unsigned long long)s.cr3, (unsigned long long)s.cr4);
}

void machine_print_stats(struct machine *machine, FILE *out)
{
    for (unsigned i = 0; i < machine->config.cpus; i++)
        print_cpu(&machine->cpus[i], out);
    if (machine->config.engine->print_stats)
        machine->config.engine->print_stats(machine->engine, out);
}
