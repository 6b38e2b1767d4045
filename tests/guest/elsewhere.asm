; The same physical code at many linear addresses, as position-independent programs and libraries
; have it: what is relative to RIP, pushed by calls, or told by faults is each address's own. First
; all addresses are there at once, then each goes before the next one comes.
%include "lib.inc"

; A window of four pages: two of code, one of data, one that is not there. There are 128 in each
; slot of the topmost table that leads to the tables here.
TABLE_PDPT equ FREE_PAGE
TABLE_PD   equ FREE_PAGE + 0x1000
TABLE_PT   equ FREE_PAGE + 0x2000
DATA_FRAME equ FREE_PAGE + 0x10000      ; of odd windows, the next one is of even ones
returned_to equ FREE_PAGE + 0x8000      ; not beside code, which would go each time
wanted     equ FREE_PAGE + 0x8008
LSTAR      equ 0xc0000082
SFMASK     equ 0xc0000084
STAR       equ 0xc0000081
FIRST_SLOT equ 1
LAST_SLOT  equ 40
HIGH_SLOT  equ 300                      ; from there on addresses are negative

; In code that may be anywhere: these must be equal.
%macro SAME 2.nolist
        cmp %1, %2
        je %%ok
        %defstr %%line __?LINE?__
        %strcat %%text "line ", %%line
        [section .rodata]
%%message: db %%text, 0
        __?SECT?__
        mov rsi, %%message
        mov rax, fail
        jmp rax
%%ok:
%endmacro

; An instruction that raises an exception; which is told with its own address.
%macro FAULTS 2+.nolist
        lea rax, [rel %%after]
        mov [abs resume_rsp], rsp
        mov [abs resume], rax
%%faulting:
        %2
%%after:
        mov rax, [abs seen_vector]
        SAME eax, %1
        lea rax, [rbx + %%faulting - code]
        SAME [abs seen_rip], rax
%endmacro

main:
        call make_tables
        xor edx, edx
        mov ecx, LSTAR
        mov eax, system_call
        wrmsr
        mov ecx, SFMASK
        mov eax, 0x408d5                        ; AC and the status flags
        wrmsr
        mov ecx, STAR
        mov edx, CODE64
        xor eax, eax
        wrmsr
        mov dword [abs wanted], 0x11111111

        ; all at once; then again, with what is there
        mov r14d, 3
.again: mov r15d, FIRST_SLOT
.slot:  call map_slot
        call visit
        inc r15d
        cmp r15d, LAST_SLOT
        jne .next
        mov r15d, HIGH_SLOT
.next:  cmp r15d, HIGH_SLOT + 10
        jne .slot
        dec r14d
        jnz .again

        ; an instruction changes, for all of them
        mov dword [abs wanted], 0x22222222
        mov dword [changed + 1], 0x22222222
        mov r15d, FIRST_SLOT
.other: call visit
        inc r15d
        cmp r15d, LAST_SLOT
        jne .other

        ; one goes, another one comes
        mov r15d, FIRST_SLOT
.gone:  call unmap_slot
        inc r15d
        cmp r15d, HIGH_SLOT + 10
        jne .gone
        mov r14d, 5
.round: mov r15d, FIRST_SLOT
.comes: call map_slot
        call visit
        call visit_next
        call visit
        call unmap_slot
        inc dword [abs wanted]
        inc dword [changed + 1]                 ; while nobody has it
        call map_slot
        call visit
        call unmap_slot
        add r15d, 7
        cmp r15d, HIGH_SLOT + 10
        jb .comes
        dec r14d
        jnz .round

        ; while one stays, and is gone back to
        mov r14d, 60
.stays: mov r15d, FIRST_SLOT
        call map_slot
        call visit
        lea r15d, [r14 + FIRST_SLOT + 1]
        call map_slot
        call visit
        call unmap_slot
        dec r14d
        jnz .stays

        ; one function is called elsewhere while its page is away, which then is back; nothing
        ; is flushed, so what was known of it may be known still
        mov r15d, FIRST_SLOT
        call map_slot
        mov r14d, 3
.away:  inc dword [abs wanted]                  ; there is nothing of any window
        inc dword [changed + 1]
        inc byte [changed_too]
        call visit
        mov qword [abs pml4 + FIRST_SLOT * 8], 0
        mov r15d, FIRST_SLOT + 1
        call map_slot
        lea rsi, [abs near_function]
        call visit_function
        lea rsi, [abs far_function]
        call visit_function
        mov r15d, FIRST_SLOT
        call map_slot
        dec r14d
        jnz .away
        call visit
        ret

; The function at rsi, in window 0 of slot r15.
visit_function:
        mov rbx, r15
        shl rbx, 39
        lea r11, [rsi - code]
        add r11, rbx
        mov rbp, r11
        call r11
        CHECK_EQUAL rdx, rbp
        ret

; Window n of slot r15: visit it, with what n is.
visit_next:
        lea eax, [r15 * 5 + 1]
        jmp visit_window
