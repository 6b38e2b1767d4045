/* image.h - what user-mode code can see of a CPU, and the memory it runs in:
 * the same picture for the host CPU and for every engine, so that one can be
 * laid over the other.
 *
 * The code under test runs at CPL 3 in one of three modes, all of them under
 * long mode: 64-bit, 32-bit and 16-bit code. It sees the same linear addresses
 * on the host and in a guest. */
#ifndef LODGE_TESTS_ORACLE_IMAGE_H
#define LODGE_TESTS_ORACLE_IMAGE_H

#include "x86/decode.h"
#include "x86/state.h"

#define IMAGE_PAGE 4096u

/* Linear addresses. Everything near them is unmapped. Code may be written to
 * as well; the last data page may only be read; data may not be executed. */
#define IMAGE_CODE       0x10000000u
#define IMAGE_CODE_SIZE  (2 * IMAGE_PAGE)
#define IMAGE_DATA       0x20000000u
#define IMAGE_DATA_SIZE  (3 * IMAGE_PAGE)
#define IMAGE_READONLY   (IMAGE_DATA + 2 * IMAGE_PAGE)
#define IMAGE_GS_BASE    (IMAGE_DATA + 0x400u) /* of 64-bit code */

/* 16-bit code has its segments here, with a limit of 64 KiB; 32-bit and 64-bit
 * segments begin at 0. */
#define IMAGE_CODE_BASE_16 IMAGE_CODE
#define IMAGE_DATA_BASE_16 (IMAGE_DATA - 0x8000u)

/* Selectors: Linux's own, and two of a local descriptor table. */
#define IMAGE_CS_64   0x33
#define IMAGE_CS_32   0x23
#define IMAGE_DS      0x2b
#define IMAGE_CS_16   0x07
#define IMAGE_DS_16   0x0f

struct image_memory {
    uint8_t code[IMAGE_CODE_SIZE];
    uint8_t data[IMAGE_DATA_SIZE];
};

struct image {
    enum x86_mode mode;
    uint64_t gpr[X86_GPRS];
    uint64_t rip, rflags;
    struct x86_xsave fpu;
    /* How it ended: the exception, at rip. */
    int vector;
    uint32_t error_code;
    uint64_t cr2; /* of a page fault */
};

#define IMAGE_TIMEOUT (-1) /* in vector: it did not end by itself */

static inline uint64_t image_code_base(enum x86_mode mode)
{
    return mode == X86_MODE_16 ? IMAGE_CODE_BASE_16 : 0;
}

static inline uint64_t image_data_base(enum x86_mode mode)
{
    return mode == X86_MODE_16 ? IMAGE_DATA_BASE_16 : 0;
}

static inline uint64_t image_segment_base(enum x86_mode mode, unsigned segment)
{
    if (mode == X86_MODE_64)
        return segment == X86_GS ? IMAGE_GS_BASE : 0;
    return segment == X86_CS ? image_code_base(mode) : image_data_base(mode);
}

/* Offset in its segment of the memory operand of an instruction at rip. A
 * gather's index does not count. */
static inline uint64_t image_operand_offset(const struct image *image, const struct x86_insn *insn,
                                            uint64_t rip)
{
    const struct x86_memory *m = &insn->memory;
    uint64_t offset = (uint64_t)m->displacement;

    if (m->base != X86_NO_REGISTER)
        offset += image->gpr[m->base];
    if (m->index != X86_NO_REGISTER && !m->vsib)
        offset += (insn->op == X86_OP_XLAT ? (uint8_t)image->gpr[m->index]
                                           : image->gpr[m->index]) * m->scale;
    if (m->rip_relative)
        offset += rip + insn->length;
    return insn->address_size < 8 ? offset & ((1ull << insn->address_size * 8) - 1) : offset;
}

#endif
