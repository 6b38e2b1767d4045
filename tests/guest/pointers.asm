; Code that runs often, which engines may treat otherwise than code that does not: chains of
; pointers through pages that lie anywhere, and loops with more in them than their usual way.
%include "lib.inc"

; Page n of BASE is backed by frame n, FRAME(n), in an order that is none.
BASE     equ 0x4000000000
TABLE_PD equ FREE_PAGE
TABLE_PT equ FREE_PAGE + 0x1000
FRAMES   equ FREE_PAGE + 0x10000
PAGES    equ 16
%define PAGE(n)  (BASE + (n) * 0x1000)
%define FRAME(n) (FRAMES + ((n) * 5 % PAGES) * 0x1000)
SPARE_FRAME equ FRAMES + PAGES * 0x1000

ROUNDS   equ 100000                     ; enough to be hot

main:
        mov qword [abs pdpt + 256 * 8], TABLE_PD + 7
        mov qword [abs TABLE_PD], TABLE_PT + 7
%assign n 0
%rep PAGES
        mov qword [abs TABLE_PT + n * 8], FRAME(n) + 7
        mov rax, PAGE((n + 1) % PAGES) + 64 ; each points to the next
        mov [abs FRAME(n) + 64], rax
        mov qword [abs FRAME(n) + 72], n
        mov word [abs FRAME(n) + 128], (n * 7 + 3) % PAGES
%assign n n + 1
%endrep
        CHANGE_CR cr0, 0, 1 << 16       ; WP
        call chain
        call chain
        call scattered
        call moved
        call withdrawn
        call ways
        ret

; Around the chain, adding what is in it up.
chain:  mov rbx, PAGE(0) + 64
        mov ecx, ROUNDS * PAGES
        xor edx, edx
.next:  add rdx, [rbx + 8]
        mov rbx, [rbx]
        dec ecx
        jnz .next
        mov rax, PAGE(0) + 64
        cmp rbx, rax
        CHECK e
        CHECK_EQUAL rdx, ROUNDS * PAGES * (PAGES - 1) / 2
        ret

; The same by an index that is read, from and to pages in turn.
scattered:
        mov rsi, PAGE(0) + 128
        mov ecx, ROUNDS * PAGES
        xor eax, eax
.next:  shl eax, 12
        inc dword [rsi + rax + 4]
        movzx eax, word [rsi + rax]
        dec ecx
        jnz .next
        mov ebx, [abs FRAME(0) + 132]
        test ebx, ebx
        CHECK ne
        xor edx, edx
%assign n 0
%rep PAGES
        add edx, [abs FRAME(n) + 132]
%assign n n + 1
%endrep
        CHECK_EQUAL edx, ROUNDS * PAGES
        ret

; A page of the chain is another frame all of a sudden, in the midst of it.
moved:  mov rdi, SPARE_FRAME
        mov rax, PAGE(6) + 64
        mov [rdi + 64], rax
        mov qword [rdi + 72], 1000
        mov rbx, PAGE(0) + 64
        mov r8, PAGE(5)
        mov ecx, ROUNDS
        xor edx, edx
.next:  cmp ecx, ROUNDS / 2
        jne .go
        mov qword [abs TABLE_PT + 5 * 8], SPARE_FRAME + 7
        invlpg [r8]
.go:    mov r9d, PAGES
.page:  add rdx, [rbx + 8]
        mov rbx, [rbx]
        dec r9d
        jnz .page
        dec ecx
        jnz .next
        CHECK_EQUAL rdx, ROUNDS * (PAGES * (PAGES - 1) / 2 - 5) + ROUNDS / 2 * 1005
        mov qword [abs TABLE_PT + 5 * 8], FRAME(5) + 7
        invlpg [r8]
        ret

; A write through a pointer that was read: the right to it is withdrawn meanwhile.
withdrawn:
        mov rbx, PAGE(0) + 64
        mov r8, PAGE(9)
        mov ecx, ROUNDS
        EXPECT_BEGIN
.next:  cmp ecx, 100
        jne .page
        mov qword [abs TABLE_PT + 9 * 8], FRAME(9) + 5
        invlpg [r8]
.page:  mov [rbx + 16], ecx
        mov rbx, [rbx]
        dec ecx
        jnz .next
        EXPECT_END 14, 3
        mov rax, PAGE(9) + 64 + 16
        cmp [seen_cr2], rax
        CHECK e
        cmp rbx, PAGE(9) + 64 - BASE    ; RBX is as the faulting instruction found it
        CHECK ne
        mov rax, PAGE(9) + 64
        cmp rbx, rax
        CHECK e
        cmp ecx, 100
        CHECK be
        mov qword [abs TABLE_PT + 9 * 8], FRAME(9) + 7
        invlpg [r8]
        ret

; A loop whose turns mostly do not come to what is in it: another loop, a call, a push.
ways:   mov rsi, PAGE(2)
        mov rdi, PAGE(3)
        mov dword [rsi + 256], 3
        mov dword [rsi + 260], 0
        mov dword [rdi + 256], 0
        mov ecx, ROUNDS
        xor edx, edx
.next:  mov eax, [rsi + 256]            ; stands still
        add edx, eax
        test cl, 7
        jnz .usual
        mov r9d, 5
.inner: add dword [rdi + 256], 1
        dec r9d
        jnz .inner
.usual: test cl, 63
        jnz .more
        call .called
        push rdx
        add [rsi + 260], eax
        pop rdx
.more:  add edx, [rsi + 256]
        cmp ecx, ROUNDS / 4
        jne .back
        mov dword [rsi + 256], 4
.back:  dec ecx
        jnz .next
        CHECK_EQUAL edx, ROUNDS * 6 + ROUNDS / 2 - 2
        CHECK_EQUAL dword [rdi + 256], ROUNDS / 8 * 5
        CHECK_EQUAL dword [rsi + 260], ROUNDS / 64 * 2
        ret
.called:
        mov eax, 2
        ret
