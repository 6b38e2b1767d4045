; Several CPUs: start-up, locked instructions, IPIs of every kind, TLB
; shoot-down, code that one CPU writes and another runs, INIT once more
; (SDM 3A 8.1, 8.4, 10.6, 11.6).
%include "lib.inc"
%include "apic.inc"
%include "smp.inc"

ROUNDS  equ 20000                       ; a tenth of them under KVM inside of TCG
VERSIONS equ 500                        ; of these, too: CPUs that wait take turns there
PING    equ 0x50
SHOOT   equ 0x51
PAGE    equ 0x40000000          ; mapped by 4 KiB through [shot_table]
OLD     equ FREE_PAGE
NEW     equ FREE_PAGE + 0x1000

main:
        call apic_begin
        APIC_WRITE APIC_LDR, 1 << 24
        call map_page
        call start_others
        cmp dword [cpus], 2
        CHECK ae
        mov ecx, [cpus]                         ; each ID once
        mov r9d, 1
        shl r9d, cl
        dec r9d
        WAIT_FOR [ids], r9d
        CHECK_EQUAL [ids], r9d
        cmp byte [on_kvm], 0
        je .count
        mov dword [rounds], ROUNDS / 10
        mov dword [versions], VERSIONS / 10
.count:
        ; locked counters
        mov dword [phase], 1
        call count
        mov ebx, [cpus]
        WAIT_FOR [done], ebx
        mov eax, [cpus]
        imul eax, [rounds]
        CHECK_EQUAL [by_inc], eax
        CHECK_EQUAL [by_xadd], eax
        CHECK_EQUAL [by_cmpxchg], eax
        CHECK_EQUAL [by_lock], eax
        CHECK_EQUAL [by_16b], eax
        CHECK_EQUAL [by_bits], eax
        mov eax, [rounds]
        shr eax, 9
        imul eax, [cpus]
        CHECK_EQUAL dword [across + 61], eax
        CHECK_EQUAL dword [across_pages + 4094], eax

        call ipis
        call shoot_down
        call cross_modify
        ; INIT sends the others back to the start
        mov dword [phase], 10
        mov dword [online], 1
        mov dword [ids], 1
        call wake_others
        mov ecx, [cpus]
        mov r9d, 1
        shl r9d, cl
        dec r9d
        WAIT_FOR [ids], r9d
        CHECK_EQUAL [ids], r9d
        ret

; The others: through the phases, with interrupts on.
ap_main:
        mov ecx, ebx
        mov eax, 1
        shl eax, cl
        lock or [ids], eax
        shl eax, 24
        mov edx, APIC + APIC_LDR                ; flat logical ID
        mov [rdx], eax
.one:   pause
        cmp dword [phase], 1
        jb .one
        ja .end                                 ; after the second INIT
        call count
        sti
.two:   pause
        cmp dword [phase], 2
        jb .two
        ; read the page until the phase ends; never the old frame after the shot
.read:  mov edx, [shot]
        mov eax, [abs PAGE]
        cmp eax, "new"
        je .next
        test edx, edx
        jnz .stale
.next:  cmp dword [phase], 2
        je .read
        jmp .three
.stale: lock inc dword [stale]
        jmp .next
.three: ; call what CPU 0 writes, as soon as it says so
        xor ebp, ebp
.wait:  pause
        cmp dword [phase], 3
        ja .end
        mov eax, [version]
        cmp eax, ebp
        je .wait
        mov ebp, eax
        xor eax, eax
        cpuid                                   ; serializes
        call written
        cmp eax, ebp
        je .same
        lock inc dword [stale]
.same:  lock inc dword [done]
        jmp .wait
.end:   lock inc dword [done]
        ret

; Count in every way there is, in competition.
count:
        push rbx
        mov r8d, [rounds]
.next:  lock inc dword [by_inc]
        mov eax, 1
        lock xadd [by_xadd], eax
        mov eax, [by_cmpxchg]
.retry: lea edx, [rax + 1]
        lock cmpxchg [by_cmpxchg], edx
        jne .retry
        mov eax, 1                              ; a lock by XCHG
.take:  xchg eax, [lock_word]
        test eax, eax
        jz .taken
.spin:  pause
        cmp dword [lock_word], 0
        jne .spin
        mov eax, 1
        jmp .take
.taken: inc dword [by_lock]
        mov dword [lock_word], 0
        mov rax, [by_16b]
        mov rdx, [by_16b + 8]
.wide:  lea rbx, [rax + 1]
        lea rcx, [rdx - 1]
        lock cmpxchg16b [by_16b]
        jne .wide
.bit:   lock bts dword [bit_lock], 5            ; a lock by BTS
        jnc .got
        pause
        jmp .bit
