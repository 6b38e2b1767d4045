/* What AVX and AVX2 add to the legacy sets: broadcasts, permutations across
 * lanes, masked moves, gathers (SDM 1 14.1.2, 14.6, 14.7). */
#include "engine/interpret/vector.h"

#include <string.h>

void interpret_vzeroupper(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned registers = insn->mode == X86_MODE_64 ? 16 : 8;

    avx_check(cpu);
    memset(cpu->state.fpu.ymm_high, 0, registers * 16);
}

void interpret_vzeroall(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned registers = insn->mode == X86_MODE_64 ? 16 : 8;

    avx_check(cpu);
    memset(cpu->state.fpu.ymm_high, 0, registers * 16);
    memset(cpu->state.fpu.xmm, 0, registers * 16);
}

/* The first element of the source everywhere. */
static void broadcast(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    union vector source, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    for (unsigned i = 0; i < vector_size(insn); i += element)
        memcpy(&d.u8[i], &source, element);
    vector_write(cpu, insn, 0, &d);
}

#define BROADCAST(op, element)                                                                     \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        broadcast(cpu, insn, element);                                                             \
    }
BROADCAST(vpbroadcastb, 1)
BROADCAST(vpbroadcastw, 2)
BROADCAST(vpbroadcastd, 4)
BROADCAST(vpbroadcastq, 8)
BROADCAST(vbroadcastss, 4)
BROADCAST(vbroadcastsd, 8)
BROADCAST(vbroadcastf128, 16)
BROADCAST(vbroadcasti128, 16)

static void insert_lane(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector b, d;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 2, &b);
    vector_read(cpu, insn, 1, &d);
    d.lane[insn->immediate & 1] = b.lane[0];
    vector_write(cpu, insn, 0, &d);
}

static void extract_lane(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector b, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    d.lane[0] = b.lane[insn->immediate & 1];
    vector_write(cpu, insn, 0, &d);
}

/* Each lane of the result: one of four lanes, or zero. */
static void permute_lanes(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector sources[2], d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 2, &sources[1]);
    vector_read(cpu, insn, 1, &sources[0]);
    for (unsigned i = 0; i < 2; i++) {
        unsigned select = (unsigned)insn->immediate >> (4 * i);

        if (!(select & 8))
            d.lane[i] = sources[select >> 1 & 1].lane[select & 1];
    }
    vector_write(cpu, insn, 0, &d);
}

#define BODY(op, function)                                                                         \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        function(cpu, insn);                                                                       \
    }
BODY(vinsertf128, insert_lane)
BODY(vinserti128, insert_lane)
BODY(vextractf128, extract_lane)
BODY(vextracti128, extract_lane)
BODY(vperm2f128, permute_lanes)
BODY(vperm2i128, permute_lanes)

/* VPERMILPx: within a lane, by an immediate or by a vector of numbers. */
static void permute_in_lane(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    bool immediate = insn->operands[2].kind == X86_OPERAND_IMMEDIATE;
    unsigned count = 16 / element;
    union vector source, control, d = {0};

    vector_check(cpu, insn);
    if (!immediate)
        vector_read(cpu, insn, 2, &control);
    vector_read(cpu, insn, 1, &source);
    for (unsigned i = 0; i < vector_size(insn) / element; i++) {
        unsigned select;

        if (!immediate)
            select = element == 4 ? control.u32[i] : (unsigned)control.u64[i] >> 1;
        else
            select = (uint8_t)insn->immediate >> (element == 4 ? 2 * (i % 4) : i);
        select = (select & (count - 1)) + i / count * count;
        memcpy(&d.u8[i * element], &source.u8[select * element], element);
    }
    vector_write(cpu, insn, 0, &d);
}

void interpret_vpermilps(struct cpu *cpu, const struct x86_insn *insn)
{
    permute_in_lane(cpu, insn, 4);
}

void interpret_vpermilpd(struct cpu *cpu, const struct x86_insn *insn)
{
    permute_in_lane(cpu, insn, 8);
}

/* Across the whole vector: doublewords by a vector, quadwords by an immediate. */
static void permute_u32(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector source, control, d;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 2, &source);
    vector_read(cpu, insn, 1, &control);
    for (unsigned i = 0; i < 8; i++)
        d.u32[i] = source.u32[control.u32[i] & 7];
    vector_write(cpu, insn, 0, &d);
}
BODY(vpermd, permute_u32)
BODY(vpermps, permute_u32)