visit:  lea eax, [r15 * 3]
visit_window:
        and eax, 127
        mov r13d, eax
        and r13d, 1
        mov rbx, r15
        shl rbx, 39
        shl rbx, 16                             ; the topmost bits are copies
        sar rbx, 16
        shl eax, 14
        add rbx, rax
        mov r12d, [abs wanted]
        mov r11, rbx
        call r11
        ret

map_slot:
        mov qword [abs pml4 + r15 * 8], TABLE_PDPT + 3
        ret
unmap_slot:
        mov qword [abs pml4 + r15 * 8], 0
        mov rax, cr3
        mov cr3, rax
        ret

make_tables:
        mov edi, TABLE_PDPT
        mov ecx, 0x3000 / 4
        xor eax, eax
        rep stosd
        mov qword [abs TABLE_PDPT], TABLE_PD + 3
        mov qword [abs TABLE_PD], TABLE_PT + 3
        xor ecx, ecx
.window:
        mov eax, ecx
        shl eax, 5
        mov qword [rax + TABLE_PT], code + 3
        mov qword [rax + TABLE_PT + 8], code + 0x1000 + 3
        mov edx, ecx
        and edx, 1
        shl edx, 12
        add edx, DATA_FRAME + 3
        mov [rax + TABLE_PT + 16], rdx
        inc ecx
        cmp ecx, 128
        jne .window
        mov dword [abs DATA_FRAME], 0
        mov dword [abs DATA_FRAME + 0x1000], 1
        ret

system_call:
        mov [abs returned_to], rcx
        jmp rcx

; rbx: where this is. r12: what the instruction says that changes. r13: what the data says.
align 4096
code:
        call .here
.here:  pop rax
        lea rdx, [rbx + .here - code]
        SAME rax, rdx
        lea rax, [rel code]
        SAME rax, rbx
        lea rax, [rel data]
        lea rdx, [rbx + 0x2000]
        SAME rax, rdx
        ; memory
        mov eax, [rel data]
        SAME eax, r13d
        mov [rel data + 8], rbx
        SAME [rbx + 0x2008], rbx
        stc                                     ; flags live over an access
        mov eax, [rel data]
        adc eax, 0
        dec eax
        SAME eax, r13d
        movdqu xmm0, [rel data + 8]
        movq rax, xmm0
        SAME rax, rbx
        push qword [rel data + 8]
        pop rax
        SAME rax, rbx
        ; branches: within the page, to the other page, indirect
        xor ecx, ecx
.loop:  inc ecx
        mov [rel data + 16], ecx
        cmp ecx, 5
        jb .loop
        SAME [rbx + 0x2010], ecx
        call near_function
.from_near:
        lea rcx, [rbx + near_function - code]
        SAME rdx, rcx
        lea rdx, [rbx + .from_near - code]
        SAME rax, rdx
        call far_function
.from_far:
        lea rcx, [rbx + far_function - code]
        SAME rdx, rcx
        lea rdx, [rbx + .from_far - code]
        SAME rax, rdx
        lea rax, [rel far_function]
        call rax
.from_indirect:
        lea rdx, [rbx + .from_indirect - code]
        SAME rax, rdx
        lea rax, [rel far_function]
        mov [rel data + 24], rax
        call [rel data + 24]
.from_memory:
        lea rdx, [rbx + .from_memory - code]
        SAME rax, rdx
        lea rax, [rel .indirect]
        jmp rax
        ud2
.indirect:
        test ebx, ebx
        jnp .to_far
        jmp far_code
.to_far:
        jnp far_code
        ud2
back:   lea rdx, [rel back]
        SAME rax, rdx
        ; what is carried out by the interpreter
        xor eax, eax
        cpuid
        lea rdx, [rel code]                     ; CPUID changed rbx
        mov rbx, rdx
        syscall
.from_system:
        lea rdx, [rbx + .from_system - code]
        SAME rcx, rdx
        SAME [abs returned_to], rdx
        ; faults
        FAULTS 6, ud2
        FAULTS 14, mov eax, [rel data + 0x1000]
        lea rdx, [rbx + 0x3000]
        SAME [abs seen_cr2], rdx
        FAULTS 14, mov [rel data + 0x1004], eax
        lea rdx, [rbx + 0x3004]
        SAME [abs seen_cr2], rdx
        xor ecx, ecx
        xor edx, edx
        FAULTS 0, div ecx
        mov rdx, 1 << 63
        FAULTS 13, call rdx
        SAME [abs seen_rsp], rsp
        jmp changed
align 16
changed:
        mov eax, 0x11111111
        SAME eax, r12d
        ret

; The return address, in rax; in rdx its own one.
near_function:
        lea rdx, [rel near_function]
        mov rax, [rsp]
        ret

        align 4096, db 0xcc
far_function:
        lea rdx, [rel far_function]
        mov rax, [rsp]
        ret
far_code:
        lea rax, [rel back]
        jmp back
changed_too:
        db 0

        align 4096, db 0xcc
data:
