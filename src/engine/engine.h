/* engine.h - how guest code runs, behind one interface.
 *
 * An engine is one for a machine; it has a vCPU for each guest CPU. Each vCPU
 * is driven by one host thread, which calls engine_run again and again. What
 * lies outside the CPU (memory-mapped and port devices, the local APIC) is
 * reached through the callbacks in engine_config, on the vCPU's thread, in
 * the middle of the instruction that needs it: an exit never leaves half an
 * instruction behind, so state may be read, replaced, or moved to another
 * engine at every exit.
 *
 * An engine never knows which devices exist; a device never knows which
 * engine runs. Only engine_signal and engine_invalidate may be called from
 * other threads while a vCPU runs. */
#ifndef LODGE_ENGINE_ENGINE_H
#define LODGE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "x86/apic.h"
#include "x86/cpuid.h"
#include "x86/state.h"

#define ENGINE_CPUS_MAX 64

struct engine;
struct vcpu;

/* What the engine asks of the machine. All run on the vCPU's own thread, cpu
 * being its index, and must not block for long nor call back into the engine
 * (engine_signal and engine_invalidate excepted). */
struct engine_callbacks {
    /* Physical memory outside all slots. size is 1, 2, 4 or 8; a wider or
     * unaligned access comes in pieces. Unclaimed reads give all ones. */
    uint64_t (*mmio_read)(void *opaque, unsigned cpu, uint64_t address, unsigned size);
    void (*mmio_write)(void *opaque, unsigned cpu, uint64_t address, unsigned size,
                       uint64_t value);
    /* I/O ports; size is 1, 2 or 4. */
    uint32_t (*port_read)(void *opaque, unsigned cpu, uint16_t port, unsigned size);
    void (*port_write)(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint32_t value);
    /* The interrupt acknowledge cycle: the vector to deliver now, or -1 when
     * the request is gone (spurious, masked by TPR). */
    int (*interrupt_acknowledge)(void *opaque, unsigned cpu);
    /* CR8, the task priority of the local APIC: 0 to 15. */
    uint64_t (*cr8_read)(void *opaque, unsigned cpu);
    void (*cr8_write)(void *opaque, unsigned cpu, uint64_t value);
    /* MSRs that belong to the machine: APIC base, x2APIC, TSC deadline. False: #GP. */
    bool (*msr_read)(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret_value);
    bool (*msr_write)(void *opaque, unsigned cpu, uint32_t msr, uint64_t value);
    /* A level-triggered interrupt has ended, for the IOAPIC. Only of engines that keep APICs. */
    void (*end_of_interrupt)(void *opaque, unsigned cpu, uint8_t vector);
    /* The guest moved its TSC: guest TSC = host TSC + offset from now on. May be NULL. */
    void (*tsc_changed)(void *opaque, unsigned cpu, uint64_t offset);
};

struct engine_config {
    const struct engine_callbacks *callbacks;
    void *opaque; /* for the callbacks */
    unsigned cpus;
    const struct x86_cpuid *cpuid; /* [cpus], one list for each vCPU; copied */
    struct log *log;
    uint64_t translation_cache; /* bytes; 0: the engine's default */
    unsigned hot_turns;         /* of code until the translator makes it again, for speed; 0:
                                 * its own choice, 1: all code is made so at once */
    bool stats;                 /* count what engine_print_stats tells */
    const char *trace_path;     /* log of executed blocks, or NULL */
    bool perf_map;              /* name translated code for perf(1) */
    int device_fd;              /* engine_ops.device, open, not owned; 0: the engine opens it */
    bool keep_apics;            /* the engine keeps the local APICs; only where it has ops->apic */
};

/* Why engine_run returned. */
enum engine_exit {
    ENGINE_EXIT_KICK,     /* engine_signal(ENGINE_SIGNAL_KICK) */
    ENGINE_EXIT_HALT,     /* HLT and nothing pending; run again after a signal */
    ENGINE_EXIT_SHUTDOWN, /* triple fault */
};

/* What another thread can tell a vCPU. */
enum engine_signal {
    /* An interrupt may wait at the local APIC or 8259: ask interrupt_acknowledge
     * as soon as RFLAGS.IF and the interrupt shadow allow. Stays until asked. */
    ENGINE_SIGNAL_INTERRUPT = 1 << 0,
    ENGINE_SIGNAL_NMI = 1 << 1,
    /* Leave engine_run at the next instruction boundary. Stays until it has. */
    ENGINE_SIGNAL_KICK = 1 << 2,
};

#define ENGINE_NO_SOURCE UINT32_MAX

/* The local APICs, where the engine keeps them (engine_config.keep_apics). It then asks the
 * machine for what the 8259 has (interrupt_acknowledge) and for no interrupt else; a CPU that is
 * halted, or waits for a start-up IPI, waits inside engine_run. */
