; Physical memory that is not RAM is read and written, from its end to the end of
; the physical width, in every size and by every kind of instruction, and so is every
; register of what lies there; the machine goes on. What is nobody's
; reads as ones.
%include "lib.inc"
%include "apic.inc"

RAM_END equ 0x4000000           ; 64 MiB: run-guest
HOLE    equ 0x70000000          ; nothing is there
WINDOW  equ 0xffffff8000000000  ; the last entry of the top table: 1 GiB pages

%define ECAM 0xe0000000

main:
        ; RAM ends where it ends, and an access over its end comes in two halves
        mov rbx, RAM_END
        mov rax, 0x1122334455667788
        mov [rbx - 8], rax
        CHECK_EQUAL [rbx - 8], rax
        mov [rbx - 4], rax
        CHECK_EQUAL dword [rbx - 4], 0x55667788
        CHECK_EQUAL dword [rbx], -1
        mov rax, 0xffffffff55667788
        CHECK_EQUAL [rbx - 4], rax

        ; nobody's: all ones, writes are lost
        mov rbx, HOLE
        mov byte [rbx], 0
        mov word [rbx + 1], 0
        mov dword [rbx + 2], 0
        mov qword [rbx + 0xffc], 0
        CHECK_EQUAL byte [rbx], 0xff
        CHECK_EQUAL word [rbx + 1], 0xffff
        CHECK_EQUAL dword [rbx + 3], -1
        CHECK_EQUAL qword [rbx + 0xffc], -1
        lock inc dword [rbx]
        mov eax, 5
        lock xadd [rbx], eax
        CHECK_EQUAL eax, -1
        xchg [rbx], eax
        mov eax, -1
        mov edx, -1
        xor ebx, ebx
        xor ecx, ecx
        mov edi, HOLE
        lock cmpxchg8b [rdi]
        CHECK e
        lock cmpxchg16b [rdi]
        mov rsi, HOLE + 0x800
        mov rdi, FREE_PAGE
        mov ecx, 0x1000
        rep movsb
        CHECK_EQUAL qword [abs FREE_PAGE], -1
        mov rsi, FREE_PAGE
        mov rdi, HOLE + 0x800
        mov ecx, 0x400
        rep movsd
        mov rdi, HOLE
        mov ecx, 0x1000
        repe scasb
        movdqu xmm0, [abs HOLE + 8]
        movdqu [abs HOLE + 0xff9], xmm0
        fxsave [abs HOLE + 512]
        fild qword [abs HOLE]
        fstp tword [abs HOLE + 6]
        mov rsp, HOLE + 0x1000
        push rax
        pop rax
        CHECK_EQUAL rax, -1
        mov rsp, stack_top - 8
        ; no code there either
        mov rax, HOLE
        EXPECT 6, 0, call rax
        mov rsp, stack_top - 8
        ; a page table in a hole maps nothing; KVM takes the access through it for one to the hole
        NOT_ON_KVM
        mov dword [abs page_directories + 0x50000000 / 0x200000 * 8], HOLE + 7
        mov eax, 0x50000000
        invlpg [rax]
        EXPECT_BEGIN
        mov al, [rax]
%$after:
        mov qword [resume], 0
        %pop
        CHECK_EQUAL dword [seen_vector], 14
        mov dword [abs page_directories + 0x50000000 / 0x200000 * 8], 0x50000083
        END_NOT_ON_KVM

        ; each 64 KiB up to 4 GiB, but the local APIC's (under KVM inside of TCG, where it takes
        ; long, each 16 MiB)
        mov r13d, 0x10000
        cmp byte [on_kvm], 0
        je .every
        mov r13d, 0x1000000
.every: mov rbx, RAM_END
.page:  cmp ebx, APIC
        je .skip
        mov rdi, rbx
        call touch
        lea rdi, [rbx + 0xfff8]
        call touch
.skip:  add rbx, r13
        bt rbx, 32
        jnc .page
        ; every register of the I/O APIC and of the configuration space of bus 0
        mov ebx, 0xfec00000
.io:    mov edi, ebx
        call touch
        inc ebx
        cmp ebx, 0xfec00100
        jb .io
        mov ebx, ECAM
.ecam:  mov edi, ebx
        call touch
        add ebx, 0x1004
        cmp ebx, ECAM + 0x100000
        jb .ecam
        ; the local APIC's: no commands, no end of it
        mov ebx, APIC
.apic:  mov eax, [rbx]
        mov ax, [rbx]
        mov al, [rbx + 1]
        mov rax, [rbx]
        mov byte [rbx], 0
        mov word [rbx + 2], 0
        cmp ebx, APIC + APIC_ICR
        je .next
        mov dword [rbx], 0xffffffff
        mov dword [rbx], 0
.next:  add ebx, 16
        cmp ebx, APIC + 0x1000
        jb .apic

        ; above 4 GiB, a page of each GiB: by 1 GiB pages, to the physical width
        mov eax, 0x80000008
        cpuid
        movzx ecx, al
        mov r12d, 1
        shl r12, cl
        mov rax, window + 3
        mov [abs pml4 + 511 * 8], rax
        mov rbx, 1 << 32
.gib:   lea rax, [rbx + 0x83]
        mov [window], rax
        mov rdi, WINDOW
        invlpg [rdi]
        call touch
        mov rdi, WINDOW + 0x3ffffff8
        call touch
        mov rax, rbx                            ; each GiB at first, then sparser
        shr rax, 5
        and rax, -0x40000000
        lea rbx, [rbx + rax + 0x40000000]
        cmp rbx, r12
        jb .gib
        ret

; Read and write at rdi in all sizes.
touch:
        mov rax, 0xfedcba9876543210
        mov [rdi], al
        mov al, [rdi]
        mov [rdi], ax
        mov ax, [rdi]
        mov [rdi], eax
        mov eax, [rdi]
        mov [rdi], rax
        mov rax, [rdi]
        not rax
        mov [rdi + 1], eax
        mov eax, [rdi + 3]
        ret

section .bss
alignb 4096
window: resb 4096
section .text
