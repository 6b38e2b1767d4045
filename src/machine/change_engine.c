/* A change of engine while the guest runs: its CPUs stop at their next exits,
 * which leave whole instructions behind, and their state moves over. */
#include "base/bytes.h"
#include "machine/machine-private.h"

/* --- Whether the guest can go on there --- */

/* The registers of CPUID whose bits are features; the others hold numbers. */
static const struct {
    uint32_t function, index;
    const char *name;
    size_t offset;
} features[] = {
    {1, 0, "1 ECX", offsetof(struct x86_cpuid_leaf, ecx)},
    {1, 0, "1 EDX", offsetof(struct x86_cpuid_leaf, edx)},
    {7, 0, "7 EBX", offsetof(struct x86_cpuid_leaf, ebx)},
    {7, 0, "7 ECX", offsetof(struct x86_cpuid_leaf, ecx)},
    {7, 0, "7 EDX", offsetof(struct x86_cpuid_leaf, edx)},
    {0xd, 0, "0xd EAX (XCR0)", offsetof(struct x86_cpuid_leaf, eax)},
    {0xd, 1, "0xd.1 EAX", offsetof(struct x86_cpuid_leaf, eax)},
    {0x80000001, 0, "0x80000001 ECX", offsetof(struct x86_cpuid_leaf, ecx)},
    {0x80000001, 0, "0x80000001 EDX", offsetof(struct x86_cpuid_leaf, edx)},
};

static uint32_t feature_bits(const struct x86_cpuid *cpuid, size_t i)
{
    const struct x86_cpuid_leaf *leaf =
        x86_cpuid_find(cpuid, features[i].function, features[i].index);

    return leaf ? load_le32((const char *)leaf + features[i].offset) : 0;
}

static int check_features(const struct machine *m, const struct engine_ops *engine,
                          struct error *err)
{
    struct x86_cpuid works = m->cpuid[0];

    engine->filter_cpuid(&works);
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        uint32_t lost = feature_bits(&m->cpuid[0], i) & ~feature_bits(&works, i);

        if (lost)
            return error_set(err, ENOTSUP,
                             "the guest was offered a CPU feature that the engine %s lacks here: "
                             "CPUID leaf %s, bit %d",
                             engine->name, features[i].name, __builtin_ctz(lost));
    }
    return 0;
}

/* --- Stopping and going on --- */

void machine_cpu_park(struct machine_cpu *cpu)
{
    struct machine *m = cpu->machine;

    pthread_mutex_lock(&m->lock);
    m->threads_parked++;
    pthread_cond_broadcast(&m->parked);
    while (atomic_load(&m->pausing))
        pthread_cond_wait(&m->parked, &m->lock);
    m->threads_parked--;
    pthread_mutex_unlock(&m->lock);
}

