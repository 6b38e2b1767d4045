/* A guest's connection to a switch (switch.h). */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "network/kinds.h"
#include "network/packet.h"

#define FRAMES_A_TURN 64

struct switch_port {
    struct network network;
    struct network_guest guest;
    const struct log *log;
    int fd;
    struct loop_source *source;
    uint8_t frame[NETWORK_FRAME_MAX];
};

static void frames_come(void *opaque, uint32_t events)
{
    struct switch_port *port = opaque;

    (void)events;
    for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
        ssize_t n = recv(port->fd, port->frame, sizeof(port->frame), MSG_DONTWAIT | MSG_TRUNC);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            log_warning(port->log, "the switch is gone; the guest's network is dead");
            loop_remove(port->source);
            port->source = NULL;
            return;
        }
        if ((size_t)n <= sizeof(port->frame))
            port->guest.receive(port->guest.opaque, NULL, port->frame, (size_t)n);
    }
}

static void emit(void *opaque, uint8_t *frame, size_t length)
{
    struct switch_port *port = opaque;

    if (send(port->fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return; /* lost, as on any full link */
}

static void port_send(struct network *network, const struct network_offload *offload,
                      uint8_t *frame, size_t length)
{
    struct switch_port *port = container_of(network, struct switch_port, network);

    packet_segment(frame, length, offload, emit, port); /* nonsense is dropped */
}

static void port_close(struct network *network)
{
    struct switch_port *port = container_of(network, struct switch_port, network);

    loop_remove(port->source);
    if (port->fd >= 0)
        close(port->fd);
    free(port);
}

static int port_open(const struct network_config *config, struct loop *loop,
                     const struct network_guest *guest, struct network **ret_network,
                     struct error *err)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct switch_port *port;
    int r = 0;

    if (!config->target || !*config->target)
        return error_set(err, EINVAL, "a switch needs the path of its socket: switch:PATH");
    if (strlen(config->target) >= sizeof(where.sun_path))
        return error_set(err, ENAMETOOLONG, "%s is too long for a socket's path", config->target);
    strcpy(where.sun_path, config->target);
    port = calloc(1, sizeof(*port));
    if (!port)
        return error_set(err, ENOMEM, "out of memory");
    port->network.kind = &network_switch;
    port->guest = *guest;
    port->log = config->log;
    port->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (port->fd < 0 || connect(port->fd, (struct sockaddr *)&where, sizeof(where)) < 0)
        r = error_system(err, errno, "cannot reach a switch at %s (see 'lodge net switch')",
                         config->target);
    if (r == 0)
        r = loop_add_fd(loop, port->fd, EPOLLIN, frames_come, port, &port->source, err);
    if (r < 0) {
        port_close(&port->network);
        return r;
    }
    *ret_network = &port->network;
    return 0;
}

const struct network_kind network_switch = {
    .name = "switch",
    .summary = "a network between guests, made by 'lodge net switch'",
    .open = port_open,
    .close = port_close,
    .send = port_send,
    .mtu = 1500,
};
