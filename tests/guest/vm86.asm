; Virtual-8086 mode (SDM 3A 20): entry by IRET, segments as in real mode, what
; IOPL decides, and the frame that an exception leaves.
%include "lib32.inc"

LOW    equ 0x8000
RESULT equ 0x7000

; Run the 16-bit code at label (copied to LOW) with EFLAGS.VM and these flags.
%macro ENTER_VM86 2
        mov esi, %1
        mov edi, LOW
        mov ecx, 64
        rep movsb
        push 0x1111                     ; GS, FS
        push 0x2222
        push RESULT >> 4                ; DS, ES
        push 0x4444
        push 0x0700                     ; SS:SP
        push 0xff0
        push 0x20002 | (%2)
        push LOW >> 4                   ; CS:IP
        push 0
        iretd
%endmacro

main32:
        ; INT 80h with IOPL 3 goes through the IDT, to CPL 0
        EXPECT_BEGIN
        ENTER_VM86 vm_segments, 0x3000
        EXPECT_END 0x80, 0
        CHECK_EQUAL dword [seen_cs], LOW >> 4
        CHECK_EQUAL dword [seen_rsp], 0xff0
        CHECK_EQUAL dword [seen_ss], 0x700
        mov eax, [seen_flags]
        and eax, 0x23000
        CHECK_EQUAL eax, 0x23000
        mov ebx, [seen_frame]
        CHECK_EQUAL dword [ebx + 20], 0x4444
        CHECK_EQUAL dword [ebx + 24], RESULT >> 4
        CHECK_EQUAL dword [ebx + 28], 0x2222
        CHECK_EQUAL dword [ebx + 32], 0x1111
        CHECK_EQUAL dword [RESULT + 4], 0x12345678
        CHECK_EQUAL word [RESULT + 8], 0x4444
        ; the handler began with null data segments
        lea eax, [interrupt_stack_top - 36]
        CHECK_EQUAL ebx, eax

        ; without IOPL 3: CLI, STI, PUSHF, POPF, INT n, IRET are #GP(0)
%macro SENSITIVE 1.nolist
        EXPECT_BEGIN
        ENTER_VM86 %1, 0
        EXPECT_END 13, 0
        EXPECT_BEGIN
        ENTER_VM86 %1, 0x3000
        EXPECT_END 0x80, 0
%endmacro
        mov word [0], 0x80cd            ; where IRET goes: INT 80h at 0:0
        mov dword [0x700 * 16 + 0xff0], 0
        mov dword [0x700 * 16 + 0xff4], 0
        SENSITIVE vm_cli
        SENSITIVE vm_sti
        SENSITIVE vm_pushf
        SENSITIVE vm_popf
        SENSITIVE vm_int
        SENSITIVE vm_iret

        ; HLT and moves to control registers never; LLDT does not exist
        EXPECT_BEGIN
        ENTER_VM86 vm_hlt, 0x3000
        EXPECT_END 13, 0
        EXPECT_BEGIN
        ENTER_VM86 vm_cr, 0x3000
        EXPECT_END 13, 0
        EXPECT_BEGIN
        ENTER_VM86 vm_lldt, 0x3000
        EXPECT_END 6, 0

        ; ports are granted by the bitmap alone, whatever IOPL is
        mov byte [tss32 + 104 + 0x80 / 8], 0xff
        EXPECT_BEGIN
        ENTER_VM86 vm_in, 0x3000
        EXPECT_END 13, 0
        mov byte [tss32 + 104 + 0x80 / 8], 0xfe
        EXPECT_BEGIN
        ENTER_VM86 vm_in, 0x3000
        EXPECT_END 0x80, 0

        ; INT3 and INTO go through gates of any IOPL; so do faults
        EXPECT_BEGIN
        ENTER_VM86 vm_int3, 0
        EXPECT_END 3, 0
        EXPECT_BEGIN
        ENTER_VM86 vm_ud, 0
        EXPECT_END 6, 0
        NOT_ON_TCG
        EXPECT_BEGIN
        ENTER_VM86 vm_limit, 0x3000
        EXPECT_END 13, 0
        END_NOT_ON_TCG
        ret

bits 16
vm_segments:
        mov eax, 0x12345678
        mov [4], eax
        mov ax, es
        mov [8], ax
        ; a far jump adds no descriptor: 0x7f0:0x100 + this is the same place
        jmp (LOW >> 4) - 0x10:.there - vm_segments + 0x100
.there: call .near
        push cs
        push word .again - vm_segments + 0x100
        jmp .far
.again: jmp (LOW >> 4):.end - vm_segments
.end:   int 0x80
.near:  ret
.far:   retf
vm_cli: cli
        int 0x80
vm_sti: sti
        int 0x80
vm_pushf:
        pushf
        int 0x80
vm_popf:
        popf
        int 0x80
vm_int: int 0x80
vm_iret:
        iret                            ; SS:SP holds zeroes: to 0:0
vm_hlt: hlt
vm_cr:  mov eax, cr0
vm_lldt:
        lldt ax
vm_in:  in al, 0x80
        int 0x80
vm_int3:
        int3
vm_ud:  ud2
vm_limit:
        mov bx, 0xffff
        mov ax, [bx]
        int 0x80
