/* console.h - the console device with many ports (VIRTIO 1.2, 5.3): channels
 * between a program in the guest (/dev/virtio-ports/NAME) and one on the host,
 * which connects to a Unix socket. An agent in the guest is reached so. */
#ifndef LODGE_DEVICE_VIRTIO_CONSOLE_H
#define LODGE_DEVICE_VIRTIO_CONSOLE_H

#include "device/virtio/virtio.h"

#define VIRTIO_CONSOLE_PORTS_MAX 15

struct virtio_console_port {
    const char *name; /* up to 63 bytes */
    const char *path; /* of the socket to listen at; one client at a time */
};

int virtio_console_create(const struct virtio_console_port *ports, unsigned count,
                          const struct log *log, struct virtio_device **ret_device,
                          struct error *err);

#endif
