; Interrupt controllers and what interrupts: the PIT, the RTC and the serial
; port, through the 8259 pair and through the I/O APIC, by edge and by level.
%include "lib.inc"
%include "apic.inc"

IOAPIC  equ 0xfec00000
PIC_BASE equ 0x20
PIC_BASE2 equ 0x28
LINE    equ 0x30                ; vector of the I/O APIC's pin at hand
PIT_PIN equ 2
SERIAL_PIN equ 4
RTC_PIN equ 8
COUNT_1MS equ 1193              ; of the PIT's 1193182 Hz

%macro OUT_PORT 2
        mov al, %2
%if (%1) > 0xff
        mov dx, %1
        out dx, al
%else
        out %1, al
%endif
%endmacro
%macro IN_PORT 1
%if (%1) > 0xff
        mov dx, %1
        in al, dx
%else
        in al, %1
%endif
%endmacro

; Register %1 of the I/O APIC to %2. Spoils rdx.
%macro IOAPIC_WRITE 2
        mov edx, IOAPIC
        mov dword [rdx], %1
        mov dword [rdx + 0x10], %2
%endmacro
%macro IOAPIC_READ 1
        mov edx, IOAPIC
        mov dword [rdx], %1
        mov eax, [rdx + 0x10]
%endmacro
%define PIN_LOW(pin) (0x10 + (pin) * 2)
LEVEL   equ 1 << 15
REMOTE_IRR equ 1 << 14

main:
        call apic_begin
        call pit_counts
        call through_8259
        call through_ioapic
        call by_level
        call rtc
        ret

; Channel 2 counts down and its output shows in port 61H.
pit_counts:
        OUT_PORT 0x61, 0
        OUT_PORT 0x43, 0xb0                     ; channel 2, both bytes, mode 0
        OUT_PORT 0x61, 1
        OUT_PORT 0x42, (10 * COUNT_1MS) & 0xff
        OUT_PORT 0x42, (10 * COUNT_1MS) >> 8
        call now
        mov rbx, rax
        IN_PORT 0x61
        test al, 0x20
        CHECK z
        call deadline_10s
        mov r8, rcx
.wait:  call now
        cmp rax, r8
        CHECK b
        IN_PORT 0x61
        test al, 0x20
        jz .wait
        call now
        sub rax, rbx
        mov rcx, [tsc_ms]
        imul rcx, 9
        cmp rax, rcx
        CHECK ae
        ; the count in between: latched, low byte first
        OUT_PORT 0x43, 0xb4                     ; mode 2
        OUT_PORT 0x42, 0xff
        OUT_PORT 0x42, 0xff
        OUT_PORT 0x43, 0x80
        IN_PORT 0x42
        mov bl, al
        IN_PORT 0x42
        mov bh, al
        mov r8, [tsc_ms]
        WAIT_TICKS r8
        OUT_PORT 0x43, 0x80
        IN_PORT 0x42
        mov cl, al
        IN_PORT 0x42
        mov ch, al
        sub bx, cx                              ; at least a millisecond less
        cmp bx, COUNT_1MS * 9 / 10
        CHECK ae
        ret

; Both chips afresh, all masked.
begin_8259:
        OUT_PORT 0x20, 0x11
        OUT_PORT 0x21, PIC_BASE
        OUT_PORT 0x21, 4
        OUT_PORT 0x21, 1
        OUT_PORT 0xa0, 0x11
        OUT_PORT 0xa1, PIC_BASE2
        OUT_PORT 0xa1, 2
        OUT_PORT 0xa1, 1
        OUT_PORT 0x21, 0xff
        OUT_PORT 0xa1, 0xff
        ret

; Channel 0, mode 2, a tick each millisecond.
begin_pit:
        OUT_PORT 0x43, 0x34
        OUT_PORT 0x40, COUNT_1MS & 0xff
        OUT_PORT 0x40, COUNT_1MS >> 8
        ret
stop_pit:
        OUT_PORT 0x43, 0x30                     ; mode 0 without a count
        ret

