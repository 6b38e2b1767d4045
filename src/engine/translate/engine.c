/* The engine translate: its life, and the loop that goes from one exit of
 * emitted code to the next. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/interpret/access.h"
#include "engine/interpret/debug.h"
#include "engine/translate/build.h"
#include "engine/translate/guess.h"
#include "engine/translate/hot.h"
#include "engine/translate/path.h"
#include "engine/translate/stats.h"
#include "engine/translate/together.h"
#include "engine/translate/trace.h"
#include "engine/translate/translate.h"
#include "engine/translate/trap.h"

#define BLOCK_COUNT   1024u         /* of the interpreter, for what is not translated */
#define CACHE_DEFAULT (64ull << 20) /* for all CPUs together */

/* --- Finding code --- */

/* A segment that needs no check but for its base: writable, no limit. */
static bool reaches_all(const struct x86_segment *segment)
{
    const unsigned wanted = X86_SEG_P | X86_SEG_WRITABLE;

    return segment->limit == 0xffffffff &&
           (segment->attributes & (wanted | X86_SEG_CODE | X86_SEG_DOWN)) == wanted;
}

/* Code whose addresses need no segment checks, but for FS and GS. */
static bool is_flat(const struct cpu *cpu)
{
    const struct x86_segment *segment = cpu->state.segment;

    return cpu->code_size == X86_MODE_32 && cpu->data_flat && cpu->stack_mask == 0xffffffff &&
           reaches_all(&segment[X86_SS]) && reaches_all(&segment[X86_DS]) &&
           reaches_all(&segment[X86_ES]);
}

/* Of code that is not 64-bit. */
static unsigned legacy_mode(const struct cpu *cpu)
{
    const struct x86_segment *segment = cpu->state.segment;

    if (!is_flat(cpu))
        return segment_mode(cpu);
    return (reaches_all(&segment[X86_FS]) ? UNIT_FS : 0) |
           (reaches_all(&segment[X86_GS]) ? UNIT_GS : 0);
}

unsigned translator_mode(const struct cpu *cpu)
{
    unsigned mode = cpu->mode | (cpu->rights == TLB_SUPERVISOR_AC ? UNIT_AC : 0);

    if ((mode & CPU_MODE_SIZE) != CPU_MODE_64)
        mode |= legacy_mode(cpu);
    if (unlikely(vectors_may_trap(cpu)))
        mode |= UNIT_UNMASKED;
    return mode;
}

/* The unit at state.rip, made if need be; NULL: interpret instead, or a path was run, and
 * state.rip is another now. Raises. */
static struct unit *find_unit(struct translator *t, unsigned more_mode)
{
    struct cpu *cpu = &t->cpu;
    const unsigned mode = translator_mode(cpu) | more_mode;
    uint64_t linear, physical;
    struct unit *unit;

    cpu->insn_rip = cpu->state.rip;
    jump_cache_enter_mode(t, mode & ~(unsigned)UNIT_SINGLE);
    linear = cpu_fetch_address(cpu);
    physical = cpu_fetch_translate(cpu, linear);
    unit = code_cache_find(&t->cache, physical, linear, mode, &cpu->state.segment[X86_CS]);
    if (unit)
        unit->belongings.root = cpu->state.cr3;
    if (!unit && (mode & UNIT_SEGMENTED) && churn_interprets(t, physical))
        return NULL;
    if (!unit) {
        const enum cpu_part part = times_enter(&cpu->times, PART_TRANSLATE);

        if (unlikely(t->hot_turns == 1) && path_wanted(t, physical, mode) &&
            path_record(t, linear, physical, mode))
            return NULL;
        unit = translate_unit(t, linear, physical, mode, false);
        times_enter(&cpu->times, part);
    }
    if (unlikely(t->trace != NULL) && unit)
        trace_entry(t, unit);
    return unit;
}

/* Translations were flushed: so go the jumps that rest on them. */
static void follow_tlb(struct translator *t)
{
    struct tlb *tlb = &t->cpu.tlb;

    if (likely(!tlb->flushed))
        return;
    path_flushed(t);
    if (tlb->flushed & TLB_FLUSHED_ALL) {
        jump_cache_flush_all(t);
        t->supervisor_local = false;
    }
    if (tlb->flushed & TLB_FLUSHED_PAGE)
        jump_cache_flush_page(t, tlb->flushed_page);
    if (tlb->flushed & TLB_FLUSHED_LOCAL) {
        jump_cache_flush(t, JUMP_USER);
        jump_cache_flush(t, JUMP_USER_32);
        jump_cache_flush(t, JUMP_USER_SEGMENTED);
    }
    if ((tlb->flushed & TLB_FLUSHED_LOCAL) && t->supervisor_local) {
        jump_cache_flush(t, JUMP_SUPERVISOR);
        jump_cache_flush(t, JUMP_SUPERVISOR_AC);
        jump_cache_flush(t, JUMP_SUPERVISOR_32);
        jump_cache_flush(t, JUMP_SUPERVISOR_SEGMENTED);
        t->supervisor_local = false;
    }
    tlb->flushed = 0;
}

/* What the jump cache knows code by. */
static uint64_t jump_address(unsigned mode, uint64_t linear, uint64_t code_base)
{
    return mode & UNIT_SEGMENTED ? unit_key(linear, (uint32_t)code_base) : linear;
}

static void remember_jump(struct translator *t, struct unit *unit)
{
    const bool user = unit->mode & CPU_MODE_USER;
    const struct tlb_table *table = &t->cpu.tlb.tables[user ? TLB_USER : TLB_SUPERVISOR];
    const unsigned i = tlb_index(unit->linear);

    if (!user && !(table->global[i / 64] >> (i & 63) & 1))
        t->supervisor_local = true;
    jump_cache_add(t, jump_address(unit->mode, unit->linear, unit->code_base), unit,
                   table->large[i / 64] >> (i & 63) & 1);
    t->stats.jumps_added++;
}

/* --- Exits --- */

static bool tag_hits(const struct tlb_table *table, uint64_t linear, unsigned access)
{
    const unsigned i = tlb_index(linear);

    return tlb_hit(access == X86_WRITE ? table->write[i] : table->read[i], linear);
}

/* An address check failed. True: it succeeds now. Raises what the access raises. */
static bool refill(struct translator *t, const struct site *site)
{
    struct cpu *cpu = &t->cpu;
    const struct tlb_table *table = &cpu->tlb.tables[cpu->rights];
    const uint64_t address = t->scratch_address, low = address + (uint64_t)(int64_t)site->low;

    /* In 32-bit code what wraps around needs 32-bit arithmetic, or is #GP. */
    if (cpu->code_size != X86_MODE_64 && (address >> 32 || (address + site->size - 1) >> 32))
        return false;
    cpu->insn_rip = cpu->state.rip;
    times_enter(&cpu->times, PART_REFILL);
    if (!tag_hits(table, address, site->access))
        cpu_translate(cpu, address, site->access, cpu->rights);
    times_enter(&cpu->times, PART_OTHER);
    t->stats.fills++;
    return !((low ^ (low + site->span - 1)) & PAGE_MASK) && tag_hits(table, low, site->checked);
}

/* What code does depends on these bits of CR4. */
static void follow_cr4(struct translator *t)
{
    if (likely(!((t->cpu.state.cr4 ^ t->cr4) & (X86_CR4_TSD | X86_CR4_FSGSBASE))))
        return;
    t->cr4 = t->cpu.state.cr4;
    code_cache_flush(t);
}

static void after_interpreting(struct translator *t)
{
    follow_tlb(t);
    follow_cr4(t);
    if (t->cpu.cpl != 3) {
        vectors_forget(t);
        return;
    }
    if (!t->sse_absent)
        vectors_allow(t, false);
    if (!t->x87_absent)
        x87_allow(t);
}

void translator_step(struct translator *t)
{
    t->stats.steps++;
    times_enter(&t->cpu.times, PART_INTERPRET);
    cpu_step_raising(&t->cpu);
    times_enter(&t->cpu.times, PART_OTHER);
    after_interpreting(t);
}

static void interpret(struct translator *t, const struct fallback *fallback)
{
    if (!fallback) {
        translator_step(t);
        return;
    }
    if (t->stats.fallbacks)
        t->stats.fallbacks[fallback->insn.op]++;
    times_enter(&t->cpu.times, PART_INTERPRET);
    cpu_carry_out(&t->cpu, fallback->body, &fallback->insn);
    times_enter(&t->cpu.times, PART_OTHER);
    after_interpreting(t);
}

static bool must_align(const struct translator *t, const struct site *site)
{
    return (site->aligned || t->cpu.check_alignment) && (t->scratch_address & (site->size - 1u));
}

/* Whether a unit may use the registers that it needs; then they are loaded. */
static bool registers_allow(struct translator *t, const struct unit *unit)
{
    if (vectors_may_trap(&t->cpu) && !(unit->mode & UNIT_UNMASKED))
        return false;
    return (!unit->sse || vectors_allow(t, unit->avx)) && (!unit->x87 || x87_allow(t));
}

