; 32-bit protected mode: segment limits, types and privilege, call gates, I/O
; permission, the exceptions of their own (SDM 3A 5).
%include "lib32.inc"

main32:
        xor eax, eax
        mov gs, ax
        EXPECT 13, 0, mov ss, ax
        NOT_ON_TCG
        EXPECT 13, 0, mov al, [gs:0]            ; a null segment
        END_NOT_ON_TCG
        mov eax, NOTPRESENT
        EXPECT 11, NOTPRESENT, mov gs, ax
        EXPECT 12, NOTPRESENT, mov ss, ax
        mov eax, 0x1000
        EXPECT 13, 0x1000, mov gs, ax
        mov eax, CODE32
        EXPECT 13, CODE32, mov ss, ax           ; code is no stack

        ; limits
        NOT_ON_TCG
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4093
        mov eax, ENTRY1
        mov gs, ax
        mov al, [gs:0xfff]
        EXPECT 13, 0, mov al, [gs:0x1000]
        EXPECT 13, 0, mov eax, [gs:0xffd]
        EXPECT 13, 0, mov [gs:-1], al
        mov eax, [gs:0xffc]
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4097    ; expands down
        mov eax, ENTRY1
        mov gs, ax
        mov al, [gs:0x1000]
        EXPECT 13, 0, mov al, [gs:0xfff]
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x40f3
        EXPECT_BEGIN
        ENTER_USER32 user_stack
        EXPECT_END 12, 0                        ; a push over the stack's limit
        DESCRIPTOR ENTRY1, FREE_PAGE, 0, 0xc093         ; one page of granularity
        mov eax, ENTRY1
        mov gs, ax
        mov al, [gs:0xfff]
        EXPECT 13, 0, mov al, [gs:0x1000]
        ; types
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4091    ; read-only
        mov eax, ENTRY1
        mov gs, ax
        mov al, [gs:0]
        EXPECT 13, 0, mov [gs:0], al
        EXPECT 13, 0, mov [cs:main32], al
        END_NOT_ON_TCG
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4091
        mov eax, ENTRY1
        EXPECT 13, ENTRY1, mov ss, ax
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4099    ; execute only
        mov eax, ENTRY1
        EXPECT 13, ENTRY1, mov gs, ax
        ; loading sets the accessed bit
        DESCRIPTOR ENTRY1, FREE_PAGE, 0x0fff, 0x4092
        mov eax, ENTRY1
        mov gs, ax
        CHECK_EQUAL byte [gdt + ENTRY1 + 5], 0x93
        ; what LAR, LSL, VERR, VERW tell
        mov ebx, ENTRY1
        lar eax, ebx
        CHECK z
        CHECK_EQUAL eax, 0x409300
        lsl eax, ebx
        CHECK z
        CHECK_EQUAL eax, 0xfff
        verw bx
        CHECK z
        mov bx, CODE32
        verw bx
        CHECK nz
        verr bx
        CHECK z
        mov ebx, 0x2000
        lar eax, ebx
        CHECK nz
        ; the LDT
        DESCRIPTOR LOCAL, local_table, 15, 0x82
        mov eax, LOCAL
        lldt ax
        mov eax, 4 | 8
        mov gs, ax
        CHECK_EQUAL dword [gs:0], 0x600d
        mov eax, 4 | 16
        EXPECT 13, 4 | 16, mov gs, ax
        xor eax, eax
        mov gs, ax
        lldt ax

        ; traps and faults of 32-bit code
        mov eax, 0x7fffffff
        add eax, 1
        EXPECT 4, 0, into
        mov eax, 5
        mov dword [bounds], 1
        mov dword [bounds + 4], 4
        EXPECT 5, 0, bound eax, [bounds]
        mov eax, 4
        bound eax, [bounds]
        mov al, 0x80
        EXPECT 0, 0, aam 0

        ; CPL 3
        EXPECT_BEGIN
        ENTER_USER32 user_cli
        EXPECT_END 13, 0
        CHECK_EQUAL dword [seen_cs], USER32
        CHECK_EQUAL dword [seen_ss], USERDATA
        CHECK_EQUAL dword [seen_rsp], USER_STACK
        EXPECT_BEGIN
        ENTER_USER32 user_load
        EXPECT_END 13, DATA                     ; DPL 0 is not for CPL 3
        EXPECT_BEGIN
        ENTER_USER32 user_io
        EXPECT_END 13, 0
        and byte [tss32 + 104 + 0x80 / 8], 0xfe
        EXPECT_BEGIN
        ENTER_USER32 user_io
        EXPECT_END 0x80, 0
        EXPECT_BEGIN
        ENTER_USER32 user_io_word               ; the second port is not granted
        EXPECT_END 13, 0
        EXPECT_BEGIN
        push USERDATA
        push USER_STACK
        push 0x3002                             ; IOPL 3
        push USER32
        push user_cli
        iretd
        EXPECT_END 0x80, 0
        ; POPF at CPL 3 changes neither IOPL nor IF, and does not fault
        EXPECT_BEGIN
        ENTER_USER32 user_popf
        EXPECT_END 0x80, 0
        test dword [seen_flags], 0x3200
        CHECK z
        ; data segments above the new CPL are cleared on the way out
        mov eax, DATA
        mov gs, ax
        EXPECT_BEGIN
        ENTER_USER32 user_gs
        EXPECT_END 0x80, 0
        CHECK_EQUAL dword [user_result], 0

        ; call gates: same privilege, then inwards with two parameters
        GATE gdt + ENTRY2, CODE32, gate_near, 0x8c
        call ENTRY2:0
        CHECK_EQUAL eax, 0x1111
        GATE gdt + ENTRY2, CODE32, gate_inwards, 0xec, 2
        EXPECT_BEGIN
        ENTER_USER32 user_call_gate
        EXPECT_END 0x80, 0
        CHECK_EQUAL dword [user_result], 0x2222 + 0x3333
        CHECK_EQUAL dword [gate_esp], interrupt_stack_top - 24
        CHECK_EQUAL dword [gate_cs], CODE32
        CHECK_EQUAL dword [seen_rsp], USER_STACK ; RETF 8 took them off both stacks
        GATE gdt + ENTRY2, CODE32, gate_inwards, 0x8c, 2
        EXPECT_BEGIN
        ENTER_USER32 user_call_gate
        EXPECT_END 13, ENTRY2                   ; DPL 0
        GATE gdt + ENTRY2, CODE32, gate_inwards, 0x6c, 2
        EXPECT_BEGIN
        ENTER_USER32 user_call_gate
        EXPECT_END 11, ENTRY2                   ; not present
        ; conforming code keeps the caller's CPL
        DESCRIPTOR ENTRY3, 0, 0xfffff, 0xc09f
        EXPECT_BEGIN
        ENTER_USER32 user_conforming
        EXPECT_END 0x80, 0
        CHECK_EQUAL dword [user_result], ENTRY3 | 3
        EXPECT_BEGIN
        ENTER_USER32 user_far_kernel
        EXPECT_END 13, CODE32

        ; SYSENTER and SYSEXIT: selectors from the MSR, flat segments
        EXPECT_BEGIN
        ENTER_USER32 user_sysenter
        EXPECT_END 13, 0                        ; IA32_SYSENTER_CS is null
        mov ecx, 0x174
        mov eax, CODE32
        xor edx, edx
        wrmsr
        mov ecx, 0x175
        mov eax, interrupt_stack_top
        wrmsr
        mov ecx, 0x176
        mov eax, sysenter_entry
        wrmsr
        EXPECT_BEGIN
        push USERDATA
        push USER_STACK
        push 0x202                              ; IF, which SYSENTER clears
        push USER32
        push user_sysenter
        iretd
        EXPECT_END 0x80, 0
        CHECK_EQUAL dword [entry_cs], CODE32
        CHECK_EQUAL dword [entry_ss], CODE32 + 8
        CHECK_EQUAL dword [entry_esp], interrupt_stack_top
        test dword [entry_flags], 0x200
        CHECK z
        CHECK_EQUAL dword [seen_cs], CODE32 + 16 | 3
        CHECK_EQUAL dword [seen_ss], CODE32 + 24 | 3
        CHECK_EQUAL dword [seen_rsp], USER_STACK - 64
        CHECK_EQUAL dword [seen_rip], user_sysexit + 2
        ret

