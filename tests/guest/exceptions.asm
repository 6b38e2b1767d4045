; Each exception of 64-bit mode with its error code (SDM 3A 6.15).
%include "lib.inc"

main:
        ; faults without an error code
        xor edx, edx
        xor ecx, ecx
        mov eax, 1
        EXPECT 0, 0, div ecx
        mov rax, 0x8000000000000000
        cqo
        mov rcx, -1
        EXPECT 0, 0, idiv rcx           ; the quotient does not fit
        EXPECT 6, 0, ud2
        EXPECT 3, 0, int3
        EXPECT 6, 0, db 0xf0, 0x90      ; LOCK NOP
        EXPECT 6, 0, db 0x06            ; PUSH ES does not exist here
        EXPECT 4, 0, int 4

        ; a fault leaves RIP at the instruction, a trap after it
        EXPECT_BEGIN
.ud:    ud2
        EXPECT_END 6, 0
        lea rax, [.ud]
        CHECK_EQUAL qword [seen_rip], rax
        EXPECT_BEGIN
        int3
.after_int3:
        EXPECT_END 3, 0
        lea rax, [.after_int3]
        CHECK_EQUAL qword [seen_rip], rax

        ; general protection
        mov rax, 0x800000000000
        EXPECT 13, 0, mov [rax], al             ; not canonical
        mov rbp, rax
        NOT_ON_TCG
        EXPECT 12, 0, mov [rbp], al             ; by the stack segment: #SS
        END_NOT_ON_TCG
        mov eax, 0x1000
        EXPECT 13, 0x1000, mov ds, ax           ; beyond the limit of the GDT
        mov eax, 0x1004
        EXPECT 13, 0x1004, mov ds, ax           ; in the LDT, which is null
        mov eax, NOTPRESENT
        EXPECT 11, NOTPRESENT, mov ds, ax
        EXPECT 12, NOTPRESENT, mov ss, ax
        mov eax, TASK
        EXPECT 13, TASK, mov es, ax             ; a system segment
        mov eax, USERDATA
        EXPECT 13, USERDATA & ~3, mov ss, ax    ; RPL is not CPL
        EXPECT 13, TASK, ltr word [task_selector]           ; busy
        xor eax, eax
        mov ds, ax                              ; null is fine in DS
        NOT_ON_TCG
        mov rax, cr4
        bts rax, 31
        EXPECT 13, 0, mov cr4, rax              ; a reserved bit
        mov rax, cr0
        btr rax, 0
        EXPECT 13, 0, mov cr0, rax              ; PG without PE
        mov ecx, 0x12345678
        EXPECT 13, 0, rdmsr
        mov ecx, 0xc0000082
        mov edx, 0x00800000
        EXPECT 13, 0, wrmsr                     ; LSTAR must be canonical
        END_NOT_ON_TCG
        mov rax, 0x800000000000
        EXPECT 13, 0, jmp rax

        ; gates
        NOT_ON_TCG                              ; it multiplies the vector by 16
        and byte [idt + 0x90 * 16 + 5], 0x7f
        EXPECT 11, 0x90 * 8 + 2, int 0x90
        and byte [idt + 0x91 * 16 + 5], 0
        or byte [idt + 0x91 * 16 + 5], 0x82     ; not a gate of 64-bit mode
        EXPECT 13, 0x91 * 8 + 2, int 0x91
        END_NOT_ON_TCG

        ; from CPL 3
        COPY_USER 0, user_hlt, user_hlt.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 13, 0
        CHECK_EQUAL qword [seen_cs], USER64
        CHECK_EQUAL qword [seen_rip], USER_PAGE
        COPY_USER 0, user_int, user_int.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 0x80, 0
        CHECK_EQUAL qword [seen_rip], USER_PAGE + 2
        lea rax, [interrupt_stack_top - 72]     ; TSS.RSP0
        CHECK_EQUAL qword [seen_stack], rax
        NOT_ON_TCG
        COPY_USER 0, user_int_kernel, user_int_kernel.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 13, 0x81 * 8 + 2             ; the gate's DPL is 0
        END_NOT_ON_TCG
        COPY_USER 0, user_in, user_in.end
        EXPECT_BEGIN
        ENTER_USER 0
        EXPECT_END 13, 0                        ; IOPL 0, no bitmap

        ; alignment check, at CPL 3 only
        NOT_ON_TCG
        CHANGE_CR cr0, 0, 1 << 18
        push 0x40002
        popfq
        mov eax, [seen_vector + 1]
        push 2
        popfq
        COPY_USER 0, user_unaligned, user_unaligned.end
        EXPECT_BEGIN
        push USERDATA
        push USER_STACK
        push 0x40002
        push USER64
        push USER_PAGE
        iretq
        EXPECT_END 17, 0
        END_NOT_ON_TCG

        ; IST and the double fault
        mov byte [idt + 6 * 16 + 4], 1
        EXPECT 6, 0, ud2
        lea rax, [ist1_top - 72]
        CHECK_EQUAL qword [seen_stack], rax
        mov byte [idt + 6 * 16 + 4], 0
        mov byte [idt + 8 * 16 + 4], 2
        and byte [idt + 13 * 16 + 5], 0x7f      ; #GP cannot be delivered: #NP
        mov rax, 0x800000000000
        EXPECT 8, 0, mov [rax], al
        lea rax, [ist2_top - 72]
        CHECK_EQUAL qword [seen_stack], rax
        or byte [idt + 13 * 16 + 5], 0x80
        EXPECT_BEGIN                            ; no stack to deliver #UD on
        mov rsp, 0x800000000000
        ud2
        EXPECT_END 8, 0

        ; an interrupt delivery beyond the IDT's limit
        NOT_ON_TCG
        lidt [short_idt]
        EXPECT 13, 0x50 * 8 + 2, int 0x50
        lidt [idt_pointer]
        END_NOT_ON_TCG
        ret

user_hlt:
        hlt
.end:
user_int:
        int 0x80
.end:
user_int_kernel:
        int 0x81
.end:
user_in:
        in al, 0x80
.end:
user_unaligned:
        mov eax, [rel user_unaligned + 0x101]
        hlt
.end:

section .data
task_selector: dw TASK
short_idt: dw 0x50 * 16 - 1
        dq idt