struct engine_apic_ops {
    /* As get_state and set_state of the engine; set_state comes first. */
    int (*get)(struct vcpu *vcpu, struct x86_apic *ret_apic, struct error *err);
    int (*set)(struct vcpu *vcpu, const struct x86_apic *apic, struct error *err);
    /* An interrupt message (SDM 3A 10.11) of that source: an MSI-X vector, by a number of its own,
     * or ENGINE_NO_SOURCE. Any thread; those of one source, and prepare, one after the other. */
    void (*message)(struct engine *engine, unsigned source, uint64_t address, uint32_t data);
    /* That this is what source sends from now on. A hint: the engine may have a shorter way for a
     * message that it knows. Any thread. */
    void (*prepare)(struct engine *engine, unsigned source, uint64_t address, uint32_t data);
    /* The message of a level-triggered pin of the IOAPIC, whose end is to be told; data 0: it has
     * none. Any thread. */
    void (*route)(struct engine *engine, unsigned pin, uint64_t address, uint32_t data);
};

enum engine_memory_flags {
    ENGINE_MEMORY_READONLY = 1 << 0, /* ROM: writes go to mmio_write */
};

struct engine_ops {
    const char *name;    /* for --engine */
    const char *summary; /* one line for `lodge engines` */
    const char *device;  /* the device file that it works with, or NULL */

    /* Can it run on this host? 0, or a negative errno with the reason. */
    int (*probe)(struct error *err);
    /* The CPUID features that it carries out: bits are cut from what the
     * machine would offer. cpuid comes with the machine's wishes, and leaves
     * with what works. */
    void (*filter_cpuid)(struct x86_cpuid *cpuid);

    int (*create)(const struct engine_config *config, struct engine **ret_engine,
                  struct error *err);
    /* All vCPU threads must have left engine_run. */
    void (*destroy)(struct engine *engine);

    /* Let [address, address + size) of guest physical memory be the host
     * memory at host (page-aligned, not owned, lives as long as the slot).
     * Overlaps are the caller's fault. Only while no vCPU runs. */
    int (*map)(struct engine *engine, uint64_t address, uint64_t size, void *host,
               unsigned flags, struct error *err);
    int (*unmap)(struct engine *engine, uint64_t address, uint64_t size, struct error *err);

    /* Run the vCPU on this thread until an exit. Negative errno: the engine
     * cannot go on, err says why. */
    int (*run)(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err);

    /* Only while the vCPU is not running. set_state drops what was cached of it. */
    void (*get_state)(struct vcpu *vcpu, struct x86_state *ret_state);
    void (*set_state)(struct vcpu *vcpu, const struct x86_state *state);

    /* Raise signals (enum engine_signal). Any thread; never blocks. */
    void (*signal)(struct vcpu *vcpu, unsigned signals);

    /* Memory in [address, address + size) was written by something other than
     * a vCPU (a device's DMA, a loader): forget what was derived from it. Any
     * thread; in force before a vCPU that is signalled afterwards notices. */
    void (*invalidate)(struct engine *engine, uint64_t address, uint64_t size);

    const struct engine_apic_ops *apic; /* NULL: the machine keeps the local APICs */

    /* From now on, or no longer, let a guest's write at address, of whatever size, add one to the
     * event descriptor fd instead of reaching mmio_write. Negative errno: it goes on reaching it.
     * May be NULL. Any thread. */
    int (*doorbell)(struct engine *engine, uint64_t address, int fd, bool on);

    /* Note from now on, or no longer, which pages vCPUs write. NULL: the engine cannot. */
    int (*track_writes)(struct engine *engine, bool on, struct error *err);
    /* Add to bitmap, of the slot at address, a bit for each page of 4 KiB that was written since
     * the last call or since tracking began, lowest page first; a page that was only read may be
     * among them. Any one thread, while vCPUs run. */
    int (*fetch_writes)(struct engine *engine, uint64_t address, uint64_t *bitmap,
                        struct error *err);

    void (*print_stats)(struct engine *engine, FILE *out); /* may be NULL */
};

/* What every engine's own structs begin with. */
struct engine {
    const struct engine_ops *ops;
    struct vcpu *vcpus[ENGINE_CPUS_MAX];
};

struct vcpu {
    const struct engine_ops *ops;
    struct engine *engine;
    unsigned index;
};

/* The table of engines, best first; NULL at its end. */
extern const struct engine_ops *const engine_table[];

/* The engine called name; "auto" takes the first whose probe succeeds.
 * -EINVAL with the known names in err when there is none of that name. */
int engine_find(const char *name, const struct engine_ops **ret_ops, struct error *err);

static inline int engine_run(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    return vcpu->ops->run(vcpu, ret_exit, err);
}

static inline void engine_signal(struct vcpu *vcpu, unsigned signals)
{
    vcpu->ops->signal(vcpu, signals);
}

#endif
