/* What the manuals leave undefined. Flags come from the u= column of
 * src/x86/insn.tab (SDM 1 appendix A, EFLAGS cross-reference); here is what
 * depends on operands, and results other than flags. */
#include "compare.h"

#include "base/bytes.h"

static uint64_t operand_value(const struct x86_insn *insn, const struct image *before, unsigned i)
{
    const struct x86_operand *operand = &insn->operands[i];

    if (operand->kind == X86_OPERAND_GPR)
        return before->gpr[operand->reg];
    return (uint64_t)insn->immediate; /* immediates and constants */
}

/* SDM 2 SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD: a count of zero changes
 * no flag; OF is defined for a count of one; CF unless all bits were moved out. */
static uint64_t undefined_by_count(const struct x86_insn *insn, const struct image *before,
                                   uint64_t undefined)
{
    const unsigned size = insn->operands[0].size;
    const unsigned count = operand_value(insn, before, insn->operand_count - 1u) &
                           (size == 8 ? 63 : 31);

    if (!count)
        return 0;
    if (count == 1)
        undefined &= ~(uint64_t)X86_OF;
    if (count < size * 8)
        undefined &= ~(uint64_t)X86_CF;
    return undefined;
}

static uint64_t memory_address(const struct x86_insn *insn, const struct image *before)
{
    return image_operand_offset(before, insn, before->rip) +
           image_segment_base(before->mode, insn->memory.segment);
}

static uint16_t register_bit(const struct x86_operand *operand)
{
    return operand->kind == X86_OPERAND_GPR ? (uint16_t)(1u << operand->reg) : 0;
}

/* Around the end of a segment of 4 GiB, which is a limit violation or not (SDM 3A 5.3). */
static bool wraps_around(const struct x86_insn *insn, const struct image *before)
{
    const uint64_t last = UINT32_MAX - 0x200; /* no operand is larger */

    if (before->mode != X86_MODE_32)
        return false;
    if (x86_memory_operand(insn) && image_operand_offset(before, insn, before->rip) > last)
        return true;
    return (x86_rows[insn->row].attributes & X86_ATTR_DEFAULT64) &&
           (before->gpr[X86_RSP] > last || before->gpr[X86_RBP] > last);
}

static bool crosses_page(const struct x86_insn *insn, const struct image *before)
{
    const uint64_t address = memory_address(insn, before);

    return (address ^ (address + x86_memory_operand(insn)->size - 1)) >> 12;
}

/* REP with 32-bit addresses in 64-bit mode (SDM 2B REP): with nothing to count, or when the
 * first turn faults, Intel's CPUs cut the registers to 32 bits nevertheless, AMD's leave them
 * alone. After a turn they are cut everywhere. */
static void set_uncounted_halves(struct tolerance *t, const struct x86_insn *insn,
                                 const struct image *before)
{
    uint16_t halves = 1u << X86_RCX;

    if (before->mode != X86_MODE_64 || insn->address_size != 4 ||
        !(insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE)))
        return;
    if (insn->op != X86_OP_STOS && insn->op != X86_OP_SCAS)
        halves |= 1u << X86_RSI;
    if (insn->op != X86_OP_LODS)
        halves |= 1u << X86_RDI;
    t->fault_halves = halves;
    if (!(uint32_t)before->gpr[X86_RCX])
        t->halves = halves;
}

/* A store of what raises an exception that is not masked is not made: whether it could be
 * is then found out or not (SDM 1 8.4 has no order). */
static bool may_raise_x87(const struct image *before)
{
    return (before->fpu.fcw & 0x3f) != 0x3f;
}

struct tolerance tolerance_of(const struct x86_insn *insn, const struct image *before)
{
    const struct x86_row *row = &x86_rows[insn->row];
    struct tolerance t = {.flags = row->flags_undefined};

