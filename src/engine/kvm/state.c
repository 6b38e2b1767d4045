/* The architectural state, between struct x86_state and the kernel's structs. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/kvm/kvm.h"

#define FIXED_MTRR(index, i)    {index, offsetof(struct x86_state, mtrr_fixed[i])}
#define VARIABLE_MTRR(i)                                                                           \
    {X86_MSR_MTRR_PHYSBASE0 + 2 * (i), offsetof(struct x86_state, mtrr_variable[i][0])},           \
    {X86_MSR_MTRR_PHYSBASE0 + 2 * (i) + 1, offsetof(struct x86_state, mtrr_variable[i][1])}

/* MSRs that are state, and where each one lives in struct x86_state. */
static const struct {
    uint32_t index;
    uint32_t offset;
} state_msrs[] = {
    {X86_MSR_STAR, offsetof(struct x86_state, star)},
    {X86_MSR_LSTAR, offsetof(struct x86_state, lstar)},
    {X86_MSR_CSTAR, offsetof(struct x86_state, cstar)},
    {X86_MSR_SFMASK, offsetof(struct x86_state, sfmask)},
    {X86_MSR_KERNEL_GS_BASE, offsetof(struct x86_state, kernel_gs_base)},
    {X86_MSR_SYSENTER_CS, offsetof(struct x86_state, sysenter_cs)},
    {X86_MSR_SYSENTER_ESP, offsetof(struct x86_state, sysenter_esp)},
    {X86_MSR_SYSENTER_EIP, offsetof(struct x86_state, sysenter_eip)},
    {X86_MSR_PAT, offsetof(struct x86_state, pat)},
    {X86_MSR_TSC_AUX, offsetof(struct x86_state, tsc_aux)},
    {X86_MSR_MISC_ENABLE, offsetof(struct x86_state, misc_enable)},
    {X86_MSR_SPEC_CTRL, offsetof(struct x86_state, spec_ctrl)},
    {X86_MSR_XSS, offsetof(struct x86_state, xss)},
    {X86_MSR_TSC_ADJUST, offsetof(struct x86_state, tsc_adjust)},
    {X86_MSR_MTRR_DEF_TYPE, offsetof(struct x86_state, mtrr_def_type)},
    FIXED_MTRR(X86_MSR_MTRR_FIX64K, 0), FIXED_MTRR(X86_MSR_MTRR_FIX16K_80000, 1),
    FIXED_MTRR(X86_MSR_MTRR_FIX16K_A0000, 2), FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000, 3),
    FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 1, 4), FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 2, 5),
    FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 3, 6), FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 4, 7),
    FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 5, 8), FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 6, 9),
    FIXED_MTRR(X86_MSR_MTRR_FIX4K_C0000 + 7, 10),
    VARIABLE_MTRR(0), VARIABLE_MTRR(1), VARIABLE_MTRR(2), VARIABLE_MTRR(3),
    VARIABLE_MTRR(4), VARIABLE_MTRR(5), VARIABLE_MTRR(6), VARIABLE_MTRR(7),
};

static uint64_t *msr_field(struct x86_state *state, size_t i)
{
    return (uint64_t *)(void *)((char *)state + state_msrs[i].offset);
}

/* struct kvm_msrs ends in an array without a size: room for as many as there are. */
union msr_list {
    struct kvm_msrs list;
    uint8_t room[sizeof(struct kvm_msrs) +
                 ARRAY_SIZE(state_msrs) * sizeof(struct kvm_msr_entry)];
};

/* KVM stops at the first MSR that this host does not know: a guest that was
 * not offered it has no value there. The others are taken in as few calls as
 * that allows. */
static void get_msrs(int fd, struct x86_state *state)
{
    for (size_t first = 0; first < ARRAY_SIZE(state_msrs);) {
        union msr_list msrs = {.list.nmsrs = (uint32_t)(ARRAY_SIZE(state_msrs) - first)};
        int n;

        for (uint32_t i = 0; i < msrs.list.nmsrs; i++)
            msrs.list.entries[i].index = state_msrs[first + i].index;
        n = MAX(KVM_CALL(fd, KVM_GET_MSRS, &msrs), 0);
        for (int i = 0; i < n; i++)
            *msr_field(state, first + (size_t)i) = msrs.list.entries[i].data;
        first += (size_t)n + 1;
    }
}

