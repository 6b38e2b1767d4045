/* range_lock.h - shared and exclusive holds on ranges of a disk (private to
 * storage). What changes where a range's data lies holds it exclusively; what
 * reads or writes in place shares it. They are served in the order of asking,
 * so that nobody waits for ever. A fiber holds at most one range of a disk. */
#ifndef LODGE_STORAGE_RANGE_LOCK_H
#define LODGE_STORAGE_RANGE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fiber.h"

struct range_locks {
    struct range_hold *first, **end;
    unsigned exclusive; /* how many of the list are */
};

/* Lives on the holder's stack. */
struct range_hold {
    uint64_t offset, end;
    bool exclusive;
    struct fiber_queue waiting; /* for this one to end */
    struct range_hold *next;
};

void range_locks_init(struct range_locks *locks);
void range_lock(struct fibers *fibers, struct range_locks *locks, struct range_hold *hold,
                uint64_t offset, uint64_t length, bool exclusive);
void range_unlock(struct range_locks *locks, struct range_hold *hold);

#endif