/* Memory that is never reached from emitted code, as a device's: the site will
 * have its instruction carried out without trying again. */
static void remember_device(struct translator *t, struct site *site)
{
    const struct unit *unit = site->unit;
    const unsigned offset = site->rip & ~PAGE_MASK;
    const uint64_t physical = path_physical(unit, site->rip);
    struct memory_slot *slot;
    const uint8_t *page;
    struct x86_insn insn;

    if (unit->cut || must_align(t, site) ||
        tag_hits(&t->cpu.tlb.tables[t->cpu.rights], t->scratch_address, site->access))
        return;
    page = soft_engine_host(t->cpu.soft, physical & PAGE_MASK, &slot);
    if (page && x86_decode(page + offset, (size_t)PAGE_SIZE - offset, t->cpu.code_size, &insn) ==
                    X86_DECODE_OK)
        site->fallback = fallback_for(t, site, &insn);
}

/* An address check of segmented code failed: the interpreter checks segments and pages in
 * their order, and fills the TLB. */
static void step_segmented(struct translator *t, struct site *site)
{
    t->stats.fills++;
    translator_step(t);
    remember_device(t, site);
}

/* Changes when sites may have gone or moved. */
static uint64_t units_gone(const struct translator *t)
{
    return t->stats.flushes + t->stats.dropped + t->stats.evictions + t->stats.moved;
}

/* Go on where a branch goes to, and let it find the way alone next time. */
static struct unit *follow_branch(struct translator *t, struct site *site)
{
    const uint64_t before = units_gone(t);
    struct unit *unit = find_unit(t, site->kind == SITE_MEMORY ? UNIT_SINGLE : 0);

    if (!unit || t->trace || units_gone(t) != before)
        return unit; /* to be seen each time; or the site may be gone */
    if (site->kind == SITE_LINK || site->kind == SITE_MEMORY)
        chain_link(t, site, unit);
    else
        remember_jump(t, unit);
    if (site->ways)
        inline_cache_learn(t, site, unit);
    return unit;
}

/* What an exit asks for. Returns code to go on with (executable view), or NULL
 * when the next instruction is to be looked up anew. */
static const uint8_t *handle(struct translator *t, struct site *site)
{
    struct cpu *cpu = &t->cpu;
    struct unit *unit = NULL;
    unsigned cpl;

    t->stats.exits[site->kind]++;
    cpu->state.rip = site->kind == SITE_INDIRECT || site->kind == SITE_ARRIVED ? t->scratch_target
                                                                               : site->rip;
    if (unlikely(site->unit->mode & UNIT_SEGMENTED))
        cpu->state.rip = (uint32_t)(cpu->state.rip - site->unit->code_base);
    switch (site->kind) {
    case SITE_INDIRECT:
        if (unlikely(!cpu_canonical(cpu->state.rip))) { /* the branch itself faults */
            cpu->state.rip = site->rip;
            if (site->undo > 0)
                cpu_store(cpu, cpu->state.gpr[X86_RSP], 8, t->scratch_pushed);
            cpu->state.gpr[X86_RSP] += (uint64_t)(int64_t)site->undo;
            translator_step(t);
            break;
        }
        unit = follow_branch(t, site);
        break;
    case SITE_LINK: case SITE_JUMP:
        unit = follow_branch(t, site);
        break;
    case SITE_MEMORY:
        if (site->fallback) {
            interpret(t, site->fallback);
            break;
        }
        if (unlikely(site->unit->mode & UNIT_SEGMENTED)) {
            step_segmented(t, site);
            break;
        }
        /* An unaligned operand is #GP or #AC before it is #PF; the interpreter knows. */
        if (!must_align(t, site) && refill(t, site))
            return site->resume;
        if (site->span == site->size || must_align(t, site)) {
            remember_device(t, site);
            translator_step(t);
            break;
        }
        t->stats.single++;
        unit = follow_branch(t, site);
        if (!unit) /* the code that made the check would only make it again */
            translator_step(t);
        break;
    case SITE_VECTORS:
        if (registers_allow(t, site->unit))
            unit = site->unit;
        else
            translator_step(t);
        break;
    case SITE_INTERPRET: case SITE_TRAP:
        cpl = cpu->cpl;
        interpret(t, site->fallback);
        if (site->fallback && site->fallback->insn.op == X86_OP_IRET)
            iret_remember(t, cpl);
        break;
    case SITE_HOT:
        hot_rebuild(t, site);
        break;
    case SITE_PATH:
        if (path_renew(t, site->unit))
            unit = site->unit;
        break;
    case SITE_GUESS:
        guess_missed(t, site);
        return site->resume;
    case SITE_APART:
        if (!together_missed(t, site))
            return site->resume;
        break;
    case SITE_FRAME:
        together_count(t, site);
        unit = find_unit(t, UNIT_SINGLE);
        if (!unit)
            translator_step(t);
        break;
    case SITE_CUT:
        cut_check(t, site->unit);
        translator_step(t);
        break;
    default:
        break;
    }
    return unit ? code_of(&t->cache, unit->entry) : NULL;
}

