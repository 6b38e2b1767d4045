; Paging in long mode: rights and their error codes, accessed and dirty bits,
; reserved bits, page sizes, SMEP, SMAP, invalidation, PCID (SDM 3A 4.5-4.10).
%include "lib.inc"

; Pages of 4 KiB at BASE, page n backed by FRAME(n) through the entry PTE(n).
BASE     equ 0x4000000000       ; entry 256 of the page-directory-pointer table
TABLE_PD equ FREE_PAGE
TABLE_PT equ FREE_PAGE + 0x1000
SPARE_PML4 equ FREE_PAGE + 0x2000
FRAMES   equ FREE_PAGE + 0x10000
%define PAGE(n)  (BASE + (n) * 0x1000)
%define FRAME(n) (FRAMES + (n) * 0x1000)
%define PTE(n)   (TABLE_PT + (n) * 8)

P equ 1
W equ 2
U equ 4
A equ 0x20
D equ 0x40
PS equ 0x80
G equ 0x100
NX equ 1 << 63

; Map page n to frame n with these rights and forget the old mapping.
%macro MAP 2
        mov rax, FRAME(%1) | (%2)
        mov [abs PTE(%1)], rax
        mov rbx, PAGE(%1)
        invlpg [rbx]
%endmacro

; At CPL 3: read, write or run the page at rbx; error -1: it succeeds.
%macro USER_DOES 3
        EXPECT_BEGIN
        ENTER_USER %1
%ifnum %3
        EXPECT_END %2, %3
%else
        EXPECT_END %2, (%3)
%endif
%endmacro
; A reserved bit is a fault in a present entry: P is set. TCG forgets that.
%macro EXPECT_RESERVED 2+.nolist
        NOT_ON_TCG
        EXPECT 14, %1, %2
        END_NOT_ON_TCG
%endmacro
READ    equ 0
WRITE   equ 0x100
RUN     equ 0x200

main:
        mov qword [abs pdpt + 256 * 8], TABLE_PD + 7
        mov qword [abs TABLE_PD], TABLE_PT + 7
        COPY_USER READ, user_read, user_read.end
        COPY_USER WRITE, user_write, user_write.end
        COPY_USER RUN, user_run, user_run.end
        mov ecx, 16                     ; RET in each frame, and INT 80h at 16
        mov edi, FRAMES
