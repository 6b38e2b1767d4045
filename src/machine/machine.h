/* machine.h - the PC: CPUs on an engine, guest memory, buses, interrupt
 * controllers, timers, PCI, ACPI. The board (board.c) lists its devices in one
 * visible table. Made and run by the command; knows nothing of it. */
#ifndef LODGE_MACHINE_MACHINE_H
#define LODGE_MACHINE_MACHINE_H

#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sandbox.h"
#include "engine/engine.h"

struct machine;
struct guest_memory;
struct virtio_device;

/* Where the first serial port goes: bytes both ways through two callbacks. */
struct console {
    /* Guest output; called on a vCPU thread, must not block for long. */
    void (*output)(void *opaque, const uint8_t *bytes, size_t length);
    /* There is room for input again after there was none; any thread; may be NULL. */
    void (*ready)(void *opaque);
    void *opaque;
};

struct machine_config {
    const char *name;
    unsigned cpus;
    uint64_t memory; /* bytes */
    bool huge_pages; /* back it by those that the host has set aside */
    const struct engine_ops *engine;
    bool own_apics; /* the machine keeps the local APICs, also where the engine could */
    uint64_t translation_cache; /* bytes; 0: by the guest's memory */
    unsigned hot_turns;         /* as engine_config's */
    bool stats;
    const char *trace_path;
    bool perf_map;
    struct console console;
    const struct sandbox *sandbox; /* for the machine's threads; NULL: none. Outlives it */
    struct loop *loop; /* runs timers and console input; outlives the machine */
    struct log *log;
};

/* How a guest ended. */
enum machine_end {
    MACHINE_POWERED_OFF,  /* ACPI S5 */
    MACHINE_REBOOT,       /* reset port, i8042, ACPI reset: run again after machine_reset */
    MACHINE_DEBUG_EXIT,   /* isa-debug-exit: code holds the value written */
    MACHINE_TRIPLE_FAULT, /* a CPU shut down; text says which and where */
    MACHINE_STOPPED,      /* machine_stop */
    MACHINE_FAILED,       /* the engine failed; text says why */
};

struct machine_outcome {
    enum machine_end end;
    unsigned code;
    struct error why;
};

/* Check the configuration, build the board. Nothing runs yet. */
int machine_create(const struct machine_config *config, struct machine **ret_machine,
                   struct error *err);
void machine_destroy(struct machine *machine);

/* All devices and CPUs as after power-up; RAM is kept, loaders fill it again. */
void machine_reset(struct machine *machine);

/* Plug a virtio device into the PCI bus, before the guest starts. The machine
 * takes it over, also on failure. */
int machine_add_virtio(struct machine *machine, struct virtio_device *device, struct error *err);

/* The n-th virtio device of a type (enum virtio_id) in the order they were plugged in, or NULL. */
struct virtio_device *machine_virtio(struct machine *machine, int id, unsigned n);

struct guest_memory *machine_memory(struct machine *machine);
/* Physical address of the ACPI RSDP, for loaders that pass it on. */
uint64_t machine_rsdp(const struct machine *machine);
/* The boot CPU starts from this instead of the reset vector (set by loaders). */
void machine_set_boot_state(struct machine *machine, const struct x86_state *state);
/* The state the boot CPU would start from. */
void machine_get_boot_state(struct machine *machine, struct x86_state *ret_state);

/* Start one thread for each CPU; ended is called on the loop's thread, once,
 * when the guest has ended and all threads are joined. */
int machine_start(struct machine *machine,
                  void (*ended)(void *opaque, const struct machine_outcome *outcome),
                  void *opaque, struct error *err);

/* Ask the guest's CPUs to stop; ended follows with MACHINE_STOPPED. Any thread. */
void machine_stop(struct machine *machine);

/* Press the power button: the guest is asked to shut itself down. Any thread. */
void machine_power_button(struct machine *machine);

/* Bytes for the guest's first serial port; returns how many it took. Loop thread. */
size_t machine_console_input(struct machine *machine, const uint8_t *bytes, size_t length);
/* How many bytes machine_console_input would take now. */
size_t machine_console_room(struct machine *machine);

/* Go on with another engine: the CPUs stop, their state moves, they run again.
 * On failure the guest goes on as before, and err says why: the engine does
 * not work here, or the guest was offered a CPU feature that it lacks.
 * device_fd is the engine's device, open, or 0. Loop thread. */
int machine_change_engine(struct machine *machine, const struct engine_ops *engine, int device_fd,
                          struct error *err);

/* Why the guest ended, and the registers of its CPUs, as text. After `ended`. */
void machine_dump(struct machine *machine, FILE *out);

void machine_print_stats(struct machine *machine, FILE *out);

#endif
