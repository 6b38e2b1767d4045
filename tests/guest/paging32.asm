; The other paging modes: 32-bit paging with 4 KiB and 4 MiB pages, and PAE
; paging with 4 KiB and 2 MiB pages (SDM 3A 4.3, 4.4).
%include "lib32.inc"

; Linear 0 to 16 MiB is identity-mapped in both; the test page is at BASE.
BASE   equ 0x40000000
DIRECTORY equ FREE_PAGE         ; 32-bit: page directory and one table
TABLE  equ FREE_PAGE + 0x1000
POINTERS equ FREE_PAGE + 0x2000 ; PAE: four entries, directories, one table
DIRECTORY0 equ FREE_PAGE + 0x3000
DIRECTORY1 equ FREE_PAGE + 0x4000
TABLE64 equ FREE_PAGE + 0x5000
FRAME  equ FREE_PAGE + 0x10000

P equ 1
W equ 2
U equ 4
A equ 0x20
D equ 0x40
PS equ 0x80

%macro USER_DOES 3.nolist
        EXPECT_BEGIN
        ENTER_USER32 %1
        EXPECT_END %2, %3
%endmacro

; Map the test page: entry's address, low and high half.
%macro MAP32 1
        mov dword [TABLE], %1
        invlpg [BASE]
%endmacro
%macro MAP64 2
        mov dword [TABLE64 + 4], %2
        mov dword [TABLE64], %1
        invlpg [BASE]
%endmacro

main32:
        mov ebx, BASE
        mov byte [FRAME], 0x42
        mov edi, FREE_PAGE
        mov ecx, 0x6000 / 4
        xor eax, eax
        rep stosd
        ; 32-bit paging: 4 MiB pages for the first 16 MiB
        mov eax, P | W | U | PS
        mov edi, DIRECTORY
        mov ecx, 4
.fill:  stosd
        add eax, 0x400000
        loop .fill
        mov dword [DIRECTORY + (BASE >> 22) * 4], TABLE + P + W + U
        CHANGE_CR cr4, 0, 1 << 4      ; PSE
        mov eax, DIRECTORY
        mov cr3, eax
        CHANGE_CR cr0, 0, 0x80010000  ; PG, WP

        MAP32 0
        EXPECT 14, 0, mov al, [ebx]
        CHECK_EQUAL dword [seen_cr2], BASE
        EXPECT 14, 2, mov [ebx + 3], al
        CHECK_EQUAL dword [seen_cr2], BASE + 3
        USER_DOES user_read, 14, 4
        USER_DOES user_write, 14, 6
        MAP32 FRAME | P
        CHECK_EQUAL byte [ebx], 0x42
        CHECK_EQUAL dword [TABLE], FRAME | P | A
        EXPECT 14, 3, mov [ebx], al
        USER_DOES user_read, 14, 5
        MAP32 FRAME | P | U
        USER_DOES user_read, 0x80, 0
        USER_DOES user_write, 14, 7
        CHANGE_CR cr0, 1 << 16, 0
        mov byte [ebx], 0x43
        CHANGE_CR cr0, 0, 1 << 16
        MAP32 FRAME | P | W | U
        USER_DOES user_write, 0x80, 0
        CHECK_EQUAL dword [TABLE], FRAME | P | W | U | A | D
        ; the identity map is dirty where it was written
        test dword [DIRECTORY + ((FREE_PAGE >> 22) * 4)], D
        CHECK nz
        ; 4 MiB page above, with a reserved bit
        mov dword [DIRECTORY + (BASE >> 22) * 4], FREE_PAGE | P | W | PS
        invlpg [ebx]
        mov al, [ebx + FRAME - FREE_PAGE]
        CHECK_EQUAL al, [FRAME]
        NOT_ON_TCG
        or dword [DIRECTORY + (BASE >> 22) * 4], 1 << 21
        invlpg [ebx]
        EXPECT 14, 9, mov al, [ebx]
        END_NOT_ON_TCG
        CHANGE_CR cr0, 0x80010000, 0

        ; PAE paging
        mov eax, P | W | U | PS
        mov edi, DIRECTORY0
        mov ecx, 8
.fill64:
        stosd
        add edi, 4
        add eax, 0x200000
        loop .fill64
        mov dword [POINTERS], DIRECTORY0 + P
        mov dword [POINTERS + 8], DIRECTORY1 + P
        mov dword [DIRECTORY1], TABLE64 + P + W + U
        CHANGE_CR cr4, 1 << 4, 1 << 5
        mov eax, POINTERS
        mov cr3, eax
        CHANGE_CR cr0, 0, 0x80010000
        MAP64 FRAME | P | W | U, 0
        mov byte [ebx], 0x44
        CHECK_EQUAL byte [FRAME], 0x44
        CHECK_EQUAL dword [TABLE64], FRAME | P | W | U | A | D
        MAP64 0, 0
        EXPECT 14, 0, mov al, [ebx]
        MAP64 FRAME | P | U, 0x80000000         ; execute-disable, EFER.NXE is set
        mov al, [ebx]
        EXPECT 14, 0x11, call ebx
        EXPECT 14, 3, mov [ebx], al
        USER_DOES user_write, 14, 7
        NOT_ON_TCG
        MAP64 FRAME | P | U, 0x00080000         ; bit 51
        EXPECT 14, 9, mov al, [ebx]
        ; the four pointers are loaded with CR3, reserved bits then fault
        or dword [POINTERS + 16], P | W
        mov eax, cr3
        EXPECT 13, 0, mov cr3, eax
        mov dword [POINTERS + 16], 0
        ; and changes in memory are not seen until then
        MAP64 FRAME | P | U, 0
        mov dword [POINTERS + 8], 0
        invlpg [ebx]
        mov al, [ebx]
        mov eax, cr3
        mov cr3, eax
        EXPECT 14, 0, mov al, [ebx]
        END_NOT_ON_TCG
        CHANGE_CR cr0, 0x80010000, 0
        ret

user_read:
        mov eax, USERDATA
        mov ds, ax
        mov al, [BASE]
        int 0x80
user_write:
        mov eax, USERDATA
        mov ds, ax
        mov [BASE], al
        int 0x80
