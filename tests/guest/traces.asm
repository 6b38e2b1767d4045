; Paths that run often and then lead elsewhere: who is there finds registers, the stack and the
; flags as the path left them, though nothing on the path reads these.
%include "lib.inc"

ROUNDS equ 40000                        ; enough to be hot, and to be recorded

HERE   equ FREE_PAGE                  ; not beside the code, whose units writes would drop
STATUS equ 0x8d5                        ; OF SF ZF AF PF CF

; %1: the flags that are defined; the rest: what sets them, from rbx on.
%macro WAYS 2+.nolist
        %assign check_line __?LINE?__
        ; What they are, without any path.
        mov rbx, 0x8000000000001234
        mov r11, HERE
        mov dword [abs HERE], 0x9234
        %2
        pushfq
        pop r12
        and r12d, %1
        mov r13, rbx
        LEAD {jmp r8}, {nop}, %1, %2
        LEAD {call r8}, {pop r10}, %1, %2
        LEAD {push r8}, {pop r10}, %1, %2
        LEAD {jmp [rsp]}, {nop}, %1, %2
%endmacro

; Around a path of which %1 is a branch to r8, and %2 undoes what it pushed; at last to %%elsewhere.
%macro LEAD 4+.nolist
        mov r14, rsp
        mov r9, %%elsewhere
        mov r8, %%usual
        mov ecx, ROUNDS
        push r8
%%next: mov rbx, 0x8000000000001234
        mov dword [abs HERE], 0x9234
        %4
        mov rax, [r11 + 8]              ; a check of an address between, and
        lea rdx, [rdx + rcx]            ; what leaves the flags alone
        %1
        %ifidn %1, push r8
        ret                             ; which is predicted, too
        %endif
%%usual:
        %ifidn %1, call r8
        %2
        %endif
        add rsi, rdi                    ; which has no use for them
        dec ecx
        cmp ecx, 1
        cmove r8, r9
        mov [rsp], r8
        jmp %%next
%%elsewhere:
        pushfq
        pop rax
        and eax, %3
        EQUAL eax, r12d
        EQUAL rbx, r13
        EQUAL ecx, 1
        %ifidn %1, call r8
        pop r10
        %endif
        pop r8
        EQUAL rsp, r14
%endmacro

main:   mov rdi, 3
        WAYS STATUS, cmp dword [r11], 0x9235
        WAYS STATUS, cmp dword [r11], 0x9234
        WAYS STATUS, add dword [r11], 0x7fffffff
        WAYS STATUS, cmp rbx, 0x1235
        WAYS STATUS, neg rbx
        WAYS STATUS & ~0x10, test ebx, ebx
        WAYS STATUS & ~0x10, and rbx, [r11]
        WAYS STATUS & ~0x810, shl rbx, 3
        WAYS STATUS & ~0x10, sar rbx, 1
        WAYS STATUS & ~0x10, sub rbx, rbx
        WAYS 0x801, ror ebx, 1
        ret

