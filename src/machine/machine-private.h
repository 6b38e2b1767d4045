/* machine-private.h - what a machine is made of; for the files of this folder. */
#ifndef LODGE_MACHINE_PRIVATE_H
#define LODGE_MACHINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "device/acpi_pm.h"
#include "device/i8042.h"
#include "device/reset_control.h"
#include "device/rtc.h"
#include "device/serial.h"
#include "device/virtio/pci.h"
#include "machine/bus.h"
#include "machine/doorbell.h"
#include "machine/halt.h"
#include "machine/ioapic.h"
#include "machine/lapic.h"
#include "machine/machine.h"
#include "machine/memory.h"
#include "machine/pci.h"
#include "machine/pic.h"
#include "machine/pit.h"
#include "machine/pvclock.h"
#include "machine/timer.h"

/* What other threads ask of a CPU's thread; it looks between runs. */
enum cpu_request {
    CPU_REQUEST_INIT = 1 << 0,
    CPU_REQUEST_SIPI = 1 << 1,
    CPU_REQUEST_WAKE = 1 << 2, /* something came in: leave HLT and look */
};

struct machine_cpu {
    struct machine *machine;
    unsigned index;
    struct vcpu *vcpu;
    pthread_t thread;
    _Atomic uint32_t requests; /* a futex: the thread sleeps on it while halted */
    _Atomic uint32_t asleep;
    _Atomic uint8_t sipi_vector;
    _Atomic uint64_t tsc_offset;
    struct halt halt;
    int held_vector; /* acknowledged under the engine before, to be delivered first; -1: none */
};

struct machine {
    struct machine_config config;
    struct guest_memory *memory;
    struct bus ports, mmio;
    struct timers timers;
    struct lapic_set lapics;
    struct pvclock pvclock;
    struct ioapic ioapic;
    struct pic pic;
    struct pit pit;
    struct rtc rtc;
    struct serial serial;
    struct i8042 i8042;
    struct acpi_pm pm;
    struct reset_control reset_control;
    struct pci_host pci;
    struct virtio_pci *virtio[PCI_SLOTS];
    unsigned virtio_count;
    struct doorbells doorbells;

    /* Whoever signals a vCPU holds it for reading: a change of engine puts
     * other vCPUs in their place. */
    pthread_rwlock_t engine_lock;
    struct engine *engine;
    bool keeps_apics; /* the engine does; see machine_engine_keeps_apics */
    struct x86_cpuid *cpuid; /* [cpus], what the guest was offered */
    uint32_t signature; /* CPUID.1:EAX */
    struct x86_state boot_state;
    struct machine_cpu cpus[ENGINE_CPUS_MAX];
    unsigned threads_started;

    pthread_mutex_t lock; /* outcome and what follows */
    _Atomic bool ending;
    _Atomic bool pausing; /* CPU threads are to wait in machine_cpu_park */
    unsigned threads_parked;
    pthread_cond_t parked; /* threads_parked, threads_running or pausing changed */
    struct machine_outcome outcome;
    unsigned threads_running;
    void (*ended)(void *opaque, const struct machine_outcome *outcome);
    void *ended_opaque;
};

/* machine.c: make an engine for the machine, its memory mapped. device_fd: see engine_config.
 * It keeps the local APICs where machine_apics_wanted says so. */
int machine_create_engine(struct machine *machine, const struct engine_ops *ops, int device_fd,
                          struct engine **ret_engine, struct error *err);
/* Whether the local APICs live in the engine now; then those in lapics do nothing. Changes only
 * while no CPU runs; other threads hold engine_lock. */
static inline bool machine_engine_keeps_apics(const struct machine *machine)
{
    return machine->keeps_apics;
}

/* change_engine.c: wait while the machine is paused. The CPU's thread, outside engine_run. */
void machine_cpu_park(struct machine_cpu *cpu);

/* machine.c: whether an engine is to keep the local APICs. */
bool machine_apics_wanted(const struct machine *machine, const struct engine_ops *ops);

/* board.c: put the devices on the buses, and reset them. */
int board_create(struct machine *machine, struct error *err);
void board_destroy(struct machine *machine);
void board_reset(struct machine *machine);

/* machine.c: the guest has ended. What is said first counts, but a stop wins over a
 * reboot. Any thread. */
void machine_end(struct machine *machine, enum machine_end end, unsigned code, const char *why);
/* cpu.c: raise requests of a CPU and wake its thread. Any thread. */
void machine_cpu_request(struct machine_cpu *cpu, unsigned requests);
/* cpu.c: the life of a CPU's thread. */
void *machine_cpu_main(void *opaque);
/* cpu.c: what engines call. */
extern const struct engine_callbacks machine_engine_callbacks;

#endif
