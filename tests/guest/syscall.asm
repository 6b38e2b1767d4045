; SYSCALL and SYSRET; SYSENTER and SYSEXIT in long mode, where the CPU is of a
; vendor that has them there (SDM 2B, SDM 3A 5.8.7, 5.8.8).
%include "lib.inc"

EFER   equ 0xc0000080
STAR   equ 0xc0000081
LSTAR  equ 0xc0000082
SFMASK equ 0xc0000084

%macro WRITE_MSR 2
        mov rax, %2
        mov rdx, rax
        shr rdx, 32
        mov ecx, %1
        wrmsr
%endmacro

main:
        COPY_USER 0, user_code, user_code.end
        WRITE_MSR STAR, USER32 << 48 | CODE64 << 32
        WRITE_MSR LSTAR, entry
        WRITE_MSR SFMASK, 0x700                 ; DF, IF, TF

        EXPECT_BEGIN
        push USERDATA
        push USER_STACK
        push 0x603                              ; DF, IF, CF
        push USER64
        push USER_PAGE
        iretq
        EXPECT_END 0x80, 0
        CHECK_EQUAL qword [entry_rcx], USER_PAGE + 2
        mov rax, [entry_r11]
        and eax, ~0x200
        CHECK_EQUAL eax, 0x403
        mov rax, [entry_flags]
        NOT_ON_TCG                              ; it drops the status flags
        CHECK_EQUAL eax, 3
        END_NOT_ON_TCG
        test eax, 0x700
        CHECK z
        CHECK_EQUAL word [entry_cs], CODE64
        CHECK_EQUAL word [entry_ss], CODE64 + 8
        CHECK_EQUAL qword [entry_rsp], USER_STACK       ; RSP is the kernel's matter
        ; back with SYSRET
        CHECK_EQUAL word [seen_cs], USER64
        CHECK_EQUAL qword [seen_rip], USER_PAGE + 4
        CHECK_EQUAL qword [seen_rsp], USER_STACK
        mov rax, [seen_flags]
        and eax, 0x603
        CHECK_EQUAL eax, 0x603

        ; SYSRET to compatibility mode
        EXPECT_BEGIN
        mov rcx, USER_PAGE + 2
        mov r11, 2
        mov rsp, USER_STACK
        o32 sysret
        EXPECT_END 0x80, 0
        CHECK_EQUAL word [seen_cs], USER32
        CHECK_EQUAL qword [seen_rip], USER_PAGE + 4

        ; not at CPL 3; not without EFER.SCE
        COPY_USER 0, user_sysret, user_sysret.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 13, 0
        mov ecx, EFER
        rdmsr
        btr eax, 0
        wrmsr
        COPY_USER 0, user_code, user_code.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 6, 0
        EXPECT 6, 0, o64 sysret

        xor eax, eax
        cpuid
        cmp ecx, "ntel"
        jne .done
        cmp byte [on_tcg], 2    ; an AMD CPU has none in long mode, nor does KVM stand in
        je .done
        COPY_USER 0, user_sysenter, user_sysenter.end
        WRITE_MSR 0x174, 0
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 13, 0
        WRITE_MSR 0x174, CODE64
        WRITE_MSR 0x175, interrupt_stack_top
        WRITE_MSR 0x176, fast_entry
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 0x80, 0
        CHECK_EQUAL qword [entry_rsp], interrupt_stack_top
        CHECK_EQUAL word [entry_cs], CODE64
        CHECK_EQUAL word [entry_ss], CODE64 + 8
        CHECK_EQUAL qword [seen_rsp], USER_STACK - 64
        CHECK_EQUAL word [seen_cs], CODE64 + 32 | 3
        CHECK_EQUAL qword [seen_rip], USER_PAGE + 4
.done:  ret

note_entry:
        mov [entry_rcx], rcx
        mov [entry_r11], r11
        mov ax, cs
        mov [entry_cs], ax
        mov ax, ss
        mov [entry_ss], ax
        ret
entry:  mov [entry_rsp], rsp
        mov rsp, interrupt_stack_top
        pushfq
        pop qword [entry_flags]
        call note_entry
        mov rsp, [entry_rsp]
        o64 sysret
fast_entry:
        mov [entry_rsp], rsp
        call note_entry
        mov rdx, USER_PAGE + 2
        mov rcx, USER_STACK - 64
        o64 sysexit

user_code:
        syscall
        int 0x80
.end:
user_sysret:
        o64 sysret
.end:
user_sysenter:
        sysenter
        int 0x80
.end:

section .data
entry_rcx: dq 0
entry_r11: dq 0
entry_rsp: dq 0
entry_flags: dq 0
entry_cs:  dw 0
entry_ss:  dw 0
