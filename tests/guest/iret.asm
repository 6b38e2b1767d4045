; IRETQ, again and again: what it loads, and that it looks at the frame, the flags and the
; descriptors each time, however often the same pair of selectors was good (SDM 2A, SDM 3A
; 5.8.1, 6.14).
%include "lib.inc"

ROUNDS equ 12

; A frame for IRETQ: SS, RSP, RFLAGS, CS, RIP.
%macro FRAME 5
        mov rax, %2
        push %1
        push rax
        push %3
        push %4
        mov rax, %5
        push rax
%endmacro

main:   call to_kernel
        call to_user
        call with_flags
        call bad_frames
        call changed_descriptors
        call other_table
        ret

; With a stack segment, and with none, which only CPL 0 may have.
to_kernel:
        mov ebx, ROUNDS
.again: mov rbp, rsp
        FRAME DATA, rbp, 0x8d7, CODE64, .there
        mov rax, 0x1111222233334444
        mov rcx, 0x5555666677778888
        mov rdx, 0x99990000aaaabbbb
        mov r10, 0xccccddddeeeeffff
        mov r11, 0x0123456789abcdef
        iretq
        mov rsi, .never
        jmp fail
.there: pushfq
        pop r8
        CHECK_EQUAL rsp, rbp
        CHECK_EQUAL r8d, 0x8d7
        mov r9, 0x1111222233334444
        CHECK_EQUAL rax, r9
        mov r9, 0x5555666677778888
        CHECK_EQUAL rcx, r9
        mov r9, 0x99990000aaaabbbb
        CHECK_EQUAL rdx, r9
        mov r9, 0xccccddddeeeeffff
        CHECK_EQUAL r10, r9
        mov r9, 0x0123456789abcdef
        CHECK_EQUAL r11, r9
        mov ax, ss
        CHECK_EQUAL ax, DATA
        FRAME 0, rbp, 2, CODE64, .null
        iretq
.null:  pushfq
        pop r8
        mov ax, ss
        CHECK_EQUAL ax, 0
        CHECK_EQUAL r8d, 2
        mov eax, DATA
        mov ss, eax
        dec ebx
        jnz .again
        ret
.never: db "IRETQ went on to the next instruction", 0

; User code sees the registers, and none of the data segments of CPL 0.
to_user:
        COPY_USER 0, user_code, user_code.end
        mov ebx, ROUNDS
.again: xor eax, eax
        test bl, 1
        mov ecx, DATA
        cmovnz eax, ecx
        mov ds, eax
        mov es, eax
        EXPECT_BEGIN
        FRAME USERDATA, USER_STACK, 0x8d7, USER64, USER_PAGE
        iretq
        EXPECT_END 0x80, 0
        CHECK_EQUAL word [seen_cs], USER64
        CHECK_EQUAL qword [seen_rsp], USER_STACK
        CHECK_EQUAL qword [seen_rip], USER_PAGE + user_code.end - user_code
        mov rax, [seen_flags]
        CHECK_EQUAL eax, 0x8d7
        mov ax, ds
        CHECK_EQUAL ax, 0
        mov ax, es
        CHECK_EQUAL ax, 0
        dec ebx
        jnz .again
        mov eax, DATA
        mov ss, eax
        ret

; Of all bits, those that IRETQ of CPL 0 loads.
with_flags:
        mov rbp, rsp
        FRAME DATA, rbp, 0x203cd7, CODE64, .there       ; ID, IOPL, DF, status
        iretq
.there: pushfq
        pop rax
        cld
        CHECK_EQUAL eax, 0x203cd7 & ~0x20028 | 2
        FRAME DATA, rbp, 0x30002, CODE64, .vm           ; RF and VM: neither stays
        iretq
.vm:    pushfq
        pop rax
        CHECK_EQUAL eax, 2
        FRAME DATA, rbp, 0x40002, CODE64, .ac
        iretq
.ac:    pushfq
        pop rax
        CHECK_EQUAL eax, 0x40002
        EXPECT_BEGIN                                    ; a nested task: none in long mode
        FRAME DATA, rbp, 0x4002, CODE64, .nested
        iretq
.nested:
        FRAME DATA, rbp, 2, CODE64, .nested
        iretq
        EXPECT_END 13, 0
        EXPECT_BEGIN                                    ; a single step
        FRAME DATA, rbp, 0x102, CODE64, .step
        iretq
