; Returns and indirect branches that go where they went before, and then elsewhere: other callers,
; pushed addresses, code that was written anew, another page behind the same address.
%include "lib.inc"

TURNS equ 3000                          ; enough for ways to be learned, and learned anew
CODE  equ FREE_PAGE                     ; copied there, and to the next 2 MiB with other numbers
ALIAS equ 0x40000000                    ; one or the other
OTHER equ 0x200000

; One page of code, wherever it is: rdi is added to in each function, ecx is counted down.
align 16
page:
; Returns to one of three, as the low bits of ebx ask for; 1, 10 or 100 is added.
from_three:
        mov eax, ebx
        ror ebx, 2
        and eax, 3
        jz .first
        cmp eax, 1
        je .second
        call one
        add rdi, [rel hundred]
        jmp .next
.first: call one
        add rdi, 1
        jmp .next
.second:
        call one
        add rdi, 10
.next:  dec ecx
        jnz from_three
        ret

one:    add rdi, 0x10000
        ret

; Goes by way of rax to one of three places, as the low bits of ebx ask for.
by_three:
        mov eax, ebx
        ror ebx, 2
        and eax, 3
        lea r8, [rel .places]
        movsxd rax, dword [r8 + rax * 4]
        add rax, r8
        jmp rax
.first: add rdi, 1
        jmp .next
.second:
        add rdi, 10
        jmp .next
.third: add rdi, 100
.next:  dec ecx
        jnz by_three
        ret
.places:
        dd .first - .places, .second - .places, .third - .places, .third - .places

; Calls that never return where they came from, but for each sixteenth.
away:   call .inner
        add rdi, 1                      ; so seldom
        jmp .next
.inner: test ecx, 15
        jz .back
        lea rax, [rel .other]
        mov [rsp], rax
.back:  ret
.other: add rdi, 0x100
.next:  dec ecx
        jnz away
        ret

; 2^ecx calls, deeper than anybody remembers.
deep:   dec ecx
        js .end
        push rcx
        call deep
        pop rcx
        push rcx
        call deep
        pop rcx
        inc rdi
.end:   ret

; What the loop adds is written anew between the runs.
written:
        call .inner
        dec ecx
        jnz written
        ret
.inner: call .innermost
        ret
.innermost:
number: db 0x48, 0x81, 0xc7             ; ADD RDI, imm32
        dd 1
        ret

; The same, in the page that r8 is in.
afar:   call r8
        dec ecx
        jnz afar
        ret

align 8
hundred: dq 100
page_end:

%define AT(place) (CODE + (place) - page)

; Run a function of the page at %2 with ecx = %3 and ebx = %4: rdi grows by %1.
%macro RUN 4
        %assign check_line __?LINE?__
        mov eax, %2
        mov ecx, %3
        mov ebx, %4
        xor edi, edi
        call rax
        mov rdx, %1
        EQUAL rdi, rdx
%endmacro

copy:   mov esi, page
        mov ecx, page_end - page
        rep movsb
        ret

main:
        mov edi, CODE
        call copy
        mov edi, CODE + OTHER
        call copy
        mov dword [abs AT(number) + OTHER + 3], 7

        mov r12d, 3
.again:
        ; one caller for long, then another, then all in turn
        RUN TURNS * 0x10001, AT(from_three), TURNS, 0
        RUN TURNS * 0x1000a, AT(from_three), TURNS, 0x55555555
        RUN TURNS * 0x10064, AT(from_three), TURNS, 0xffffffff
        RUN 3200 * 0x10000 + 1600 * 11, AT(from_three), 3200, 0x11111111
        RUN 3200 * 0x10000 + 800 * 211, AT(from_three), 3200, 0xe4e4e4e4
        RUN TURNS, AT(by_three), TURNS, 0
        RUN TURNS * 10, AT(by_three), TURNS, 0x55555555
        RUN 3200 / 4 * 211, AT(by_three), 3200, 0xe4e4e4e4
        RUN TURNS * 100, AT(by_three), TURNS, 0xaaaaaaaa
        RUN 3200 / 16 + 3200 / 16 * 15 * 0x100, AT(away), 3200, 0
        RUN 4095, AT(deep), 12, 0
        dec r12d
        jnz .again

        ; where the ways lead is written anew
        mov r12d, 20
.write: mov [abs AT(number) + 3], r12d
        mov r13d, r12d
        imul r13d, r13d, TURNS
        mov eax, AT(written)
        mov ecx, TURNS
        xor edi, edi
        call rax
        CHECK_EQUAL edi, r13d
        dec r12d
        jnz .write

        ; another page behind the same address, by INVLPG and by CR3
        mov dword [abs AT(number) + 3], 1
        mov r12d, 40
.remap: mov eax, CODE + 0x83
        mov r13d, TURNS
        test r12d, 1
        jz .map
        mov eax, CODE + OTHER + 0x83
        mov r13d, TURNS * 7
.map:   mov [abs page_directories + ALIAS / 0x200000 * 8], rax
        test r12d, 2
        jz .all
        invlpg [abs ALIAS]
        jmp .run
.all:   mov rax, cr3
        mov cr3, rax
.run:   mov eax, ALIAS + written - page
        mov ecx, TURNS
        xor edi, edi
        call rax
        CHECK_EQUAL edi, r13d
        mov eax, AT(afar)               ; which stays where it is
        mov r8d, ALIAS + number - page
        mov ecx, TURNS
        xor edi, edi
        call rax
        CHECK_EQUAL edi, r13d
        dec r12d
        jnz .remap
        ret

