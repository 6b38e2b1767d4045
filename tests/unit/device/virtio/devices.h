/* devices.h - one device of each kind, for tests and fuzzers that drive all of them in the same
 * way: a disk, a card, a console with a client that never reads, and so on. Their loops run on
 * the caller's thread. What goes wrong while they are made ends the program. */
#ifndef LODGE_TESTS_DEVICES_H
#define LODGE_TESTS_DEVICES_H

#include "device/virtio/virtio.h"

struct device_kind {
    const char *name;
    unsigned queues;
    unsigned eager; /* the queue from which it takes whatever there is */
    struct virtio_device *(*create)(void);
};

#define DEVICE_KINDS 6
extern const struct device_kind device_kinds[DEVICE_KINDS];

#endif