static void permute_u64(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector source, d;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    for (unsigned i = 0; i < 4; i++)
        d.u64[i] = source.u64[(uint8_t)insn->immediate >> (2 * i) & 3];
    vector_write(cpu, insn, 0, &d);
}
BODY(vpermq, permute_u64)
BODY(vpermpd, permute_u64)

/* The linear address of an element offset bytes from the memory operand. */
static uint64_t element_address(struct cpu *cpu, const struct x86_insn *insn, int64_t offset,
                                unsigned size, unsigned access)
{
    struct x86_insn at = *insn;

    if (at.memory.vsib)
        at.memory.index = X86_NO_REGISTER;
    at.memory.vsib = false;
    at.memory.displacement = (int64_t)((uint64_t)at.memory.displacement + (uint64_t)offset);
    return cpu_operand_address(cpu, &at, size, access);
}

static bool element_sign(const union vector *mask, unsigned i, unsigned element)
{
    return mask->u8[i * element + element - 1] & 0x80;
}

/* Loads and stores of the elements whose mask has its sign bit set; others
 * read as zero and neither of them faults. */
static void masked_move(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    bool store = insn->operands[0].kind == X86_OPERAND_MEMORY;
    unsigned count = vector_size(insn) / element;
    union vector mask, value = {0};
    uint64_t linear[8];

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &mask);
    for (unsigned i = 0; i < count; i++) {
        if (!element_sign(&mask, i, element))
            continue;
        linear[i] = element_address(cpu, insn, i * element, element,
                                    store ? X86_WRITE : X86_READ);
        if (store)
            cpu_probe_write(cpu, linear[i], element);
        else
            cpu_read(cpu, linear[i], &value.u8[i * element], element);
    }
    if (!store) {
        vector_write(cpu, insn, 0, &value);
        return;
    }
    vector_read(cpu, insn, 2, &value);
    for (unsigned i = 0; i < count; i++)
        if (element_sign(&mask, i, element))
            cpu_write(cpu, linear[i], &value.u8[i * element], element);
}

#define MASKED(op, element)                                                                        \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        masked_move(cpu, insn, element);                                                           \
    }
MASKED(vmaskmovps, 4)
MASKED(vmaskmovpd, 8)
MASKED(vpmaskmovd, 4)
MASKED(vpmaskmovq, 8)

/* Gathers. A fault leaves the elements before it loaded and their mask
 * cleared, so that the instruction can go on (SDM 2C VPGATHERDD): registers
 * change as it proceeds. */
static void gather(struct cpu *cpu, const struct x86_insn *insn, unsigned index_size,
                   unsigned element)
{
    unsigned widest = index_size > element ? index_size : element;
    unsigned count = (insn->vex_length ? 32 : 16) / widest;
    unsigned to = insn->operands[0].reg, by = insn->operands[2].reg, from = insn->memory.index;
    union vector d, mask, index;

    vector_check(cpu, insn);
    vector_read_ymm(cpu, from, &index);
    vector_read_ymm(cpu, to, &d);
    vector_read_ymm(cpu, by, &mask);
    /* A fault leaves what was gathered before it and the rest of the mask. */
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = index_size == 4 ? (uint64_t)(int64_t)index.i32[i] : index.u64[i];

        if (element_sign(&mask, i, element))
            cpu_read(cpu,
                     element_address(cpu, insn, (int64_t)(offset * insn->memory.scale), element,
                                     X86_READ),
                     &d.u8[i * element], element);
        memset(&mask.u8[i * element], 0, element);
        vector_write_ymm(cpu, to, &d);
        vector_write_ymm(cpu, by, &mask);
    }
    mask = (union vector){0};
    memset(&d.u8[count * element], 0, sizeof(d) - count * element);
    vector_write(cpu, insn, 0, &d);
    vector_write(cpu, insn, 2, &mask);
}

#define GATHER(op, index_size, element)                                                            \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        gather(cpu, insn, index_size, element);                                                    \
    }
GATHER(vpgatherdd, 4, 4)
GATHER(vpgatherdq, 4, 8)
GATHER(vpgatherqd, 8, 4)
GATHER(vpgatherqq, 8, 8)
GATHER(vgatherdps, 4, 4)
GATHER(vgatherdpd, 4, 8)
GATHER(vgatherqps, 8, 4)
GATHER(vgatherqpd, 8, 8)
