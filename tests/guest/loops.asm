; Loops in loops whose addresses lay in one page when they became hot, or so far from each
; other; then they do not. Pages that follow each other lie elsewhere in memory, so that who reaches
; for one by way of another finds something else.
%include "lib.inc"

BASE     equ 0x4000000000               ; PAGES pages, backed by frames in reverse
PAGES    equ 16
TABLE_PD equ FREE_PAGE
TABLE_PT equ FREE_PAGE + 0x1000
LAYOUT   equ FREE_PAGE + 0x2000         ; where from the base things are, see nest
SAVED    equ LAYOUT + 0x80              ; RSP
LEFT     equ LAYOUT + 0x88              ; rounds
FRAMES   equ FREE_PAGE + 0x10000
SHADOW   equ FREE_PAGE + 0x30000        ; the same, in order
ROUNDS   equ 8000                       ; enough to be hot

POSITION equ LAYOUT                     ; three numbers for each of five
BESIDE   equ LAYOUT + 8                 ; from there to another of the three
SPEED    equ LAYOUT + 16
MASS     equ LAYOUT + 24
FRAME    equ LAYOUT + 32                ; 0x28 bytes

; With everything from rdi on. %1: in the inner loop, first.
%macro NEST 1
        mov [abs SAVED], rsp
        xor r9d, r9d
%%round:
        mov r15, [abs POSITION]
        add r15, rdi
        mov r10, [abs BESIDE]
        add r10, r15
        mov r11, [abs MASS]
        add r11, rdi
        mov rdx, [abs SPEED]
        add rdx, rdi
        mov rsp, [abs FRAME]
        add rsp, rdi
        mov r13, r15
        mov rsi, r11
        mov ecx, 1
        xor r8d, r8d
%%outer:
        mov rbp, rdx
        add rdx, 24
        add r8, 24
        mov [rsp], r8
        mov r12, r8
        mov rbx, rdx
        mov r14, rcx
        mov [rsp + 8], rcx
%%inner:
        %1
        mov rax, [r13]
        add rax, [r15 + r12]
        mov [rsp + 0x20], rax
        sub rax, [r10 + r12]
        xor rax, [r11 + r14 * 8]
        add rax, [r10 + r12 + 8]
        sub rax, [r11 + r14 * 8 - 4]
        add rax, [rsi]
        add [rbp], rax
        sub [rbx + 8], rax
        add rax, [rsp + 0x20]
        add rax, [rsp + 0x320]          ; too far to be in the frame
        xor rax, [rsp - 0x210]
        add [rbp + 16], rax
        add [rbx], rax
        lea r9, [r9 + rax]
        add r14, 1
        add rbx, 24
        add r12, 24
        cmp r14d, 5
        jne %%inner
        add rsi, 8
        add r13, 24
        mov rcx, [rsp + 8]
        mov r8, [rsp]
        add rcx, 1
        cmp rcx, 5
        jne %%outer
        dec dword [abs LEFT]
        jnz %%round
        mov rsp, [abs SAVED]
        xor [r15], r9
        ret
%endmacro

nest:   NEST {}
plain:  NEST {cld}                      ; there are no checks ahead, nor frames

; Things lie there now. Round %6 times, and compare.
%macro LIE 6.nolist
        %assign check_line __?LINE?__
        mov qword [abs POSITION], %1
        mov qword [abs BESIDE], %2
        mov qword [abs SPEED], %3
        mov qword [abs MASS], %4
        mov qword [abs FRAME], %5
        mov dword [abs LEFT], %6
        mov rdi, BASE
        call nest
        mov dword [abs LEFT], %6
        mov edi, SHADOW
        call plain
        call compare
        EQUAL eax, 0
%endmacro

; In eax how many bytes differ.
compare:
        xor eax, eax
        xor ecx, ecx
.next:  mov edx, ecx
        xor edx, (PAGES - 1) << 12
        mov bl, [FRAMES + rdx]
        cmp bl, [SHADOW + rcx]
        setne bl
        movzx ebx, bl
        add eax, ebx
        inc ecx
        cmp ecx, PAGES << 12
        jne .next
        ret

; The same in both.
fill:   xor ecx, ecx
        mov eax, 0x12345678
.next:  imul eax, eax, 0x41c64e6d
        add eax, 12345
        mov edx, ecx
        xor edx, (PAGES - 1) << 12
        mov [FRAMES + rdx], eax
        mov [SHADOW + rcx], eax
        add ecx, 4
        cmp ecx, PAGES << 12
        jne .next
        ret

main:   mov qword [abs pdpt + 256 * 8], TABLE_PD + 7
        mov qword [abs TABLE_PD], TABLE_PT + 7
%assign n 0
%rep PAGES
        mov qword [abs TABLE_PT + n * 8], FRAMES + (PAGES - 1 - n) * 0x1000 + 3
%assign n n + 1
%endrep
        call fill
        LIE 0x300, 16, 0x500, 0x700, 0x900, ROUNDS
        call ways
        ; In two pages and more, until it is given up to look for them in one.
        LIE 0x1300, 16, 0x500, 0x700, 0x900, ROUNDS
        LIE 0x300, 16, 0x500, 0x700, 0x4ff0, ROUNDS
        call ways
        ; Hot where they are apart.
        LIE 0x1300, 16, 0x2500, 0x3700, 0x4100, ROUNDS
        call ways

        call all
        mov rdx, ALL
        CHECK_EQUAL rax, rdx
        call faults
        ret