through_8259:
        APIC_WRITE APIC_LVT_LINT0, 7 << 8       ; ExtINT
        mov byte [eoi_by], 2
        call begin_8259
        IN_PORT 0x21
        CHECK_EQUAL al, 0xff
        call begin_pit
        call now
        mov rbx, rax
        sti
        mov r8, [tsc_ms]
        imul r8, 3
        WAIT_TICKS r8
        CHECK_EQUAL COUNT(PIC_BASE), 0          ; masked
        OUT_PORT 0x20, 0x0a                     ; read the IRR: it waits there,
        call deadline_10s
        mov r9, rcx
.irr:   call now
        cmp rax, r9
        CHECK b
        IN_PORT 0x20
        test al, 1                              ; but for the pulse itself
        jz .irr
        OUT_PORT 0x21, 0xfe
        WAIT_FOR COUNT(PIC_BASE), 1
        WAIT_TICKS r8
        CHECK_EQUAL COUNT(PIC_BASE), 1          ; in service until its EOI
        OUT_PORT 0x20, 0x0b                     ; read the ISR
        IN_PORT 0x20
        CHECK_EQUAL al, 1
        mov r9d, 1
.next:  OUT_PORT 0x20, 0x20
        inc r9d
        WAIT_FOR COUNT(PIC_BASE), r9d
        cmp r9d, 10
        jb .next
        call now
        sub rax, rbx
        mov rcx, [tsc_ms]
        imul rcx, 9
        cmp rax, rcx
        CHECK ae                                ; nine periods at least
        OUT_PORT 0x21, 0xff
        OUT_PORT 0x20, 0x20
        call stop_pit
        cli
        ; the second chip, through the cascade: the RTC's periodic interrupt
        call begin_8259
        mov al, 0x0c
        call read_rtc
        mov eax, 0x420b                         ; register B: periodic, 24 hours
        call write_rtc
        OUT_PORT 0x21, 0xfb
        OUT_PORT 0xa1, 0xfe
        sti
        WAIT_FOR COUNT(PIC_BASE2), 1
        mov al, 0x0c
        call read_rtc
        test al, 0x40
        CHECK nz
        OUT_PORT 0xa0, 0x20
        OUT_PORT 0x20, 0x20
        WAIT_FOR COUNT(PIC_BASE2), 2
        cli
        mov eax, 0x020b
        call write_rtc
        mov al, 0x0c
        call read_rtc
        OUT_PORT 0xa0, 0x20
        OUT_PORT 0x20, 0x20
        call begin_8259
        APIC_WRITE APIC_LVT_LINT0, LVT_MASKED
        mov byte [eoi_by], 0
        jmp clear_counts

; RTC register al to al; value ah to register al. Both spoil nothing else.
read_rtc:
        out 0x70, al
        in al, 0x71
        ret
write_rtc:
        out 0x70, al
        mov al, ah
        out 0x71, al
        ret

through_ioapic:
        IOAPIC_READ 1
        shr eax, 16
        CHECK_EQUAL al, 23                      ; 24 pins
        IOAPIC_READ PIN_LOW(PIT_PIN)
        test eax, 1 << 16
        CHECK nz                                ; masked from the start
        IOAPIC_WRITE PIN_LOW(PIT_PIN) + 1, 0
        IOAPIC_WRITE PIN_LOW(PIT_PIN), LINE
        call begin_pit
        sti
        WAIT_FOR COUNT(LINE), 5
        IOAPIC_WRITE PIN_LOW(PIT_PIN), 1 << 16 | LINE
        mov ebx, COUNT(LINE)
        mov r8, [tsc_ms]
        imul r8, 3
        WAIT_TICKS r8
        CHECK_EQUAL COUNT(LINE), ebx
        ; one shot: mode 0, through the pin again
        call stop_pit
        IOAPIC_WRITE PIN_LOW(PIT_PIN), LINE
        OUT_PORT 0x40, COUNT_1MS & 0xff
        OUT_PORT 0x40, COUNT_1MS >> 8
        inc ebx
        WAIT_FOR COUNT(LINE), ebx
        WAIT_TICKS r8
        cli
        CHECK_EQUAL COUNT(LINE), ebx
        IOAPIC_WRITE PIN_LOW(PIT_PIN), 1 << 16
        jmp clear_counts

