/* driver.h - a virtio driver for tests: it lays rings of either format out in
 * guest memory and puts requests into them, right or wrong. The device's loop
 * runs on the test's thread, so that runs repeat. */
#ifndef LODGE_TESTS_DRIVER_H
#define LODGE_TESTS_DRIVER_H

#include "../../unit.h"

#include "base/bytes.h"
#include "device/virtio/virtio.h"

#define DRIVER_MEMORY  (8u << 20)
#define DRIVER_BUFFERS 0x200000u /* buffers are taken from here on */
#define DRIVER_QUEUES  8u

enum { BUFFER_NEXT = 1, BUFFER_WRITE = 2, BUFFER_INDIRECT = 4 };

struct buffer {
    uint64_t address;
    uint32_t length;
    uint16_t flags; /* BUFFER_WRITE; the rest is the driver's */
};

struct driver_queue {
    unsigned size;
    uint64_t area[AREA_COUNT];
    uint16_t next;           /* descriptor to be used next */
    uint16_t available_index; /* split */
    bool wrap, used_wrap;    /* packed */
    uint16_t used;           /* next to be looked at */
    uint16_t lengths[256];   /* packed: descriptors of each buffer id */
};

struct driver {
    struct guest_memory *memory;
    struct virtio_device *device;
    bool packed;
    struct driver_queue queues[DRIVER_QUEUES];
    uint64_t next_buffer;
    unsigned interrupts[DRIVER_QUEUES], config_interrupts;
    struct loop_source *tick;
};

struct used {
    uint16_t id;
    uint32_t length;
};

/* Take the device over and go through its initialization with so many queues
 * of size entries; features on top of the ring's own. */
void driver_start(struct driver *driver, struct virtio_device *device, bool packed,
                  uint64_t features, unsigned queues, unsigned size);
/* Go through the initialization again, after a reset. */
void driver_restart(struct driver *driver, uint64_t features, unsigned queues, unsigned size);
void driver_stop(struct driver *driver);

/* Guest memory for a buffer, and the host's view of it. */
uint64_t driver_alloc(struct driver *driver, size_t size);
uint8_t *driver_at(struct driver *driver, uint64_t address);

/* Make a chain available; returns its id. Does not notify. */
uint16_t driver_add(struct driver *driver, unsigned queue, const struct buffer *buffers,
                    unsigned count);
/* The same as one indirect descriptor. */
uint16_t driver_add_indirect(struct driver *driver, unsigned queue, const struct buffer *buffers,
                             unsigned count);
/* Write a raw descriptor at a place of the table, with all its flags. */
void driver_write_descriptor(struct driver *driver, unsigned queue, unsigned at,
                             const struct buffer *buffer, uint16_t next_or_id);
/* Make descriptor head (split) or those written from `next` on (packed) available. */
void driver_offer(struct driver *driver, unsigned queue, uint16_t head);

/* Notify and let the device work on this thread. */
void driver_kick(struct driver *driver, unsigned queue);
/* The next used buffer, if there is one. */
bool driver_used(struct driver *driver, unsigned queue, struct used *ret_used);
/* The same, running the device's loop until there is one. */
struct used driver_wait(struct driver *driver, unsigned queue);
/* Run the device's loop for a few milliseconds. */
void driver_run(struct driver *driver);

/* Ask for interrupts never, always, or (event index) when the used one passes. */
void driver_want_interrupts(struct driver *driver, unsigned queue, bool on);

bool driver_device_is_broken(struct driver *driver);

#endif
