#include "devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/virtio/9p.h"
#include "device/virtio/balloon.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "device/virtio/rng.h"

#define DISK_SIZE (1 << 20)

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    abort();
}

static struct sockaddr_un socket_path(const char *name)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};

    snprintf(where.sun_path, sizeof(where.sun_path), "/tmp/lodge-test-%s-%d", name, (int)getpid());
    unlink(where.sun_path);
    return where;
}

/* The file is in memory, and goes with the last descriptor of it. */
static struct virtio_device *create_blk(void)
{
    struct virtio_blk_config config = {.format = "raw", .queues = 1};
    struct virtio_device *device;
    int fd = memfd_create("disk", MFD_CLOEXEC);
    char path[32];

    must(fd >= 0 && ftruncate(fd, DISK_SIZE) == 0, "a disk's file");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    config.path = path;
    must(virtio_blk_create(&config, NULL, &device, NULL) == 0, "a disk");
    close(fd);
    return device;
}

/* The other end is never accepted: it takes frames until it is full. */
static struct virtio_device *create_net(void)
{
    struct virtio_net_config config = {.network.kind = "switch", .queue_pairs = 1};
    struct sockaddr_un where = socket_path("switch");
    static int listener = -1;
    struct virtio_device *device;

    if (listener >= 0)
        close(listener);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    must(bind(listener, (struct sockaddr *)&where, sizeof(where)) == 0 && listen(listener, 1) == 0,
         "a switch");
    config.network.target = where.sun_path;
    must(virtio_net_create(&config, NULL, &device, NULL) == 0, "a card");
    unlink(where.sun_path);
    return device;
}

static struct virtio_device *create_console(void)
{
    static int client = -1;
    struct sockaddr_un where = socket_path("port");
    const struct virtio_console_port port = {.name = "port", .path = where.sun_path};
    struct virtio_device *device;

    if (client >= 0)
        close(client);
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(virtio_console_create(&port, 1, NULL, &device, NULL) == 0, "a console");
    must(connect(client, (struct sockaddr *)&where, sizeof(where)) == 0 &&
             write(client, "from the host", 13) == 13,
         "a client");
    return device;
}

static struct virtio_device *create_rng(void)
{
    struct virtio_device *device;

    must(virtio_rng_create(NULL, &device, NULL) == 0, "an entropy device");
    return device;
}

static struct virtio_device *create_balloon(void)
{
    struct virtio_device *device;

    must(virtio_balloon_create(1 << 20, NULL, &device, NULL) == 0, "a balloon");
    return device;
}

static struct virtio_device *create_9p(void)
{
    struct virtio_device *device;

    must(virtio_9p_create("/etc", "tag", true, NULL, &device, NULL) == 0, "a share");
    return device;
}

const struct device_kind device_kinds[DEVICE_KINDS] = {
    {"blk", 1, 0, create_blk}, {"net", 3, 1, create_net},         {"console", 6, 3, create_console},
    {"rng", 1, 0, create_rng}, {"balloon", 4, 0, create_balloon}, {"9p", 1, 0, create_9p},
};
