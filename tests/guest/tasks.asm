; Hardware task switches between 32-bit TSSs (SDM 3A 7): by JMP, CALL, IRET, a
; task gate and an interrupt through one; their state and their errors.
%include "lib32.inc"

GATE_GDT equ ENTRY1             ; a task gate in the GDT
TASK3    equ ENTRY2

; Fields of a TSS
%define TSS(field) task2 + field
LINK equ 0
ESP0 equ 4
CR3_ equ 28
EIP_ equ 32
FLAGS equ 36
EAX_ equ 40
ECX_ equ 44
ESP_ equ 56
ES_  equ 72
CS_  equ 76
SS_  equ 80
DS_  equ 84
FS_  equ 88
GS_  equ 92
LDT_ equ 96
TRAP equ 100

; The second task afresh, to start at label.
%macro TASK_AT 1
        mov esi, %1
        call prepare
%endmacro

main32:
        GATE gdt + GATE_GDT, TASK2, 0, 0x85

        ; CALL: nested, linked, and back by IRET
        TASK_AT task_call
        mov ecx, 0x1234
        mov esi, 0x5678
        call TASK2:0
        CHECK_EQUAL ecx, 0x1234                 ; registers came back
        CHECK_EQUAL esi, 0x5678
        CHECK_EQUAL dword [seen_in_task], 0xabcd
        CHECK_EQUAL word [TSS(LINK)], TASK32
        test dword [task_flags], 0x4000         ; NT
        CHECK nz
        pushfd
        pop eax
        test eax, 0x4000
        CHECK z
        mov eax, cr0
        test al, 8                              ; TS
        CHECK nz
        clts
        CHECK_EQUAL byte [gdt + TASK2 + 5], 0x89        ; no longer busy
        CHECK_EQUAL byte [gdt + TASK32 + 5], 0x8b
        CHECK_EQUAL byte [busy_of_first], 0x8b  ; the caller stayed busy
        test dword [TSS(FLAGS)], 0x4000         ; IRET clears NT in what it saves
        CHECK z
        CHECK_EQUAL dword [TSS(ECX_)], 0x4321
        str ax
        CHECK_EQUAL ax, TASK32

        ; again: the task goes on where it left off
        mov dword [seen_in_task], 0
        call TASK2:0
        CHECK_EQUAL dword [seen_in_task], 0xdcba

        ; JMP: not nested, the old task is free
        TASK_AT task_jump
        jmp TASK2:0
        CHECK_EQUAL dword [seen_in_task], 0x1357
        CHECK_EQUAL byte [busy_of_first], 0x89
        test dword [task_flags], 0x4000
        CHECK z
        CHECK_EQUAL byte [gdt + TASK2 + 5], 0x89

        ; a task gate
        TASK_AT task_call
        mov dword [seen_in_task], 0
        call GATE_GDT:0
        CHECK_EQUAL dword [seen_in_task], 0xabcd

        ; an interrupt and a fault through task gates
        GATE idt32 + 0x40 * 8, TASK2, 0, 0x85
        TASK_AT task_call
        mov dword [seen_in_task], 0
        int 0x40
        CHECK_EQUAL dword [seen_in_task], 0xabcd
        GATE idt32 + 13 * 8, TASK2, 0, 0x85
        TASK_AT task_fault
        mov dword [seen_in_task], 0
        mov ebx, 0x1000
        mov gs, bx                              ; #GP(0x1000); the task skips it
        CHECK_EQUAL dword [seen_in_task], 0x1000
        GATE idt32 + 13 * 8, CODE32, stubs32 + 13 * 16, 0x8e

        ; the debug trap of T
        TASK_AT task_call
        mov word [TSS(TRAP)], 1
        NOT_ON_TCG
        EXPECT_BEGIN
        call TASK2:0
        EXPECT_END 1, 0
        mov eax, dr6
        test eax, 1 << 15                       ; BT
        CHECK nz
        str ax
        CHECK_EQUAL ax, TASK2                   ; in the new task
        call reload
        END_NOT_ON_TCG

        ; errors that the first task sees
        TASK_AT task_call
        or byte [gdt + TASK2 + 5], 2
        EXPECT 13, TASK2, call TASK2:0          ; busy
        TASK_AT task_call
        and byte [gdt + TASK2 + 5], 0x7f
        EXPECT 11, TASK2, call TASK2:0          ; not present
        EXPECT 11, TASK2, call GATE_GDT:0
        TASK_AT task_call
        mov word [gdt + TASK2], 0x66
        NOT_ON_TCG
        EXPECT 10, TASK2, call TASK2:0          ; too short
        END_NOT_ON_TCG
        ; errors of the second task's state: it is the current one then, and
        ; the exception needs a task of its own
