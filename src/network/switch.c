#include "network/switch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/network.h"

#define PORTS_MAX     64u
#define ADDRESSES     1024u /* remembered; a power of two */
#define FRAME_MIN     14u
#define FRAMES_A_TURN 64

struct port {
    struct ethernet_switch *ethernet;
    int fd; /* -1: free */
    struct loop_source *source;
};

/* Where an address was last seen; a collision forgets the older. */
struct address {
    uint8_t mac[NETWORK_MAC_SIZE];
    struct port *port; /* NULL: none */
};

struct ethernet_switch {
    struct loop *loop;
    const struct log *log;
    int listen_fd;
    struct loop_source *source;
    struct sockaddr_un where;
    struct port ports[PORTS_MAX];
    struct address addresses[ADDRESSES];
    uint8_t frame[NETWORK_FRAME_MAX];
};

static struct address *address_of(struct ethernet_switch *ethernet, const uint8_t *mac)
{
    uint32_t hash = (load_le32(mac + 2) ^ load_le16(mac)) * 2654435761u;

    return &ethernet->addresses[hash >> 16 & (ADDRESSES - 1)];
}

static void unplug(struct port *port)
{
    struct ethernet_switch *ethernet = port->ethernet;

    loop_remove(port->source);
    close(port->fd);
    port->source = NULL;
    port->fd = -1;
    for (unsigned i = 0; i < ADDRESSES; i++)
        if (ethernet->addresses[i].port == port)
            ethernet->addresses[i].port = NULL;
}

/* A port that does not take it loses the frame. */
static void put(struct port *port, const uint8_t *frame, size_t length)
{
    if (port->fd >= 0 && send(port->fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        errno != EAGAIN && errno != ENOBUFS)
        log_debug(port->ethernet->log, "switch: a frame was lost: %s", strerror(errno));
}

static void forward(struct port *from, const uint8_t *frame, size_t length)
{
    struct ethernet_switch *ethernet = from->ethernet;
    const uint8_t *target = frame, *source = frame + NETWORK_MAC_SIZE;
    struct address *known;

    if (!(source[0] & 1)) { /* learn where its sender is */
        known = address_of(ethernet, source);
        memcpy(known->mac, source, NETWORK_MAC_SIZE);
        known->port = from;
    }
    known = address_of(ethernet, target);
    if (!(target[0] & 1) && known->port && memcmp(known->mac, target, NETWORK_MAC_SIZE) == 0) {
        if (known->port != from)
            put(known->port, frame, length);
        return;
    }
    for (unsigned i = 0; i < PORTS_MAX; i++)
        if (&ethernet->ports[i] != from)
            put(&ethernet->ports[i], frame, length);
}

static void port_event(void *opaque, uint32_t events)
{
    struct port *port = opaque;
    struct ethernet_switch *ethernet = port->ethernet;

    (void)events;
    for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
        ssize_t n = recv(port->fd, ethernet->frame, sizeof(ethernet->frame),
                         MSG_DONTWAIT | MSG_TRUNC);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            unplug(port);
            return;
        }
        if ((size_t)n >= FRAME_MIN && (size_t)n <= sizeof(ethernet->frame))
            forward(port, ethernet->frame, (size_t)n);
    }
}

static void plug(void *opaque, uint32_t events)
{
    struct ethernet_switch *ethernet = opaque;
    AUTO_CLOSE int fd = accept4(ethernet->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    for (unsigned i = 0; fd >= 0 && i < PORTS_MAX; i++) {
        struct port *port = &ethernet->ports[i];

        if (port->fd >= 0)
            continue;
        if (loop_add_fd(ethernet->loop, fd, EPOLLIN, port_event, port, &port->source, NULL) == 0)
            port->fd = steal_fd(&fd);
        return;
    }
}

/* Nobody answers at a socket that a killed switch left. */
static bool left_over(const struct sockaddr_un *where)
{
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    return fd >= 0 && connect(fd, (const struct sockaddr *)where, sizeof(*where)) < 0 &&
           errno == ECONNREFUSED;
}

static int listen_at(struct ethernet_switch *ethernet, const char *path, struct error *err)
{
    const struct sockaddr *where = (const struct sockaddr *)&ethernet->where;

    if (strlen(path) >= sizeof(ethernet->where.sun_path))
        return error_set(err, ENAMETOOLONG, "%s is too long for a socket's path", path);
    ethernet->where.sun_family = AF_UNIX;
    strcpy(ethernet->where.sun_path, path);
    ethernet->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ethernet->listen_fd < 0)
        return error_system(err, errno, "cannot make a socket");
    if (left_over(&ethernet->where))
        unlink(path);
    if (bind(ethernet->listen_fd, where, sizeof(ethernet->where)) < 0) {
        ethernet->where.sun_path[0] = 0; /* it is not ours to remove */
        return error_system(err, errno, "cannot listen at %s", path);
    }
    if (listen(ethernet->listen_fd, 16) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    return loop_add_fd(ethernet->loop, ethernet->listen_fd, EPOLLIN, plug, ethernet,
                       &ethernet->source, err);
}

int ethernet_switch_create(const char *path, struct loop *loop, const struct log *log,
                           struct ethernet_switch **ret_switch, struct error *err)
{
    struct ethernet_switch *ethernet = calloc(1, sizeof(*ethernet));
    int r;

    if (!ethernet)
        return error_set(err, ENOMEM, "out of memory");
    ethernet->loop = loop;
    ethernet->log = log;
    ethernet->listen_fd = -1;
    for (unsigned i = 0; i < PORTS_MAX; i++)
        ethernet->ports[i] = (struct port){.ethernet = ethernet, .fd = -1};
    r = listen_at(ethernet, path, err);
    if (r < 0) {
        ethernet_switch_destroy(ethernet);
        return r;
    }
    *ret_switch = ethernet;
    return 0;
}

void ethernet_switch_destroy(struct ethernet_switch *ethernet)
{
    if (!ethernet)
        return;
    for (unsigned i = 0; i < PORTS_MAX; i++)
        if (ethernet->ports[i].fd >= 0)
            unplug(&ethernet->ports[i]);
    loop_remove(ethernet->source);
    if (ethernet->listen_fd >= 0)
        close(ethernet->listen_fd);
    if (ethernet->where.sun_path[0])
        unlink(ethernet->where.sun_path);
    free(ethernet);
}
