; Flags that nobody reads on the way: who returns to code that reads them brings them along,
; whatever set them, over code that leaves them alone, with its operands there or gone.
%include "lib.inc"

ROUNDS equ 4                            ; the first way is not known yet, the others are
HERE   equ FREE_PAGE
STATUS equ 0x8d5                        ; OF SF ZF AF PF CF

%macro OPERANDS 0
        mov rbx, 0x80000000fffff234
        mov rdx, 0x8000000000001235
        mov r11, HERE
        mov dword [abs HERE], 0x9234
%endmacro

; %1: the flags that are defined; the rest: what sets them, from rbx and rdx.
%macro KEPT 2+.nolist
        OPERANDS
        %2
        pushfq
        pop r12
        and r12d, %1
        RETURN {mov ebx, 7}, {mov edx, 9}, %1, %2
        RETURN {lea rdx, [rdx + 8]}, {lea rbx, [rbx + 24]}, %1, %2
        RETURN {nop}, {nop}, %1, %2
%endmacro

; %1 and %2 are what follows.
%macro RETURN 4+
        %assign check_line __?LINE?__
        mov r14, rsp
        mov ecx, ROUNDS
%%next: OPERANDS
        call %%sets
        pushfq                          ; reads them first thing
        pop rax
        and eax, %3
        EQUAL eax, r12d
        OPERANDS
        call %%passes
        pushfq
        pop rax
        and eax, %3
        EQUAL eax, r12d
        EQUAL rsp, r14
        dec ecx
        jnz %%next
        jmp %%end
%%sets: %4
        jno %%other                     ; to code that passes them on
        %1
        %2
        ret
%%other:
        %2
        %1
        ret
%%passes:
        push r14
        lea r8, [rel %%on]
        %4
        %1
        jmp r8
%%on:   pop r9                          ; neither reads flags nor sets any
        %2
        jmp %%back                      ; a link
        nop
%%back: ret
%%end:
%endmacro

main:   KEPT STATUS, cmp rbx, rdx
        KEPT STATUS, cmp ebx, edx
        KEPT STATUS, cmp bx, dx
        KEPT STATUS, cmp bl, dl
        KEPT STATUS, cmp rbx, 0x35
        KEPT STATUS, cmp ebx, 0x7ffff234
        KEPT STATUS, cmp ebx, -0x7fffff
        KEPT STATUS, cmp bx, 0x7234
        KEPT STATUS, cmp bl, -128
        KEPT STATUS, sub rbx, rdx
        KEPT STATUS, sub ebx, edx
        KEPT STATUS, sub rbx, 0x1234567
        KEPT STATUS, sub bl, 0x35
        KEPT STATUS, sub rbx, rbx
        KEPT STATUS, add rbx, rdx
        KEPT STATUS, add bx, dx
        KEPT STATUS, add ebx, -0x35
        KEPT STATUS, add rbx, 0x7000000
        KEPT STATUS & ~0x10, test rbx, rdx
        KEPT STATUS & ~0x10, test bl, dl
        KEPT STATUS & ~0x10, test ebx, 0x80001000
        KEPT STATUS & ~0x10, test rdx, rdx
        KEPT STATUS & ~0x10, and ebx, edx
        KEPT STATUS & ~0x10, or bx, dx
        KEPT STATUS & ~0x10, xor rbx, -2
        KEPT STATUS & ~0x10, xor ebx, ebx
        KEPT STATUS, add dword [r11], 0x7fffffff
        KEPT STATUS, neg rbx
        KEPT 0x801, ror ebx, 1

; What moves the stack pointer sets flags too.
        mov ecx, ROUNDS
        mov r14, rsp
.stack: call .frame
        pushfq
        pop rax
        and eax, STATUS
        EQUAL eax, r12d
        EQUAL rsp, r14
        dec ecx
        jnz .stack
        ret
.frame: push rbx
        sub rsp, 0x48
        mov rdi, rsp
        add rdi, 0x48
        pushfq
        pop r12
        and r12d, STATUS
        add rsp, 0x48
        pop rbx
        ret