; All registers, two of them less than the others: these make room for addresses. They are
; read after something else was there, and written without being read.
ALL     equ 0xf0fd5baacab384f6
all:    mov [abs SAVED], rsp
        mov rbx, BASE + 0x800
%assign n 0
%rep 8
        mov qword [rbx + n * 8], 0x1234567 * (n + 3)
%assign n n + 1
%endrep
        mov r9, 1
        mov r12, 2
        mov rdx, 3
        mov rsi, 4
        mov rdi, 5
        mov rbp, 6
        mov r8, 7
        mov r10, 8
        mov r11, 9
        mov r13, 10
        mov r14, 11
        mov r15, 12
        mov rax, 13
        mov ecx, 20000
        xor esp, esp
.next:
        mov rax, [rbx]
        add r9, rax
        mov rdx, [rbx + 8]
        xor r12, r9
        add [rbx + 16], rdx
        add rdi, r12
        test al, 1
        jz .even
        add rsi, r9
.even: add r10, r9
        add [rbx + 32], rax
        mov r9, [rbx + 24]
        mov r12, rdi
        add r12, rax
        add r12, rdx
        add [rbx + 24], r12
        add rsi, rax
        xor rsi, rsp
        add rdi, rsi
        xor rdi, rdx
        add rbp, rdi
        xor rbp, rax
        add r8, rbp
        xor r8, rsi
        add r10, r8
        xor r10, rdi
        add r11, r10
        xor r11, rbp
        add r13, r11
        xor r13, r8
        add r14, r13
        xor r14, r10
        add r15, r14
        xor r15, r11
        add rsp, r15
        xor rsp, r13
        add rdx, rsp
        xor rdx, r14
        add rax, rdx
        xor rax, r15
        add rsi, r11
        add rdi, r13
        add rbp, r14
        add r8, r15
        add r10, rsp
        add r11, rdx
        add r13, rax
        add r14, rsi
        add r15, rdi
        add rsp, rbp
        add rdx, r8
        add rax, r10
        cld                             ; which is no part of turns without checks
        dec ecx
        jnz .next
        mov rax, rsp
        mov rsp, [abs SAVED]
%assign n 0
%rep 8
        rol rax, 7
        add rax, [rbx + n * 8]
%assign n n + 1
%endrep
        rol rax, 7
        add rax, r9
        rol rax, 7
        add rax, r12
        rol rax, 7
        add rax, r15
        ret

; And one that is to be written has its old value when that faults.
%macro FAULTS 1.nolist
        %assign check_line __?LINE?__
        mov rax, BASE + PAGES * 0x1000
        mov r9, 0x1111
        mov r12, 0x2222
        BEGIN
        jmp %%there
%%there:
%rep 5
        lea r10, [r10 + r11 + 1]
        lea r11, [r11 + r13 + 1]
        lea r13, [r13 + r14 + 1]
        lea r14, [r14 + r15 + 1]
        lea r15, [r15 + rbp + 1]
        lea rbp, [rbp + rdx + 1]
        lea rdx, [rdx + rdi + 1]
        lea rdi, [rdi + rbx + 1]
        lea rbx, [rbx + rsi + 1]
        lea rsi, [rsi + r8 + 1]
        lea r8, [r8 + rax]
%endrep
        add r9, r12
        add r12, r9
        add rdx, [rsp - 64]             ; which has its address where they were
        %1
        END 14, 0
        EQUAL r9, 0x3333
        EQUAL r12, 0x5555
%endmacro

faults: FAULTS {mov r9, [rax]}
        FAULTS {mov r12, [rax]}
        FAULTS {movzx r9d, byte [rax]}
        ret

ways:   LIE 0x300, 8, 0x500, 0x700, 0x900, 2            ; another of the three, or none of them
        LIE 0x300, 0x1008, 0x500, 0x700, 0x900, 2
        LIE 0x1300, 16, 0x500, 0x700, 0x900, 2          ; one in another page
        LIE 0x300, 16, 0x1500, 0x700, 0x900, 2
        LIE 0x300, 16, 0x500, 0x1700, 0x900, 2
        LIE 0x300, 16, 0x500, 0x700, 0x1900, 2
        LIE 0x300, 16, 0x500, 0x700, 0x6ff0, 2          ; at the end of a page
        LIE 0x300, 16, 0x500, 0x700, 0x6ff8, 2
        LIE 0x300, 16, 0x500, 0x700, 0x6fd4, 2
        LIE 0x5fc0, 16, 0x5500, 0x5700, 0x5100, 2
        LIE 0x5fa0, 16, 0x5500, 0x5700, 0x5100, 2
        LIE 0x5300, 16, 0x5fb0, 0x5700, 0x5100, 2
        LIE 0x5300, 16, 0x5fd8, 0x5700, 0x5100, 2
        LIE 0x5300, 16, 0x5ff4, 0x5700, 0x5100, 2
        LIE 0x5300, 16, 0x5500, 0x5fe0, 0x5100, 2
        LIE 0x5300, 16, 0x5500, 0x5fdc, 0x5100, 2
        LIE 0x5000, 16, 0x5100, 0x5200, 0x5300, 2       ; and at its beginning
        LIE 0x300, 16, 0x500, 0x700, 0x900, 2
        LIE 0x6300, 16, 0x6500, 0x6700, 0x6ce0, 2       ; what is far from it in another
        LIE 0x6300, 16, 0x6500, 0x6700, 0x6cd9, 2
        LIE 0x7300, 16, 0x7500, 0x7700, 0x7000, 2
        LIE 0x7300, 16, 0x7500, 0x7700, 0x720c, 2
        ret