.got:   inc dword [by_bits]
        lock btr dword [bit_lock], 5
        test r8d, 511                           ; these may lock the host's bus, for milliseconds
        jnz .cheap
        lock inc dword [across + 61]            ; over two cache lines
        lock add dword [across_pages + 4094], 1 ; over two pages
.cheap: dec r8d
        jnz .next
        lock inc dword [done]
        pop rbx
        ret

ipis:
        mov dword [done], 0
        call clear_counts
        mov ebx, [cpus]
        APIC_WRITE APIC_ICR, TO_OTHERS | ICR_ASSERT | PING
        lea r9d, [rbx - 1]
        WAIT_FOR COUNT(PING), r9d
        sti
        APIC_WRITE APIC_ICR, TO_ALL | ICR_ASSERT | PING
        lea r9d, [rbx * 2 - 1]
        WAIT_FOR COUNT(PING), r9d
        ; each by its physical and by its logical ID
        mov r10d, ebx
.each:  dec r10d
        mov ecx, r10d
        shl ecx, 24
        APIC_WRITE APIC_ICR2, ecx
        APIC_WRITE APIC_ICR, ICR_ASSERT | PING
        inc r9d
        WAIT_FOR COUNT(PING), r9d
        mov ecx, r10d
        mov eax, 1 << 24
        shl eax, cl
        mov ecx, eax
        APIC_WRITE APIC_ICR2, ecx
        APIC_WRITE APIC_ICR, ICR_ASSERT | ICR_LOGICAL | PING
        inc r9d
        WAIT_FOR COUNT(PING), r9d
        test r10d, r10d
        jnz .each
        ; to all logical IDs; then lowest priority, which one of them takes
        APIC_WRITE APIC_ICR2, 0xff000000
        APIC_WRITE APIC_ICR, ICR_ASSERT | ICR_LOGICAL | PING
        add r9d, ebx
        WAIT_FOR COUNT(PING), r9d
        APIC_WRITE APIC_ICR, ICR_ASSERT | ICR_LOGICAL | 1 << 8 | PING
        inc r9d
        WAIT_FOR COUNT(PING), r9d
        APIC_WRITE APIC_ICR, TO_OTHERS | ICR_ASSERT | 4 << 8    ; NMI
        lea r11d, [rbx - 1]
        WAIT_FOR COUNT(2), r11d
        mov r8, [tsc_ms]
        WAIT_TICKS r8
        cli
        CHECK_EQUAL COUNT(PING), r9d            ; and none too many
        CHECK_EQUAL COUNT(2), r11d
        ret

; PAGE leads to OLD: a page directory and a table of its own.
map_page:
        mov dword [abs OLD], "old"
        mov dword [abs NEW], "new"
        mov eax, OLD + 3
        mov [shot_table], rax
        lea rax, [shot_table + 3]
        mov [abs page_directories + PAGE / 0x200000 * 8], rax
        mov rax, cr3
        mov cr3, rax
        ret

shoot_down:
        mov dword [done], 0
        mov qword [handler], shot_handler
        mov dword [phase], 2
        mov r8, [tsc_ms]
        WAIT_TICKS r8                           ; they read the old page by now
        mov eax, NEW + 3
        mov [shot_table], rax
        invlpg [abs PAGE]
        APIC_WRITE APIC_ICR, TO_OTHERS | ICR_ASSERT | SHOOT
        mov ebx, [cpus]
        dec ebx
        WAIT_FOR [acknowledged], ebx
        mov dword [shot], 1
        CHECK_EQUAL dword [abs PAGE], "new"
        WAIT_TICKS r8
        CHECK_EQUAL dword [stale], 0
        ret

shot_handler:
        cmp eax, SHOOT
        jne note_interrupt
        invlpg [abs PAGE]
        lock inc dword [acknowledged]
        APIC_WRITE APIC_EOI, 0
        ret

cross_modify:
        mov dword [done], 0
        mov dword [phase], 3
        mov ebp, [cpus]
        dec ebp
        xor r10d, r10d
        xor r11d, r11d
.next:  inc r10d
        mov [written + 1], r10d
        mov [version], r10d
        add r11d, ebp
        WAIT_FOR [done], r11d
        cmp r10d, [versions]
        jb .next
        CHECK_EQUAL dword [stale], 0
        ret

align 64
written:
        mov eax, 0
        ret

section .data
rounds: dd ROUNDS
versions: dd VERSIONS
align 64
ids:    dd 1
phase:  dd 0
done:   dd 0
shot:   dd 0
stale:  dd 0
version: dd 0
acknowledged: dd 0
by_inc: dd 0
by_xadd: dd 0
by_cmpxchg: dd 0
by_lock: dd 0
lock_word: dd 0
bit_lock: dd 0
by_bits: dd 0
align 64
by_16b: dq 0, 0
align 64
across: times 128 db 0
section .bss
alignb 4096
across_pages: resb 8192
shot_table: resb 4096
section .text
