/* The slow halves of guest memory access: TLB misses, page crossings, MMIO,
 * writes to pages that code was derived from. */
#include <string.h>

#include "engine/interpret/bodies.h"
#include "engine/interpret/access.h"
#include "engine/interpret/code_pages.h"
#include "engine/interpret/debug.h"

uint8_t *soft_engine_host(struct soft_engine *soft, uint64_t physical,
                          struct memory_slot **ret_slot)
{
    for (unsigned i = 0; i < soft->slot_count; i++) {
        struct memory_slot *slot = &soft->slots[i];

        if (physical - slot->address < slot->size) {
            *ret_slot = slot;
            return slot->host + (physical - slot->address);
        }
    }
    return NULL;
}

static uint64_t physical_load(struct cpu *cpu, uint64_t physical, unsigned size)
{
    const struct engine_config *config = &cpu->soft->config;
    struct memory_slot *slot;
    uint8_t *host = soft_engine_host(cpu->soft, physical, &slot);
    enum cpu_part part;
    uint64_t value;

    if (host)
        return host_load(host, size);
    part = times_enter(&cpu->times, PART_DEVICE);
    value = config->callbacks->mmio_read(config->opaque, cpu->vcpu.index, physical, size);
    times_enter(&cpu->times, part);
    return value & size_mask(size);
}

static void physical_store(struct cpu *cpu, uint64_t physical, unsigned size, uint64_t value)
{
    const struct engine_config *config = &cpu->soft->config;
    struct memory_slot *slot;
    uint8_t *host = soft_engine_host(cpu->soft, physical, &slot);

    if (!host || (slot->flags & ENGINE_MEMORY_READONLY)) {
        const enum cpu_part part = times_enter(&cpu->times, PART_DEVICE);

        config->callbacks->mmio_write(config->opaque, cpu->vcpu.index, physical, size,
                                      value & size_mask(size));
        times_enter(&cpu->times, part);
        return;
    }
    host_store(host, size, value);
    struct code_page *page = &slot->pages[(physical - slot->address) >> 12];

    if (code_page_is_marked(page)) {
        code_page_stored(cpu, page, physical);
        cpu->stop = true; /* the code that runs may be what was written */
    }
}

/* In one page. */
static uint64_t load_in_page(struct cpu *cpu, uint64_t linear, unsigned size,
                             enum tlb_rights rights)
{
    return physical_load(cpu, cpu_translate(cpu, linear, X86_READ, rights), size);
}

/* What an access is subject to beside translation: alignment (SDM 3A 6.15,
 * #AC) and data breakpoints. Where either counts the TLB has no tags. */
static void check_access(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access,
                         enum tlb_rights rights)
{
    if (unlikely(cpu->check_alignment) && rights == TLB_USER && (linear & (size - 1)))
        cpu_raise_error(cpu, X86_AC_FAULT, 0);
    if (unlikely(debug_active(cpu)))
        debug_data_access(cpu, linear, size, access);
}

uint64_t cpu_load_slow(struct cpu *cpu, uint64_t linear, unsigned size, enum tlb_rights rights)
{
    uint64_t value = 0;

    check_access(cpu, linear, size, X86_READ, rights);
    if (within_page(linear, size))
        return load_in_page(cpu, linear, size, rights);
    for (unsigned i = 0; i < size; i++)
        value |= load_in_page(cpu, (linear + i) & cpu->address_mask, 1, rights) << (8 * i);
    return value;
}

void cpu_store_slow(struct cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    enum tlb_rights rights)
{
    uint64_t first, second;
    unsigned in_first;

    check_access(cpu, linear, size, X86_WRITE, rights);
    if (within_page(linear, size)) {
        physical_store(cpu, cpu_translate(cpu, linear, X86_WRITE, rights), size, value);
        return;
    }
    /* Both pages must be writable before a byte is stored. */
    in_first = (unsigned)(PAGE_SIZE - (linear & ~PAGE_MASK));
    first = cpu_translate(cpu, linear, X86_WRITE, rights);
    second = cpu_translate(cpu, (linear + in_first) & cpu->address_mask, X86_WRITE, rights);
    for (unsigned i = 0; i < size; i++)
        physical_store(cpu, i < in_first ? first + i : second + i - in_first, 1,
                       value >> (8 * i));
}

static unsigned piece(uint64_t linear, unsigned left)
{
    unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;

    while (!within_page(linear, size))
        size /= 2;
    return size;
}

/* As large as nothing that must be atomic: the areas of FXSAVE and XSAVE. */
#define BULK 128u

void cpu_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size)
{
    uint8_t *to = buffer;

    if (size >= BULK && within_page(linear, size)) {
        const uint8_t *host = tlb_read_host(&cpu->tlb, cpu->rights, linear);

        if (host) {
            memcpy(to, host, size);
            return;
        }
    }
    while (size) {
        unsigned n = piece(linear, size);
        uint64_t value = cpu_load(cpu, linear, n);

        memcpy(to, &value, n);
        to += n;
        size -= n;
        linear = (linear + n) & cpu->address_mask;
    }
}