/* All CPU threads that still run wait in machine_cpu_park afterwards. */
static void pause_cpus(struct machine *m)
{
    atomic_store(&m->pausing, true);
    for (unsigned i = 0; i < m->config.cpus; i++) {
        machine_cpu_request(&m->cpus[i], CPU_REQUEST_WAKE); /* out of its sleep */
        engine_signal(m->cpus[i].vcpu, ENGINE_SIGNAL_KICK);
    }
    pthread_mutex_lock(&m->lock);
    while (m->threads_parked < m->threads_running)
        pthread_cond_wait(&m->parked, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void resume_cpus(struct machine *m)
{
    pthread_mutex_lock(&m->lock);
    atomic_store(&m->pausing, false);
    pthread_cond_broadcast(&m->parked);
    pthread_mutex_unlock(&m->lock);
}

/* --- The change --- */

/* How a CPU's state goes over. */
struct move {
    struct engine *from, *to;
    bool apics_from, apics_to; /* whether that engine keeps the local APICs */
    int held_vectors[ENGINE_CPUS_MAX]; /* see machine_cpu */
};

/* Out of the engine before or the machine, into the next one or the machine. */
static int copy_apic(const struct move *move, struct machine_cpu *cpu, struct error *err)
{
    struct lapic *lapic = &cpu->machine->lapics.lapics[cpu->index];
    struct x86_apic apic;
    int r = 0;

    if (!move->apics_from && !move->apics_to)
        return 0;
    if (move->apics_from)
        r = move->from->ops->apic->get(cpu->vcpu, &apic, err);
    else
        lapic_save(lapic, &apic);
    if (r < 0)
        return r;
    if (move->apics_to)
        return move->to->ops->apic->set(move->to->vcpus[cpu->index], &apic, err);
    lapic_load(lapic, &apic);
    return 0;
}

static int copy_cpu(struct move *move, struct machine_cpu *cpu, struct error *err)
{
    struct vcpu *to = move->to->vcpus[cpu->index];
    struct x86_state state;

    cpu->vcpu->ops->get_state(cpu->vcpu, &state);
    if (cpu->held_vector >= 0) {
        state.interrupt_pending = true;
        state.interrupt_vector = (uint8_t)cpu->held_vector;
    }
    move->held_vectors[cpu->index] = -1;
    /* The local APIC has let go of it. An engine that keeps APICs does not ask for it again; of
     * another it is the first that it asks for. */
    if (state.interrupt_pending && !move->apics_to) {
        move->held_vectors[cpu->index] = state.interrupt_vector;
        state.interrupt_pending = false;
    }
    to->ops->set_state(to, &state);
    return copy_apic(move, cpu, err);
}

/* The APICs' timers in the machine do nothing while an engine keeps them. */
static void rest_apics(struct machine *m)
{
    for (unsigned i = 0; i < m->config.cpus; i++)
        lapic_init_reset(&m->lapics.lapics[i]);
}

/* Only while no CPU runs. When it fails nothing has changed. */
static int move_cpus(struct machine *m, struct move *move, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < m->config.cpus; i++)
        r = copy_cpu(move, &m->cpus[i], err);
    if (r == 0 ? move->apics_to : move->apics_from)
        rest_apics(m);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < m->config.cpus; i++) {
        m->cpus[i].vcpu = move->to->vcpus[i];
        m->cpus[i].held_vector = move->held_vectors[i];
        /* What was signalled to the old one is asked for again. */
        engine_signal(m->cpus[i].vcpu, ENGINE_SIGNAL_INTERRUPT);
    }
    m->engine = move->to;
    m->keeps_apics = move->apics_to;
    m->config.engine = move->to->ops;
    return 0;
}

/* Tell the engine what the guest has set up in devices. */
static void announce(struct machine *m)
{
    ioapic_announce(&m->ioapic);
    doorbells_announce(&m->doorbells, m->engine);
    for (unsigned i = 0; i < m->virtio_count; i++)
        msix_announce(&m->virtio[i]->msix);
}

int machine_change_engine(struct machine *machine, const struct engine_ops *engine, int device_fd,
                          struct error *err)
{
    struct move move = {.from = machine->engine, .apics_from = machine->keeps_apics};
    /* An engine that works by a device is asked when it is made: only the device can tell. */
    int r = engine->device ? 0 : check_features(machine, engine, err);

    if (r == 0 && (atomic_load(&machine->ending) || !machine->threads_started))
        r = error_set(err, ESRCH, "the guest is ending");
    if (r == 0)
        r = machine_create_engine(machine, engine, device_fd, &move.to, err);
    if (r < 0)
        return r;
    move.apics_to = machine_apics_wanted(machine, engine);
    pause_cpus(machine);
    pthread_rwlock_wrlock(&machine->engine_lock);
    r = move_cpus(machine, &move, err);
    pthread_rwlock_unlock(&machine->engine_lock);
    announce(machine); /* the engine before, too, has lost some of it when it could not go */
    resume_cpus(machine);
    if (r == 0)
        move.from->ops->destroy(move.from);
    else
        move.to->ops->destroy(move.to);
    return r;
}