static void set_msrs(int fd, struct x86_state *state)
{
    for (size_t first = 0; first < ARRAY_SIZE(state_msrs);) {
        union msr_list msrs = {.list.nmsrs = (uint32_t)(ARRAY_SIZE(state_msrs) - first)};

        for (uint32_t i = 0; i < msrs.list.nmsrs; i++)
            msrs.list.entries[i] = (struct kvm_msr_entry){
                .index = state_msrs[first + i].index,
                .data = *msr_field(state, first + i),
            };
        first += (size_t)MAX(KVM_CALL(fd, KVM_SET_MSRS, &msrs), 0) + 1;
    }
}

static void segment_from_kvm(struct x86_segment *to, const struct kvm_segment *from)
{
    *to = (struct x86_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .attributes = (uint16_t)(from->type | from->s << 4 | from->dpl << X86_SEG_DPL_SHIFT |
                                 (from->present && !from->unusable ? X86_SEG_P : 0) |
                                 (from->avl ? X86_SEG_AVL : 0) | (from->l ? X86_SEG_L : 0) |
                                 (from->db ? X86_SEG_DB : 0) | (from->g ? X86_SEG_G : 0)),
    };
}

static void segment_to_kvm(struct kvm_segment *to, const struct x86_segment *from)
{
    const uint16_t a = from->attributes;

    *to = (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = a & X86_SEG_TYPE,
        .present = !!(a & X86_SEG_P),
        .dpl = (a & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT,
        .db = !!(a & X86_SEG_DB),
        .s = !!(a & X86_SEG_S),
        .l = !!(a & X86_SEG_L),
        .g = !!(a & X86_SEG_G),
        .avl = !!(a & X86_SEG_AVL),
        .unusable = !(a & X86_SEG_P),
    };
}

/* Where each segment register stands in struct kvm_sregs. */
static const size_t sregs_segments[X86_SEGMENTS] = {
    [X86_ES] = offsetof(struct kvm_sregs, es),    [X86_CS] = offsetof(struct kvm_sregs, cs),
    [X86_SS] = offsetof(struct kvm_sregs, ss),    [X86_DS] = offsetof(struct kvm_sregs, ds),
    [X86_FS] = offsetof(struct kvm_sregs, fs),    [X86_GS] = offsetof(struct kvm_sregs, gs),
    [X86_LDTR] = offsetof(struct kvm_sregs, ldt), [X86_TR] = offsetof(struct kvm_sregs, tr),
};

static struct kvm_segment *sregs_segment(struct kvm_sregs *sregs, int i)
{
    return (struct kvm_segment *)(void *)((char *)sregs + sregs_segments[i]);
}

/* RAX.. in the order of enum x86_gpr, and RIP, RFLAGS. */
static void regs_from_kvm(struct x86_state *state, const struct kvm_regs *r)
{
    const uint64_t gpr[X86_GPRS] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp,
                                    r->rsi, r->rdi, r->r8,  r->r9,  r->r10, r->r11,
                                    r->r12, r->r13, r->r14, r->r15};

    memcpy(state->gpr, gpr, sizeof(gpr));
    state->rip = r->rip;
    state->rflags = r->rflags;
}

static void regs_to_kvm(struct kvm_regs *r, const struct x86_state *state)
{
    const uint64_t *g = state->gpr;

    *r = (struct kvm_regs){
        .rax = g[X86_RAX], .rcx = g[X86_RCX], .rdx = g[X86_RDX], .rbx = g[X86_RBX],
        .rsp = g[X86_RSP], .rbp = g[X86_RBP], .rsi = g[X86_RSI], .rdi = g[X86_RDI],
        .r8 = g[X86_R8],   .r9 = g[X86_R9],   .r10 = g[X86_R10], .r11 = g[X86_R11],
        .r12 = g[X86_R12], .r13 = g[X86_R13], .r14 = g[X86_R14], .r15 = g[X86_R15],
        .rip = state->rip, .rflags = state->rflags,
    };
}

