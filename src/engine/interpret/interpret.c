/* The interpreter: decoded blocks and the loop that runs them.
 *
 * A block is a run of instructions in one page, decoded once. It is found by
 * the physical address of its first byte and the CPU's mode, and valid while
 * its page has the version it was decoded at (code_pages.h). An instruction
 * that crosses into the next page is a block of its own that is not kept. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/interpret/access.h"
#include "engine/interpret/code_pages.h"
#include "engine/interpret/debug.h"
#include "engine/interpret/fast.h"
#include "engine/interpret/interpret.h"

#define BLOCK_INSNS  24

struct step {
    interpret_body *body;
    struct x86_insn insn;
};

struct block {
    uint64_t physical; /* of the first byte; UINT64_MAX: empty */
    unsigned mode;
    unsigned version;
    unsigned count;
    unsigned last;     /* from the first instruction to the last, in bytes */
    struct code_page *page;
    struct step steps[BLOCK_INSNS];
};

/* Direct-mapped by address. */
struct block_cache {
    unsigned count; /* a power of two */
    struct block blocks[];
};

#define BLOCK_COUNT 8192u /* of the interpreter itself */

int cpu_create_blocks(struct cpu *cpu, unsigned count)
{
    cpu->blocks = calloc(1, sizeof(*cpu->blocks) + count * sizeof(cpu->blocks->blocks[0]));
    if (!cpu->blocks)
        return -ENOMEM;
    cpu->blocks->count = count;
    for (unsigned i = 0; i < count; i++)
        cpu->blocks->blocks[i].physical = UINT64_MAX;
    return 0;
}

/* Raise #UD for what the guest was not offered. Instructions that old CPUs
 * take for something else (TZCNT, LZCNT, PREFETCHW) are offered always. */
static void interpret_undefined(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu_raise(cpu, X86_UD);
}

interpret_body *cpu_body_for(const struct cpu *cpu, const struct x86_insn *insn)
{
    interpret_body *body = interpret_bodies[insn->op];

    if (!body || !cpu_offers(cpu, (enum x86_feature)x86_rows[insn->row].feature))
        return interpret_undefined;
    return interpret_fast_body(insn, body);
}

/* Linear address of the next instruction; outside 64-bit mode within CS. */
uint64_t cpu_fetch_address(struct cpu *cpu)
{
    const struct x86_segment *cs = &cpu->state.segment[X86_CS];

    if (cpu->code_size == X86_MODE_64)
        return cpu->state.rip;
    if (cpu->state.rip > cs->limit)
        cpu_raise_error(cpu, X86_GP, 0);
    return (uint32_t)(cs->base + cpu->state.rip);
}

/* Physical address of code at linear; raises #PF and #GP. */
uint64_t cpu_fetch_translate(struct cpu *cpu, uint64_t linear)
{
    const unsigned i = tlb_index(linear);
    enum tlb_rights rights = cpu->cpl == 3 ? TLB_USER : TLB_SUPERVISOR;

    if (likely(tlb_hit(cpu->tlb.tables[rights].execute[i], linear)))
        return cpu->tlb.tables[rights].physical[i] | (linear & ~PAGE_MASK);
    return cpu_translate(cpu, linear, CPU_FETCH, rights);
}

/* Up to 15 bytes at linear, crossing into the next page if need be. Returns
 * how many could be read; a fault beyond the first page is left for later. */
static unsigned fetch_bytes(struct cpu *cpu, uint64_t linear, uint8_t *bytes, unsigned want)
{
    unsigned in_first = (unsigned)MIN((uint64_t)want, PAGE_SIZE - (linear & ~PAGE_MASK));
    struct memory_slot *slot;
    uint8_t *host = soft_engine_host(cpu->soft, cpu_fetch_translate(cpu, linear), &slot);

    if (!host) {
        /* Code in device memory: all ones decode to an invalid instruction. */
        memset(bytes, 0xff, want);
        return want;
    }
    memcpy(bytes, host, in_first);
    return in_first;
}

static void fetch_rest(struct cpu *cpu, uint64_t linear, uint8_t *bytes, unsigned have)
{
    uint64_t next = ((linear & PAGE_MASK) + PAGE_SIZE) & cpu->address_mask;
    struct memory_slot *slot;
    uint8_t *host = soft_engine_host(cpu->soft, cpu_fetch_translate(cpu, next), &slot);

    if (host)
        memcpy(bytes + have, host, X86_INSN_MAX - have);
    else
        memset(bytes + have, 0xff, X86_INSN_MAX - have);
}

/* Decode the one instruction at linear, by whatever pages it takes. Raises
 * what fetching or decoding it raises. */
