/* msix.h - MSI-X: a function's table of interrupt messages in a BAR, with a
 * mask for each, and the array of those that wait behind a mask (PCI 3.0, 6.8.2). */
#ifndef LODGE_MACHINE_MSIX_H
#define LODGE_MACHINE_MSIX_H

#include "machine/pci.h"

#define MSIX_VECTORS_MAX 64
#define MSIX_BAR_SIZE    0x1000u

struct msix_entry {
    uint32_t address_low, address_high, data, control;
};

struct msix {
    struct pci_function *function;
    unsigned capability; /* its offset in configuration space */
    unsigned vectors;
    pthread_mutex_t lock; /* what follows; innermost but for the local APICs' */
    bool enabled, masked; /* the capability's control word */
    struct msix_entry table[MSIX_VECTORS_MAX];
    uint64_t pending; /* bit n: vector n waits for its mask to go */
};

/* Give the function the capability and the table with so many vectors, in the
 * 32-bit BAR of that number. Before pci_host_add. */
void msix_init(struct msix *msix, struct pci_function *function, unsigned bar, unsigned vectors);
void msix_destroy(struct msix *msix);
void msix_reset(struct msix *msix);

/* To be called from the function's config_written. */
void msix_config_written(struct msix *msix);

bool msix_enabled(struct msix *msix);
/* Tell the messages of all vectors that may be sent: to an engine that is new. */
void msix_announce(struct msix *msix);
/* Send the vector's message, now or when it is unmasked. Any thread. */
void msix_raise(struct msix *msix, unsigned vector);

#endif
