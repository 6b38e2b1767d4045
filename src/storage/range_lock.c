#include "storage/range_lock.h"

#include <stddef.h>

void range_locks_init(struct range_locks *locks)
{
    locks->first = NULL;
    locks->end = &locks->first;
    locks->exclusive = 0;
}

/* The first one that asked before us and cannot go with us. */
static struct range_hold *find_conflict(struct range_locks *locks, const struct range_hold *hold)
{
    if (!hold->exclusive && !locks->exclusive)
        return NULL;
    for (struct range_hold *other = locks->first; other != hold; other = other->next)
        if ((hold->exclusive || other->exclusive) && hold->offset < other->end &&
            other->offset < hold->end)
            return other;
    return NULL;
}

void range_lock(struct fibers *fibers, struct range_locks *locks, struct range_hold *hold,
                uint64_t offset, uint64_t length, bool exclusive)
{
    struct range_hold *other;

    *hold = (struct range_hold){.offset = offset, .end = offset + length, .exclusive = exclusive};
    fiber_queue_init(&hold->waiting);
    *locks->end = hold;
    locks->end = &hold->next;
    locks->exclusive += exclusive;
    while ((other = find_conflict(locks, hold)))
        fiber_queue_wait(fibers, &other->waiting);
}

void range_unlock(struct range_locks *locks, struct range_hold *hold)
{
    struct range_hold **link = &locks->first;

    while (*link != hold)
        link = &(*link)->next;
    *link = hold->next;
    if (!hold->next)
        locks->end = link;
    locks->exclusive -= hold->exclusive;
    fiber_queue_wake_all(&hold->waiting);
}