/* --- The loop --- */

/* What goes one instruction at a time. RF holds off breakpoints, of which there are none. */
bool translator_must_step(const struct cpu *cpu)
{
    return (cpu->state.rflags & X86_TF) || debug_active(cpu) || cpu->state.interrupt_shadow;
}

/* Code that has no unit: an instruction of it, or some. */
static void interpret_next(struct translator *t)
{
    struct cpu *cpu = &t->cpu;

    if (cpu->code_size == X86_MODE_64 || translator_must_step(cpu) ||
        (!cpu->blocks && cpu_create_blocks(cpu, BLOCK_COUNT) < 0)) {
        translator_step(t);
        return;
    }
    times_enter(&cpu->times, PART_INTERPRET);
    cpu_run_block(cpu);
    times_enter(&cpu->times, PART_OTHER);
    after_interpreting(t);
}

static const uint8_t *find_code(struct translator *t)
{
    const uint64_t rip = t->cpu.state.rip, base = t->cpu.state.segment[X86_CS].base;
    const unsigned mode = translator_mode(&t->cpu);
    const uint8_t *code = jump_cache_find(
        t, mode & UNIT_SEGMENTED ? jump_address(mode, base + rip, base) : rip, mode);
    struct unit *unit;

    if (code) {
        t->kept.how = KEEP_RFLAGS;
        t->kept.a = t->cpu.state.rflags;
        return code;
    }
    unit = find_unit(t, 0);
    if (!unit)
        return NULL;
    if (likely(!t->trace))
        remember_jump(t, unit);
    return code_of(&t->cache, unit->entry);
}

/* Until something needs the outer loop. Raises. */
static void run_units(struct translator *t)
{
    struct cpu *cpu = &t->cpu;

    follow_tlb(t);
    follow_cr4(t);
    if (cpu->cpl != 3)
        vectors_forget(t);
    while (!atomic_load_explicit(&cpu->attention, memory_order_relaxed) &&
           !cpu_takeable_signals(cpu) &&
           cpu->state.activity == X86_RUNNING) {
        const uint8_t *code = NULL;

        if (likely(!translator_must_step(cpu)))
            code = find_code(t);
        if (!code)
            interpret_next(t);
        else
            cpu->state.rflags &= ~(uint64_t)X86_RF; /* the next instruction clears it */
        while (code) {
            unsigned site;

            times_enter(&cpu->times, PART_CODE);
            site = enter_code(t, code);
            times_enter(&cpu->times, PART_OTHER);
            code = handle(t, &t->cache.sites[site]);
        }
    }
}

static int translate_run(struct vcpu *vcpu, enum engine_exit *ret_exit, struct error *err)
{
    struct cpu *cpu = cpu_of(vcpu);
    struct translator *t = translator_of(cpu);
    volatile bool alive = true;
    int r = trap_prepare_thread(t, err);

    if (r < 0)
        return r;
    vectors_forget(t); /* what was allowed may have changed outside */
    atomic_store(&cpu->in_guest, true);
    code_pages_acknowledge(cpu);
    for (;;) {
        if (!alive || cpu->state.activity == X86_SHUTDOWN) {
            *ret_exit = ENGINE_EXIT_SHUTDOWN;
            break;
        }
        if ((atomic_exchange(&cpu->attention, 0) || cpu_takeable_signals(cpu)) &&
            cpu_take_signals(cpu, ret_exit))
            break;
        code_cache_drop_stale(t); /* after the signal that tells of it was cleared */
        if (cpu->state.activity != X86_RUNNING) {
            *ret_exit = ENGINE_EXIT_HALT;
            break;
        }
        times_enter(&cpu->times, PART_OTHER); /* whatever an exception interrupted */
        if (sigsetjmp(cpu->fault, 0) == 0)
            run_units(t);
        else
            alive = cpu_take_exception(cpu);
    }
    times_enter(&cpu->times, *ret_exit == ENGINE_EXIT_HALT ? PART_HALTED : PART_DEVICE);
    atomic_store(&cpu->in_guest, false);
    return 0;
}

/* --- Life --- */

