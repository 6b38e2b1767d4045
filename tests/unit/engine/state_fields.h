/* state_fields.h - the fields of struct x86_state, each with a value of its own, to see that an
 * engine gives back what it was given: one at a time over a state, and all the others unharmed. */
#ifndef LODGE_TESTS_STATE_FIELDS_H
#define LODGE_TESTS_STATE_FIELDS_H

#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "x86/state.h"

#define FIELD(member, value, any_cpu)                                                              \
    {#member, offsetof(struct x86_state, member), sizeof(((struct x86_state *)0)->member), value,  \
     any_cpu}

static const struct state_field {
    const char *name;
    size_t offset, size;
    uint64_t value;
    bool any_cpu; /* every engine takes it, in real mode, of the smallest CPU */
} state_fields[] = {
    FIELD(gpr[X86_RAX], 0x1122334455667788, true),
    FIELD(gpr[X86_RSP], 0xfff0, true),
    FIELD(gpr[X86_R8], 0x8899aabbccddeeff, true),
    FIELD(gpr[X86_R15], 0xffeeddccbbaa9988, true),
    FIELD(rip, 0x1234, true),
    FIELD(rflags, X86_FLAGS_ONE | X86_CF | X86_DF | X86_TF, true),
    FIELD(segment[X86_FS].base, 0x12340, true),
    FIELD(segment[X86_LDTR].base, 0x5000, true),
    FIELD(segment[X86_TR].selector, 0x28, true),
    FIELD(gdtr.base, 0x7000, true),
    FIELD(idtr.limit, 0x1ff, true),
    FIELD(cr2, 0xdead0000, true),
    FIELD(cr3, 0x3000, true),
    FIELD(cr8, 5, false), /* the local APIC's */
    FIELD(xcr0, X86_XCR0_X87 | 2, false),
    FIELD(dr[0], 0x1000, true),
    FIELD(dr[3], 0x4000, true),
    FIELD(dr6, X86_DR6_FIXED | X86_DR6_BS | 1, true),
    FIELD(dr7, X86_DR7_FIXED | 1, true),
    FIELD(pdpte[2], 0x9001, false), /* with PAE paging */
    FIELD(efer, X86_EFER_SCE, false),
    FIELD(star, 0x0023001000000000, true),
    FIELD(lstar, 0xffffffff81000000, true),
    FIELD(cstar, 0xffffffff82000000, true),
    FIELD(sfmask, 0x47700, true),
    FIELD(kernel_gs_base, 0xffff888000000000, true),
    FIELD(sysenter_cs, 0x10, true),
    FIELD(sysenter_esp, 0x8000, true),
    FIELD(sysenter_eip, 0x83000000, true), /* an AMD CPU keeps 32 bits */
    FIELD(pat, 0x0007010600070106, true),
    FIELD(tsc_aux, 7, false),
    FIELD(tsc_adjust, 0x100, false),
    FIELD(tsc_offset, 0x123456789, false), /* before Linux 5.16 it is told from two readings */
    FIELD(misc_enable, 0, false),
    FIELD(spec_ctrl, 1, false),
    FIELD(xss, 0x100, false),
    FIELD(mtrr_def_type, 0xc06, true),
    FIELD(mtrr_fixed[0], 0x0606060606060606, true),
    FIELD(mtrr_fixed[10], 0x0505050505050505, true),
    FIELD(mtrr_variable[0][0], 0x80000006, true),
    FIELD(mtrr_variable[7][1], 0xf80000800, true),
    FIELD(activity, X86_HALTED, true),
    FIELD(interrupt_shadow, 1, true),
    FIELD(nmi_blocked, 1, true),
    FIELD(nmi_pending, 1, true),
    FIELD(debug_trap, 1, true),
    FIELD(fpu.fcw, 0x37e, true),
    FIELD(fpu.mxcsr, 0x1fa0, true),
    FIELD(fpu.st[2].significand, 0xc000000000000000, true),
    FIELD(fpu.xmm[0], 0x3333333333333333, true),
    FIELD(fpu.xmm[15], 0x4444444444444444, true),
    FIELD(fpu.ymm_high[9], 0x5555555555555555, false),
};

/* Put a value into the field, over all of it. */
static inline void state_field_put(struct x86_state *state, const struct state_field *field)
{
    memset((char *)state + field->offset, 0, field->size);
    memcpy((char *)state + field->offset, &field->value, MIN(field->size, sizeof(field->value)));
}

/* The first of the fields that two states differ in, or NULL. */
static inline const struct state_field *state_difference(const struct x86_state *a,
                                                         const struct x86_state *b, bool any_cpu)
{
    for (size_t i = 0; i < ARRAY_SIZE(state_fields); i++)
        if ((state_fields[i].any_cpu || !any_cpu) &&
            memcmp((const char *)a + state_fields[i].offset,
                   (const char *)b + state_fields[i].offset, state_fields[i].size) != 0)
            return &state_fields[i];
    return NULL;
}

#endif
