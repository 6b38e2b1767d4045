; Every I/O port is read and written in every size; the machine goes on. (Under
; KVM inside of TCG, where each access takes long: with one value, and from LOW
; on every 61st port.) Left out are the ports that end it (what they do is
; ending.asm's), and the serial port's own are put right again at the end.
%include "lib.inc"

LOW     equ 0xd40

main:
        mov r8d, 5
        cmp byte [on_kvm], 0
        je .value
        mov r8d, 3
.value: mov ebp, [values + r8 * 4 - 4]
        mov ecx, 0xffff
.next:  mov edi, 1                              ; does [ecx, ecx + edi) end the machine?
        call ends_machine
        je .word
        mov edx, ecx
        in al, dx
        mov eax, ebp
        out dx, al
.word:  mov edi, 2
        call ends_machine
        je .dword
        mov edx, ecx
        in ax, dx
        mov eax, ebp
        out dx, ax
.dword: mov edi, 4
        call ends_machine
        je .done
        mov edx, ecx
        in eax, dx
        mov eax, ebp
        out dx, eax
.done:  dec ecx
        js .all
        cmp byte [on_kvm], 0
        je .next
        cmp ecx, LOW
        jb .next
        sub ecx, 60
        jmp .next
.all:   cmp byte [on_kvm], 0
        jne .strings
        dec r8d
        jnz .value
.strings:

        ; strings of them
        mov rdi, FREE_PAGE
        mov dx, 0x20
        mov ecx, 1000
        rep insd
        mov rsi, FREE_PAGE
        mov dx, 0x80
        mov ecx, 1000
        rep outsd

        ; the serial port as it was: 8 bits, no divisor latch, no interrupts
        mov dx, SERIAL + 3
        mov al, 3
        out dx, al
        mov dx, SERIAL + 1
        xor eax, eax
        out dx, al
        mov dx, SERIAL + 4
        out dx, al
        ret

; ZF: one of the ports ecx to ecx + edi - 1 ends the machine. Spoils rax.
ends_machine:
        mov rsi, endings
.next:  movzx eax, word [rsi]
        add rsi, 2
        test eax, eax
        jz .none
        sub eax, ecx
        cmp eax, edi
        jae .next
        cmp eax, eax
        ret
.none:  test esp, esp                           ; never zero
        ret

section .rodata
endings: dw DEBUG_EXIT, DEBUG_EXIT + 1, DEBUG_EXIT + 2, DEBUG_EXIT + 3, 0x64, 0x92, 0x604, 0x605, 0xcf9, 0
align 4
values: dd 0, 0xffffffff, 0xa5a5a5a5, 0x00008000, 0x80000000
section .text