%macro BAD_STATE 4.nolist
        TASK_AT task_call
        mov word [TSS(%1)], %2
        GATE idt32 + %3 * 8, TASK3, 0, 0x85
        mov esi, task_exception
        mov edi, task3
        call fill_task
        DESCRIPTOR TASK3, task3, 0x67, 0x89
        mov dword [seen_in_task], -1
        call TASK2:0
        clts
        CHECK_EQUAL dword [seen_in_task], %4
        CHECK_EQUAL word [task3 + LINK], TASK2
        GATE idt32 + %3 * 8, CODE32, stubs32 + %3 * 16, 0x8e
%endmacro
        BAD_STATE SS_, USERDATA, 10, USERDATA & ~3
        BAD_STATE SS_, 0, 10, 0
        NOT_ON_TCG                              ; it has #NP for the stack too
        BAD_STATE SS_, NOTPRESENT, 12, NOTPRESENT
        END_NOT_ON_TCG
        BAD_STATE CS_, DATA, 10, DATA
        BAD_STATE DS_, TASK32, 10, TASK32
        BAD_STATE DS_, NOTPRESENT, 11, NOTPRESENT
        BAD_STATE LDT_, DATA, 10, DATA

        ; an IRET with NT set and a bad link
        TASK_AT task_call
        mov word [tss32], DATA
        EXPECT_BEGIN
        pushfd
        or dword [esp], 0x4000
        popfd
        iretd
        EXPECT_END 10, DATA
        ret

; A fresh TSS at task2, for a task that starts at esi.
prepare:
        push eax
        push ecx
        push edi
        mov edi, task2
        call fill_task
        DESCRIPTOR TASK2, task2, 0x67, 0x89
        pop edi
        pop ecx
        pop eax
        ret

; The same at edi, without a descriptor.
fill_task:
        push edi
        mov ecx, 26
        xor eax, eax
        rep stosd
        pop edi
        mov [edi + EIP_], esi
        mov dword [edi + FLAGS], 2
        mov dword [edi + ECX_], 0x4321
        mov dword [edi + ESP_], interrupt_stack_top - 1024
        mov word [edi + CS_], CODE32
        mov word [edi + SS_], DATA
        mov word [edi + DS_], DATA
        mov word [edi + ES_], DATA
        ret

; Make the first task the current one again, after a switch that failed late.
reload: mov byte [gdt + TASK32 + 5], 0x89
        mov eax, TASK32
        ltr ax
        xor eax, eax
        lldt ax
        clts
        mov eax, DATA
        mov ds, eax
        mov es, eax
        ret

task_call:
        pushfd
        pop dword [task_flags]
        cmp ecx, 0x4321
        jne .bad
        mov dword [seen_in_task], 0xabcd
        mov al, [gdt + TASK32 + 5]
        mov [busy_of_first], al
.bad:   iretd
        mov dword [seen_in_task], 0xdcba
        iretd

task_jump:
        pushfd
        pop dword [task_flags]
        mov dword [seen_in_task], 0x1357
        mov al, [gdt + TASK32 + 5]
        mov [busy_of_first], al
        jmp TASK32:0

; An exception of the second task: note the error code, go on in the first.
task_exception:
        pop dword [seen_in_task]
        and byte [gdt + TASK32 + 5], ~2
        jmp TASK32:0

; The error code is on this task's stack; step over MOV GS, BX.
task_fault:
        pop dword [seen_in_task]
        add dword [tss32 + EIP_], 2
        iretd

section .data
align 16
task2:  times 26 dd 0
task3:  times 26 dd 0
seen_in_task: dd 0
task_flags:   dd 0
busy_of_first: db 0
