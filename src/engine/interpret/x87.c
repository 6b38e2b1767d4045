/* x87 instructions that calculate, load and store (SDM 1 8.3).
 *
 * All are carried out by the host's x87 unit: the guest's unit is loaded as
 * FXRSTOR does, the instruction runs from a table that holds one copy of each
 * encoding, and FXSAVE takes the result. Rounding, precision control, stack
 * faults, condition codes and tags are then the hardware's own, under unmasked
 * exceptions too: these only take effect at the next waiting instruction, and
 * none follows. */
#include "engine/interpret/vector.h"
#include "engine/interpret/x87.h"

#include <string.h>

/* Every register form D8 C0 to DF FF, each followed by RET, four bytes apart;
 * then every memory form with its operand at [RDI], likewise. */
__asm__(".pushsection .text\n"
        ".balign 16\n"
        "x87_register_forms:\n"
        ".set form, 0\n"
        ".rept 512\n"
        ".byte 0xd8 + (form >> 6), 0xc0 + (form & 63), 0xc3, 0x90\n"
        ".set form, form + 1\n"
        ".endr\n"
        "x87_memory_forms:\n"
        ".set form, 0\n"
        ".rept 64\n"
        ".byte 0xd8 + (form >> 3), 0x07 + ((form & 7) << 3), 0xc3, 0x90\n"
        ".set form, form + 1\n"
        ".endr\n"
        ".popsection\n");
extern const uint8_t x87_register_forms[] __asm__("x87_register_forms");
extern const uint8_t x87_memory_forms[] __asm__("x87_memory_forms");

/* The memory operand of D8+i /r: bytes, and whether it is stored. */
struct operand {
    uint8_t size;
    bool store;
};

#define LOAD(bytes)  {bytes, false}
#define STORE(bytes) {bytes, true}
static const struct operand operands[8][8] = {
    {LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4)},
    {LOAD(4), {0}, STORE(4), STORE(4), {0}, {0}, {0}, {0}},
    {LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4), LOAD(4)},
    {LOAD(4), STORE(4), STORE(4), STORE(4), {0}, LOAD(10), {0}, STORE(10)},
    {LOAD(8), LOAD(8), LOAD(8), LOAD(8), LOAD(8), LOAD(8), LOAD(8), LOAD(8)},
    {LOAD(8), STORE(8), STORE(8), STORE(8), {0}, {0}, {0}, {0}},
    {LOAD(2), LOAD(2), LOAD(2), LOAD(2), LOAD(2), LOAD(2), LOAD(2), LOAD(2)},
    {LOAD(2), STORE(2), STORE(2), STORE(2), LOAD(10), LOAD(8), STORE(10), STORE(8)},
};

/* An FXSAVE area that holds the guest's x87 part and nothing else of it. */
struct area {
    struct x86_xsave_legacy {
        uint16_t fcw, fsw;
        uint8_t ftw, reserved1;
        uint16_t fop;
        uint64_t fip, fdp;
        uint32_t mxcsr, mxcsr_mask;
    } head;
    uint8_t st[128];
    uint8_t rest[512 - 160];
} __attribute__((aligned(16)));

_Static_assert(sizeof(struct area) == 512, "SDM 1 10.5.1");

#define X87_PART 160 /* bytes of an XSAVE area up to the XMM registers */

/* Run form on the unit in *area, its memory operand at operand. Takes and
 * gives the status flags, for FCMOVcc and FCOMI. Below the red zone, as CALL
 * pushes. */
static uint64_t run_form(struct area *area, const uint8_t *form, void *operand, uint64_t flags)
{
    __asm__ volatile("stmxcsr %[mxcsr]" : [mxcsr] "=m"(area->head.mxcsr));
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\t"
                     "fxrstor64 (%[area])\n\t"
                     "pushq %[flags]\n\t"
                     "popfq\n\t"
                     "call *%[form]\n\t"
                     "pushfq\n\t"
                     "popq %[flags]\n\t"
                     "fxsave64 (%[area])\n\t"
                     "fninit\n\t"
                     "leaq 128(%%rsp), %%rsp"
                     : [flags] "+r"(flags)
                     : [area] "r"(area), [form] "r"(form), "D"(operand)
                     : "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
                       "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return flags;
}

/* An unmasked invalid operation, overflow or underflow keeps memory as it was
 * (SDM 1 8.5.1.2, 8.5.4, 8.5.5). */
static bool store_suppressed(const struct area *area)
{
    const uint16_t stops = FSW_IE | FSW_OE | FSW_UE;

    return area->head.fsw & ~area->head.fcw & stops;
}