; The serial port's line stays up while its cause does.
by_level:
        OUT_PORT SERIAL + 1, 0                  ; no interrupts
        OUT_PORT SERIAL + 4, 8                  ; OUT2: the line is connected
        IN_PORT SERIAL + 2
        IOAPIC_WRITE PIN_LOW(SERIAL_PIN) + 1, 0
        IOAPIC_WRITE PIN_LOW(SERIAL_PIN), LEVEL | LINE
        sti
        nop
        CHECK_EQUAL COUNT(LINE), 0
        cli
        mov qword [handler], serial_handler
        OUT_PORT SERIAL + 1, 2                  ; transmitter empty, as it is
        IOAPIC_READ PIN_LOW(SERIAL_PIN)
        test eax, REMOTE_IRR
        CHECK nz                                ; sent, and not ended yet
        sti
        WAIT_FOR COUNT(LINE), 4                 ; again and again, until
        mov r8, [tsc_ms]
        WAIT_TICKS r8
        cli
        CHECK_EQUAL COUNT(LINE), 4              ; the handler reads IIR
        IOAPIC_READ PIN_LOW(SERIAL_PIN)
        test eax, REMOTE_IRR
        CHECK z
        mov qword [handler], note_interrupt
        OUT_PORT SERIAL + 1, 0
        IOAPIC_WRITE PIN_LOW(SERIAL_PIN), 1 << 16
        ; the port's identity: FIFOs, scratch, divisor, loopback
        OUT_PORT SERIAL + 2, 1
        IN_PORT SERIAL + 2
        and al, 0xcf
        CHECK_EQUAL al, 0xc1
        OUT_PORT SERIAL + 7, 0x5a
        IN_PORT SERIAL + 7
        CHECK_EQUAL al, 0x5a
        OUT_PORT SERIAL + 4, 0x18
        OUT_PORT SERIAL, "L"
        IN_PORT SERIAL + 5
        test al, 1
        CHECK nz
        IN_PORT SERIAL
        CHECK_EQUAL al, "L"
        IN_PORT SERIAL + 5
        test al, 1
        CHECK z
        OUT_PORT SERIAL + 4, 8
        jmp clear_counts

serial_handler:
        cmp COUNT(LINE), 3
        jb note_interrupt
        push rax
        push rdx
        IN_PORT SERIAL + 2
        pop rdx
        pop rax
        jmp note_interrupt

; A register of the RTC's time in al, as a number, when it holds still.
%macro RTC_TIME 1
        mov al, %1
        call read_rtc
        call from_bcd
%endmacro

rtc:
        mov al, 0x0d
        call read_rtc
        test al, 0x80                           ; the battery is good
        CHECK nz
        mov al, 0x0b
        call read_rtc
        test al, 2
        CHECK nz                                ; 24 hours
        ; the end of an update, twice: a second lies between
        mov al, 0x0c
        call read_rtc
        IOAPIC_WRITE PIN_LOW(RTC_PIN) + 1, 0
        IOAPIC_WRITE PIN_LOW(RTC_PIN), LINE
        mov eax, 0x120b
        call write_rtc
        sti
        WAIT_FOR COUNT(LINE), 1
        mov al, 0x0c
        call read_rtc
        test al, 0x10
        CHECK nz
        RTC_TIME 0
        mov r10d, eax
        call now
        mov rbx, rax
        WAIT_FOR COUNT(LINE), 2
        mov rax, WHEN(LINE)
        mov al, 0x0c
        call read_rtc
        cli
        RTC_TIME 0
        mov r11d, eax
        cmp r11d, 60
        CHECK b
        cmp r10d, r11d
        CHECK ne
        RTC_TIME 2
        cmp eax, 60
        CHECK b
        RTC_TIME 4
        cmp eax, 24
        CHECK b
        RTC_TIME 8
        dec eax
        cmp eax, 12
        CHECK b
        RTC_TIME 0x32
        CHECK_EQUAL eax, 20                     ; the century
        ; CMOS memory keeps what it is given
        mov eax, 0xa560
        call write_rtc
        mov al, 0x60
        call read_rtc
        CHECK_EQUAL al, 0xa5
        ret

from_bcd:
        movzx eax, al
        mov ecx, eax
        and eax, 15
        shr ecx, 4
        imul ecx, ecx, 10
        add eax, ecx
        ret