/* What the CPU does, where the local APICs are in the kernel; there it waits in KVM_RUN. */
static const uint32_t mp_states[] = {
    [X86_RUNNING] = KVM_MP_STATE_RUNNABLE,
    [X86_HALTED] = KVM_MP_STATE_HALTED,
    [X86_WAIT_FOR_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
    [X86_SHUTDOWN] = KVM_MP_STATE_RUNNABLE,
};

static enum x86_activity get_activity(const struct kvm_vcpu *vcpu)
{
    struct kvm_mp_state mp = {0};

    /* A triple fault is known here only. */
    if (!vcpu->kvm->config.keep_apics || vcpu->activity == X86_SHUTDOWN ||
        KVM_CALL(vcpu->fd, KVM_GET_MP_STATE, &mp) < 0)
        return vcpu->activity;
    switch (mp.mp_state) {
    case KVM_MP_STATE_UNINITIALIZED: case KVM_MP_STATE_INIT_RECEIVED:
        return X86_WAIT_FOR_SIPI;
    case KVM_MP_STATE_HALTED:
        return X86_HALTED;
    default:
        return X86_RUNNING;
    }
}

static int set_activity(struct kvm_vcpu *vcpu, enum x86_activity activity)
{
    const bool keeps = vcpu->kvm->config.keep_apics;
    const struct kvm_mp_state mp = {.mp_state = mp_states[activity]};

    /* A CPU that waits does so in KVM_RUN, where its APIC can wake it. */
    vcpu->activity = keeps && activity != X86_SHUTDOWN ? X86_RUNNING : activity;
    return keeps ? KVM_CALL(vcpu->fd, KVM_SET_MP_STATE, &mp) : 0;
}

static bool pae_paging(const struct x86_state *state)
{
    return (state->cr0 & X86_CR0_PG) && (state->cr4 & X86_CR4_PAE) &&
           !(state->efer & X86_EFER_LMA);
}

int kvm_get_state(struct kvm_vcpu *vcpu, struct x86_state *ret_state, struct error *err)
{
    struct x86_state state = {0};
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_sregs2 sregs2;
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;

    /* Events come first: what is pending leaves its trace in CR2 and DR6 when it is told. */
    if (KVM_CALL(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0 ||
        KVM_CALL(vcpu->fd, KVM_GET_REGS, &regs) < 0 ||
        KVM_CALL(vcpu->fd, KVM_GET_SREGS, &sregs) < 0 ||
        KVM_CALL(vcpu->fd, KVM_GET_DEBUGREGS, &debug) < 0 ||
        KVM_CALL(vcpu->fd, KVM_GET_XSAVE, &xsave) < 0)
        return error_system(err, errno, "KVM does not give the state of CPU %u", vcpu->vcpu.index);
    regs_from_kvm(&state, &regs);
    for (int i = 0; i < X86_SEGMENTS; i++)
        segment_from_kvm(&state.segment[i], sregs_segment(&sregs, i));
    state.gdtr = (struct x86_table_register){sregs.gdt.base, sregs.gdt.limit};
    state.idtr = (struct x86_table_register){sregs.idt.base, sregs.idt.limit};
    state.cr0 = sregs.cr0;
    state.cr2 = sregs.cr2;
    state.cr3 = sregs.cr3;
    state.cr4 = sregs.cr4;
    state.cr8 = sregs.cr8;
    state.efer = sregs.efer;
    if (pae_paging(&state) && KVM_CALL(vcpu->fd, KVM_GET_SREGS2, &sregs2) == 0 &&
        (sregs2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID))
        memcpy(state.pdpte, sregs2.pdptrs, sizeof(state.pdpte));
    state.xcr0 = KVM_CALL(vcpu->fd, KVM_GET_XCRS, &xcrs) == 0 && xcrs.nr_xcrs ? xcrs.xcrs[0].value
                                                                          : X86_XCR0_X87;
    for (int i = 0; i < 4; i++)
        state.dr[i] = debug.db[i];
    state.dr6 = debug.dr6;
    state.dr7 = debug.dr7;
    state.interrupt_shadow = events.interrupt.shadow;
    state.nmi_blocked = events.nmi.masked;
    state.nmi_pending = events.nmi.pending || events.nmi.injected ||
                        (atomic_load(&vcpu->signals) & ENGINE_SIGNAL_NMI);
    /* Any other exception is a fault: its instruction causes it again. */
    state.debug_trap = events.exception.injected && events.exception.nr == X86_DB;
    state.interrupt_pending = events.interrupt.injected && !events.interrupt.soft;
    state.interrupt_vector = state.interrupt_pending ? events.interrupt.nr : 0;
    if (vcpu->external >= 0) {
        state.interrupt_pending = true;
        state.interrupt_vector = (uint8_t)vcpu->external;
    }
    state.activity = get_activity(vcpu);
    memcpy(&state.fpu, &xsave, sizeof(state.fpu));
    get_msrs(vcpu->fd, &state);
    state.tsc_offset = kvm_get_tsc_offset(vcpu->fd);
    *ret_state = state;
    return 0;
}

/* Other engines keep the registers only, not which of them have their initial values: all are
 * loaded that the state has. */
static void fpu_to_kvm(struct kvm_xsave *to, const struct x86_state *state)
{
    struct x86_xsave fpu = state->fpu;

    fpu.xstate_bv = X86_XCR0_X87 | X86_XCR0_SSE | (state->xcr0 & X86_XCR0_AVX);
    fpu.xcomp_bv = 0;
    memset(fpu.reserved3, 0, sizeof(fpu.reserved3));
    *to = (struct kvm_xsave){0};
    memcpy(to, &fpu, sizeof(fpu));
}

int kvm_set_state(struct kvm_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    struct x86_state copy = *state;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_sregs2 sregs2;
    struct kvm_debugregs debug = {.dr6 = state->dr6, .dr7 = state->dr7};
    struct kvm_vcpu_events events = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        /* (KVM would forget an interrupt that it injects an exception before.) */
        .exception.injected = state->debug_trap && !state->interrupt_pending,
        .exception.nr = state->debug_trap ? X86_DB : 0,
        .interrupt.shadow = state->interrupt_shadow,
        .interrupt.injected = state->interrupt_pending,
        .interrupt.nr = state->interrupt_vector,
        .nmi.masked = state->nmi_blocked,
    };
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = state->xcr0}}};

    /* What was left over belongs to the state that goes away. */
    kvm_vcpu_complete(vcpu);
    if (KVM_CALL(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        goto failed;
    for (int i = 0; i < X86_SEGMENTS; i++)
        segment_to_kvm(sregs_segment(&sregs, i), &state->segment[i]);
    sregs.gdt = (struct kvm_dtable){.base = state->gdtr.base, .limit = state->gdtr.limit};
    sregs.idt = (struct kvm_dtable){.base = state->idtr.base, .limit = state->idtr.limit};
    sregs.cr0 = state->cr0;
    sregs.cr2 = state->cr2;
    sregs.cr3 = state->cr3;
    sregs.cr4 = state->cr4;
    sregs.cr8 = state->cr8;
    sregs.efer = state->efer;
    memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
    if (KVM_CALL(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        goto failed;
    /* KVM_SET_SREGS reads the PDPTEs from memory; the CPU keeps what CR3 loaded. */
    if (pae_paging(state) && KVM_CALL(vcpu->fd, KVM_GET_SREGS2, &sregs2) == 0) {
        memcpy(sregs2.pdptrs, state->pdpte, sizeof(sregs2.pdptrs));
        sregs2.flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
        if (KVM_CALL(vcpu->fd, KVM_SET_SREGS2, &sregs2) < 0)
            goto failed;
    }
    regs_to_kvm(&regs, state);
    memcpy(debug.db, state->dr, sizeof(debug.db));
    fpu_to_kvm(&xsave, state);
    /* XCR0 comes first: it says which parts of the XSAVE area count. A host
     * without XSAVE has none. */
    if (KVM_CALL(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0 && errno != EINVAL)
        goto failed;
    if (KVM_CALL(vcpu->fd, KVM_SET_XSAVE, &xsave) < 0 ||
        KVM_CALL(vcpu->fd, KVM_SET_REGS, &regs) < 0 ||
        KVM_CALL(vcpu->fd, KVM_SET_DEBUGREGS, &debug) < 0 ||
        KVM_CALL(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0 ||
        set_activity(vcpu, state->activity) < 0)
        goto failed;
    set_msrs(vcpu->fd, &copy);
    if (!kvm_set_tsc_offset(vcpu->fd, state->tsc_offset))
        return error_set(err, EIO, "KVM does not take the TSC of CPU %u", vcpu->vcpu.index);
    if (state->nmi_pending) /* it may be signalled already, and is one all the same */
        atomic_fetch_or(&vcpu->signals, ENGINE_SIGNAL_NMI);
    /* struct kvm_run still tells of the state before whether it takes interrupts. */
    vcpu->incomplete = true;
    return 0;

failed:
    return error_system(err, errno, "KVM does not take the state of CPU %u", vcpu->vcpu.index);
}
