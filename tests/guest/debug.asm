; Debug exceptions: single step, breakpoints, DR6 and DR7 (SDM 3B 17.2, 17.3).
%include "lib.inc"

BS equ 1 << 14
BD equ 1 << 13

; DR7: local breakpoint n with these R/W and LEN fields.
%define WATCH(n, rw, len) (1 << (2 * (n)) | (rw) << (16 + 4 * (n)) | (len) << (18 + 4 * (n)))
ON_RUN   equ 0
ON_WRITE equ 1
ON_IO    equ 2
ON_ACCESS equ 3

%macro SET_DR 2
        mov rax, %2
        mov %1, rax
%endmacro

; DR6 has exactly these of its status bits; clears them.
%macro CHECK_DR6 1.nolist
        mov rax, dr6
        and eax, 0xe00f
        CHECK_EQUAL eax, %1
        SET_DR dr6, 0
%endmacro

; Run what follows up to STEPS_END stepwise: the handler counts.
%macro STEPS_BEGIN 0
        mov qword [steps], 0
        mov qword [handler], count_step
        pushfq
        or qword [rsp], 0x100
        popfq
%endmacro
%macro STEPS_END 1.nolist
        pushfq
        and qword [rsp], ~0x100
        popfq
        mov qword [handler], 0
        CHECK_EQUAL qword [steps], (%1) + 3
%endmacro

main:
        SET_DR dr6, 0
        mov rax, dr6
        CHECK_EQUAL eax, 0xffff0ff0
        SET_DR dr7, 0
        mov rax, dr7
        CHECK_EQUAL eax, 0x400

        STEPS_BEGIN
        nop
        xor ecx, ecx
        STEPS_END 2
        CHECK_DR6 BS
        STEPS_BEGIN
        nop
        jmp .over
        nop
.over:  call .routine
        STEPS_END 4
        mov rsi, text_passed            ; each iteration is a step
        mov rdi, FREE_PAGE
        mov ecx, 5
        STEPS_BEGIN
        rep movsb
        STEPS_END 5
        mov ax, ss
        STEPS_BEGIN
        mov ss, ax                      ; holds the trap back for one instruction
        nop
        STEPS_END 1
        SET_DR dr6, 0
        ; the handler runs without TF; the pushed image has it
        mov qword [handler], note_flags
        pushfq
        or qword [rsp], 0x100
        popfq
        nop
        mov qword [handler], 0
        test dword [step_flags], 0x100
        CHECK z
        test dword [seen_flags], 0x100
        CHECK nz
        ; IRET that sets TF steps after the next instruction
        SET_DR dr6, 0
        EXPECT_BEGIN
        push DATA
        push stack_top - 512
        push 0x102
        push CODE64
        lea rax, [.stepped]
        push rax
        iretq
.stepped:
        nop
.after_step:
        nop
        EXPECT_END 1, 0
        lea rax, [.after_step]
        CHECK_EQUAL qword [seen_rip], rax
        CHECK_DR6 BS

        ; data breakpoints are traps after the access
        SET_DR dr0, watched
        SET_DR dr7, WATCH(0, ON_WRITE, 3)
        mov eax, [watched]
        EXPECT_BEGIN
        mov dword [watched + 3], 1
.after_write:
        nop
        EXPECT_END 1, 0
        lea rax, [.after_write]
        CHECK_EQUAL qword [seen_rip], rax
        CHECK_EQUAL dword [watched + 3], 1
        CHECK_DR6 1
        mov dword [watched + 4], 2      ; next to it
        SET_DR dr7, WATCH(0, ON_ACCESS, 0)
        EXPECT 1, 0, mov al, [watched]
        CHECK_DR6 1
        EXPECT 1, 0, inc qword [watched - 7]
        CHECK_DR6 1
        mov al, [watched + 1]
        SET_DR dr0, watched
        SET_DR dr7, WATCH(0, ON_WRITE, 2)       ; eight bytes
        EXPECT 1, 0, mov [watched + 7], al
        CHECK_DR6 1
        ; disabled ones do nothing
        SET_DR dr7, 0
        mov [watched], al
        CHECK_DR6 0

        ; instruction breakpoints are faults; RF steps over them
        lea rax, [.broken]
        mov dr1, rax
        SET_DR dr7, WATCH(1, ON_RUN, 0)
        xor ecx, ecx
        EXPECT_BEGIN
        nop
.broken:
        inc ecx
        EXPECT_END 1, 0
        CHECK_EQUAL ecx, 0
        lea rax, [.broken]
        CHECK_EQUAL qword [seen_rip], rax
        CHECK_DR6 2
        push DATA
        push stack_top - 512
        push 0x10002
        push CODE64
        lea rax, [.resumed]
        mov dr1, rax
        push rax
        iretq
.resumed:
        inc ecx
        CHECK_EQUAL ecx, 1
        mov rsp, stack_top - 8
        SET_DR dr7, 0

        ; general detect
        SET_DR dr7, 1 << 13
        NOT_ON_TCG
        EXPECT 1, 0, mov rax, dr0
        mov rax, dr7
        test eax, 1 << 13               ; delivery cleared it
        CHECK z
        CHECK_DR6 BD
        END_NOT_ON_TCG
        SET_DR dr7, 0

        ; DR4 and DR5 are DR6 and DR7, until CR4.DE
        SET_DR dr6, 0
        db 0x0f, 0x21, 0xe0             ; MOV RAX, DR4
        CHECK_EQUAL eax, 0xffff0ff0
        CHANGE_CR cr4, 0, 8
        EXPECT 6, 0, db 0x0f, 0x21, 0xe0
        ; I/O breakpoints
        NOT_ON_TCG
        SET_DR dr2, 0x80
        SET_DR dr7, WATCH(2, ON_IO, 0)
        EXPECT 1, 0, out 0x80, al
        CHECK_DR6 4
        out 0x81, al
        END_NOT_ON_TCG
        SET_DR dr7, 0
        CHANGE_CR cr4, 8, 0
        mov rax, 1 << 32
        NOT_ON_TCG
        EXPECT 13, 0, mov dr7, rax
        END_NOT_ON_TCG

        ; ICEBP traps
        NOT_ON_TCG
        EXPECT_BEGIN
        db 0xf1
.after_icebp:
        nop
        EXPECT_END 1, 0
        lea rax, [.after_icebp]
        CHECK_EQUAL qword [seen_rip], rax
        END_NOT_ON_TCG
        jmp pass
.routine:
        ret

count_step:
        inc qword [steps]
        ret
note_flags:
        pushfq
        pop qword [step_flags]
        and qword [rsp + 8 + 16 + 16 + 16], ~0x100      ; no further steps
        ret

section .data
align 16
        dq 0
watched: dq 0, 0
steps: dq 0
step_flags: dq 0