static void decode_one(struct cpu *cpu, uint64_t linear, struct x86_insn *insn)
{
    uint8_t bytes[X86_INSN_MAX];
    unsigned have = fetch_bytes(cpu, linear, bytes, X86_INSN_MAX);
    enum x86_decode_result result = x86_decode(bytes, have, cpu->code_size, insn);

    if (result == X86_DECODE_SHORT) {
        fetch_rest(cpu, linear, bytes, have);
        result = x86_decode(bytes, X86_INSN_MAX, cpu->code_size, insn);
    }
    if (result == X86_DECODE_LONG)
        cpu_raise_error(cpu, X86_GP, 0);
    if (result != X86_DECODE_OK)
        cpu_raise(cpu, X86_UD);
}

static bool ends_block(const struct x86_insn *insn)
{
    return x86_rows[insn->row].attributes & (X86_ATTR_BRANCH | X86_ATTR_SERIALIZING);
}

/* Fill block from the page; count stays 0 when the first instruction does not
 * lie in the page, or is none. */
static void decode_block(struct cpu *cpu, struct block *block, uint64_t physical)
{
    struct memory_slot *slot;
    const uint8_t *host = soft_engine_host(cpu->soft, physical, &slot);
    unsigned left = (unsigned)(PAGE_SIZE - (physical & ~PAGE_MASK));

    block->physical = UINT64_MAX;
    block->count = 0;
    if (!host)
        return;
    block->page = &slot->pages[(physical - slot->address) >> 12];
    block->version = code_page_mark(cpu, block->page, physical);
    block->mode = cpu->mode;
    while (block->count < BLOCK_INSNS && left) {
        struct step *step = &block->steps[block->count];

        if (x86_decode(host, left, cpu->code_size, &step->insn) != X86_DECODE_OK)
            break;
        step->body = cpu_body_for(cpu, &step->insn);
        block->count++;
        block->last = (unsigned)(PAGE_SIZE - (physical & ~PAGE_MASK)) - left;
        host += step->insn.length;
        left -= step->insn.length;
        if (ends_block(&step->insn))
            break;
    }
    if (block->count)
        block->physical = physical;
}

static struct block *find_block(struct cpu *cpu, uint64_t physical)
{
    struct block *block =
        &cpu->blocks->blocks[(physical ^ physical >> 13) & (cpu->blocks->count - 1)];

    if (likely(block->physical == physical && block->mode == cpu->mode &&
               block->version ==
                   atomic_load_explicit(&block->page->version, memory_order_acquire)))
        return block;
    decode_block(cpu, block, physical);
    return block;
}

/* Those that clear TF on the way are not stepped (SDM 3B 17.3.1.4). */
static bool may_clear_tf(const struct x86_insn *insn)
{
    return insn->op == X86_OP_INT || insn->op == X86_OP_INT3 || insn->op == X86_OP_INTO ||
           insn->op == X86_OP_ICEBP || insn->op == X86_OP_SYSCALL;
}

void cpu_carry_out(struct cpu *cpu, interpret_body *body, const struct x86_insn *insn)
{
    bool single_step = cpu->state.rflags & X86_TF;

    if (!cpu->state.interrupt_shadow)
        cpu->watch_hits = 0;
    cpu->insn_rip = cpu->state.rip;
    cpu->state.rip += insn->length;
    if (insn->mode != X86_MODE_64)
        cpu->state.rip &= 0xffffffff;
    cpu->retired_shadow = false;
    cpu->stop = false; /* what came before does not matter */
    body(cpu, insn);
    cpu->executed++;
    /* IRET alone can set RF for the instruction that follows. */
    if (insn->op != X86_OP_IRET)
        cpu->state.rflags &= ~(uint64_t)X86_RF;
    if (!cpu->retired_shadow)
        cpu->state.interrupt_shadow = false;
    if (may_clear_tf(insn))
        single_step &= !!(cpu->state.rflags & X86_TF);
    /* A shadow of MOV SS holds the trap back too, one of STI does not. */
    if (!cpu->state.interrupt_shadow || insn->op == X86_OP_STI)
        debug_trap(cpu, single_step);
}

void cpu_step_raising(struct cpu *cpu)
{
    struct x86_insn insn;
    uint64_t linear;

    cpu->insn_rip = cpu->state.rip;
    linear = cpu_fetch_address(cpu);
    debug_check_instruction(cpu, linear);
    decode_one(cpu, linear, &insn);
    cpu_carry_out(cpu, cpu_body_for(cpu, &insn), &insn);
}

bool cpu_step(struct cpu *cpu)
{
    if (sigsetjmp(cpu->fault, 0) == 0) {
        cpu_step_raising(cpu);
        return true;
    }
    return cpu_take_exception(cpu);
}

static void run_block(struct cpu *cpu, const struct block *block)
{
    const uint64_t rip_mask = cpu->address_mask;
    const struct step *step = block->steps, *end = step + block->count;

    cpu->stop = false;
    do {
        cpu->insn_rip = cpu->state.rip;
        cpu->state.rip = (cpu->state.rip + step->insn.length) & rip_mask;
        step->body(cpu, &step->insn);
        step++;
    } while (step < end && likely(!cpu->stop));
    cpu->executed += (uint64_t)(step - block->steps);
}