.fill:  mov byte [rdi], 0xc3
        mov word [rdi + 16], 0x80cd
        add edi, 0x1000
        loop .fill

        ; not present
        MAP 0, 0
        EXPECT 14, 0, mov al, [rbx]
        CHECK_EQUAL qword [seen_cr2], rbx
        EXPECT 14, 2, mov [rbx + 5], al
        lea rax, [rbx + 5]
        CHECK_EQUAL qword [seen_cr2], rax
        EXPECT 14, 0x10, call rbx
        CHECK_EQUAL qword [seen_rip], rbx
        USER_DOES READ, 14, 4
        USER_DOES WRITE, 14, 6
        add rbx, 16
        USER_DOES RUN, 14, 0x14
        mov qword [abs TABLE_PD], TABLE_PT + 6
        mov rbx, PAGE(0)
        invlpg [rbx]
        EXPECT 14, 0, mov al, [rbx]
        mov qword [abs TABLE_PD], TABLE_PT + 7

        ; read-only, with and without CR0.WP
        CHANGE_CR cr0, 0, 1 << 16
        MAP 1, P | U
        mov al, [rbx]
        EXPECT 14, 3, mov [rbx], al
        EXPECT 14, 3, lock inc byte [rbx]
        USER_DOES READ, 0x80, 0
        USER_DOES WRITE, 14, 7
        CHANGE_CR cr0, 1 << 16, 0
        mov byte [rbx], 0xc3
        USER_DOES WRITE, 14, 7
        CHANGE_CR cr0, 0, 1 << 16
        EXPECT 14, 3, mov [rbx], al
        ; a read-only directory takes the right from all below
        mov qword [abs TABLE_PD], TABLE_PT + 5
        MAP 2, P | W
        EXPECT 14, 3, mov [rbx], al
        mov qword [abs TABLE_PD], TABLE_PT + 7
        invlpg [rbx]
        mov [rbx + 8], al

        ; the supervisor's
        MAP 3, P | W
        USER_DOES READ, 14, 5
        USER_DOES WRITE, 14, 7
        add rbx, 16
        USER_DOES RUN, 14, 0x15
        MAP 3, P | W | U
        USER_DOES READ, 0x80, 0
        USER_DOES WRITE, 0x80, 0
        add rbx, 16
        USER_DOES RUN, 0x80, 0

        ; execute-disable
        MAP 4, P | W | U | NX
        EXPECT 14, 0x11, call rbx
        mov al, [rbx]
        add rbx, 16
        USER_DOES RUN, 14, 0x15
        MAP 4, P | W | U
        call rbx

        ; accessed and dirty
        MAP 5, P | W
        mov al, [rbx]
        CHECK_EQUAL dword [abs PTE(5)], FRAME(5) + P + W + A
        mov [rbx + 1], al
        CHECK_EQUAL dword [abs PTE(5)], FRAME(5) + P + W + A + D
        MAP 5, P | W
        inc dword [rbx + 4]
        CHECK_EQUAL dword [abs PTE(5)], FRAME(5) + P + W + A + D
        MAP 5, P | W
        call rbx
        CHECK_EQUAL dword [abs PTE(5)], FRAME(5) + P + W + A
        test byte [abs TABLE_PD], A
        CHECK nz
        MAP 5, P                        ; a faulting write sets nothing
        EXPECT 14, 3, mov [rbx], al
        test byte [abs PTE(5)], D
        CHECK z

        ; reserved bits; execute-disable is one without EFER.NXE
        MAP 6, P | W | 1 << 51
        EXPECT_RESERVED 9, mov al, [rbx]
        EXPECT_RESERVED 11, mov [rbx], al
        MAP 6, P | W | NX
        mov ecx, 0xc0000080
        rdmsr
        btr eax, 11
        wrmsr
        invlpg [rbx]
        EXPECT_RESERVED 9, mov al, [rbx]
        rdmsr
        bts eax, 11
        wrmsr
        invlpg [rbx]
        mov al, [rbx]

        ; an access over a page's end faults as a whole, at the second page
        MAP 7, P | W
        mov qword [rbx + 0xff8], 0
        MAP 8, 0
        mov rax, -1
        EXPECT 14, 2, mov [rbx - 4], rax
        CHECK_EQUAL qword [seen_cr2], rbx
        CHECK_EQUAL qword [rbx - 8], 0
        EXPECT 14, 0, mov rax, [rbx - 1]
        CHECK_EQUAL qword [seen_cr2], rbx
        MAP 8, P | W
        mov rax, 0x1122334455667788
        mov [rbx - 3], rax
        CHECK_EQUAL dword [abs FRAME(8) + 1], 0x11223344
        CHECK_EQUAL byte [abs FRAME(7) + 0xffd], 0x88

        call page_sizes
        call invalidation
        call supervisor_protection
        jmp process_context

page_sizes:
        ; 2 MiB: entry 1 of the directory, mapped to FREE_PAGE
        mov rax, FREE_PAGE | P | W | PS
        mov [abs TABLE_PD + 8], rax
        mov rbx, BASE + 0x200000
        mov byte [abs FRAME(9)], 0x99
        cmp byte [rbx + FRAME(9) - FREE_PAGE], 0x99
        CHECK e
        mov byte [rbx + FRAME(9) - FREE_PAGE], 0xaa
        cmp byte [abs FRAME(9)], 0xaa
        CHECK e
        CHECK_EQUAL dword [abs TABLE_PD + 8], FREE_PAGE + P + W + PS + A + D
        or dword [abs TABLE_PD + 8], 1 << 13    ; reserved in a 2 MiB entry
        invlpg [rbx + 0x1ff000]                 ; any piece of it will do
        EXPECT_RESERVED 9, mov al, [rbx]
        ; 1 GiB: entry 257 of the pointer table, mapped to 0
        mov eax, 0x80000001
        cpuid
        bt edx, 26
        jnc .no_gigabyte
        mov eax, P | W | PS
        mov [abs pdpt + 257 * 8], rax
        mov rbx, BASE + 0x40000000
        cmp byte [rbx + FRAME(9)], 0xaa
        CHECK e
        CHECK_EQUAL dword [abs pdpt + 257 * 8], P + W + PS + A
        or dword [abs pdpt + 257 * 8], 1 << 13
        invlpg [rbx + 0x3ffff000]
        EXPECT_RESERVED 9, mov al, [rbx]
.no_gigabyte:
        ; PS in the top table is reserved
        mov qword [abs pml4 + 8], pdpt + P + W + PS
        mov rbx, 1 << 39
        EXPECT_RESERVED 9, mov al, [rbx]
        mov qword [abs pml4 + 8], 0
        ret

