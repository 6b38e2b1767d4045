; A guest that asks at random: CPUID leaves, MSRs, ports. Each CPUID leaf says
; the same twice; each MSR access succeeds or raises #GP(0); nothing else
; happens, and the machine goes on. The same numbers in every run, or those of
; the seed that the command line tells: seed=NUMBER.
%include "lib.inc"

ROUNDS  equ 20000

; The instruction may raise #GP(0), and nothing else. ZF: it did not.
%macro MAY_FAULT 1+
        BEGIN
        %1
%$after:
        mov dword [resume], 0
        cmp dword [seen_vector], -1
        je %%done
        CHECK_EQUAL dword [seen_vector], 13
        CHECK_EQUAL dword [seen_error], 0
        test esp, esp                           ; never zero
%%done:
        %pop
%endmacro

main:
        cmp byte [on_kvm], 0                    ; inside of TCG each takes long
        je .begin
        mov dword [rounds], ROUNDS / 10
.begin: call read_seed
        call ask_cpuid
        call read_msrs
        call write_msrs
        call touch_ports
        ret

read_seed:
        mov esi, [command_line]
        test esi, esi
        jz .none
.look:  cmp byte [rsi], 0
        je .none
        cmp dword [rsi], "seed"
        je .found
        inc rsi
        jmp .look
.found: add rsi, 5
        xor eax, eax
.digit: movzx ecx, byte [rsi]
        sub ecx, '0'
        cmp ecx, 9
        ja .end
        imul rax, rax, 10
        add rax, rcx
        inc rsi
        jmp .digit
.end:   test rax, rax                           ; from which xorshift would never move
        jz .none
        mov [state], rax
.none:  ret

; rax: the next number (xorshift64). Spoils nothing else.
random: push rcx
        mov rax, [state]
        mov rcx, rax
        shl rcx, 13
        xor rax, rcx
        mov rcx, rax
        shr rcx, 7
        xor rax, rcx
        mov rcx, rax
        shl rcx, 17
        xor rax, rcx
        mov [state], rax
        pop rcx
        ret

; eax: one of a few numbers from a base of the list at rsi (base, mask; a mask of zero ends it),
; or any number at all. Spoils rdx, rdi.
pick:   call random
        mov rdi, rax
        mov rdx, rsi
.count: cmp dword [rdx + 4], 0
        je .any
        add rdx, 8
        shr edi, 1                              ; each base half as often as the one before
        jc .count
        sub rdx, 8
        call random
        and eax, [rdx + 4]
        add eax, [rdx]
        ret
.any:   call random
        mov eax, eax
        ret

ask_cpuid:
        mov ebp, [rounds]
.next:  mov rsi, leaves
        call pick
        mov r8, rax
        call random
        mov r9d, eax
        and r9d, 0x3f
        mov eax, r8d
        mov ecx, r9d
        cpuid
        mov r10d, eax
        mov r11d, ebx
        mov r12d, ecx
        mov r13d, edx
        mov eax, r8d
        mov ecx, r9d
        cpuid
        CHECK_EQUAL eax, r10d
        CHECK_EQUAL ebx, r11d
        CHECK_EQUAL ecx, r12d
        CHECK_EQUAL edx, r13d
        dec ebp
        jnz .next
        ret

read_msrs:
        mov ebp, [rounds]
.next:  mov rsi, msrs
        call pick
        mov ecx, eax
        MAY_FAULT rdmsr
        dec ebp
        jnz .next
        ret

; One bit of it turned, and back. Left out are those by which a guest ends or overwrites itself:
; the APIC's, and those that hold addresses for the hypervisor to write to.
write_msrs:
        mov ebp, [rounds]
.next:  mov rsi, msrs
        call pick
        mov ecx, eax
        cmp ecx, 0x1b                           ; IA32_APIC_BASE
        je .left_out
        shr eax, 8
        cmp eax, 0x8                            ; x2APIC
        je .left_out
        cmp eax, 0x4b564d                       ; the clock of KVM
        je .left_out
        cmp ecx, 0x11
        je .left_out
        cmp ecx, 0x12
        je .left_out
        MAY_FAULT rdmsr
        jne .left_out
        mov r8d, eax
        mov r9d, edx
        call random
        and eax, 63
        mov r10, 1
        xchg eax, ecx
        shl r10, cl
        xchg eax, ecx
        mov rax, r10
        mov rdx, r10
        shr rdx, 32
        xor eax, r8d
        xor edx, r9d
        MAY_FAULT wrmsr
        mov eax, r8d
        mov edx, r9d
        MAY_FAULT wrmsr
.left_out:
        dec ebp
        jnz .next
        ret

touch_ports:
        mov ebp, [rounds]
.next:  call random
        movzx edx, ax
        mov rsi, endings
.look:  movzx eax, word [rsi]
        add rsi, 2
        test eax, eax
        jz .good
        sub eax, edx
        cmp eax, 4
        jb .left_out
        jmp .look
.good:  in eax, dx
        call random
        out dx, al
        out dx, ax
        in al, dx
        in ax, dx
.left_out:
        dec ebp
        jnz .next
        mov dx, SERIAL + 3                      ; as it was
        mov al, 3
        out dx, al
        mov dx, SERIAL + 1
        xor eax, eax
        out dx, al
        mov dx, SERIAL + 4
        out dx, al
        mov dx, SERIAL                          ; a line of its own for what is said next
        mov al, 10
        out dx, al
        ret

section .rodata
align 8
leaves: dd 0, 0x1f, 0x80000000, 0x0f, 0x40000000, 0x1ff, 0, 0xff, 0, 0
msrs:   dd 0, 0x3ff, 0xc0000080, 0x0f, 0xc0000100, 0x07, 0, 0xfff, 0xc0000000, 0x1fff
        dd 0xc0010000, 0xfff, 0x40000000, 0x1ff, 0x4b564d00, 0x0f, 0, 0
endings: dw DEBUG_EXIT, DEBUG_EXIT + 1, DEBUG_EXIT + 2, DEBUG_EXIT + 3, 0x64, 0x92, 0x604, 0x605, 0xcf9, 0
section .data
align 8
state:  dq 0x9e3779b97f4a7c15
rounds: dd ROUNDS
section .text
