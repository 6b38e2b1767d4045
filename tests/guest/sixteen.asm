; The same work in real mode, 16-bit protected mode, virtual-8086 mode and in 32-bit code
; whose segments have bases and limits: a sieve, string instructions, calls with frames on
; the stack, loads of segment registers. Each must find the same.
;
; The command line real, prot, v86m or base has it done in that mode alone, many times, to see how
; long it takes.
%include "lib32.inc"

LOW    equ 0x8000               ; the 16-bit code
DATA_  equ 0x10000              ; its data, a whole segment of 64 KiB
STACK_ equ 0x30000
STACK_TOP equ 0xf00            ; within the limit of 4 KiB, as handlers look above it

; Offsets in the data segment
TEXT    equ 0x4000
COPY    equ 0x6000
WORDS   equ 2000
SIEVE   equ 8192
ROUNDS  equ 0xf000
AGAIN   equ 0xf002              ; the selector of the data segment
PRIMES  equ 0xf004
SUM     equ 0xf008
MIXED   equ 0xf00c
SEED    equ 0xf010
POINTER equ 0xf014

; What comes of a round
PRIMES_BELOW_8192 equ 1028

; Enough that the translator leaves the page alone, and tries again; the immediate counts from
; 0 in each turn, modulo 256.
OWN_TURNS equ 45000
OWN_SUM   equ (OWN_TURNS / 256) * (255 * 128) + (OWN_TURNS % 256) * (OWN_TURNS % 256 - 1) / 2

CS_ENTRY equ ENTRY1
DS_ENTRY equ ENTRY2
SS_ENTRY equ ENTRY3
CS32_ENTRY equ ENTRY4

%macro PREPARE 2                ; rounds, the data segment's selector
        mov word [DATA_ + ROUNDS], %1
        mov word [DATA_ + AGAIN], %2
        mov dword [DATA_ + PRIMES], 0
        mov dword [DATA_ + SUM], 0
        mov dword [DATA_ + MIXED], 0
        mov word [DATA_ + POINTER], TEXT
        mov word [DATA_ + POINTER + 2], %2
%endmacro

%macro CHECK_WORK 0
        CHECK_EQUAL dword [DATA_ + PRIMES], PRIMES_BELOW_8192
        CHECK_EQUAL dword [DATA_ + SUM], EXPECTED_SUM
        CHECK_EQUAL dword [DATA_ + MIXED], EXPECTED_MIXED
%endmacro

; Found by the interpreter
EXPECTED_SUM   equ 0x0bd5807f
EXPECTED_MIXED equ 0xb59c1e0b

main32:
        mov esi, low_start
        mov edi, LOW
        mov ecx, low_end - low_start
        rep movsb
        DESCRIPTOR CS_ENTRY, LOW, 0xfff, 0x9b
        DESCRIPTOR DS_ENTRY, DATA_, 0xffff, 0x93
        DESCRIPTOR SS_ENTRY, STACK_, 0xfff, 0x93
        DESCRIPTOR CS32_ENTRY, flat_start, flat_end - flat_start - 1, 0x409b
        mov ebp, 3
        mov esi, [command_line]
        test esi, esi
        jz .all
        mov eax, [esi]
        mov ebp, 3000
        cmp eax, "real"
        je .real
        cmp eax, "prot"
        je .protected
        cmp eax, "v86m"
        je .virtual
        cmp eax, "base"
        je .based
        mov ebp, 3
.all:
        call in_real
        CHECK_WORK
        call in_protected
        CHECK_WORK
        call in_virtual
        CHECK_WORK
        call in_based
        CHECK_WORK
        call in_own_page
        ret
.real:  call in_real
        ret
.protected:
        call in_protected
        ret
.virtual:
        call in_virtual
        ret
.based: call in_based
        ret

in_real:
        PREPARE bp, DATA_ >> 4
        mov [kept_esp], esp
        jmp CS_ENTRY:to_real - low_start
back_from_real:
        mov eax, DATA
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, [kept_esp]
        lidt [idt32_pointer]
        ret

in_protected:
        PREPARE bp, DS_ENTRY
        EXPECT_BEGIN
        jmp CS_ENTRY:protected - low_start
        EXPECT_END 0x80, 0
        ret

in_virtual:
        PREPARE bp, DATA_ >> 4
        mov ebx, virtual - low_start
        jmp enter_virtual

; Code that counts in its own page, beside an instruction that it changes
in_own_page:
        mov ebx, own_page - low_start
        call enter_virtual
        CHECK_EQUAL dword [LOW + own_count - low_start], OWN_TURNS
        CHECK_EQUAL dword [LOW + own_sum - low_start], OWN_SUM
        ret

enter_virtual:
        EXPECT_BEGIN
        push 0x1111                     ; GS, FS
        push 0x2222
        push DATA_ >> 4                 ; DS, ES
        push DATA_ >> 4
        push STACK_ >> 4                ; SS:SP
        push STACK_TOP
        push 0x23002
        push LOW >> 4                   ; CS:IP
        push ebx
        iretd
        EXPECT_END 0x80, 0
        ret

in_based:
        PREPARE bp, DS_ENTRY
        EXPECT_BEGIN
        jmp CS32_ENTRY:based - flat_start
        EXPECT_END 0x80, 0
        ret

kept_esp: dd 0

bits 16
low_start:
to_real:
        mov ax, DS_ENTRY
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ax, SS_ENTRY
        mov ss, ax
        mov eax, cr0
        and al, ~1
        mov cr0, eax
        jmp (LOW >> 4):real - low_start
real:   mov ax, DATA_ >> 4
        mov ds, ax
        mov ax, STACK_ >> 4
        mov ss, ax
        mov esp, STACK_TOP
        call work
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword CODE32:back_from_real

