/* cpu.h - the software CPU: what the interpreter and the translator share.
 * Private to src/engine/. Architectural state, address translation through a
 * software TLB, exceptions, and operand access for instruction bodies.
 *
 * An instruction body is `void interpret_NAME(struct cpu *, const struct
 * x86_insn *)`, one for each enum x86_op; the generated table
 * interpret_bodies[] holds them all. While a body runs, state.rip is already
 * the address of the next instruction and insn_rip that of this one. A body
 * changes registers only when nothing in it can fault any more: cpu_raise and
 * the memory functions do not return when they fault, and the instruction then
 * has not happened.
 *
 * A cpu belongs to the thread that runs it. Other threads touch `signals` and
 * `acknowledged_epoch` only. */
#ifndef LODGE_ENGINE_INTERPRET_CPU_H
#define LODGE_ENGINE_INTERPRET_CPU_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "engine/interpret/times.h"
#include "engine/interpret/tlb.h"
#include "x86/decode.h"
#include "x86/state.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct code_pages;
struct block_cache;

/* A slot of guest physical memory. */
struct memory_slot {
    uint64_t address, size;
    uint8_t *host;
    unsigned flags;           /* enum engine_memory_flags */
    struct code_page *pages;  /* one for each 4 KiB, see code_pages.h */
};

#define MEMORY_SLOTS_MAX 32
#define CODE_PAGES_WRITTEN 64

/* What the software engines' own struct engine begins with. */
struct soft_engine {
    struct engine engine;
    struct engine_config config;
    unsigned slot_count;
    struct memory_slot slots[MEMORY_SLOTS_MAX];
    struct x86_cpuid cpuid[ENGINE_CPUS_MAX];
    pthread_mutex_t code_lock; /* over marking pages, see code_pages.h */
    atomic_uint code_epoch;
    pthread_mutex_t split_lock; /* see cpu_split_lock; taken last */
    bool dot_by_lane; /* what the host's DPPS does with NaNs, see sse_float.c */
    bool tell_code_writes; /* raise CPU_SIGNAL_INVALIDATE when a page with code was written */
    /* The last such pages; written_count counts all. Under written_lock. */
    pthread_mutex_t written_lock;
    unsigned written_count;
    struct code_page *written[CODE_PAGES_WRITTEN];
};

/* More signals, beside enum engine_signal. */
enum cpu_signal {
    CPU_SIGNAL_CODE_EPOCH = 1 << 8, /* drop write tags of code pages, then acknowledge */
    CPU_SIGNAL_INVALIDATE = 1 << 9, /* code was written: look at the pages' versions */
    CPU_SIGNAL_DEBUG_TRAP = 1 << 10, /* state.debug_trap is set */
};

/* The mode that decoding and execution depend on; one number keys cached code. */
enum cpu_mode_bits {
    CPU_MODE_16 = 0, CPU_MODE_32 = 1, CPU_MODE_64 = 2, CPU_MODE_SIZE = 3,
    CPU_MODE_USER = 1 << 2,
};

#define CPU_PAUSES 64

struct cpu {
    struct vcpu vcpu;       /* first: a vcpu of the software engines is a cpu */
    struct soft_engine *soft;
    atomic_uint signals;    /* enum engine_signal, enum cpu_signal */
    atomic_uint attention;  /* a signal came since this was cleared */

    uint64_t insn_rip;      /* start of the instruction being carried out */
    struct x86_state state;

    /* Derived from state; cpu_update_mode keeps them. */
    unsigned mode;          /* enum cpu_mode_bits */
    enum x86_mode code_size;
    unsigned cpl;
    enum tlb_rights rights; /* which TLB data accesses go through */
    bool check_alignment;   /* CPL 3 with CR0.AM and RFLAGS.AC: no TLB tags, see memory.c */
    uint64_t address_mask;  /* of linear addresses: 32 bits outside 64-bit mode */
    uint64_t stack_mask;    /* of RSP: 16, 32 or 64 bits */
    bool data_flat;         /* CS, DS, ES, SS: base 0, no limit to check */

