; From long mode through compatibility and protected mode down to real mode and
; back (SDM 3A 9.8, 9.9): what code means in each, and what each keeps.
%include "lib.inc"

; Code for 16-bit modes is copied to LOW; what it found is left at RESULT.
LOW     equ 0x8000
RESULT  equ 0x7000
VECTORS equ 0x6000              ; a real-mode interrupt table that is not at 0
%define low(label) (label - low_start + LOW)

main:
        mov esi, low_start
        mov edi, LOW
        mov ecx, low_end - low_start
        rep movsb
        mov edi, RESULT
        mov ecx, 64
        xor eax, eax
        rep stosd
        mov rax, 0x1122334455667788
        mov r15, rax
        ; compatibility mode, by a far return
        push CODE32
        lea rax, [compatible]
        push rax
        retfq

bits 32
compatible:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, stack_top
        mov eax, -2
        db 0x40                         ; INC EAX here, a prefix in 64-bit mode
        cmp eax, -1
        jne near .failed
        pusha                           ; not in 64-bit mode
        cmp esp, stack_top - 32
        jne near .failed
        popa
        mov dword [seen_vector], -1
        mov [resume_rsp], esp
        mov dword [resume], .caught
        int3                            ; through the 64-bit IDT
.caught_not:
        jmp .failed
bits 64
.caught:
        CHECK_EQUAL qword [seen_vector], 3
        CHECK_EQUAL qword [seen_cs], CODE32
        mov rax, 0x1122334455667788
        cmp r15, rax                    ; R8 to R15 survive
        CHECK e
        jmp dword far [.to_protected]
section .data
.to_protected: dd protected, CODE32
section .text
bits 32
.failed:
        FAIL_HERE

; Leave long mode: paging off, then EFER.LME.
protected:
        mov eax, cr0
        btr eax, 31
        mov cr0, eax
        mov ecx, 0xc0000080
        rdmsr
        mov [RESULT + 0x80], eax        ; LMA has gone, LME is still set
        btr eax, 8
        wrmsr
        mov eax, cr4
        btr eax, 5
        mov cr4, eax
        ; 16-bit protected mode
        jmp CODE16:low(protected16)

bits 16
low_start:
protected16:
        mov ax, DATA16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov gs, ax
        mov sp, LOW
        mov ax, 0xffff
        inc ax
        jnz .done
        mov dword [RESULT], 16
.done:  ; to real mode; FS keeps a limit of 4 GiB
        mov ax, DATA
        mov fs, ax
        mov eax, cr0
        btr eax, 0
        mov cr0, eax
        jmp 0:low(real)

real:
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, LOW
        mov ax, 0xf000
        mov es, ax
        lidt [low(real_idt)]
        ; interrupts go through the table at VECTORS
        mov word [VECTORS + 0x21 * 4], low(real_int)
        mov word [VECTORS + 0x21 * 4 + 2], 0
        mov word [VECTORS], low(real_fault)
        mov word [VECTORS + 2], 0
        mov word [VECTORS + 6 * 4], low(real_fault)
        mov word [VECTORS + 6 * 4 + 2], 0
        mov word [VECTORS + 13 * 4], low(real_fault)
        mov word [VECTORS + 13 * 4 + 2], 0
        stc
        mov ax, 0x1234
        int 0x21                        ; its IRET brings the carry back
        jnc near .no_int
        mov [RESULT + 4], bx
.no_int:
        ; faults push the address of the instruction and no error code
        mov word [RESULT + 8], 0
        mov word [low(real_resume)], low(.after_ud)
        ud2
.after_ud:
        mov ax, [RESULT + 8]
        mov [RESULT + 10], ax
        mov word [low(real_resume)], low(.after_div)
        xor cl, cl
        div cl
.after_div:
        mov ax, [RESULT + 8]
        mov [RESULT + 12], ax
        mov word [low(real_resume)], low(.after_limit)
        mov bx, 0xffff
        mov ax, [bx]                    ; a word over the segment's end
.after_limit:
        mov ax, [RESULT + 8]
        mov [RESULT + 14], ax
        ; offsets wrap within 16 bits, segments count in paragraphs
        mov word [RESULT + 16], 0x55aa
        mov ax, (RESULT + 16) >> 4
        mov gs, ax
        mov bx, 0xfff0
        mov ax, [gs:bx + 16]
        mov [RESULT + 18], ax
        ; prefixes give 32-bit operands and addresses
        mov eax, 0x12345678
        mov ebx, RESULT + 20
        mov [ebx], eax
        ; FS reaches beyond 1 MiB ("unreal")
        mov ebx, FREE_PAGE
        mov dword [fs:ebx], 0xcafebabe
        mov eax, [fs:ebx]
        mov [RESULT + 24], eax
        ; a far call and return, PUSHF, POPF, string moves
        call 0:low(far_routine)
        mov [RESULT + 28], ax
        mov si, low(real_text)
        mov di, RESULT + 32
        push ds
        pop es
        cld
        mov cx, 4
        rep movsb
        smsw ax
        mov [RESULT + 36], ax
        ; port I/O is free here
        mov dx, SERIAL + 7
        mov al, 0x5a
        out dx, al
        in al, dx
        mov [RESULT + 38], al
        ; and back
        lgdt [cs:low(real_gdt)]
        mov eax, cr0
        bts eax, 0
        mov cr0, eax
        jmp dword CODE32:from_real

far_routine:
        mov ax, 0x7777
        retf
real_int:
        mov bx, ax
        clc
        iret
real_fault:
        push bp
        mov bp, sp
        push ax
        mov ax, [bp + 2]
        push bx
        mov bx, ax
        mov ax, [bx]                    ; the bytes at fault
        mov [RESULT + 8], ax
        mov ax, [low(real_resume)]
        mov [bp + 2], ax
        pop bx
        pop ax
        pop bp
        iret
real_resume: dw 0
real_text: db "real"
real_idt: dw 0x3ff
        dd VECTORS
real_gdt: dw gdt_end - gdt - 1
        dd gdt
low_end:

bits 32
from_real:
        mov eax, DATA
        mov ds, eax
        mov ss, eax
        mov dword [long_target], .checks
        jmp return_to_long

bits 64
.checks:
        CHECK_EQUAL dword [abs RESULT + 0x80], 0x901    ; SCE, LME, NXE
        CHECK_EQUAL dword [abs RESULT], 16
        CHECK_EQUAL word [abs RESULT + 4], 0x1234
        CHECK_EQUAL word [abs RESULT + 10], 0x0b0f      ; UD2
        CHECK_EQUAL word [abs RESULT + 12], 0xf1f6      ; DIV CL
        CHECK_EQUAL word [abs RESULT + 18], 0x55aa
        CHECK_EQUAL dword [abs RESULT + 20], 0x12345678
        CHECK_EQUAL dword [abs RESULT + 24], 0xcafebabe
        CHECK_EQUAL word [abs RESULT + 28], 0x7777
        CHECK_EQUAL dword [abs RESULT + 32], "real"
        test byte [abs RESULT + 36], 1                  ; PE
        CHECK z
        CHECK_EQUAL byte [abs RESULT + 38], 0x5a
        NOT_ON_TCG                                      ; it has no segment limits
        CHECK_EQUAL word [abs RESULT + 14], 0x078b      ; MOV AX, [BX]
        END_NOT_ON_TCG
        ; exceptions work again in long mode
        EXPECT 6, 0, ud2
        jmp pass
