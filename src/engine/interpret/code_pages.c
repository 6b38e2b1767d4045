#include "engine/interpret/bodies.h"
#include "engine/interpret/code_pages.h"

#include <sched.h>

struct code_page *code_page_at(struct soft_engine *soft, uint64_t physical)
{
    struct memory_slot *slot;

    if (!soft_engine_host(soft, physical, &slot))
        return NULL;
    return &slot->pages[(physical - slot->address) >> 12];
}

void code_pages_acknowledge(struct cpu *cpu)
{
    unsigned epoch = atomic_load(&cpu->soft->code_epoch);

    if (atomic_load_explicit(&cpu->acknowledged_epoch, memory_order_relaxed) == epoch)
        return;
    tlb_drop_writes(&cpu->tlb, UINT64_MAX);
    atomic_store(&cpu->acknowledged_epoch, epoch);
}

static void wait_for(struct cpu *self, struct cpu *other, unsigned epoch)
{
    cpu_signal(other, CPU_SIGNAL_CODE_EPOCH);
    while (atomic_load(&other->in_guest) &&
           (int)(atomic_load(&other->acknowledged_epoch) - epoch) < 0) {
        code_pages_acknowledge(self);
        sched_yield();
    }
}

static void revoke_write_tags(struct cpu *cpu, uint64_t physical)
{
    struct soft_engine *soft = cpu->soft;
    unsigned epoch;

    tlb_drop_writes(&cpu->tlb, physical);
    if (soft->config.cpus == 1)
        return;
    epoch = atomic_fetch_add(&soft->code_epoch, 1) + 1;
    for (unsigned i = 0; i < soft->config.cpus; i++)
        if (soft->engine.vcpus[i] && soft->engine.vcpus[i] != &cpu->vcpu)
            wait_for(cpu, cpu_of(soft->engine.vcpus[i]), epoch);
}

unsigned code_page_mark(struct cpu *cpu, struct code_page *page, uint64_t physical)
{
    if (atomic_load_explicit(&page->mark, memory_order_acquire) != CODE_PAGE_READY) {
        unsigned char pending;

        while (pthread_mutex_trylock(&cpu->soft->code_lock)) {
            code_pages_acknowledge(cpu);
            sched_yield();
        }
        do {
            if (atomic_load(&page->mark) == CODE_PAGE_READY)
                break;
            atomic_store(&page->mark, CODE_PAGE_PENDING);
            revoke_write_tags(cpu, physical);
            pending = CODE_PAGE_PENDING;
            /* A slow write meanwhile took the mark away: once more. */
        } while (!atomic_compare_exchange_strong(&page->mark, &pending, CODE_PAGE_READY));
        pthread_mutex_unlock(&cpu->soft->code_lock);
    }
    return atomic_load_explicit(&page->version, memory_order_acquire);
}

bool code_pages_next_written(struct soft_engine *soft, unsigned *at, struct code_page **ret_page)
{
    bool more;

    pthread_mutex_lock(&soft->written_lock);
    if (soft->written_count - *at > CODE_PAGES_WRITTEN) {
        *at = soft->written_count;
        *ret_page = NULL;
        more = true;
    } else {
        more = *at != soft->written_count;
        if (more)
            *ret_page = soft->written[(*at)++ % CODE_PAGES_WRITTEN];
    }
    pthread_mutex_unlock(&soft->written_lock);
    return more;
}

void code_page_written(struct soft_engine *soft, struct code_page *page)
{
    /* The version first: a CPU that then marks the page anew reads bytes that
     * are as new as the version it remembers. */
    atomic_fetch_add_explicit(&page->version, 1, memory_order_acq_rel);
    atomic_store_explicit(&page->mark, 0, memory_order_release);
    if (!soft->tell_code_writes)
        return;
    pthread_mutex_lock(&soft->written_lock);
    soft->written[soft->written_count++ % CODE_PAGES_WRITTEN] = page;
    pthread_mutex_unlock(&soft->written_lock);
    for (unsigned i = 0; i < soft->config.cpus; i++)
        if (soft->engine.vcpus[i])
            cpu_signal(cpu_of(soft->engine.vcpus[i]), CPU_SIGNAL_INVALIDATE);
}

static uint64_t insn_address(const struct cpu *cpu)
{
    return cpu->code_size == X86_MODE_64
               ? cpu->insn_rip
               : (uint32_t)(cpu->state.segment[X86_CS].base + cpu->insn_rip);
}

void code_page_stored(struct cpu *cpu, struct code_page *page, uint64_t physical)
{
    uint64_t from;

    if (!cpu_peek_translation(cpu, insn_address(cpu), &from) || !((from ^ physical) & PAGE_MASK))
        atomic_store_explicit(&page->own, true, memory_order_relaxed);
    else
        atomic_store_explicit(&page->writer, (unsigned)(from >> 12), memory_order_relaxed);
    code_page_written(cpu->soft, page);
}

bool code_page_was_stored(const struct code_page *page, const struct code_page *by,
                          uint64_t physical)
{
    if (page == by)
        return atomic_load_explicit(&page->own, memory_order_relaxed);
    return atomic_load_explicit(&page->writer, memory_order_relaxed) == (unsigned)(physical >> 12);
}
