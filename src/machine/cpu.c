/* The thread of one CPU, and what engines call from it. */
#include <stdio.h>
#include <unistd.h>

#include "machine/machine-private.h"

/* --- Callbacks --- */

static bool in_lapic(uint64_t address)
{
    return address - LAPIC_BASE < LAPIC_SIZE;
}

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t address, unsigned size)
{
    struct machine *m = opaque;

    if (in_lapic(address) && !machine_engine_keeps_apics(m))
        return lapic_read(&m->lapics.lapics[cpu], address - LAPIC_BASE) >> (8 * (address & 3));
    return bus_read(&m->mmio, cpu, address, size);
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t address, unsigned size, uint64_t value)
{
    struct machine *m = opaque;

    if (in_lapic(address) && !machine_engine_keeps_apics(m)) {
        if (size >= 4 && !(address & 3)) /* 32-bit registers only (SDM 3A 10.4.1) */
            lapic_write(&m->lapics.lapics[cpu], address - LAPIC_BASE, (uint32_t)value);
        return;
    }
    bus_write(&m->mmio, cpu, address, size, value);
}

static uint32_t port_read(void *opaque, unsigned cpu, uint16_t port, unsigned size)
{
    struct machine *m = opaque;

    return (uint32_t)bus_read(&m->ports, cpu, port, size);
}

static void port_write(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *m = opaque;

    bus_write(&m->ports, cpu, port, size, value);
}

/* The 8259 comes first: its request is on the INTR pin, past the APIC's priorities. */
static int interrupt_acknowledge(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;
    struct lapic *lapic = &m->lapics.lapics[cpu];
    int held = m->cpus[cpu].held_vector;

    m->cpus[cpu].held_vector = -1;
    if (held >= 0)
        return held;
    if (machine_engine_keeps_apics(m)) /* and has looked whether its APIC lets the 8259 through */
        return pic_pending(&m->pic) ? pic_acknowledge(&m->pic) : -1;
    if (pic_pending(&m->pic) && lapic_accepts_extint(lapic))
        return pic_acknowledge(&m->pic);
    return lapic_acknowledge(lapic);
}

static uint64_t cr8_read(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;

    return lapic_cr8(&m->lapics.lapics[cpu]);
}

static void cr8_write(void *opaque, unsigned cpu, uint64_t value)
{
    struct machine *m = opaque;

    lapic_set_cr8(&m->lapics.lapics[cpu], value);
}

static bool msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret_value)
{
    struct machine *m = opaque;

    if (pvclock_msr_read(&m->pvclock, cpu, msr, ret_value))
        return true;
    /* An engine that keeps the APICs asks for none of their MSRs but those it does not know. */
    return !machine_engine_keeps_apics(m) &&
           lapic_msr_read(&m->lapics.lapics[cpu], msr, ret_value);
}

static bool msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct machine *m = opaque;

    if (pvclock_msr_write(&m->pvclock, cpu, msr, value, atomic_load(&m->cpus[cpu].tsc_offset)))
        return true;
    return !machine_engine_keeps_apics(m) &&
           lapic_msr_write(&m->lapics.lapics[cpu], msr, value);
}

static void end_of_interrupt(void *opaque, unsigned cpu, uint8_t vector)
{
    struct machine *m = opaque;

    (void)cpu;
    ioapic_end_of_interrupt(&m->ioapic, vector);
}

static void tsc_changed(void *opaque, unsigned cpu, uint64_t offset)
{
    struct machine *m = opaque;

    atomic_store(&m->cpus[cpu].tsc_offset, offset);
    pvclock_tsc_moved(&m->pvclock, cpu, offset);
    if (!machine_engine_keeps_apics(m))
        lapic_tsc_moved(&m->lapics.lapics[cpu]);
}

const struct engine_callbacks machine_engine_callbacks = {
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .port_read = port_read,
    .port_write = port_write,
    .interrupt_acknowledge = interrupt_acknowledge,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .end_of_interrupt = end_of_interrupt,
    .tsc_changed = tsc_changed,
};

/* --- Waking --- */

void machine_cpu_request(struct machine_cpu *cpu, unsigned requests)
{
    pthread_rwlock_rdlock(&cpu->machine->engine_lock);
    if (requests & (CPU_REQUEST_INIT | CPU_REQUEST_SIPI)) {
        atomic_fetch_or(&cpu->requests, requests);
        engine_signal(cpu->vcpu, ENGINE_SIGNAL_KICK);
    } else {
        /* Told in this order, a CPU that goes to sleep now sees one of the two. */
        engine_signal(cpu->vcpu, ENGINE_SIGNAL_INTERRUPT);
        atomic_fetch_or(&cpu->requests, requests);
    }
    pthread_rwlock_unlock(&cpu->machine->engine_lock);
    halt_wake(cpu);
}

/* --- Life --- */

static uint32_t signature(const struct machine_cpu *cpu)
{
    return cpu->machine->signature;
}

static void take_init(struct machine_cpu *cpu)
{
    struct x86_state state;

    cpu->vcpu->ops->get_state(cpu->vcpu, &state);
    x86_state_init(&state, signature(cpu));
    if (cpu->index == 0) /* the boot processor starts over at the reset vector */
        state.activity = X86_RUNNING;
    cpu->held_vector = -1;
    lapic_init_reset(&cpu->machine->lapics.lapics[cpu->index]);
    cpu->vcpu->ops->set_state(cpu->vcpu, &state);
}

static void take_sipi(struct machine_cpu *cpu)
{
    struct x86_state state;

    cpu->vcpu->ops->get_state(cpu->vcpu, &state);
    if (state.activity != X86_WAIT_FOR_SIPI)
        return; /* SDM 3A 8.4.2: ignored */
    x86_state_sipi(&state, atomic_load(&cpu->sipi_vector));
    cpu->vcpu->ops->set_state(cpu->vcpu, &state);
}

static void take_requests(struct machine_cpu *cpu)
{
    uint32_t requests = atomic_exchange(&cpu->requests, 0);

    if (requests & CPU_REQUEST_INIT)
        take_init(cpu);
    if (requests & CPU_REQUEST_SIPI)
        take_sipi(cpu);
}

static void shut_down(struct machine_cpu *cpu)
{
    struct x86_state state;
    char why[160];

    cpu->vcpu->ops->get_state(cpu->vcpu, &state);
    snprintf(why, sizeof(why), "CPU %u took a triple fault at %04x:%016llx (CR3 %llx, RSP %llx)",
             cpu->index, state.segment[X86_CS].selector, (unsigned long long)state.rip,
             (unsigned long long)state.cr3, (unsigned long long)state.gpr[X86_RSP]);
    machine_end(cpu->machine, MACHINE_TRIPLE_FAULT, 0, why);
}

/* Whether the CPU waits here for a start-up IPI: then it does not run at all. An engine that
 * keeps the APICs lets it wait itself. */
static bool waits_for_sipi(struct machine_cpu *cpu)
{
    struct x86_state state;

    if (machine_engine_keeps_apics(cpu->machine))
        return false;
    cpu->vcpu->ops->get_state(cpu->vcpu, &state);
    return state.activity == X86_WAIT_FOR_SIPI;
}

static void cpu_loop(struct machine_cpu *cpu)
{
    bool started = !waits_for_sipi(cpu);

    while (!atomic_load(&cpu->machine->ending)) {
        enum engine_exit exit = ENGINE_EXIT_HALT;
        struct error err = {0};
        uint32_t requests = atomic_load(&cpu->requests);

        if (atomic_load(&cpu->machine->pausing)) {
            machine_cpu_park(cpu);
            started = !waits_for_sipi(cpu); /* the engine may be another one */
            continue;
        }
        if (requests) {
            take_requests(cpu);
            if (requests & (CPU_REQUEST_INIT | CPU_REQUEST_SIPI))
                started = !waits_for_sipi(cpu);
        }
        if (!started) {
            halt_wait(cpu);
            continue;
        }
        if (engine_run(cpu->vcpu, &exit, &err) < 0) {
            machine_end(cpu->machine, MACHINE_FAILED, 0, err.text);
            break;
        }
        if (exit == ENGINE_EXIT_HALT)
            halt_wait(cpu);
        else if (exit == ENGINE_EXIT_SHUTDOWN)
            shut_down(cpu);
    }
}

/* On the loop's thread, after the last CPU has left. */
static void all_ended(void *opaque)
{
    struct machine *m = opaque;

    for (unsigned i = 0; i < m->threads_started; i++)
        pthread_join(m->cpus[i].thread, NULL);
    m->threads_started = 0;
    m->ended(m->ended_opaque, &m->outcome);
}

void *machine_cpu_main(void *opaque)
{
    struct machine_cpu *cpu = opaque;
    struct machine *m = cpu->machine;
    struct error err;
    bool last;

    if (sandbox_thread(m->config.sandbox, SANDBOX_VCPU, &err) < 0)
        machine_end(m, MACHINE_FAILED, 0, err.text);
    cpu_loop(cpu);
    pthread_mutex_lock(&m->lock);
    last = --m->threads_running == 0;
    pthread_cond_broadcast(&m->parked);
    pthread_mutex_unlock(&m->lock);
    if (last)
        loop_post(m->config.loop, all_ended, m);
    return NULL;
}