protected:
        mov ax, DS_ENTRY
        mov ds, ax
        mov ax, SS_ENTRY
        mov ss, ax
        mov esp, STACK_TOP
virtual:
        call work
        int 0x80

; As many rounds as [ROUNDS] says; DS is the data, SS:SP a stack.
work:   mov cx, [ROUNDS]
.round: push cx
        cld
        mov ax, [AGAIN]
        mov es, ax
        xor di, di                      ; the sieve
        mov cx, SIEVE
        mov al, 1
        rep stosb
        mov si, 2
.outer: cmp byte [si], 0
        je .next
        mov bx, si
.mark:  add bx, si
        cmp bx, SIEVE
        jae .next
        mov [bx], ch
        jmp .mark
.next:  inc si
        cmp si, 91
        jb .outer
        xor dx, dx
        mov si, 2
        mov cx, SIEVE - 2
.count: lodsb
        cbw
        add dx, ax
        loop .count
        mov [PRIMES], dx
        mov word [SEED], 1              ; words that look random
        les di, [POINTER]
        mov cx, WORDS
.fill:  call .random
        stosw
        loop .fill
        push ds                         ; a copy, compared and searched
        pop es
        mov si, TEXT
        mov di, COPY
        mov cx, WORDS
.copy:  movsw
        loop .copy
        mov si, TEXT
        mov di, COPY
        mov cx, 2 * WORDS
.compare:
        cmpsb
        loope .compare
        add [MIXED], cx
        mov di, COPY
        mov cx, 2 * WORDS
        mov al, 0x5a
.search:
        scasb
        loopne .search
        add [MIXED], cx
        mov cx, WORDS                   ; arguments on the stack, frames
        mov si, TEXT
.sum:   push word [si]
        push si
        call near [cs:.by - low_start]
        lea si, [si + 2]
        loop .sum
        mov bx, TEXT                    ; mixed sizes, base and index, bytes of words
        mov cx, WORDS
        xor si, si
.mix:   movzx eax, word [bx + si]
        imul eax, eax, 0x01000193
        mov [bx + si], ah
        xor ah, [bx + si + 1]
        add [MIXED], eax
        adc dword [MIXED], 0
        pusha
        popa
        add si, 2
        dec cx
        jnz .mix
        pop cx
        dec cx
        jnz .round
        ret
.by:    dw .add - low_start
.add:   push bp
        mov bp, sp
        mov ax, [bp + 6]
        xor ax, [bp + 4]
        add [SUM], ax
        adc word [SUM + 2], 0
        rol word [SUM], 1
        leave
        ret 4
.random:
        mov ax, [SEED]
        imul ax, ax, 25173
        add ax, 13849
        mov [SEED], ax
        xchg ah, al
        ret
own_page:
        mov ax, LOW >> 4
        mov ds, ax
        mov cx, OWN_TURNS
.turn:  inc dword [own_count - low_start]
.changed:
        mov al, 0
        movzx eax, al
        add [own_sum - low_start], eax
        inc byte [.changed + 1 - low_start]
        loop .turn
        int 0x80
own_count: dd 0
own_sum: dd 0
low_end:

; The same in 32-bit code, at offset 0 of its segment.
bits 32
flat_start:
based:
        mov eax, DS_ENTRY
        mov ds, eax
        mov eax, SS_ENTRY
        mov ss, eax
        mov esp, STACK_TOP
        movzx ecx, word [ROUNDS]
.round: push ecx
        cld
        mov eax, DS_ENTRY
        mov es, eax
        xor edi, edi
        mov ecx, SIEVE
        mov al, 1
        rep stosb
        mov esi, 2
.outer: cmp byte [esi], 0
        je .next
        mov ebx, esi
.mark:  add ebx, esi
        cmp ebx, SIEVE
        jae .next
        mov [ebx], ch
        jmp .mark
.next:  inc esi
        cmp esi, 91
        jb .outer
        xor edx, edx
        mov esi, 2
        mov ecx, SIEVE - 2
.count: lodsb
        movsx eax, al
        add edx, eax
        loop .count
        mov [PRIMES], edx
        mov word [SEED], 1
        mov edi, TEXT
        mov ecx, WORDS
.fill:  call .random
        stosw
        loop .fill
        mov esi, TEXT
        mov edi, COPY
        mov ecx, WORDS
.copy:  movsw
        loop .copy
        mov esi, TEXT
        mov edi, COPY
        mov ecx, 2 * WORDS
.compare:
        cmpsb
        loope .compare
        add [MIXED], cx
        mov edi, COPY
        mov ecx, 2 * WORDS
        mov al, 0x5a
.search:
        scasb
        loopne .search
        add [MIXED], cx
        mov ecx, WORDS
        mov esi, TEXT
.sum:   push word [esi]
        push si
        mov eax, .add - flat_start
        call eax
        lea esi, [esi + 2]
        loop .sum
        mov ebx, TEXT
        mov ecx, WORDS
        xor esi, esi
.mix:   movzx eax, word [ebx + esi]
        imul eax, eax, 0x01000193
        mov [bx + si], ah
        xor ah, [ebx + esi + 1]
        add [MIXED], eax
        adc dword [MIXED], 0
        pusha
        popa
        add esi, 2
        dec ecx
        jnz .mix
        pop ecx
        dec ecx
        jnz near .round
        int 0x80
.add:   push ebp
        mov ebp, esp
        mov ax, [ebp + 10]
        xor ax, [ebp + 8]
        add [SUM], ax
        adc word [SUM + 2], 0
        rol word [SUM], 1
        leave
        ret 4
.random:
        mov ax, [SEED]
        imul ax, ax, 25173
        add ax, 13849
        mov [SEED], ax
        xchg ah, al
        ret
flat_end:
