; How a machine ends: the first letter of the command line says which way.
%include "lib.inc"

PM1_CONTROL equ 0x604

main:
        mov eax, [start_info]
        mov rax, [rax + 24]                     ; cmdline_paddr
        mov al, [rax]
        cmp al, "t"
        je triple_fault
        cmp al, "p"
        je power_off
        cmp al, "r"
        je reset_control
        cmp al, "k"
        je keyboard_reset
        cmp al, "a"
        je port_a
        cmp al, "e"
        je exit_code
        cmp al, "w"
        je exit_word
        lea rsi, [text_letter]
        jmp fail

; No IDT: a fault, a double fault, and no way out.
triple_fault:
        lidt [no_idt]
        ud2

power_off:
        mov dx, PM1_CONTROL
        mov ax, 1 << 13 | 5 << 10               ; SLP_EN, the type of S5
        out dx, ax
        jmp $
reset_control:
        mov dx, 0xcf9
        mov al, 2
        out dx, al
        mov al, 6
        out dx, al
        jmp $
keyboard_reset:
        mov al, 0xfe
        out 0x64, al
        jmp $
port_a:
        mov al, 1
        out 0x92, al
        jmp $
exit_code:
        mov al, 42
        out DEBUG_EXIT, al
        jmp $
exit_word:
        mov eax, 100
        out DEBUG_EXIT, eax
        jmp $
section .rodata
text_letter: db "unknown command line", 0
no_idt: dw 0
        dq 0
section .text
