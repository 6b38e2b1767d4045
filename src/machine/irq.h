/* irq.h - interrupt lines as values. A device is handed a struct irq_line and
 * raises or lowers it; where it leads (8259, IOAPIC pins) the board knows. */
#ifndef LODGE_MACHINE_IRQ_H
#define LODGE_MACHINE_IRQ_H

#include <stdbool.h>

struct irq_line {
    /* level is what the line is now. Any thread. */
    void (*set)(void *opaque, unsigned number, bool level);
    void *opaque;
    unsigned number;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->number, level);
}

/* One edge. */
static inline void irq_pulse(const struct irq_line *line)
{
    irq_set(line, true);
    irq_set(line, false);
}

#endif
