#include "machine/doorbell.h"

void doorbells_init(struct doorbells *bells)
{
    pthread_mutex_init(&bells->lock, NULL);
    bells->count = 0;
}

void doorbells_destroy(struct doorbells *bells)
{
    pthread_mutex_destroy(&bells->lock);
}

static void take_down(struct doorbells *bells, uint64_t address)
{
    for (unsigned i = 0; i < bells->count; i++)
        if (bells->bell[i].address == address)
            bells->bell[i] = bells->bell[--bells->count];
}

void doorbells_set(struct doorbells *bells, struct engine *engine, uint64_t address, int fd,
                   bool on)
{
    pthread_mutex_lock(&bells->lock);
    if (!on) {
        take_down(bells, address);
    } else if (bells->count < DOORBELLS_MAX) {
        bells->bell[bells->count].address = address;
        bells->bell[bells->count++].fd = fd;
    }
    if (engine->ops->doorbell)
        engine->ops->doorbell(engine, address, fd, on);
    pthread_mutex_unlock(&bells->lock);
}

void doorbells_announce(struct doorbells *bells, struct engine *engine)
{
    pthread_mutex_lock(&bells->lock);
    for (unsigned i = 0; engine->ops->doorbell && i < bells->count; i++)
        engine->ops->doorbell(engine, bells->bell[i].address, bells->bell[i].fd, true);
    pthread_mutex_unlock(&bells->lock);
}