void cpu_probe_write(struct cpu *cpu, uint64_t linear, unsigned size)
{
    uint64_t last = (linear + size - 1) & cpu->address_mask;

    if (!size)
        return;
    if (!tlb_write_host(&cpu->tlb, cpu->rights, linear))
        cpu_translate(cpu, linear, X86_WRITE, cpu->rights);
    if ((last & PAGE_MASK) != (linear & PAGE_MASK) &&
        !tlb_write_host(&cpu->tlb, cpu->rights, last))
        cpu_translate(cpu, last & PAGE_MASK, X86_WRITE, cpu->rights);
}

void cpu_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size)
{
    const uint8_t *from = buffer;

    if (size > 8 || !within_page(linear, size))
        cpu_probe_write(cpu, linear, size);
    if (size >= BULK && within_page(linear, size)) {
        uint8_t *host = tlb_write_host(&cpu->tlb, cpu->rights, linear);

        if (host) {
            memcpy(host, from, size);
            return;
        }
    }
    while (size) {
        unsigned n = piece(linear, size);
        uint64_t value = 0;

        memcpy(&value, from, n);
        cpu_store(cpu, linear, n, value);
        from += n;
        size -= n;
        linear = (linear + n) & cpu->address_mask;
    }
}

void *cpu_host_for_atomic(struct cpu *cpu, uint64_t linear, unsigned size)
{
    struct memory_slot *slot;
    uint64_t physical;
    uint8_t *host;

    if (!within_page(linear, size))
        return NULL;
    host = tlb_write_host(&cpu->tlb, cpu->rights, linear);
    if (host)
        return host;
    check_access(cpu, linear, size, X86_WRITE, cpu->rights);
    physical = cpu_translate(cpu, linear, X86_WRITE, cpu->rights);
    host = soft_engine_host(cpu->soft, physical, &slot);
    if (!host || (slot->flags & ENGINE_MEMORY_READONLY))
        return NULL;
    return host;
}

void cpu_split_lock(struct cpu *cpu, uint64_t linear, unsigned size)
{
    cpu_probe_write(cpu, linear, size);
    pthread_mutex_lock(&cpu->soft->split_lock);
    cpu->split_locked = true;
}

void cpu_split_unlock(struct cpu *cpu)
{
    cpu->split_locked = false;
    pthread_mutex_unlock(&cpu->soft->split_lock);
}

void cpu_wrote_code(struct cpu *cpu, uint64_t linear, unsigned size)
{
    struct code_page *page;
    uint64_t physical;

    (void)size; /* within one page: cpu_host_for_atomic saw to it */
    if (tlb_write_host(&cpu->tlb, cpu->rights, linear))
        return;
    physical = cpu_translate(cpu, linear, X86_WRITE, cpu->rights);
    page = code_page_at(cpu->soft, physical);
    if (page && code_page_is_marked(page)) {
        code_page_stored(cpu, page, physical);
        cpu->stop = true;
    }
}

uint64_t cpu_segment_address(struct cpu *cpu, unsigned number, uint64_t offset, unsigned size,
                             unsigned access)
{
    const struct x86_segment *segment = &cpu->state.segment[number];
    const uint16_t a = segment->attributes;
    uint64_t last, highest;
    bool inside;

    if (cpu->code_size == X86_MODE_64)
        return number >= X86_FS ? offset + segment->base : offset;
    offset = (uint32_t)offset;
    if (cpu_protected(cpu)) {
        if (!(a & X86_SEG_P))
            goto fault;
        if (a & X86_SEG_CODE) {
            if ((access & X86_WRITE) || !(a & X86_SEG_READABLE))
                goto fault;
        } else if ((access & X86_WRITE) && !(a & X86_SEG_WRITABLE)) {
            goto fault;
        }
    }
    last = offset + (size ? size - 1 : 0);
    if (!(a & X86_SEG_CODE) && (a & X86_SEG_DOWN)) {
        highest = a & X86_SEG_DB ? 0xffffffff : 0xffff;
        inside = offset > segment->limit && last <= highest;
    } else {
        inside = last <= segment->limit;
    }
    if (!inside)
        goto fault;
    return (uint32_t)(segment->base + offset);

fault:
    cpu_raise_error(cpu, number == X86_SS ? X86_SS_FAULT : X86_GP, 0);
}

uint64_t cpu_effective_address(const struct cpu *cpu, const struct x86_insn *insn)
{
    return effective_address(cpu, insn);
}

uint64_t cpu_operand_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                             unsigned access)
{
    return cpu_segment_address(cpu, insn->memory.segment, effective_address(cpu, insn), size,
                               access);
}

uint64_t cpu_read_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i)
{
    return operand_read(cpu, insn, i);
}

void cpu_write_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i, uint64_t value)
{
    operand_write(cpu, insn, i, value);
}