user_cli:
        cli
        int 0x80
user_stack:
        mov eax, ENTRY1 | 3
        mov ss, ax
        mov esp, 2
        push eax
        int 0x80
user_load:
        mov eax, DATA
        mov ds, ax
        int 0x80
user_io:
        in al, 0x80
        int 0x80
user_io_word:
        in ax, 0x80
        int 0x80
user_popf:
        push 0x3202
        popfd
        int 0x80
user_gs:
        mov eax, USERDATA
        mov ds, ax
        mov eax, gs
        mov [user_result], eax
        int 0x80
user_call_gate:
        mov eax, USERDATA
        mov ds, ax
        push 0x3333
        push 0x2222
        call ENTRY2 | 3:0
        mov [user_result], eax
        int 0x80
user_conforming:
        mov eax, USERDATA
        mov ds, ax
        call ENTRY3:.inside
        int 0x80
.inside:
        mov eax, cs
        mov [user_result], eax
        retf
user_far_kernel:
        jmp CODE32:user_far_kernel

user_sysenter:
        sysenter
user_sysexit:
        int 0x80
sysenter_entry:
        mov eax, DATA
        mov ds, eax
        mov [entry_esp], esp
        pushfd
        pop dword [entry_flags]
        mov eax, cs
        mov [entry_cs], eax
        mov eax, ss
        mov [entry_ss], eax
        mov edx, user_sysexit
        mov ecx, USER_STACK - 64
        sysexit

gate_near:
        mov eax, 0x1111
        retf
; Stack: EIP, CS, two parameters, ESP, SS.
gate_inwards:
        mov [gate_esp], esp
        mov eax, cs
        mov [gate_cs], eax
        mov eax, [esp + 8]
        add eax, [esp + 12]
        retf 8

section .data
align 8
local_table: dq 0
        dw 0xffff
        dw word_600d
        db 0x10, 0xf3, 0x40, 0
word_600d equ local_word - 0x100000
local_word: dd 0x600d
bounds: dd 0, 0
user_result: dd -1
entry_esp: dd 0
entry_flags: dd 0
entry_cs: dd 0
entry_ss: dd 0
gate_esp: dd 0
gate_cs: dd 0
