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
        add rax, [rsi]
        add [rbp], rax
        sub [rbx + 8], rax
        add rax, [rsp + 0x20]
        add [rbp + 16], rax
        add [rbx], rax
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
        ret
%endmacro

nest:   NEST {}
plain:  NEST {mov r9, cr0}              ; there are no checks ahead, nor frames

; Things lie there now. Round %6 times, and compare.
%macro LIE 6
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
        LIE 0x300, 16, 0x500, 0x700, 0x100, ROUNDS
        call ways
        ; In two pages and more, until it is given up to look for them in one.
        LIE 0x1300, 16, 0x500, 0x700, 0x100, ROUNDS
        LIE 0x300, 16, 0x500, 0x700, 0x4ff0, ROUNDS
        call ways
        ; Hot where they are apart.
        LIE 0x1300, 16, 0x2500, 0x3700, 0x4100, ROUNDS
        call ways
        ret

ways:   LIE 0x300, 8, 0x500, 0x700, 0x100, 2            ; another of the three, or none of them
        LIE 0x300, 0x1008, 0x500, 0x700, 0x100, 2
        LIE 0x1300, 16, 0x500, 0x700, 0x100, 2          ; one in another page
        LIE 0x300, 16, 0x1500, 0x700, 0x100, 2
        LIE 0x300, 16, 0x500, 0x1700, 0x100, 2
        LIE 0x300, 16, 0x500, 0x700, 0x1100, 2
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
        LIE 0x300, 16, 0x500, 0x700, 0x100, 2
        ret
