/* virtio.h - a virtio device (VIRTIO 1.2, section 2), whatever it does and by
 * whatever transport its driver reaches it.
 *
 * A kind of device is a const table of functions and embeds struct
 * virtio_device. Each device has a thread of its own that runs its loop: the
 * driver's notifications, its backend's events and its timers all come there,
 * so no vCPU waits for I/O. The transport comes from vCPU threads. One lock
 * guards a device; every function of its table is called with it held. It is
 * recursive, because a backend may answer within a call.
 *
 * A reset ends when the last request under way is done: until then the status
 * does not read 0 (2.4.2), and no late completion touches the driver's memory. */
#ifndef LODGE_DEVICE_VIRTIO_VIRTIO_H
#define LODGE_DEVICE_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sandbox.h"
#include "device/virtio/virtqueue.h"
#include "machine/memory.h"

/* Device types (section 5). */
enum virtio_id {
    VIRTIO_ID_NET = 1, VIRTIO_ID_BLOCK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_ENTROPY = 4,
    VIRTIO_ID_BALLOON = 5, VIRTIO_ID_9P = 9,
};

/* Status bits (2.1). */
enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64, VIRTIO_FAILED = 128,
};

/* Features that are no device's own (section 6). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)
#define VIRTIO_F_RING_PACKED   (1ull << 34)
#define VIRTIO_F_COMMON                                                                            \
    (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

#define VIRTIO_QUEUES_MAX 34

struct virtio_device_ops {
    const char *name;
    enum virtio_id id;
    uint32_t pci_class;
    /* On the device's thread: requests may wait in the queue. */
    void (*notify)(struct virtio_device *device, unsigned queue);
    /* On the device's thread, before the first notify: the driver is ready. May be NULL. */
    void (*activate)(struct virtio_device *device);
    /* On any thread: drop what is kept of the driver: give kept chains back,
     * cancel what waits. May be NULL. */
    void (*reset)(struct virtio_device *device);
    /* On any thread: the driver writes size bytes at offset of the configuration, which lie
     * within it. The device takes of it what it likes. NULL: read-only. */
    void (*config_write)(struct virtio_device *device, unsigned offset, const uint8_t *from,
                         unsigned size);
    /* Free the device; its thread has ended and nothing is under way. */
    void (*destroy)(struct virtio_device *device);
};

/* How the driver is reached. Any thread, the device's lock held. */
struct virtio_transport {
    /* queue -1: the configuration has changed. */
    void (*interrupt)(void *opaque, int queue);
    void *opaque;
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    const struct log *log;
    uint64_t offered; /* features */
    uint8_t *config;  /* the device's part of configuration space, little-endian */
    unsigned config_size;
    unsigned queue_count;
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
    struct loop *loop;

    /* Set when the device is plugged in. */
    const struct sandbox *sandbox; /* around its thread, or NULL */
    struct guest_memory *memory;
    struct virtio_transport transport;

    pthread_mutex_t lock; /* what follows, the queues and the configuration */
    pthread_cond_t reset_done;
    uint8_t status;
    bool resetting;
    bool activating;    /* the device's thread is still to be told that the driver is ready */
    uint8_t generation; /* of the configuration */
    uint64_t features;  /* what the driver has chosen */
    unsigned in_flight; /* chains popped and not yet pushed */

    _Atomic uint64_t notified; /* bit n: look at queue n */
    int notify_fd; /* an event descriptor; a transport may add one to it, too: look at all queues */
    struct loop_source *notify_source;
    pthread_t thread;
    bool started;
};

/* --- For devices --- */

/* Fill what every device has; queue_sizes has one for each queue. config stays
 * the caller's. The device's thread does not run yet: backends may be put on
 * its loop. */
int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                       uint64_t features, void *config, unsigned config_size,
                       unsigned queue_count, unsigned queue_size, const struct log *log,
                       struct error *err);
/* What virtio_device_init made; for a device's destroy. */
void virtio_device_fini(struct virtio_device *device);

static inline void virtio_device_lock(struct virtio_device *device)
{
    pthread_mutex_lock(&device->lock);
}

static inline void virtio_device_unlock(struct virtio_device *device)
{
    pthread_mutex_unlock(&device->lock);
}

/* Whether the driver is ready and neither a reset nor an error is under way. */
static inline bool virtio_device_runs(const struct virtio_device *device)
{
    return (device->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK &&
           !device->resetting;
}

/* The driver broke the rules: the device does nothing more until it is reset (2.1.2). */
void virtio_device_break(struct virtio_device *device, const char *why);
/* The device has changed its configuration. */
void virtio_device_config_changed(struct virtio_device *device);
/* Of the queues: interrupt for a queue, and a chain was given back. */
void virtio_device_interrupt(struct virtio_device *device, unsigned queue);
void virtio_device_done(struct virtio_device *device);

/* --- For whoever plugs a device in and out --- */

/* Start the device's thread; memory and transport are set. */
int virtio_device_start(struct virtio_device *device, struct error *err);
/* Reset, wait for what is under way, end the thread, free the device. */
void virtio_device_destroy(struct virtio_device *device);
/* Have the device's thread call fn, and wait until it has; the device's lock is not held. */
void virtio_device_call(struct virtio_device *device, void (*fn)(void *opaque), void *opaque);
/* Serve the notifications there are, on this thread; what the device's thread does. */
void virtio_device_serve(struct virtio_device *device);

/* --- For transports; each takes the lock, except notify, which needs none --- */

void virtio_device_notify(struct virtio_device *device, unsigned queue);
uint8_t virtio_device_status(struct virtio_device *device);
/* 0 begins a reset. */
void virtio_device_set_status(struct virtio_device *device, uint8_t status);
/* Reset and wait for its end; no vCPU runs, or the device is not used. */
void virtio_device_reset(struct virtio_device *device);
void virtio_device_set_features(struct virtio_device *device, uint64_t features);
void virtio_device_config_read(struct virtio_device *device, unsigned offset, void *to,
                               unsigned size);
void virtio_device_config_write(struct virtio_device *device, unsigned offset, const void *from,
                                unsigned size);
void virtio_device_enable_queue(struct virtio_device *device, unsigned queue);

#endif
