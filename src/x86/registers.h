/* registers.h - the names and numbers of the x86 architecture that software
 * sees: registers, flags, control bits, exception vectors, MSRs.
 * Source: Intel SDM volumes 1, 3A and 4; AMD APM volume 2. */
#ifndef LODGE_X86_REGISTERS_H
#define LODGE_X86_REGISTERS_H

enum x86_gpr {
    X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
    X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15,
    X86_GPRS,
};

/* In the order of the Sreg field; then the two system segments. */
enum x86_segment_register {
    X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_LDTR, X86_TR,
    X86_SEGMENTS,
};

/* EFLAGS (SDM 1 3.4.3) */
#define X86_CF        (1u << 0)
#define X86_FLAGS_ONE (1u << 1) /* reads as one always */
#define X86_PF        (1u << 2)
#define X86_AF        (1u << 4)
#define X86_ZF        (1u << 6)
#define X86_SF        (1u << 7)
#define X86_TF        (1u << 8)
#define X86_IF        (1u << 9)
#define X86_DF        (1u << 10)
#define X86_OF        (1u << 11)
#define X86_IOPL      (3u << 12)
#define X86_NT        (1u << 14)
#define X86_RF        (1u << 16)
#define X86_VM        (1u << 17)
#define X86_AC        (1u << 18)
#define X86_VIF       (1u << 19)
#define X86_VIP       (1u << 20)
#define X86_ID        (1u << 21)
#define X86_STATUS_FLAGS (X86_CF | X86_PF | X86_AF | X86_ZF | X86_SF | X86_OF)

/* CR0 (SDM 3A 2.5) */
#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)

/* CR4 (SDM 3A 2.5) */
#define X86_CR4_VME        (1u << 0)
#define X86_CR4_PVI        (1u << 1)
#define X86_CR4_TSD        (1u << 2)
#define X86_CR4_DE         (1u << 3)
#define X86_CR4_PSE        (1u << 4)
#define X86_CR4_PAE        (1u << 5)
#define X86_CR4_MCE        (1u << 6)
#define X86_CR4_PGE        (1u << 7)
#define X86_CR4_PCE        (1u << 8)
#define X86_CR4_OSFXSR     (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP       (1u << 11)
#define X86_CR4_FSGSBASE   (1u << 16)
#define X86_CR4_PCIDE      (1u << 17)
#define X86_CR4_OSXSAVE    (1u << 18)
#define X86_CR4_SMEP       (1u << 20)
#define X86_CR4_SMAP       (1u << 21)

/* XCR0 (SDM 1 13.3) */
#define X86_XCR0_X87 (1u << 0)
#define X86_XCR0_SSE (1u << 1)
#define X86_XCR0_AVX (1u << 2)

/* IA32_EFER (SDM 3A 2.2.1) */
#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NXE (1u << 11)

/* Exception vectors (SDM 3A 6.15) */
enum x86_vector {
    X86_DE = 0, X86_DB = 1, X86_NMI = 2, X86_BP = 3, X86_OF_TRAP = 4, X86_BR = 5, X86_UD = 6,
    X86_NM = 7, X86_DF_FAULT = 8, X86_TS = 10, X86_NP = 11, X86_SS_FAULT = 12, X86_GP = 13,
    X86_PF_FAULT = 14, X86_MF = 16, X86_AC_FAULT = 17, X86_MC = 18, X86_XM = 19,
};

/* Page-fault error code (SDM 3A 4.7) */
#define X86_PFEC_P    (1u << 0)
#define X86_PFEC_W    (1u << 1)
#define X86_PFEC_U    (1u << 2)
#define X86_PFEC_RSVD (1u << 3)
#define X86_PFEC_I    (1u << 4)

/* DR6, DR7 (SDM 3B 17.2) */
#define X86_DR6_FIXED 0xffff0ff0u /* bits that read as one */
#define X86_DR6_BD    (1u << 13)
#define X86_DR6_BS    (1u << 14)
#define X86_DR6_BT    (1u << 15)
#define X86_DR7_FIXED 0x400u
#define X86_DR7_GD    (1u << 13)

/* MSRs (SDM 4, APM 2 appendix A) */
enum x86_msr {
    X86_MSR_TSC = 0x10, X86_MSR_PLATFORM_ID = 0x17, X86_MSR_APIC_BASE = 0x1b,
    X86_MSR_FEATURE_CONTROL = 0x3a, X86_MSR_TSC_ADJUST = 0x3b, X86_MSR_SPEC_CTRL = 0x48,
    X86_MSR_PRED_CMD = 0x49, X86_MSR_BIOS_SIGN_ID = 0x8b, X86_MSR_MTRR_CAP = 0xfe,
    X86_MSR_ARCH_CAPABILITIES = 0x10a, X86_MSR_SYSENTER_CS = 0x174, X86_MSR_SYSENTER_ESP = 0x175,
    X86_MSR_SYSENTER_EIP = 0x176, X86_MSR_MCG_CAP = 0x179, X86_MSR_MCG_STATUS = 0x17a,
    X86_MSR_MISC_ENABLE = 0x1a0, X86_MSR_MTRR_PHYSBASE0 = 0x200, X86_MSR_MTRR_FIX64K = 0x250,
    X86_MSR_MTRR_FIX16K_80000 = 0x258, X86_MSR_MTRR_FIX16K_A0000 = 0x259,
    X86_MSR_MTRR_FIX4K_C0000 = 0x268, X86_MSR_PAT = 0x277, X86_MSR_MTRR_DEF_TYPE = 0x2ff,
    X86_MSR_TSC_DEADLINE = 0x6e0, X86_MSR_X2APIC_FIRST = 0x800, X86_MSR_X2APIC_LAST = 0x8ff,
    X86_MSR_XSS = 0xda0,
};
#define X86_MSR_EFER           0xc0000080u
#define X86_MSR_STAR           0xc0000081u
#define X86_MSR_LSTAR          0xc0000082u
#define X86_MSR_CSTAR          0xc0000083u
#define X86_MSR_SFMASK         0xc0000084u
#define X86_MSR_FS_BASE        0xc0000100u
#define X86_MSR_GS_BASE        0xc0000101u
#define X86_MSR_KERNEL_GS_BASE 0xc0000102u
#define X86_MSR_TSC_AUX        0xc0000103u

#endif