    bool stop;              /* leave the block after this instruction */
    bool retired_shadow;    /* this instruction opened an interrupt shadow */
    unsigned watch_hits;    /* breakpoints that this instruction's accesses met, as in DR6 */
    bool split_locked;      /* holds soft->split_lock */
    bool delivering;        /* an exception is being delivered, for #DF */
    int deliver_class;      /* of the first exception: see interrupt.c */
    sigjmp_buf fault;       /* where cpu_raise goes */
    int fault_vector;
    uint32_t fault_error;
    bool fault_has_error;

    atomic_bool in_guest;   /* executing; else it need not be waited for */
    atomic_uint acknowledged_epoch;
    struct block_cache *blocks;
    unsigned pauses;        /* PAUSE instructions since the thread last yielded, up to CPU_PAUSES */
    uint64_t executed;      /* instructions, for statistics */
    struct cpu_times times;

    struct tlb tlb;
};

typedef void interpret_body(struct cpu *cpu, const struct x86_insn *insn);
extern interpret_body *const interpret_bodies[]; /* by enum x86_op; generated */


static inline struct cpu *cpu_of(struct vcpu *vcpu)
{
    return (struct cpu *)vcpu;
}

/* --- Life, for the engines --- */

/* Initialize what the software engines share: the state after RESET. */
int cpu_init(struct cpu *cpu, struct soft_engine *soft, const struct engine_ops *ops,
             unsigned index, struct error *err);
/* Memory for a struct that begins with a cpu: zero, page-aligned, and touched
 * only where it is used, since the TLB in it is large. NULL when there is none. */
void *cpu_allocate(size_t size);
void cpu_free(void *cpu, size_t size);
int soft_engine_init(struct soft_engine *soft, const struct engine_config *config,
                     const struct engine_ops *ops, struct error *err);
void soft_engine_destroy(struct soft_engine *soft);
int soft_engine_map(struct engine *engine, uint64_t address, uint64_t size, void *host,
                    unsigned flags, struct error *err);
int soft_engine_unmap(struct engine *engine, uint64_t address, uint64_t size, struct error *err);
void soft_engine_get_state(struct vcpu *vcpu, struct x86_state *ret_state);
void soft_engine_set_state(struct vcpu *vcpu, const struct x86_state *state);
void soft_engine_signal(struct vcpu *vcpu, unsigned signals);
void soft_engine_invalidate(struct engine *engine, uint64_t address, uint64_t size);
void soft_engine_filter_cpuid(struct x86_cpuid *cpuid);

/* --- Mode --- */

/* Recompute the derived fields after a change of CR0, CR4, EFER, RFLAGS.VM or
 * AC, or of CS or SS. Ends the block. */
void cpu_update_mode(struct cpu *cpu);

/* Raise signals; any thread. */
static inline void cpu_signal(struct cpu *cpu, unsigned signals)
{
    atomic_fetch_or(&cpu->signals, signals);
    atomic_store(&cpu->attention, 1);
}

static inline bool cpu_protected(const struct cpu *cpu)
{
    return (cpu->state.cr0 & X86_CR0_PE) && !(cpu->state.rflags & X86_VM);
}

static inline bool cpu_v86(const struct cpu *cpu)
{
    return (cpu->state.cr0 & X86_CR0_PE) && (cpu->state.rflags & X86_VM);
}

static inline bool cpu_long_mode(const struct cpu *cpu)
{
    return cpu->state.efer & X86_EFER_LMA;
}

static inline unsigned cpu_iopl(const struct cpu *cpu)
{
    return (cpu->state.rflags >> 12) & 3;
}

static inline bool cpu_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* Whether the guest was offered the feature that CPUID bit stands for. */
bool cpu_offers(const struct cpu *cpu, enum x86_feature feature);
/* Whether the host has it. */
bool host_offers(enum x86_feature feature);

/* --- Exceptions --- */

/* Raise an exception at this instruction and leave it. */
_Noreturn void cpu_raise(struct cpu *cpu, enum x86_vector vector);
_Noreturn void cpu_raise_error(struct cpu *cpu, enum x86_vector vector, uint32_t error_code);
/* #PF: sets CR2. */
/* RDMSR and WRMSR; false: #GP. msr.c */
bool cpu_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *ret_value);
bool cpu_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);

/* The guest's time-stamp counter now. */
uint64_t cpu_tsc(const struct cpu *cpu);

_Noreturn void cpu_raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error_code);

/* Where the event comes from (SDM 3A 6.3, 6.4). */
enum interrupt_source {
    INTERRUPT_EXTERNAL,
    INTERRUPT_EXCEPTION, /* fault: the return address is insn_rip */
    INTERRUPT_TRAP,      /* #DB after the instruction: state.rip */
    INTERRUPT_SOFTWARE,  /* INT n, INT3, INTO: the gate's DPL counts */
};

/* Deliver through the IDT (SDM 3A 6.12, 6.14). May raise. interrupt.c */
void cpu_deliver(struct cpu *cpu, unsigned vector, enum interrupt_source source,
                 bool has_error, uint32_t error_code);

/* Carry out the exception that cpu_raise left in fault_vector, with the rules
 * for double and triple faults. False: triple fault, the CPU shut down. Called
 * outside of any body; sets up its own frame. */
bool cpu_take_exception(struct cpu *cpu);

/* The signals that can be taken now; the others wait for STI, IRET and the like. */
static inline unsigned cpu_takeable_signals(const struct cpu *cpu)
{
    unsigned waiting = 0;

    if (!(cpu->state.rflags & X86_IF) || cpu->state.interrupt_shadow)
        waiting |= ENGINE_SIGNAL_INTERRUPT;
    if (cpu->state.interrupt_shadow)
        waiting |= ENGINE_SIGNAL_NMI | CPU_SIGNAL_DEBUG_TRAP;
    return atomic_load_explicit(&cpu->signals, memory_order_relaxed) & ~waiting;
}

/* Take what is pending at an instruction boundary. True: engine_run is to
 * return *ret_exit. */
bool cpu_take_signals(struct cpu *cpu, enum engine_exit *ret_exit);

/* Carry out exactly one instruction at state.rip, uncached, exceptions
 * included. For the translator's rare cases and for tests. False: shut down. */
bool cpu_step(struct cpu *cpu);
/* The same without a frame for exceptions: raises. */
void cpu_step_raising(struct cpu *cpu);

/* The interpreter's decoded blocks: make room for count of them (a power of
 * two; free() cpu->blocks), and run one from state.rip on. Raises. */
int cpu_create_blocks(struct cpu *cpu, unsigned count);
void cpu_run_block(struct cpu *cpu);

/* The steps of it. Linear address of the next instruction, within CS; its
 * physical address; the body that carries an instruction out, #UD for what the
 * guest was not offered; the decoded instruction at state.rip carried out with
 * all that surrounds it. All raise. */
uint64_t cpu_fetch_address(struct cpu *cpu);
uint64_t cpu_fetch_translate(struct cpu *cpu, uint64_t linear);
/* Enter the translation for fetching at linear, as a CPU may before it gets there. False:
 * the fetch would fault, which is nothing yet. */
bool cpu_probe_fetch(struct cpu *cpu, uint64_t linear, uint64_t *ret_physical);
interpret_body *cpu_body_for(const struct cpu *cpu, const struct x86_insn *insn);
void cpu_carry_out(struct cpu *cpu, interpret_body *body, const struct x86_insn *insn);

/* --- Memory (memory.c); rights of the current CPL unless said otherwise --- */

void cpu_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size);
void cpu_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size);
/* Raise now what a write there would raise; after it, the write cannot fault. */
void cpu_probe_write(struct cpu *cpu, uint64_t linear, unsigned size);

/* Slow halves of the inline functions in access.h. */
uint64_t cpu_load_slow(struct cpu *cpu, uint64_t linear, unsigned size, enum tlb_rights rights);
void cpu_store_slow(struct cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    enum tlb_rights rights);
/* Host address of aligned guest RAM for an atomic access, or NULL when it is
 * not RAM or crosses a page: then the caller takes the split lock around its load and store. */
void *cpu_host_for_atomic(struct cpu *cpu, uint64_t linear, unsigned size);
/* One locked access at a time where the host cannot do it in one. Raises what
 * the write would; an exception while it is held lets go of it. */
