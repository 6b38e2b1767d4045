; Code that changes itself: the next instruction, the one before, through another
; address, by every kind of store, over page borders (SDM 3A 11.6).
%include "lib.inc"

CODE    equ FREE_PAGE           ; copied there: two pages and their border
ALIAS   equ 0x40000000          ; the same memory by another address

turning:
        shl ebx, 1
        mov [rel turned], edx
turned: xor eax, eax
        nop
        ret
turning_end:

main:
        ; the next instruction, in the same block
        mov ecx, 3
.again: mov byte [.patched + 1], cl
        jmp .patched
.patched:
        mov al, 0
        CHECK_EQUAL al, cl
        dec ecx
        jnz .again
        mov byte [.next + 1], 7
.next:  mov bl, 0                               ; with no branch in between
        CHECK_EQUAL bl, 7
        mov dword [.word + 1], 0x12345678
.word:  mov eax, 0
        CHECK_EQUAL eax, 0x12345678
        ; an instruction turned into others: NOPs
        mov ax, 0x9090
        mov edx, 1
        mov [.gone], ax
.gone:  inc edx
        CHECK_EQUAL edx, 1

        ; an instruction that sets flags turned into one that reads them, by the one before; the
        ; first time nobody can know
        mov rsi, turning
        mov edi, CODE + 0x3000
        mov ecx, turning_end - turning
        rep movsb
        mov r12d, 1
.turn:  mov dword [abs CODE + 0x3000 + turned - turning], 0xc390c031 ; XOR EAX, EAX; NOP; RET
        mov ebx, r12d
        ror ebx, 1
        mov edx, 0xc3c0920f                     ; SETC AL; RET
        mov eax, CODE + 0x3000
        call rax
        cmp r12d, 1
        je .first
        mov ecx, r12d
        and ecx, 1
        CHECK_EQUAL al, cl
.first: inc r12d
        cmp r12d, 9
        jne .turn

        ; a function that is written anew for each call, in each way
        call make_alias
        mov r12d, 1
.call:  mov byte [abs CODE], 0xb8               ; MOV EAX, imm32; RET
        mov byte [abs CODE + 5], 0xc3
        mov [abs CODE + 1], r12d
        call expect_r12
        inc r12d
        mov eax, ALIAS
        mov [rax + 1], r12d                     ; by the alias
        call expect_r12
        inc r12d
        mov eax, r12d
        xchg [abs CODE + 1], eax
        call expect_r12
        inc r12d
        lock inc dword [abs CODE + 1]
        call expect_r12
        inc r12d
        mov rdi, CODE + 1
        mov eax, r12d
        stosd
        call expect_r12
        inc r12d
        mov [patch + 1], r12d
        mov rsi, patch
        mov rdi, CODE
        mov ecx, 8
        rep movsb
        call expect_r12
        inc r12d
        mov [patch + 1], r12d
        movdqu xmm0, [patch]
        movdqu [abs CODE], xmm0
        call expect_r12
        inc r12d
        mov [patch + 1], r12d
        mov rax, [patch]
        mov rbx, [patch + 8]
        movnti [abs CODE], rax
        call expect_r12
        inc r12d
        mov eax, [abs CODE + 1]
        lock cmpxchg [abs CODE + 1], r12d
        call expect_r12
        inc r12d
        push qword [abs CODE]
        mov [rsp + 1], r12d
        pop qword [abs CODE]
        call expect_r12
        inc r12d
        cmp r12d, 2000
        jb .call

        ; an instruction over the border of two pages
        mov byte [abs CODE + 0xffe], 0xb8
        mov byte [abs CODE + 0x1003], 0xc3
        mov r12d, 100
.border:
        mov [abs CODE + 0xfff], r12d
        mov eax, CODE + 0xffe
        call rax
        CHECK_EQUAL eax, r12d
        mov byte [abs CODE + 0x1000], 0x77      ; the second page only
        mov eax, CODE + 0xffe
        call rax
        CHECK_EQUAL ah, 0x77
        dec r12d
        jnz .border

        ; the same, run into: what stands before it stays, the second page changes
        mov byte [abs CODE + 0xffd], 0x90
        mov r12d, 100
.into:  mov [abs CODE + 0x1000], r12b
        mov eax, CODE + 0xffd
        call rax
        mov dl, ah
        CHECK_EQUAL dl, r12b
        mov byte [abs CODE + 0x1000], 0x77
        mov eax, CODE + 0xffd
        call rax
        CHECK_EQUAL ah, 0x77
        dec r12d
        jnz .into

        ; a loop that fills its own tail, by REP STOSB over what runs next
        mov rdi, .tail
        mov ecx, 4
        mov al, 0x90
        mov edx, 5
        rep stosb
.tail:  inc edx
        inc edx
        CHECK_EQUAL edx, 5

        ; another page behind the same address
        mov byte [abs CODE], 0xb8
        mov dword [abs CODE + 1], 1
        mov byte [abs CODE + 5], 0xc3
        mov byte [abs CODE + 0x200000], 0xb8
        mov dword [abs CODE + 0x200001], 2
        mov byte [abs CODE + 0x200005], 0xc3
        mov r12d, 100
.remap: mov eax, CODE + 0x83
        mov ecx, 1
        call run_alias
        mov eax, CODE + 0x200083
        mov ecx, 2
        call run_alias
        dec r12d
        jnz .remap

        ; an instruction over the border of two large pages, the second one now this, now that
        call make_alias
        mov dword [abs CODE + 0x1ffffc], 0x00b89090 ; NOP; NOP; MOV EAX, 00 ...
        mov dword [abs CODE + 0x200000], 0xc3000001 ; ... 01 00 00; RET
        mov dword [abs CODE + 0x400000], 0xc3000002
        mov r12d, 100
.second:
        mov eax, CODE + 0x200083
        mov ecx, 0x100
        call run_over_border
        mov eax, CODE + 0x400083
        mov ecx, 0x200
        call run_over_border
        dec r12d
        jnz .second
        ret

; The page behind the alias leads to the entry in rax: running into it gives ecx.
run_over_border:
        mov [abs page_directories + ALIAS / 0x200000 * 8 + 8], rax
        mov eax, ALIAS + 0x200000
        invlpg [rax]
        mov eax, ALIAS + 0x1ffffc
        call rax
        CHECK_EQUAL eax, ecx
        mov eax, ALIAS + 0x1ffffc               ; once more, now that it is translated
        call rax
        CHECK_EQUAL eax, ecx
        ret

; The alias leads to the entry in rax: running there gives ecx.
run_alias:
        mov [abs page_directories + ALIAS / 0x200000 * 8], rax
        mov eax, ALIAS
        cmp byte [on_tcg], 0
        je .any
        invlpg [rax]                            ; QEMU's TCG forgets code of this piece only
.any:   invlpg [rax + 0x123000]                 ; any piece of a large page will do
        call rax
        CHECK_EQUAL eax, ecx
        ret

make_alias:
        mov eax, CODE + 0x83
        mov [abs page_directories + ALIAS / 0x200000 * 8], rax
        mov eax, ALIAS
        invlpg [rax]
        ret

; Called by both of its addresses.
expect_r12:
        mov eax, CODE
        call rax
        CHECK_EQUAL eax, r12d
        mov eax, ALIAS
        call rax
        CHECK_EQUAL eax, r12d
        ret

align 16
patch:  mov eax, 0
        ret
        times 10 nop
