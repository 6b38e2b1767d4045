; The local APIC of one CPU: identity, self-IPIs and priorities, the timer in its
; three modes, x2APIC (SDM 3A 10).
%include "lib.inc"
%include "apic.inc"

TIMER   equ 0x40
LEAD_MS equ 500                 ; more than a busy host may keep a CPU waiting
LOW     equ 0x50
HIGH    equ 0x61

main:
        call apic_begin
        mov ecx, 0x1b
        rdmsr
        CHECK_EQUAL eax, APIC + 0x900           ; enabled, the boot processor
        CHECK_EQUAL edx, 0
        APIC_READ APIC_ID
        CHECK_EQUAL eax, 0
        APIC_READ 0x30
        cmp al, 0x10
        CHECK ae                                ; an integrated APIC
        call self_ipis
        call priorities
        call one_shot
        call periodic
        mov eax, 1
        cpuid
        test ecx, 1 << 24
        jz .no_deadline
        call deadline
.no_deadline:
        mov eax, 1
        cpuid
        test ecx, 1 << 21
        jz .no_x2apic
        call x2apic
.no_x2apic:
        ret

self_ipis:
        ; held back by IF, then taken after the shadow of STI
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | LOW
        APIC_READ APIC_IRR + LOW / 32 * 16
        test eax, 1 << (LOW % 32)
        CHECK nz
        nop
        CHECK_EQUAL COUNT(LOW), 0
        sti
        cli                                     ; in the shadow
        CHECK_EQUAL COUNT(LOW), 0
        sti
        nop
        nop
        cli
        CHECK_EQUAL COUNT(LOW), 1
        APIC_READ APIC_IRR + LOW / 32 * 16
        CHECK_EQUAL eax, 0
        APIC_READ APIC_ISR + LOW / 32 * 16
        CHECK_EQUAL eax, 0                      ; EOI cleared it
        ; HLT wakes for what waits already
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | LOW
        sti
        hlt
        cli
        CHECK_EQUAL COUNT(LOW), 2
        ; by physical destination, and as one of all
        APIC_WRITE APIC_ICR2, 0
        APIC_WRITE APIC_ICR, ICR_ASSERT | LOW
        sti
        nop
        cli
        APIC_WRITE APIC_ICR, TO_ALL | ICR_ASSERT | LOW
        sti
        nop
        cli
        CHECK_EQUAL COUNT(LOW), 4
        ; not to others
        APIC_WRITE APIC_ICR, TO_OTHERS | ICR_ASSERT | LOW
        sti
        nop
        cli
        CHECK_EQUAL COUNT(LOW), 4
        ; NMI knows no IF
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | 4 << 8
        WAIT_FOR COUNT(2), 1
        ; a vector below 16 is an error; KVM's own APIC has no error register
        NOT_ON_KVM
        APIC_WRITE APIC_ESR, 0
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | 5
        APIC_WRITE APIC_ESR, 0
        APIC_READ APIC_ESR
        test eax, 1 << 5
        CHECK nz
        END_NOT_ON_KVM
        ; a disabled APIC takes nothing
        APIC_WRITE APIC_SVR, 0xff
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | LOW
        sti
        nop
        cli
        CHECK_EQUAL COUNT(LOW), 4
        APIC_WRITE APIC_SVR, 0x1ff
        jmp clear_counts

; Classes of 16 vectors, against what is in service and against the TPR.
priorities:
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | LOW
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | HIGH
        mov byte [eoi_by], 2
        sti
        nop
        nop
        cli
        CHECK_EQUAL COUNT(HIGH), 1              ; the higher one first,
        CHECK_EQUAL COUNT(LOW), 0               ; and it holds the other back
        APIC_READ APIC_PPR
        and eax, 0xf0
        CHECK_EQUAL eax, HIGH & 0xf0
        APIC_READ APIC_ISR + HIGH / 32 * 16
        test eax, 1 << (HIGH % 32)
        CHECK nz
        mov byte [eoi_by], 0
        APIC_WRITE APIC_EOI, 0
        sti
        nop
        nop
        cli
        CHECK_EQUAL COUNT(LOW), 1

        mov eax, LOW >> 4
        mov cr8, rax
        APIC_READ APIC_TPR
        CHECK_EQUAL eax, LOW & 0xf0
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | LOW
        APIC_WRITE APIC_ICR, TO_SELF | ICR_ASSERT | HIGH
        sti
        nop
        nop
        CHECK_EQUAL COUNT(HIGH), 2
        CHECK_EQUAL COUNT(LOW), 1
        APIC_WRITE APIC_TPR, (LOW & 0xf0) - 0x10
        WAIT_FOR COUNT(LOW), 2
        cli
        mov rax, cr8
        CHECK_EQUAL rax, (LOW >> 4) - 1
        xor eax, eax
        mov cr8, rax
        jmp clear_counts