void cpu_split_lock(struct cpu *cpu, uint64_t linear, unsigned size);
void cpu_split_unlock(struct cpu *cpu);
/* Tell that [host, ...) was written other than by cpu_store: code derived from it goes. */
void cpu_wrote_code(struct cpu *cpu, uint64_t linear, unsigned size);

/* Linear address of the memory operand, segment checks for size bytes done
 * (#GP, #SS); access is X86_READ | X86_WRITE. */
uint64_t cpu_operand_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                             unsigned access);
/* Its offset in the segment only (LEA). */
uint64_t cpu_effective_address(const struct cpu *cpu, const struct x86_insn *insn);
/* Linear address of segment:offset after the same checks. */
uint64_t cpu_segment_address(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size,
                             unsigned access);

/* The value of operand i (general register, memory, immediate), zero-extended
 * from its size; the register write follows the 64-bit rule (a 32-bit write
 * clears the upper half). */
uint64_t cpu_read_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i);
void cpu_write_operand(struct cpu *cpu, const struct x86_insn *insn, unsigned i, uint64_t value);

/* --- Stack (stack.c): committed by the caller setting RSP --- */

/* Push below *rsp (an offset in SS) and move it. */
void cpu_push_at(struct cpu *cpu, uint64_t *rsp, uint64_t value, unsigned size);
uint64_t cpu_pop_at(struct cpu *cpu, uint64_t *rsp, unsigned size);
void cpu_set_rsp(struct cpu *cpu, uint64_t rsp); /* by stack_mask */

/* --- Segments (segment.c) --- */

struct descriptor {
    uint64_t base;
    uint32_t limit;
    uint16_t attributes; /* as in struct x86_segment */
    uint16_t selector;
    uint64_t address;    /* linear address of the descriptor */
};

/* Read the descriptor of selector. False when it lies outside its table. */
bool segment_read_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *ret);
/* MOV, POP, LDS: load a data or stack segment register with all checks. */
void segment_load(struct cpu *cpu, unsigned segment, uint16_t selector);
/* Load without checks other than presence, for task switches and far returns. */
void segment_set(struct cpu *cpu, unsigned segment, const struct descriptor *descriptor);
void segment_set_real(struct cpu *cpu, unsigned segment, uint16_t selector);
void segment_set_null(struct cpu *cpu, unsigned segment, uint16_t selector);
void segment_mark_accessed(struct cpu *cpu, struct descriptor *descriptor);
/* A code segment for a jump to rpl:selector; sets CS, RIP and the mode. */
void segment_load_cs(struct cpu *cpu, const struct descriptor *descriptor, unsigned cpl,
                     uint64_t rip);

/* --- Tasks (task.c) --- */

enum task_switch_kind { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_INTERRUPT };
void cpu_task_switch(struct cpu *cpu, const struct descriptor *tss, enum task_switch_kind kind,
                     bool has_error, uint32_t error_code);
/* SS:RSP for privilege level cpl from the current TSS. */
void task_stack(struct cpu *cpu, unsigned cpl, uint16_t *ret_ss, uint64_t *ret_rsp);

/* --- Paging (paging.c) --- */

/* Translate for one access; fills the TLB. Raises #PF. Returns the physical
 * address. access: X86_READ, X86_WRITE, or 4 for a fetch. */
#define CPU_FETCH 4u
uint64_t cpu_translate(struct cpu *cpu, uint64_t linear, unsigned access, enum tlb_rights rights);
/* The same walk without faults, A/D bits or TLB: for debuggers. False: not mapped. */
bool cpu_peek_translation(struct cpu *cpu, uint64_t linear, uint64_t *ret_physical);
/* Load the four PDPTEs of PAE paging from CR3; false when a reserved bit is set. */
bool cpu_load_pdptes(struct cpu *cpu, uint64_t cr3);

/* Host address of guest physical memory, or NULL outside the slots.
 * *ret_slot tells which one. */
uint8_t *soft_engine_host(struct soft_engine *soft, uint64_t physical,
                          struct memory_slot **ret_slot);

#endif
