#include "machine/loader/flat.h"

#include <string.h>

#include "base/bytes.h"

#define DESCRIPTOR_CODE_32 0x00cf9b000000ffffull
#define DESCRIPTOR_CODE_64 0x00af9b000000ffffull
#define DESCRIPTOR_DATA    0x00cf93000000ffffull

#define PAGE_PRESENT 0x01
#define PAGE_WRITE   0x02
#define PAGE_LARGE   0x80

static int write_gdt(struct guest_memory *memory, struct x86_state *state, uint64_t code,
                     struct error *err)
{
    uint64_t gdt[4] = {0, 0, htole64(code), htole64(DESCRIPTOR_DATA)};

    if (guest_memory_write(memory, FLAT_GDT, gdt, sizeof(gdt)) < 0)
        return error_set(err, EINVAL, "memory is too small to boot a kernel");
    state->gdtr = (struct x86_table_register){.base = FLAT_GDT, .limit = sizeof(gdt) - 1};
    return 0;
}

static void set_segments(struct x86_state *state, uint16_t code_attributes)
{
    static const uint8_t data[] = {X86_DS, X86_ES, X86_SS, X86_FS, X86_GS};
    const uint16_t common = X86_SEG_P | X86_SEG_S | X86_SEG_ACCESSED | X86_SEG_G;

    state->segment[X86_CS] = (struct x86_segment){
        .limit = UINT32_MAX, .selector = FLAT_CODE,
        .attributes = (uint16_t)(common | X86_SEG_CODE | X86_SEG_READABLE | code_attributes)};
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        state->segment[data[i]] = (struct x86_segment){
            .limit = UINT32_MAX, .selector = FLAT_DATA,
            .attributes = common | X86_SEG_WRITABLE | X86_SEG_DB};
    state->segment[X86_TR] =
        (struct x86_segment){.limit = 0x67, .attributes = X86_SEG_P | 0xb /* busy TSS */};
    state->rflags = X86_FLAGS_ONE;
    state->gpr[X86_RSP] = FLAT_STACK;
}

int flat_enter_32(struct guest_memory *memory, struct x86_state *state, struct error *err)
{
    set_segments(state, X86_SEG_DB);
    state->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    return write_gdt(memory, state, DESCRIPTOR_CODE_32, err);
}

int flat_enter_64(struct guest_memory *memory, struct x86_state *state, struct error *err)
{
    uint8_t tables[6][4096] = {{0}};

    /* PML4, PDPT, and four directories of 2 MiB pages. */
    store_le64(tables[0], (FLAT_PAGE_TABLES + 0x1000) | PAGE_PRESENT | PAGE_WRITE);
    for (unsigned i = 0; i < 4; i++) {
        store_le64(tables[1] + 8 * i,
                   (FLAT_PAGE_TABLES + 0x2000 + i * 0x1000) | PAGE_PRESENT | PAGE_WRITE);
        for (unsigned k = 0; k < 512; k++)
            store_le64(tables[2 + i] + 8 * (size_t)k, ((uint64_t)i * 512 + k) << 21 |
                                                          PAGE_PRESENT | PAGE_WRITE | PAGE_LARGE);
    }
    if (guest_memory_write(memory, FLAT_PAGE_TABLES, tables, sizeof(tables)) < 0)
        return error_set(err, EINVAL, "memory is too small to boot a kernel");
    set_segments(state, X86_SEG_L);
    state->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | X86_CR0_PG;
    state->cr3 = FLAT_PAGE_TABLES;
    state->cr4 = X86_CR4_PAE;
    state->efer = X86_EFER_LME | X86_EFER_LMA;
    return write_gdt(memory, state, DESCRIPTOR_CODE_64, err);
}

int flat_write_command_line(struct guest_memory *memory, const char *text, uint64_t limit,
                            struct error *err)
{
    size_t length = strlen(text) + 1;

    limit = MIN(limit, (uint64_t)(FLAT_PAGE_TABLES - FLAT_COMMAND));
    if (length > limit)
        return error_set(err, EINVAL,
                         "the kernel's command line (--append) has %zu characters; this kernel "
                         "takes %llu",
                         length - 1, (unsigned long long)limit - 1);
    if (guest_memory_write(memory, FLAT_COMMAND, text, length) < 0)
        return error_set(err, EINVAL, "memory is too small to boot a kernel");
    return 0;
}