; Elapsed ticks since [began] are in rax.
%macro TICKS_UNTIL 1
        mov rax, %1
        sub rax, [began]
%endmacro

; A timer may be late, as the host has other things to do, but never early: the
; rate that CPUID tells is within a thousandth.
%macro CHECK_NOT_EARLY 1.nolist
        %assign check_line __?LINE?__
        mov rcx, %1
        mov rdx, rcx
        shr rdx, 10
        sub rcx, rdx
        cmp rax, rcx
        jge %%ok
        FAIL_HERE
%%ok:
%endmacro

one_shot:
        APIC_WRITE APIC_DIVIDE, 0xb             ; by 1
        APIC_WRITE APIC_LVT_TIMER, TIMER
        call now
        mov [began], rax
        mov eax, [apic_ms]
        APIC_WRITE APIC_INITIAL, eax
        APIC_READ APIC_CURRENT
        cmp eax, [apic_ms]
        CHECK be
        sti
        WAIT_FOR COUNT(TIMER), 1
        TICKS_UNTIL WHEN(TIMER)
        CHECK_NOT_EARLY [tsc_ms]
        APIC_READ APIC_CURRENT
        CHECK_EQUAL eax, 0
        mov rbx, [tsc_ms]
        shl rbx, 2
        WAIT_TICKS rbx
        CHECK_EQUAL COUNT(TIMER), 1             ; once only
        ; by 16, and stopped by a count of zero. (In KVM's own APIC a new divider begins a count
        ; anew that has ended.)
        cmp byte [on_kvm], 0
        je .by_16
        APIC_WRITE APIC_INITIAL, 0
.by_16:
        APIC_WRITE APIC_DIVIDE, 3
        call now
        mov [began], rax
        mov qword [when + TIMER * 8], 0
        mov eax, [apic_ms]
        shr eax, 3
        APIC_WRITE APIC_INITIAL, eax
        WAIT_FOR COUNT(TIMER), 2
        TICKS_UNTIL WHEN(TIMER)
        mov rbx, [tsc_ms]
        add rbx, rbx
        CHECK_NOT_EARLY rbx
        mov eax, [apic_ms]
        APIC_WRITE APIC_INITIAL, eax            ; in 16 ms,
        APIC_WRITE APIC_INITIAL, 0              ; no
        mov rbx, [tsc_ms]
        imul rbx, 20
        WAIT_TICKS rbx
        CHECK_EQUAL COUNT(TIMER), 2
        ; masked it passes unseen; KVM's own APIC delivers it once it is unmasked
        NOT_ON_KVM
        APIC_WRITE APIC_DIVIDE, 0xb
        APIC_WRITE APIC_LVT_TIMER, LVT_MASKED | TIMER
        mov eax, [apic_ms]
        APIC_WRITE APIC_INITIAL, eax
        mov rbx, [tsc_ms]
        shl rbx, 2
        WAIT_TICKS rbx
        APIC_READ APIC_CURRENT
        CHECK_EQUAL eax, 0
        APIC_WRITE APIC_LVT_TIMER, TIMER
        nop
        CHECK_EQUAL COUNT(TIMER), 2
        END_NOT_ON_KVM
        cli
        jmp clear_counts

periodic:
        APIC_WRITE APIC_DIVIDE, 0               ; by 2
        APIC_WRITE APIC_LVT_TIMER, LVT_PERIODIC | TIMER
        call now
        mov [began], rax
        mov eax, [apic_ms]
        APIC_WRITE APIC_INITIAL, eax            ; 2 ms
        sti
        WAIT_FOR COUNT(TIMER), 5
        call now
        sub rax, [began]
        mov rbx, [tsc_ms]
        imul rbx, 10
        CHECK_NOT_EARLY rbx
        APIC_WRITE APIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC | TIMER
        mov ebx, COUNT(TIMER)
        mov r8, [tsc_ms]
        imul r8, 5
        WAIT_TICKS r8
        cli
        CHECK_EQUAL COUNT(TIMER), ebx
        APIC_WRITE APIC_INITIAL, 0
        APIC_WRITE APIC_LVT_TIMER, LVT_MASKED
        jmp clear_counts

; IA32_TSC_DEADLINE to rax. Spoils rcx, rdx.
set_deadline:
        mov rdx, rax
        shr rdx, 32
        mov ecx, 0x6e0
        wrmsr
        ret

