; The reset port starts the machine again, with memory as it was.
%include "lib.inc"

RESET_CONTROL equ 0xcf9
MARK          equ 0x3141592653589793

main:   mov rax, MARK
        cmp [abs FREE_PAGE], rax
        je .again
        mov [abs FREE_PAGE], rax
        mov al, 6               ; reset the CPU, hard
        mov dx, RESET_CONTROL
        out dx, al
.wait:  hlt
        jmp .wait
.again: ret