; Page 10 leads to frame 10, then to frame 11: is the new one seen?
%macro MOVE_PAGE 0
        mov byte [abs FRAME(10) + 64], 10
        mov byte [abs FRAME(11) + 64], 11
        MAP 10, P | W | %$rights
        cmp byte [rbx + 64], 10
        CHECK e
        mov rax, FRAME(11) | P | W | %$rights
        mov [abs PTE(10)], rax
%endmacro
invalidation:
        %push
        %define %$rights 0
        MOVE_PAGE
        invlpg [rbx]
        cmp byte [rbx + 64], 11
        CHECK e
        MOVE_PAGE
        mov rax, cr3
        mov cr3, rax
        cmp byte [rbx + 64], 11
        CHECK e
        CHANGE_CR cr4, 0, 1 << 7        ; PGE
        %define %$rights G
        MOVE_PAGE
        invlpg [rbx]
        cmp byte [rbx + 64], 11
        CHECK e
        MOVE_PAGE                       ; clearing PGE drops global ones too
        CHANGE_CR cr4, 1 << 7, 0
        cmp byte [rbx + 64], 11
        CHECK e
        ; a right withdrawn
        %define %$rights 0
        MAP 10, P | W
        mov [rbx + 65], al
        mov qword [abs PTE(10)], FRAME(10) + P
        invlpg [rbx]
        EXPECT 14, 3, mov [rbx + 65], al
        %pop
        ret

supervisor_protection:
        mov eax, 7
        xor ecx, ecx
        cpuid
        mov r12d, ebx
        bt r12d, 7
        jnc .no_smep
        MAP 12, P | W | U
        call rbx
        CHANGE_CR cr4, 0, 1 << 20
        EXPECT 14, 0x11, call rbx
        mov al, [rbx]
        CHANGE_CR cr4, 1 << 20, 0
        call rbx
.no_smep:
        bt r12d, 20
        jnc .no_smap
        MAP 12, P | W | U
        CHANGE_CR cr4, 0, 1 << 21
        EXPECT 14, 1, mov al, [rbx]
        EXPECT 14, 3, mov [rbx + 64], al
        stac
        mov [rbx + 64], al
        clac
        EXPECT 14, 1, mov al, [rbx]
        USER_DOES READ, 0x80, 0
        CHANGE_CR cr4, 1 << 21, 0
        mov al, [rbx]
.no_smap:
        ret

; Two PCIDs keep translations apart; a load of CR3 flushes its own PCID only,
; and none with bit 63 set (SDM 3A 4.10.4.1).
process_context:
        mov eax, 1
        cpuid
        bt ecx, 17
        jnc .done
        mov esi, pml4
        mov edi, SPARE_PML4
        mov ecx, 512
        rep movsq
        CHANGE_CR cr4, 0, 1 << 17
        %push
        %define %$rights 0
        mov rax, SPARE_PML4 | 1
        mov cr3, rax
        MOVE_PAGE
        mov rax, SPARE_PML4 | 1
        mov cr3, rax
        cmp byte [rbx + 64], 11
        CHECK e
        MOVE_PAGE
        mov rax, pml4 + 2
        mov cr3, rax
        cmp byte [rbx + 64], 11         ; PCID 2 has never seen it
        CHECK e
        mov rax, SPARE_PML4 | 1
        mov cr3, rax
        cmp byte [rbx + 64], 11
        CHECK e
        %pop
        mov rax, pml4 + 2
        EXPECT_BEGIN                    ; PCIDE goes with PCID 0 only
        mov cr3, rax
        mov rax, cr4
        btr rax, 17
        mov cr4, rax
        mov rax, pml4
        mov cr3, rax
        mov rax, cr4
        bts rax, 17
        mov cr4, rax
        mov rax, pml4 + 2
        mov cr3, rax
        mov rax, cr4
        btr rax, 17
        mov cr4, rax
        mov rax, pml4 + 2
        mov cr3, rax
        mov rax, cr4
        bts rax, 17
        mov cr4, rax                    ; #GP: bits 0-11 of CR3 are not zero
        EXPECT_END 13, 0
        mov rax, pml4
        mov cr3, rax
.done:  ret

user_read:
        mov al, [rbx]
        int 0x80
.end:
user_write:
        mov [rbx + 8], al
        int 0x80
.end:
user_run:
        jmp rbx
.end:
