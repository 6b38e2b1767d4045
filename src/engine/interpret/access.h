/* access.h - the fast halves of guest memory access: one look at the TLB, then
 * one host access, so that an aligned guest access is as atomic as on the
 * hardware (SDM 3A 8.1.1). What does not hit goes to memory.c. Private to
 * src/engine/. */
#ifndef LODGE_ENGINE_INTERPRET_ACCESS_H
#define LODGE_ENGINE_INTERPRET_ACCESS_H

#include "base/bytes.h"
#include "engine/interpret/cpu.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Guest memory holds values of any alignment and type. */
typedef volatile uint16_t __attribute__((aligned(1), may_alias)) guest_u16;
typedef volatile uint32_t __attribute__((aligned(1), may_alias)) guest_u32;
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) guest_u64;

ALWAYS_INLINE uint64_t host_load(const void *host, unsigned size)
{
    switch (size) {
    case 1: return *(const volatile uint8_t *)host;
    case 2: return *(const guest_u16 *)host;
    case 4: return *(const guest_u32 *)host;
    default: return *(const guest_u64 *)host;
    }
}

ALWAYS_INLINE void host_store(void *host, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: *(volatile uint8_t *)host = (uint8_t)value; break;
    case 2: *(guest_u16 *)host = (uint16_t)value; break;
    case 4: *(guest_u32 *)host = (uint32_t)value; break;
    default: *(guest_u64 *)host = value; break;
    }
}

/* A load or store of 1, 2, 4 or 8 bytes lies in one page. */
ALWAYS_INLINE bool within_page(uint64_t linear, unsigned size)
{
    return (linear & ~PAGE_MASK) <= PAGE_SIZE - size;
}

ALWAYS_INLINE uint64_t cpu_load_as(struct cpu *cpu, uint64_t linear, unsigned size,
                                   enum tlb_rights rights)
{
    const uint8_t *host = tlb_read_host(&cpu->tlb, rights, linear);

    if (likely(host && within_page(linear, size)))
        return host_load(host, size);
    return cpu_load_slow(cpu, linear, size, rights);
}

ALWAYS_INLINE void cpu_store_as(struct cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                                enum tlb_rights rights)
{
    uint8_t *host = tlb_write_host(&cpu->tlb, rights, linear);

    if (likely(host && within_page(linear, size)))
        host_store(host, size, value);
    else
        cpu_store_slow(cpu, linear, size, value, rights);
}

ALWAYS_INLINE uint64_t cpu_load(struct cpu *cpu, uint64_t linear, unsigned size)
{
    return cpu_load_as(cpu, linear, size, cpu->rights);
}

ALWAYS_INLINE void cpu_store(struct cpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    cpu_store_as(cpu, linear, size, value, cpu->rights);
}

/* The load of a read-modify-write: it faults as a write (SDM 3A 4.7). */
ALWAYS_INLINE uint64_t cpu_load_to_modify(struct cpu *cpu, uint64_t linear, unsigned size)
{
    const uint8_t *host = tlb_write_host(&cpu->tlb, cpu->rights, linear);

    if (likely(host && within_page(linear, size)))
        return host_load(host, size);
    cpu_probe_write(cpu, linear, size);
    return cpu_load(cpu, linear, size);
}

/* The system's own accesses (descriptor tables, TSS) have supervisor rights at
 * any CPL and heed no SMAP check (SDM 3A 4.6: implicit supervisor accesses do
 * when AC is clear only for user pages; tables lie in supervisor pages). */
ALWAYS_INLINE uint64_t cpu_load_system(struct cpu *cpu, uint64_t linear, unsigned size)
{
    return cpu_load_as(cpu, linear, size, TLB_SUPERVISOR);
}

ALWAYS_INLINE void cpu_store_system(struct cpu *cpu, uint64_t linear, unsigned size,
                                    uint64_t value)
{
    cpu_store_as(cpu, linear, size, value, TLB_SUPERVISOR);
}

/* --- Registers --- */

ALWAYS_INLINE uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

ALWAYS_INLINE uint64_t gpr_read(const struct cpu *cpu, unsigned reg, unsigned size)
{
    return cpu->state.gpr[reg] & size_mask(size);
}

ALWAYS_INLINE void gpr_write(struct cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
    uint64_t *gpr = &cpu->state.gpr[reg];

    switch (size) {
    case 1: *gpr = (*gpr & ~0xffull) | (uint8_t)value; break;
    case 2: *gpr = (*gpr & ~0xffffull) | (uint16_t)value; break;
    case 4: *gpr = (uint32_t)value; break;
    default: *gpr = value; break;
    }
}

ALWAYS_INLINE uint64_t operand_gpr_read(const struct cpu *cpu, const struct x86_operand *operand)
{
    if (unlikely(operand->high_byte))
        return (uint8_t)(cpu->state.gpr[operand->reg] >> 8);
    return gpr_read(cpu, operand->reg, operand->size);
}

ALWAYS_INLINE void operand_gpr_write(struct cpu *cpu, const struct x86_operand *operand,
                                     uint64_t value)
{
    if (unlikely(operand->high_byte))
        cpu->state.gpr[operand->reg] =
            (cpu->state.gpr[operand->reg] & ~0xff00ull) | (uint64_t)(uint8_t)value << 8;
    else
        gpr_write(cpu, operand->reg, operand->size, value);
}

/* --- Addresses --- */

ALWAYS_INLINE uint64_t effective_address(const struct cpu *cpu, const struct x86_insn *insn)
{
    const struct x86_memory *m = &insn->memory;
    uint64_t address = (uint64_t)m->displacement;

    if (m->base != X86_NO_REGISTER)
        address += cpu->state.gpr[m->base];
    if (m->index != X86_NO_REGISTER)
        address += cpu->state.gpr[m->index] * m->scale;
    if (m->rip_relative)
        address += cpu->state.rip;
    if (insn->address_size != 8)
        address &= size_mask(insn->address_size);
    return address;
}

/* The linear address of a memory operand. The common case is here: 64-bit
 * mode, where only FS and GS have a base and no limits are checked; canonicity
 * is checked by the TLB miss, since no such page has a tag. */
ALWAYS_INLINE uint64_t operand_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                                       unsigned access)
{
    if (likely(insn->mode == X86_MODE_64)) {
        uint64_t address = effective_address(cpu, insn);

        if (unlikely(insn->memory.segment >= X86_FS))
            address += cpu->state.segment[insn->memory.segment].base;
        return address;
    }
    return cpu_operand_address(cpu, insn, size, access);
}

ALWAYS_INLINE uint64_t operand_read(struct cpu *cpu, const struct x86_insn *insn, unsigned i)
{
    const struct x86_operand *operand = &insn->operands[i];

    if (operand->kind == X86_OPERAND_GPR)
        return operand_gpr_read(cpu, operand);
    if (operand->kind == X86_OPERAND_MEMORY)
        return cpu_load(cpu, operand_address(cpu, insn, operand->size, X86_READ), operand->size);
    return (uint64_t)insn->immediate & size_mask(operand->size);
}

ALWAYS_INLINE void operand_write(struct cpu *cpu, const struct x86_insn *insn, unsigned i,
                                 uint64_t value)
{
    const struct x86_operand *operand = &insn->operands[i];

    if (operand->kind == X86_OPERAND_GPR)
        operand_gpr_write(cpu, operand, value);
    else
        cpu_store(cpu, operand_address(cpu, insn, operand->size, X86_WRITE), operand->size, value);
}

#endif