/* The limit of CS was looked at where the block begins. */
static bool lies_within_limit(const struct cpu *cpu, const struct block *block)
{
    return cpu->code_size == X86_MODE_64 ||
           cpu->state.rip + block->last <= cpu->state.segment[X86_CS].limit;
}

void cpu_run_block(struct cpu *cpu)
{
    struct block *block;

    /* Rare conditions go one instruction at a time. */
    if (unlikely((cpu->state.rflags & (X86_TF | X86_RF)) || debug_active(cpu) ||
                 cpu->state.interrupt_shadow)) {
        cpu_step_raising(cpu);
        return;
    }
    cpu->insn_rip = cpu->state.rip;
    block = find_block(cpu, cpu_fetch_translate(cpu, cpu_fetch_address(cpu)));
    if (likely(block->count && lies_within_limit(cpu, block)))
        run_block(cpu, block);
    else
        cpu_step_raising(cpu);
}

/* Until something needs the outer loop. Raises. */
static void run_blocks(struct cpu *cpu)
{
    while (!cpu_takeable_signals(cpu) && cpu->state.activity == X86_RUNNING)
        cpu_run_block(cpu);
}

static int interpret_run(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    struct cpu *cpu = cpu_of(vcpu);
    volatile bool alive = true;

    (void)err;
    atomic_store(&cpu->in_guest, true);
    code_pages_acknowledge(cpu);
    for (;;) {
        if (!alive || cpu->state.activity == X86_SHUTDOWN) {
            *ret_exit = ENGINE_EXIT_SHUTDOWN;
            break;
        }
        if (cpu_takeable_signals(cpu) && cpu_take_signals(cpu, ret_exit))
            break;
        if (cpu->state.activity != X86_RUNNING) {
            *ret_exit = ENGINE_EXIT_HALT;
            break;
        }
        if (sigsetjmp(cpu->fault, 0) == 0)
            run_blocks(cpu);
        else
            alive = cpu_take_exception(cpu);
    }
    atomic_store(&cpu->in_guest, false);
    return 0;
}

bool interpret_step(struct vcpu *vcpu)
{
    return cpu_step(cpu_of(vcpu));
}

static void interpret_destroy(struct engine *engine)
{
    struct soft_engine *soft = (struct soft_engine *)engine;

    for (unsigned i = 0; i < soft->config.cpus; i++) {
        struct vcpu *vcpu = soft->engine.vcpus[i];

        if (!vcpu)
            continue;
        free(cpu_of(vcpu)->blocks);
        cpu_free(cpu_of(vcpu), sizeof(struct cpu));
    }
    soft_engine_destroy(soft);
    free(soft);
}

static int interpret_create_cpu(struct soft_engine *soft, unsigned index, struct error *err)
{
    struct cpu *cpu = cpu_allocate(sizeof(*cpu));
    int r;

    if (!cpu)
        return error_set(err, ENOMEM, "out of memory for CPU %u", index);
    r = cpu_create_blocks(cpu, BLOCK_COUNT) == 0
            ? cpu_init(cpu, soft, &interpret_engine, index, err)
            : error_set(err, ENOMEM, "out of memory for CPU %u", index);
    if (r < 0) {
        free(cpu->blocks);
        cpu_free(cpu, sizeof(*cpu));
        return r;
    }
    return 0;
}

static int interpret_create(const struct engine_config *config, struct engine **ret_engine,
                            struct error *err)
{
    struct soft_engine *soft = calloc(1, sizeof(*soft));
    int r;

    if (!soft)
        return error_set(err, ENOMEM, "out of memory for the interpreter");
    r = soft_engine_init(soft, config, &interpret_engine, err);
    if (r < 0) {
        free(soft);
        return r;
    }
    for (unsigned i = 0; r == 0 && i < config->cpus; i++)
        r = interpret_create_cpu(soft, i, err);
    if (r < 0) {
        interpret_destroy(&soft->engine);
        return r;
    }
    *ret_engine = &soft->engine;
    return 0;
}

static int interpret_probe(struct error *err)
{
    (void)err;
    return 0; /* plain C runs anywhere */
}

static void interpret_print_stats(struct engine *engine, FILE *out)
{
    const struct soft_engine *soft = (const struct soft_engine *)engine;

    for (unsigned i = 0; i < soft->config.cpus; i++)
        fprintf(out, "cpu %u: %llu instructions\n", i,
                (unsigned long long)cpu_of(soft->engine.vcpus[i])->executed);
}

const struct engine_ops interpret_engine = {
    .name = "interpret",
    .summary = "the reference: one instruction at a time, in plain C",
    .probe = interpret_probe,
    .filter_cpuid = soft_engine_filter_cpuid,
    .create = interpret_create,
    .destroy = interpret_destroy,
    .map = soft_engine_map,
    .unmap = soft_engine_unmap,
    .run = interpret_run,
    .get_state = soft_engine_get_state,
    .set_state = soft_engine_set_state,
    .signal = soft_engine_signal,
    .invalidate = soft_engine_invalidate,
    .print_stats = interpret_print_stats,
};