    if (row->attributes & X86_ATTR_NONDETERMINISTIC)
        for (unsigned i = 0; i < insn->operand_count; i++)
            t.registers |= register_bit(&insn->operands[i]);
    if (wraps_around(insn, before))
        t.fault_any = true;
    /* AMD lets SHA read unaligned memory. */
    if (row->feature == X86_FEATURE_SHA && x86_memory_operand(insn) &&
        (memory_address(insn, before) & 15))
        t.fault_any = true;
    /* Areas of state are probed in an order of the model's. */
    if (x86_memory_operand(insn) && !x86_memory_operand(insn)->size)
        t.fault_address = true;
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].kind == X86_OPERAND_MMX)
            t.fault_x87 = true; /* AMD goes to MMX state before it finds the fault */
    switch (insn->op) {
    case X86_OP_ROL: case X86_OP_ROR: case X86_OP_RCL: case X86_OP_RCR:
    case X86_OP_SHL: case X86_OP_SHR: case X86_OP_SAR:
        t.flags = undefined_by_count(insn, before, t.flags);
        break;
    case X86_OP_SHLD: case X86_OP_SHRD:
        t.flags = undefined_by_count(insn, before, t.flags);
        /* SDM 2 SHLD: a count above the operand size leaves all undefined. */
        if (insn->operands[0].size == 2 && (operand_value(insn, before, 2) & 31) > 16) {
            t.flags = X86_STATUS_FLAGS;
            t.registers = register_bit(&insn->operands[0]);
            if (insn->operands[0].kind == X86_OPERAND_MEMORY)
                t.to = IMAGE_DATA_SIZE;
        }
        break;
    case X86_OP_PUSH_SREG:
        /* SDM 2 PUSH: the upper half of a doubleword is written as zero or not at all. */
        if (insn->operand_size == 4) {
            uint64_t rsp = before->gpr[X86_RSP];

            if (before->mode == X86_MODE_16)
                rsp = image_data_base(before->mode) + (uint16_t)rsp;
            t.from = (uint32_t)(rsp - 2 - IMAGE_DATA);
            t.to = t.from + 2;
        }
        break;
    case X86_OP_CMPS:
        t.fault_address = true; /* which of the two operands is read first */
        /* fall through */
    case X86_OP_SCAS: /* SDM 2B REP: a fault takes back the flags of turns before; not on AMD's */
        if (insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE))
            t.fault_flags = X86_STATUS_FLAGS;
        /* fall through */
    case X86_OP_MOVS: case X86_OP_STOS: case X86_OP_LODS:
        set_uncounted_halves(&t, insn, before);
        break;
    case X86_OP_BOUND: /* whether the second bound is read when the first is not kept */
        t.fault_any = crosses_page(insn, before);
        break;
    case X86_OP_FST: case X86_OP_FSTP: case X86_OP_FIST: case X86_OP_FISTP: case X86_OP_FISTTP:
    case X86_OP_FBSTP:
        if (!x86_memory_operand(insn))
            break;
        t.fault_pending = may_raise_x87(before);
        t.fault_memory = x86_memory_operand(insn)->size == 10; /* in two parts */
        break;
    case X86_OP_VCVTPS2PH:
        if (x86_memory_operand(insn)) { /* before or after its store faults */
            t.fault_mxcsr = 0x3f;
            t.fault_any = (~before->fpu.mxcsr >> 7 & 0x3f) != 0;
        }
        break;
    case X86_OP_VMASKMOVPS: case X86_OP_VMASKMOVPD: case X86_OP_VPMASKMOVD: case X86_OP_VPMASKMOVQ:
        t.fault_address = true; /* which of the elements is told */
        break;
    case X86_OP_VGATHERDPS: case X86_OP_VGATHERDPD: case X86_OP_VGATHERQPS: case X86_OP_VGATHERQPD:
    case X86_OP_VPGATHERDD: case X86_OP_VPGATHERDQ: case X86_OP_VPGATHERQD: case X86_OP_VPGATHERQQ:
        /* SDM 2 VGATHER: of the mask of elements still to come only the highest bit counts. */
        t.fault_vectors = (uint16_t)(1u << insn->operands[2].reg);
        /* And whether the upper half is zero before the last one came. */
        t.fault_high = (uint16_t)(insn->operands[0].size == 16 ? 1u << insn->operands[0].reg : 0);
        break;
    case X86_OP_CALL: case X86_OP_CALL_INDIRECT: /* whether the push comes before a bad target */
    case X86_OP_PUSHA:
        t.fault_memory = true;
        break;
    case X86_OP_POPA:
        t.fault_registers = 0xff; /* those popped before the fault may have changed */
        break;
    case X86_OP_MASKMOVQ: case X86_OP_MASKMOVDQU: case X86_OP_VMASKMOVDQU:
        t.fault_any = true; /* SDM 2 MASKMOVQ: bytes that the mask leaves out may fault */
        break;
    case X86_OP_FXSAVE: case X86_OP_XSAVE: case X86_OP_XSAVEC: case X86_OP_XSAVEOPT:
        /* MXCSR_MASK is the model's. */
        t.from = (uint32_t)(memory_address(insn, before) + 28 - IMAGE_DATA);
        t.to = t.from + 4;
        break;
    case X86_OP_RDTSC: case X86_OP_RDTSCP: case X86_OP_XGETBV:
        t.registers = 1u << X86_RAX | 1u << X86_RDX;
        if (insn->op == X86_OP_RDTSCP)
            t.registers |= 1u << X86_RCX;
        break;
    default:
        break;
    }
    return t;
}
