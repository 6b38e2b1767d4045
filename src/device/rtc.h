/* rtc.h - the CMOS real-time clock (Motorola MC146818A data sheet) at ports
 * 0x70 and 0x71: the host's wall-clock time in UTC, moved by what the guest
 * sets; periodic, alarm and update-ended interrupts; 114 bytes of CMOS. */
#ifndef LODGE_DEVICE_RTC_H
#define LODGE_DEVICE_RTC_H

#include <pthread.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/irq.h"
#include "machine/timer.h"

#define RTC_CENTURY 0x32 /* as the FADT says */

struct rtc {
    pthread_mutex_t lock;
    struct timers *timers;
    struct irq_line irq;
    struct timer timer; /* next second, or next period */
    uint64_t next_second, next_period; /* ns of timers_now; 0: not wanted */
    int64_t offset;     /* ns that the guest is ahead of the host */
    uint8_t index;
    uint8_t cmos[128];  /* time registers hold what was set while SET is on */
};

void rtc_init(struct rtc *rtc, struct timers *timers, const struct irq_line *irq);
/* The time that the guest set stays, as on a battery. */
void rtc_reset(struct rtc *rtc);
int rtc_add_ports(struct rtc *rtc, struct bus *ports, struct error *err);

#endif
