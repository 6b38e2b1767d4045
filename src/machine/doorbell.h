/* doorbell.h - addresses whose writes do nothing but wake a device's thread.
 * Where the engine can, such a write signals the device's event descriptor
 * and the CPU goes on; elsewhere it comes to the device as any other. The
 * machine keeps the list, so that the next engine learns of it. */
#ifndef LODGE_MACHINE_DOORBELL_H
#define LODGE_MACHINE_DOORBELL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

#define DOORBELLS_MAX 256

struct doorbells {
    pthread_mutex_t lock;
    unsigned count;
    struct {
        uint64_t address;
        int fd;
    } bell[DOORBELLS_MAX];
};

void doorbells_init(struct doorbells *bells);
void doorbells_destroy(struct doorbells *bells);

/* Put one up, or take it down. What engine cannot take, or the list cannot, is left to the bus.
 * Any thread; engine stays for the time of the call. */
void doorbells_set(struct doorbells *bells, struct engine *engine, uint64_t address, int fd,
                   bool on);
/* Put all of them up in another engine. */
void doorbells_announce(struct doorbells *bells, struct engine *engine);

#endif
