/* A halted CPU: how its thread waits for a request. See halt.h. */
#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine/machine-private.h"

#define WATCH_FIRST_NS 20000u
#define WATCH_MAX_NS   200000u
#define PAUSES_A_LOOK  8
#define CROWDED_NS     20000u    /* giving way took that long: others want the host CPUs */
#define CROWDED_FOR_NS 500000000u

void halt_init(struct halt *halt, unsigned cpus)
{
    cpu_set_t allowed;

    halt->may_watch = cpus > 1 && sched_getaffinity(0, sizeof(allowed), &allowed) == 0 &&
                      (unsigned)CPU_COUNT(&allowed) >= cpus;
}

static bool is_over(struct machine_cpu *cpu)
{
    return atomic_load_explicit(&cpu->requests, memory_order_relaxed) ||
           atomic_load_explicit(&cpu->machine->ending, memory_order_relaxed);
}

/* Whoever else wants this host CPU gets it between two looks; one who then has
 * to wait for it is better off asleep, since sleepers come first when they wake. */
static bool watch(struct machine_cpu *cpu, uint64_t start)
{
    const struct timers *timers = &cpu->machine->timers;
    uint64_t now = start, before;

    while (now - start < cpu->halt.window_ns) {
        for (unsigned i = 0; i < PAUSES_A_LOOK; i++) {
            if (is_over(cpu))
                return true;
            _mm_pause();
        }
        before = timers_now(timers);
        sched_yield();
        now = timers_now(timers);
        if (now - before > CROWDED_NS) {
            cpu->halt.window_ns = 0;
            cpu->halt.crowded_until = now + CROWDED_FOR_NS;
        }
    }
    return is_over(cpu);
}

static void sleep_on_futex(struct machine_cpu *cpu)
{
    atomic_store(&cpu->asleep, 1);
    while (!atomic_load(&cpu->requests) && !atomic_load(&cpu->machine->ending))
        syscall(SYS_futex, &cpu->requests, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    atomic_store(&cpu->asleep, 0);
}

void halt_wait(struct machine_cpu *cpu)
{
    struct halt *halt = &cpu->halt;
    uint64_t start, now;

    if (!halt->may_watch) {
        sleep_on_futex(cpu);
        return;
    }
    start = timers_now(&cpu->machine->timers);
    if (halt->window_ns && watch(cpu, start))
        return;
    sleep_on_futex(cpu);
    now = timers_now(&cpu->machine->timers);
    if (now - start > WATCH_MAX_NS || now < halt->crowded_until)
        halt->window_ns = 0;
    else if (halt->window_ns < WATCH_MAX_NS)
        halt->window_ns = halt->window_ns ? 2 * halt->window_ns : WATCH_FIRST_NS;
}

void halt_wake(struct machine_cpu *cpu)
{
    if (atomic_load(&cpu->asleep))
        syscall(SYS_futex, &cpu->requests, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