deadline:
        APIC_WRITE APIC_LVT_TIMER, LVT_DEADLINE | TIMER
        call now                                ; far away, to be read while it waits
        imul rbx, [tsc_ms], 10000
        add rax, rbx
        mov [began], rax
        call set_deadline
        mov ecx, 0x6e0
        rdmsr
        CHECK_EQUAL eax, dword [began]
        call now
        add rax, [tsc_ms]
        mov [began], rax
        call set_deadline
        sti
        WAIT_FOR COUNT(TIMER), 1
        TICKS_UNTIL WHEN(TIMER)
        test rax, rax
        CHECK ns                                ; to the tick
        mov ecx, 0x6e0
        rdmsr
        CHECK_EQUAL eax, 0                      ; disarmed
        CHECK_EQUAL edx, 0
        ; the initial count means nothing in this mode
        mov eax, [apic_ms]
        APIC_WRITE APIC_INITIAL, eax
        mov rbx, [tsc_ms]
        shl rbx, 2
        WAIT_TICKS rbx
        CHECK_EQUAL COUNT(TIMER), 1
        ; what has passed fires at once
        mov eax, 1
        call set_deadline
        WAIT_FOR COUNT(TIMER), 2
        ; moved again and again it never fires before the last one
        mov r8d, 1000
.move:  call now
        imul rbx, [tsc_ms], LEAD_MS
        add rax, rbx
        mov [began], rax
        call set_deadline
        dec r8d
        jnz .move
        mov qword [when + TIMER * 8], 0
        CHECK_EQUAL COUNT(TIMER), 2
        WAIT_FOR COUNT(TIMER), 3
        TICKS_UNTIL WHEN(TIMER)
        test rax, rax
        CHECK ns
        ; zero disarms, and so does another mode
        call now
        imul rbx, [tsc_ms], 10
        add rax, rbx
        call set_deadline
        xor eax, eax
        call set_deadline
        call now
        add rax, rbx
        call set_deadline
        APIC_WRITE APIC_LVT_TIMER, LVT_MASKED | TIMER
        APIC_WRITE APIC_LVT_TIMER, TIMER
        imul rbx, [tsc_ms], 15
        WAIT_TICKS rbx
        cli
        CHECK_EQUAL COUNT(TIMER), 3
        APIC_WRITE APIC_LVT_TIMER, LVT_MASKED
        jmp clear_counts

%macro WRMSR 3                  ; MSR, high, low
        mov ecx, %1
        mov edx, %2
        mov eax, %3
        wrmsr
%endmacro

x2apic:
        mov ecx, 0x802
        mov qword [handler], 0
        EXPECT 13, 0, rdmsr                     ; not yet
        mov qword [handler], note_interrupt
        WRMSR 0x1b, 0, APIC + 0xd00
        mov byte [eoi_by], 1
        mov ecx, 0x802
        rdmsr
        CHECK_EQUAL eax, 0
        mov ecx, 0x80d                          ; LDR: bit 0 of cluster 0
        rdmsr
        CHECK_EQUAL eax, 1
        mov ecx, 0x80f
        rdmsr
        CHECK_EQUAL eax, 0x1ff                  ; SVR as it was
        sti
        WRMSR 0x83f, 0, LOW                     ; self IPI
        WAIT_FOR COUNT(LOW), 1
        WRMSR 0x830, 0, ICR_ASSERT | LOW        ; to 0
        WAIT_FOR COUNT(LOW), 2
        WRMSR 0x830, 1, ICR_ASSERT | ICR_LOGICAL | LOW
        WAIT_FOR COUNT(LOW), 3
        WRMSR 0x830, -1, ICR_ASSERT | LOW       ; to all
        WAIT_FOR COUNT(LOW), 4
        WRMSR 0x808, 0, LOW
        WRMSR 0x83f, 0, LOW
        nop
        CHECK_EQUAL COUNT(LOW), 4
        WRMSR 0x808, 0, 0
        WAIT_FOR COUNT(LOW), 5
        WRMSR 0x832, 0, TIMER
        WRMSR 0x83e, 0, 0xb
        WRMSR 0x838, 0, 1000
        WAIT_FOR COUNT(TIMER), 1
        cli
        mov qword [handler], 0
        mov ecx, 0x80b                          ; EOI: written only, and with zero
        EXPECT 13, 0, rdmsr
        mov edx, 0
        mov eax, 1
        NOT_ON_KVM                              ; of before Linux 6.2
        EXPECT 13, 0, wrmsr
        END_NOT_ON_KVM
        mov ecx, 0x802                          ; the ID: read only
        EXPECT 13, 0, wrmsr
        mov ecx, 0x80e                          ; no DFR
        EXPECT 13, 0, rdmsr
        mov ecx, 0x1b                           ; not back without a stop in between
        mov edx, 0
        mov eax, APIC + 0x900
        EXPECT 13, 0, wrmsr
        WRMSR 0x1b, 0, APIC + 0x100
        WRMSR 0x1b, 0, APIC + 0x900
        ret

section .data
began:  dq 0