static void x87_execute(struct cpu *cpu, const struct x86_insn *insn)
{
    struct x86_xsave *fpu = &cpu->state.fpu;
    uint64_t flags = cpu->state.rflags & X86_STATUS_FLAGS, linear = 0;
    uint8_t buffer[16] __attribute__((aligned(16))) = {0};
    unsigned escape = insn->opcode & 7, reg = insn->modrm >> 3 & 7;
    bool in_memory = insn->modrm < 0xc0;
    struct operand operand = operands[escape][reg];
    const uint8_t *form;
    struct area area;

    x87_check(cpu);
    if (in_memory) {
        form = x87_memory_forms + 4 * (escape * 8 + reg);
        linear = cpu_operand_address(cpu, insn, operand.size,
                                     operand.store ? X86_WRITE : X86_READ);
        if (operand.store)
            cpu_probe_write(cpu, linear, operand.size);
        else
            cpu_read(cpu, linear, buffer, operand.size);
    } else {
        form = x87_register_forms + 4 * (escape * 64 + (insn->modrm & 63));
    }

    memset(&area, 0, sizeof(area));
    memcpy(&area, fpu, X87_PART);
    flags = run_form(&area, form, buffer, flags);
    if (in_memory && operand.store && !store_suppressed(&area))
        cpu_write(cpu, linear, buffer, operand.size);

    fpu->fcw = area.head.fcw;
    fpu->fsw = area.head.fsw;
    fpu->ftw = area.head.ftw;
    memcpy(fpu->st, area.st, sizeof(fpu->st));
    /* The pointers are kept for the handlers of exceptions alone, as AMD's CPUs do and as
     * CPUID.7:EBX[6] says of the last one. */
    if (fpu->fsw & FSW_ES) {
        fpu->fop = (uint16_t)(escape << 8 | insn->modrm);
        fpu->fip = cpu->insn_rip;
        if (in_memory)
            fpu->fdp = linear - cpu->state.segment[insn->memory.segment].base;
    }
    cpu->state.rflags = (cpu->state.rflags & ~(uint64_t)X86_STATUS_FLAGS) |
                        (flags & X86_STATUS_FLAGS);
}

#define X87(op)                                                                                    \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        x87_execute(cpu, insn);                                                                    \
    }

X87(fld)
X87(fst)
X87(fstp)
X87(fstpnce) /* undocumented: FSTP without a stack fault */
X87(fild)
X87(fist)
X87(fistp)
X87(fisttp)
X87(fbld)
X87(fbstp)
X87(fxch)
X87(fcmovb)
X87(fcmove)
X87(fcmovbe)
X87(fcmovu)
X87(fcmovnb)
X87(fcmovne)
X87(fcmovnbe)
X87(fcmovnu)
X87(fld1)
X87(fldl2t)
X87(fldl2e)
X87(fldpi)
X87(fldlg2)
X87(fldln2)
X87(fldz)

X87(fadd)
X87(faddp)
X87(fiadd)
X87(fsub)
X87(fsubp)
X87(fisub)
X87(fsubr)
X87(fsubrp)
X87(fisubr)
X87(fmul)
X87(fmulp)
X87(fimul)
X87(fdiv)
X87(fdivp)
X87(fidiv)
X87(fdivr)
X87(fdivrp)
X87(fidivr)
X87(fprem)
X87(fprem1)
X87(fabs)
X87(fchs)
X87(frndint)
X87(fscale)
X87(fsqrt)
X87(fxtract)

X87(fcom)
X87(fcomp)
X87(fcompp)
X87(fucom)
X87(fucomp)
X87(fucompp)
X87(ficom)
X87(ficomp)
X87(fcomi)
X87(fucomi)
X87(fcomip)
X87(fucomip)
X87(ftst)
X87(fxam)

X87(fsin)
X87(fcos)
X87(fsincos)
X87(fptan)
X87(fpatan)
X87(f2xm1)
X87(fyl2x)
X87(fyl2xp1)

X87(fincstp)
X87(fdecstp)
X87(ffree)
X87(ffreep)

/* DB E0, E1 and E4 were FENI, FDISI and FSETPM of the 8087 and 80287: they do
 * not even wait. */
void interpret_fnop(struct cpu *cpu, const struct x86_insn *insn)
{
    if (insn->opcode == 0xd9)
        x87_execute(cpu, insn);
    else if (cpu->state.cr0 & (X86_CR0_EM | X86_CR0_TS))
        cpu_raise(cpu, X86_NM);
}
