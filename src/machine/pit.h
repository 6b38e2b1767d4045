/* pit.h - the 8254 programmable interval timer: ports 0x40 to 0x43, and the
 * speaker's port 0x61, which gates channel 2. */
#ifndef LODGE_MACHINE_PIT_H
#define LODGE_MACHINE_PIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "machine/bus.h"
#include "machine/irq.h"
#include "machine/timer.h"

struct pit_channel {
    uint8_t mode, access; /* access: 1 low, 2 high, 3 both */
    bool bcd, gate, write_high, read_high, null_count;
    uint8_t write_low;
    bool count_latched, status_latched;
    uint16_t latched_count;
    uint8_t latched_status;
    uint32_t count; /* 1 to 65536 */
    uint64_t start; /* ns when the count was loaded */
};

struct pit {
    pthread_mutex_t lock;
    struct timers *timers;
    struct irq_line irq; /* output of channel 0 */
    struct timer timer;
    uint64_t next; /* ns of channel 0's next rising edge; 0: none is due */
    struct pit_channel channel[3];
    uint8_t speaker;
};

void pit_init(struct pit *pit, struct timers *timers, const struct irq_line *irq);
void pit_reset(struct pit *pit);
int pit_add_ports(struct pit *pit, struct bus *ports, struct error *err);

#endif
