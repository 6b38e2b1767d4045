; Pages that a software TLB may keep in one place: a multiple of 256 MiB apart, used in
; turn. What goes for one must reach it wherever it is kept: INVLPG, a load of CR3, global
; and large pages, rights withdrawn, code that is written.
%include "lib.inc"

; Page n lies n times 256 MiB above BASE, backed by frame n.
BASE     equ 0x4000001000
STEP     equ 0x10000000
TABLE_PD equ FREE_PAGE                  ; one page directory, 128 entries to a page n
TABLE_PT equ FREE_PAGE + 0x1000         ; page table n
FRAMES   equ FREE_PAGE + 0x10000
PAGES    equ 4                          ; 1 GiB
%define PAGE(n)  (BASE + (n) * STEP)
%define FRAME(n) (FRAMES + (n) * 0x1000)
%define PTE(n)   (TABLE_PT + (n) * 0x1000 + 8)

P equ 1
W equ 2
A equ 0x20
D equ 0x40
PS equ 0x80
G equ 0x100

; Map page %1 to frame %2 with rights %3; nothing is flushed.
%macro MAP 3
        mov rax, FRAME(%2) | (%3)
        mov [abs PTE(%1)], rax
%endmacro

; The byte of page %1 must be %2.
%macro HOLDS 2
        mov rbx, PAGE(%1)
        CHECK_EQUAL byte [rbx], %2
%endmacro

; Use both pages, the second one last.
%macro USE 2
        mov rbx, PAGE(%1)
        mov rdx, PAGE(%2)
        mov al, [rbx]
        mov al, [rdx]
%endmacro

main:
        mov qword [abs pdpt + 256 * 8], TABLE_PD + 7
%assign n 0
%rep PAGES
        mov qword [abs TABLE_PD + n * 128 * 8], TABLE_PT + n * 0x1000 + 7
        mov byte [abs FRAME(n)], 0x10 + n
        MAP n, n, P | W
%assign n n + 1
%endrep
        mov byte [abs FRAME(4)], 0x14
        CHANGE_CR cr0, 0, 1 << 16       ; WP

        call turns
        call invalidation
        call rights
        call global_pages
        call large_pages
        jmp code

; In turn, two and three of them, for reading and writing.
turns:  mov ecx, 100
.next:  mov rbx, PAGE(0)
        mov rdx, PAGE(1)
        mov rsi, PAGE(2)
        inc dword [rbx + 8]
        add dword [rdx + 8], 2
        mov eax, [rbx + 8]
        lea eax, [rax + rax]
        cmp eax, [rdx + 8]
        CHECK e
        test cl, 3
        jnz .two
        inc dword [rsi + 8]
.two:   dec ecx
        jnz .next
        CHECK_EQUAL dword [abs FRAME(0) + 8], 100
        CHECK_EQUAL dword [abs FRAME(1) + 8], 200
        CHECK_EQUAL dword [abs FRAME(2) + 8], 25
        ret

; Page 0 is displaced by page 1, moves, and is flushed.
invalidation:
        USE 0, 1
        MAP 0, 4, P | W
        mov rbx, PAGE(0)
        invlpg [rbx]
        HOLDS 0, 0x14
        HOLDS 1, 0x11
        USE 0, 1
        MAP 0, 0, P | W
        mov rax, cr3
        mov cr3, rax
        HOLDS 0, 0x10
        USE 0, 1
        MAP 0, 4, P | W
        USE 1, 2                        ; whatever became of it meanwhile
        mov rbx, PAGE(0)
        invlpg [rbx]
        HOLDS 0, 0x14
        ; not present any more
        USE 0, 1
        mov qword [abs PTE(0)], 0
        mov rbx, PAGE(0)
        invlpg [rbx]
        EXPECT 14, 0, mov al, [rbx]
        MAP 0, 0, P | W
        HOLDS 0, 0x10
        ret

; A page that was only read sets D when it is written, and a right withdrawn is none.
rights: MAP 0, 0, P | W
        mov rbx, PAGE(0)
        invlpg [rbx]
        USE 0, 1
        mov byte [rbx + 16], 1
        CHECK_EQUAL dword [abs PTE(0)], FRAME(0) + P + W + A + D
        USE 0, 1
        MAP 0, 0, P
        invlpg [rbx]
        USE 0, 1
        EXPECT 14, 3, mov [rbx], al
        HOLDS 1, 0x11
        MAP 0, 0, P | W                 ; a right more needs no flush
        USE 0, 1
        mov byte [rbx + 16], 2
        USE 0, 1
        CHECK_EQUAL byte [abs FRAME(0) + 16], 2
        ret

; A load of CR3 flushes the one that is not global, of both; INVLPG the other.
global_pages:
        CHANGE_CR cr4, 0, 1 << 7        ; PGE
        MAP 0, 0, P | W | G
        MAP 1, 1, P | W
        mov rbx, PAGE(0)
        invlpg [rbx]
        mov rbx, PAGE(1)
        invlpg [rbx]
        USE 0, 1
        MAP 1, 4, P | W
        mov rax, cr3
        mov cr3, rax
        HOLDS 1, 0x14
        HOLDS 0, 0x10
        USE 1, 0
        MAP 1, 1, P | W
        mov rax, cr3
        mov cr3, rax
        HOLDS 1, 0x11
        USE 0, 1
        MAP 0, 4, P | W | G
        mov rbx, PAGE(0)
        invlpg [rbx]
        HOLDS 0, 0x14
        USE 0, 1
        MAP 0, 0, P | W
        CHANGE_CR cr4, 1 << 7, 0
        HOLDS 0, 0x10
        ret

; A piece of a large page that a small one displaced goes with any other piece.
large_pages:
        mov qword [abs TABLE_PD + 128 * 3 * 8], FREE_PAGE | P | W | PS
        mov rbx, BASE - 0x1000 + 3 * STEP + FRAME(3) - FREE_PAGE
        mov rdx, BASE - 0x1000 + FRAME(3) - FREE_PAGE
        mov qword [abs TABLE_PT + (FRAME(3) - FREE_PAGE) / 0x1000 * 8], FRAME(0) | P | W
        invlpg [rbx]
        invlpg [rdx]
        CHECK_EQUAL byte [rbx], 0x13
        CHECK_EQUAL byte [rdx], 0x10
        mov qword [abs TABLE_PD + 128 * 3 * 8], 0x200000 | P | W | PS
        invlpg [rbx + 0x5000]
        mov al, [abs FRAME(3) - FREE_PAGE + 0x200000]
        CHECK_EQUAL [rbx], al
        mov qword [abs TABLE_PD + 128 * 3 * 8], TABLE_PT + 3 * 0x1000 + 7
        invlpg [rbx]
        ret

; Code that is run after its page was displaced from being written, and is written then.
code:   mov word [abs FRAME(0) + 64], 0xc3 << 8 | 0x90  ; nop; ret
        mov ecx, 100
.next:  mov rbx, PAGE(0)
        mov rdx, PAGE(1)
        mov [rbx + 63], cl
        mov [rdx + 63], cl
        mov byte [abs FRAME(0) + 64], 0xf9              ; stc
        clc
        lea rax, [abs FRAME(0) + 64]
        call rax
        CHECK c
        mov byte [rbx + 64], 0xf8                       ; clc, by the page's other address
        stc
        call rax
        CHECK nc
        mov [rdx + 63], cl
        mov byte [rbx + 64], 0xf9
        call rax
        CHECK c
        dec ecx
        jnz .next
        ret