static void destroy_cpu(struct translator *t)
{
    trap_release_thread(t);
    if (t->cache.start)
        code_cache_flush(t);
    code_cache_destroy(&t->cache);
    free(t->build);
    free(t->cpu.blocks);
    free(t->stats.fallbacks);
    trace_close(t);
    cpu_free(t, sizeof(*t));
}

static void translate_destroy(struct engine *engine)
{
    struct soft_engine *soft = (struct soft_engine *)engine;

    for (unsigned i = 0; i < soft->config.cpus; i++)
        if (soft->engine.vcpus[i])
            destroy_cpu(translator_of(cpu_of(soft->engine.vcpus[i])));
    soft_engine_destroy(soft);
    free(soft);
}

static int set_up_cpu(struct translator *t, struct soft_engine *soft, struct error *err)
{
    const struct engine_config *config = &soft->config;
    const uint64_t size = config->translation_cache ? config->translation_cache : CACHE_DEFAULT;
    int r;

    t->cpu.times = (struct cpu_times){.wanted = config->stats, .since = __builtin_ia32_rdtsc()};
    t->build = calloc(1, sizeof(*t->build));
    if (config->stats)
        t->stats.fallbacks = calloc(X86_OP_COUNT, sizeof(*t->stats.fallbacks));
    if (!t->build || (config->stats && !t->stats.fallbacks))
        return error_set(err, ENOMEM, "out of memory for CPU %u", t->cpu.vcpu.index);
    r = code_cache_create(&t->cache, size / config->cpus, err);
    if (r < 0)
        return r;
    r = trace_open(t, err);
    if (r < 0)
        return r;
    t->host_avx = __builtin_cpu_supports("avx");
    t->host_mxcsr = __builtin_ia32_stmxcsr();
    t->page_mask = PAGE_MASK;
    t->low_5_bits = 31;
    t->low_6_bits = 63;
    t->without_if = ~(uint64_t)X86_IF;
    t->without_df = ~(uint64_t)X86_DF;
    t->only_df = X86_DF;
    t->without_ac = ~(uint64_t)X86_AC;
    t->lahf_bits = 0x010000ff; /* after a rotation by 8 */
    t->rflags_bits = 0xff | X86_OF;
    for (unsigned f = 0; f < X86_FEATURE_COUNT; f++)
        t->offered[f] = host_offers((enum x86_feature)f) &&
                        cpu_offers(&t->cpu, (enum x86_feature)f);
    hot_init(t, config->hot_turns);
    guess_init(t);
    together_init(t);
    jump_cache_flush_all(t);
    vectors_forget(t);
    enter_emit_routines(t);
    keep_emit_routines(t);
    transfer_emit_routines(t);
    second_emit_routines(t);
    code_cache_keep(&t->cache);
    return 0;
}

static int translate_create(const struct engine_config *config, struct engine **ret_engine,
                            struct error *err)
{
    struct soft_engine *soft = calloc(1, sizeof(*soft));
    int r;

    if (!soft)
        return error_set(err, ENOMEM, "out of memory for the translator");
    r = soft_engine_init(soft, config, &translate_engine, err);
    if (r < 0) {
        free(soft);
        return r;
    }
    soft->tell_code_writes = true;
    for (unsigned i = 0; r == 0 && i < config->cpus; i++) {
        struct translator *t = cpu_allocate(sizeof(*t));

        if (!t) {
            r = error_set(err, ENOMEM, "out of memory for CPU %u", i);
            break;
        }
        r = cpu_init(&t->cpu, soft, &translate_engine, i, err);
        if (r == 0)
            r = set_up_cpu(t, soft, err);
    }
    if (r < 0) {
        translate_destroy(&soft->engine);
        return r;
    }
    *ret_engine = &soft->engine;
    return 0;
}

/* Emitted code uses BMI2 where the flags must be left alone. */
static int translate_probe(struct error *err)
{
    if (!__builtin_cpu_supports("bmi2"))
        return error_set(err, ENOTSUP, "the host CPU has no BMI2");
    return 0;
}

const struct engine_ops translate_engine = {
    .name = "translate",
    .summary = "guest code turned into host code: fast where there is no KVM",
    .probe = translate_probe,
    .filter_cpuid = soft_engine_filter_cpuid,
    .create = translate_create,
    .destroy = translate_destroy,
    .map = soft_engine_map,
    .unmap = soft_engine_unmap,
    .run = translate_run,
    .get_state = soft_engine_get_state,
    .set_state = soft_engine_set_state,
    .signal = soft_engine_signal,
    .invalidate = soft_engine_invalidate,
    .print_stats = stats_print,
};
