; Ways that meet where each knows something else: where a pointer's page is in memory, and how
; far the pointer has gone since. Pages that follow each other lie elsewhere in memory, so that
; who reaches for one by way of another finds something else.
%include "lib.inc"

BASE     equ 0x4000000000               ; PAGES pages, backed by frames in reverse
PAGES    equ 4
TABLE_PD equ FREE_PAGE
TABLE_PT equ FREE_PAGE + 0x1000
SAVED    equ FREE_PAGE + 0x2000         ; RSP
FRAMES   equ FREE_PAGE + 0x10000
ROUNDS   equ 80                         ; enough for each to be hot
TURNS    equ 1000

; Each word of a page is its own number.
main:   mov qword [abs pdpt + 256 * 8], TABLE_PD + 7
        mov qword [abs TABLE_PD], TABLE_PT + 7
%assign n 0
%rep PAGES
        mov qword [abs TABLE_PT + n * 8], FRAMES + (PAGES - 1 - n) * 0x1000 + 3
%assign n n + 1
%endrep
        mov rdi, BASE
        xor eax, eax
.fill:  mov [rdi + rax * 8], rax
        inc eax
        cmp eax, PAGES * 512
        jne .fill
        mov r12d, ROUNDS
.again: call moved
        call left
        call pushed
        dec r12d
        jnz .again
        ret

; A pointer that goes on by one way only: what the check covered lies elsewhere on the other.
moved:  mov ebp, TURNS
.next:  mov rbx, BASE + 0x1000
        mov ecx, ebp
        and ecx, 1
        mov rax, [rbx]
        mov rdx, [rbx + 8]
        jnz .over
        add rbx, 8
.over:  mov rsi, [rbx - 8]
        mov edi, 512
        sub edi, ecx
        cmp rsi, rdi
        CHECK e
        cmp rax, 512
        CHECK e
        cmp rdx, 513
        CHECK e
        dec ebp
        jnz .next
        ret

; Out of a loop's turns to where only they lead. Others come first, so that turns without checks
; keep where this one is elsewhere.
left:   mov ebp, 200
        mov r8, BASE + 0x1100
        mov r9, BASE + 0x3100
.next:  mov rbx, BASE + 8
        mov rdi, BASE + 0x2100
        mov ecx, 100
        xor eax, eax
        xor edx, edx
        xor esi, esi
.turn:  mov rax, [rbx]
        xor r13, [r8]
        xor r13, [r9]
        add rdx, [rdi]
        cmp rax, rbp
        je .out
        add rbx, 8
        dec ecx
        jnz .turn
        jmp .end
.out:   mov rsi, [rdi]
        add rsi, rdx
.end:   mov eax, ebp
        imul eax, eax, 1024 + 32
        add eax, 1024 + 32
        cmp ebp, 100
        mov edi, 0
        cmova eax, edi
        CHECK_EQUAL rsi, rax
        dec ebp
        jnz .next
        ret

; Turns that come to a push now and then, where the stack's page was known before it.
pushed: mov [abs SAVED], rsp
        mov rsp, BASE + 0x2800
        mov rbx, BASE
        mov ecx, 512
        xor edx, edx
        xor esi, esi
.turn:  mov rax, [rbx]
        xor r13, [r8]
        xor r13, [r9]
        add rdx, [rsp + 8]
        test al, 7
        jnz .over
        push rax
        pop rdi
        add rsi, rdi
.over:  add rbx, 8
        dec ecx
        jnz .turn
        mov rsp, [abs SAVED]
        CHECK_EQUAL rdx, 512 * (1024 + 257)
        CHECK_EQUAL rsi, 8 * 64 * 63 / 2
        mov rdi, BASE + 0x27f8          ; what was pushed last
        CHECK_EQUAL qword [rdi], 504
        mov qword [rdi], 1024 + 255
        ret
