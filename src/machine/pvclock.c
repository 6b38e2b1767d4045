#include "machine/pvclock.h"

#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"

#define NS_PER_S 1000000000ull

#define MSR_WALL_CLOCK  0x4b564d00u
#define MSR_SYSTEM_TIME 0x4b564d01u
#define SYSTEM_TIME_ENABLE 1ull

/* struct pvclock_wall_clock and struct pvclock_vcpu_time_info; a version that is odd says that
 * the rest is being written. */
struct wall_clock {
    uint32_t version, seconds, nanoseconds;
};

struct system_time {
    uint32_t version, padding;
    uint64_t tsc_timestamp, system_time;
    uint32_t multiplier; /* of ticks, shifted, into 2^-32 ns */
    int8_t shift;
    uint8_t flags, rest[2];
};

#define FLAG_STABLE 1u /* the same on all CPUs */

#define FEATURE_NO_IO_DELAY (1u << 1)
#define FEATURE_CLOCK       (1u << 3)
#define FEATURE_STABLE      (1u << 24)

/* Behind Lodge's own signature: the place of a hypervisor's second interface. */
const struct x86_cpuid_leaf pvclock_leaves[PVCLOCK_LEAVES] = {
    {.function = 0x40000100, .eax = 0x40000101,
     .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d}, /* KVMKVMKVM */
    {.function = 0x40000101, .eax = FEATURE_NO_IO_DELAY | FEATURE_CLOCK | FEATURE_STABLE},
};

/* ns = (ticks << shift) * multiplier / 2^32, the multiplier as large as it can be. */
static void scale(uint64_t hz, uint32_t *ret_multiplier, int8_t *ret_shift)
{
    int8_t shift = 0;

    for (; hz > 2 * NS_PER_S; hz >>= 1)
        shift--;
    for (; hz <= NS_PER_S; hz <<= 1)
        shift++;
    *ret_multiplier = (uint32_t)(((unsigned __int128)NS_PER_S << 32) / hz);
    *ret_shift = shift;
}

/* The lock is held. */
static void write_page(struct pvclock *clock, unsigned cpu, uint64_t offset)
{
    struct system_time *page = guest_memory_at(
        clock->memory, clock->pages[cpu] & ~SYSTEM_TIME_ENABLE, sizeof(struct system_time));
    struct system_time next = {
        .tsc_timestamp = offset - clock->tsc_offset, /* what the TSC was at the clock's zero */
        .flags = FLAG_STABLE,
    };
    uint32_t version;

    if (!page || !(clock->pages[cpu] & SYSTEM_TIME_ENABLE))
        return;
    scale(clock->timers->tsc_hz, &next.multiplier, &next.shift);
    version = (load_le32(&page->version) | 1) + 2; /* odd, another one */
    store_le32(&page->version, version);
    atomic_thread_fence(memory_order_release);
    memcpy(&page->padding, &next.padding,
           sizeof(next) - offsetof(struct system_time, padding));
    atomic_thread_fence(memory_order_release);
    store_le32(&page->version, version + 1);
    guest_memory_written(clock->memory, page, sizeof(*page));
}

/* The time of day at the clock's zero. */
static bool write_wall_clock(struct pvclock *clock, uint64_t address)
{
    const uint64_t zero = timers_wall_clock(clock->timers) -
                          (timers_now(clock->timers) - clock->started);
    const struct wall_clock wall = {
        .version = 2,
        .seconds = (uint32_t)(zero / NS_PER_S),
        .nanoseconds = (uint32_t)(zero % NS_PER_S),
    };
    void *to = guest_memory_at(clock->memory, address, sizeof(wall));

    if (!to)
        return false;
    memcpy(to, &wall, sizeof(wall));
    guest_memory_written(clock->memory, to, sizeof(wall));
    return true;
}

void pvclock_init(struct pvclock *clock, struct guest_memory *memory, struct timers *timers)
{
    clock->memory = memory;
    clock->timers = timers;
    pthread_mutex_init(&clock->lock, NULL);
}

void pvclock_destroy(struct pvclock *clock)
{
    pthread_mutex_destroy(&clock->lock);
}

void pvclock_reset(struct pvclock *clock, uint64_t tsc_offset)
{
    pthread_mutex_lock(&clock->lock);
    clock->started = timers_now(clock->timers);
    clock->tsc_offset = tsc_offset;
    clock->wall_page = 0;
    memset(clock->pages, 0, sizeof(clock->pages));
    pthread_mutex_unlock(&clock->lock);
}

bool pvclock_msr_read(struct pvclock *clock, unsigned cpu, uint32_t msr, uint64_t *ret_value)
{
    bool known = msr == MSR_WALL_CLOCK || msr == MSR_SYSTEM_TIME;

    pthread_mutex_lock(&clock->lock);
    if (known)
        *ret_value = msr == MSR_WALL_CLOCK ? clock->wall_page : clock->pages[cpu];
    pthread_mutex_unlock(&clock->lock);
    return known;
}

bool pvclock_msr_write(struct pvclock *clock, unsigned cpu, uint32_t msr, uint64_t value,
                       uint64_t offset)
{
    bool good = false;

    pthread_mutex_lock(&clock->lock);
    if (msr == MSR_WALL_CLOCK) {
        good = write_wall_clock(clock, value);
        if (good)
            clock->wall_page = value;
    } else if (msr == MSR_SYSTEM_TIME) {
        good = !(value & SYSTEM_TIME_ENABLE) ||
               guest_memory_at(clock->memory, value & ~SYSTEM_TIME_ENABLE,
                               sizeof(struct system_time));
        if (good) {
            clock->pages[cpu] = value;
            write_page(clock, cpu, offset);
        }
    }
    pthread_mutex_unlock(&clock->lock);
    return good;
}

void pvclock_tsc_moved(struct pvclock *clock, unsigned cpu, uint64_t offset)
{
    pthread_mutex_lock(&clock->lock);
    write_page(clock, cpu, offset);
    pthread_mutex_unlock(&clock->lock);
}