.step:  nop
        nop
        EXPECT_END 1, 0
        mov rsp, rbp
        ret

bad_frames:
        mov rbp, rsp
        EXPECT_BEGIN                                    ; not canonical
        push DATA
        push rbp
        push 2
        push CODE64
        mov rax, 0x800000000000
        push rax
        iretq
        EXPECT_END 13, 0
        EXPECT_BEGIN                                    ; null
        FRAME DATA, rbp, 2, 0, .there
        iretq
        EXPECT_END 13, 0
        EXPECT_BEGIN
        FRAME DATA, rbp, 2, DATA, .there
        iretq
        EXPECT_END 13, DATA
        EXPECT_BEGIN
        FRAME USERDATA, rbp, 2, CODE64, .there
        iretq
        EXPECT_END 13, USERDATA & ~3
        EXPECT_BEGIN
        FRAME 0, rbp, 2, USER64, USER_PAGE
        iretq
        EXPECT_END 13, 0
        EXPECT_BEGIN
        FRAME 0, rbp, 2, 0xffff, .there                 ; in the LDT, of which there is none
        iretq
        EXPECT_END 13, 0xfffc
        mov rsp, FREE_PAGE + 0x1000 + 16                ; a frame in two pages
        FRAME DATA, rbp, 2, CODE64, .there
        mov ecx, [abs FREE_PAGE]
        iretq
.there: CHECK_EQUAL rsp, rbp
        ret

; SPARE is first another CODE64, SPARE + 8 another DATA.
changed_descriptors:
        mov rbp, rsp
        mov rax, [gdt + CODE64]
        mov [gdt + SPARE], rax
        mov rax, [gdt + DATA]
        mov [gdt + SPARE + 8], rax
        mov ebx, ROUNDS
.again: FRAME SPARE + 8, rbp, 2, SPARE, .there
        iretq
.there: mov ax, cs
        CHECK_EQUAL ax, SPARE
        dec ebx
        jnz .again
        btr qword [gdt + SPARE + 8], 47                 ; not present
        NOT_ON_TCG                                      ; where it is #NP
        EXPECT_BEGIN
        FRAME SPARE + 8, rbp, 2, SPARE, .there
        iretq
        EXPECT_END 12, SPARE + 8
        END_NOT_ON_TCG
        bts qword [gdt + SPARE + 8], 47
        btr qword [gdt + SPARE], 43                     ; no code any more
        EXPECT_BEGIN
        FRAME SPARE + 8, rbp, 2, SPARE, .there
        iretq
        EXPECT_END 13, SPARE
        bts qword [gdt + SPARE], 43
        btr qword [gdt + SPARE + 8], 40                 ; not accessed: it is marked again
        FRAME SPARE + 8, rbp, 2, SPARE, .marked
        iretq
.marked:
        NOT_ON_TCG
        bt qword [gdt + SPARE + 8], 40
        CHECK c
        END_NOT_ON_TCG
        FRAME DATA, rbp, 2, CODE64, .back
        iretq
.back:  mov ax, cs
        CHECK_EQUAL ax, CODE64
        ret

; A table at another address, whose DATA is beyond its limit, and then is not present.
other_table:
        mov rbp, rsp
        mov rsi, gdt
        mov rdi, FREE_PAGE
        mov ecx, gdt_end - gdt
        rep movsb
        mov ebx, ROUNDS
.again: FRAME DATA, rbp, 2, CODE64, .there
        iretq
.there: dec ebx
        jnz .again
        sub rsp, 16
        mov word [rsp], DATA - 1
        mov qword [rsp + 2], gdt
        lgdt [rsp]
        EXPECT_BEGIN
        FRAME DATA, rbp, 2, CODE64, .there
        iretq
        EXPECT_END 13, DATA
        btr qword [abs FREE_PAGE + DATA], 47
        mov word [rsp], gdt_end - gdt - 1
        mov qword [rsp + 2], FREE_PAGE
        lgdt [rsp]
        NOT_ON_TCG
        EXPECT_BEGIN
        FRAME DATA, rbp, 2, CODE64, .there
        iretq
        EXPECT_END 12, DATA
        END_NOT_ON_TCG
        lgdt [gdt_pointer]
        FRAME DATA, rbp, 2, CODE64, .back
        iretq
.back:  CHECK_EQUAL rsp, rbp
        ret

user_code:
        int 0x80
.end:
