#include "device/virtio/console.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define QUEUE_SIZE    64u
#define NAME_SIZE_MAX 64u
#define CONTROLS_MAX  128u /* messages that wait for the guest's buffers */

#define F_MULTIPORT (1ull << 1)

/* Configuration layout (5.3.4): columns, rows, then the number of ports. */
enum { CONFIG_PORTS = 4, CONFIG_SIZE = 8 };

/* Queues of port 0, which is not used, then control, then the others' (5.3.2). */
enum { QUEUE_CONTROL_IN = 2, QUEUE_CONTROL_OUT = 3, QUEUE_PORTS = 4 };

/* struct virtio_console_control: id[4] event[2] value[2] (5.3.6.2). */
#define CONTROL_SIZE 8u
enum control_event {
    DEVICE_READY = 0, DEVICE_ADD = 1, PORT_READY = 3, PORT_OPEN = 6, PORT_NAME = 7,
};

struct console;

struct port {
    struct console *console;
    unsigned id; /* 1 and up */
    char name[NAME_SIZE_MAX];
    struct sockaddr_un where;
    int listen_fd, client_fd;
    struct loop_source *listen_source, *client_source;
    bool known;   /* the guest has got ready for it */
    bool open;    /* by a program in the guest; what comes otherwise would be lost */
    bool holding; /* out, sent up to sent, waits for the client to take more */
    size_t sent;
    struct virtqueue_chain out;
};

struct control {
    uint32_t id;
    uint16_t event, value;
};

struct console {
    struct virtio_device device;
    uint8_t config[CONFIG_SIZE];
    unsigned count;
    struct port ports[VIRTIO_CONSOLE_PORTS_MAX];
    unsigned control_head, control_tail;
    struct control controls[CONTROLS_MAX];
    /* One for each use, as one may come while another is at work. */
    struct virtqueue_chain control_in, control_out, data_in;
};

static struct virtqueue *in_queue(struct port *port)
{
    return &port->console->device.queues[QUEUE_PORTS + 2 * (port->id - 1)];
}

static struct virtqueue *out_queue(struct port *port)
{
    return in_queue(port) + 1;
}

/* --- Control messages to the guest --- */

static void send_controls(struct console *c)
{
    struct virtqueue *queue = &c->device.queues[QUEUE_CONTROL_IN];
    bool sent = false;

    while (c->control_head != c->control_tail && virtqueue_pop(queue, &c->control_in)) {
        const struct control *control = &c->controls[c->control_head++ % CONTROLS_MAX];
        uint8_t message[CONTROL_SIZE + NAME_SIZE_MAX];
        size_t size = CONTROL_SIZE;

        store_le32(message, control->id);
        store_le16(message + 4, control->event);
        store_le16(message + 6, control->value);
        if (control->event == PORT_NAME) {
            const char *name = c->ports[control->id - 1].name;

            memcpy(message + size, name, strlen(name));
            size += strlen(name);
        }
        size = iov_write(chain_in(&c->control_in), c->control_in.in_count, 0, message, size);
        virtqueue_push(queue, &c->control_in, (uint32_t)size);
        sent = true;
    }
    if (sent)
        virtqueue_interrupt(queue);
    if (c->control_head != c->control_tail && virtqueue_set_notify(queue, true))
        virtio_device_notify(&c->device, QUEUE_CONTROL_IN);
}

/* A guest that takes no messages loses those beyond the room there is. */
static void tell(struct console *c, uint32_t id, enum control_event event, uint16_t value)
{
    if (c->control_tail - c->control_head < CONTROLS_MAX)
        c->controls[c->control_tail++ % CONTROLS_MAX] =
            (struct control){id, (uint16_t)event, value};
}

/* --- Data --- */

static void set_client_events(struct port *port, uint32_t events)
{
    if (port->client_source)
        loop_modify_fd(port->client_source, events, NULL);
}

static void drop_client(struct port *port)
{
    loop_remove(port->client_source);
    if (port->client_fd >= 0)
        close(port->client_fd);
    port->client_source = NULL;
    port->client_fd = -1;
}

/* Send what the chain has left. True: all is gone, or nobody is there to take it. */
static bool send_chain(struct port *port)
{
    struct virtqueue_chain *chain = &port->out;
    struct iovec iov[16];

    while (port->client_fd >= 0 && port->sent < chain->out_size) {
        struct msghdr message = {.msg_iov = iov};
        ssize_t n;

        message.msg_iovlen = iov_slice(chain->iov, chain->out_count, port->sent,
                                       chain->out_size - port->sent, iov, ARRAY_SIZE(iov));
        n = sendmsg(port->client_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0)
            return true; /* the client's end shows in its events */
        port->sent += (size_t)n;
    }
    return true;
}

static void serve_out(struct port *port)
{
    struct virtqueue *queue = out_queue(port);
    bool pushed = false;

    do {
        virtqueue_set_notify(queue, false);
        while (port->holding || virtqueue_pop(queue, &port->out)) {
            if (!port->holding)
                port->sent = 0;
            port->holding = !send_chain(port);
            if (port->holding)
                break;
            virtqueue_push(queue, &port->out, 0);
            pushed = true;
        }
    } while (!port->holding && virtqueue_set_notify(queue, true));
    if (port->holding)
        set_client_events(port, EPOLLIN | EPOLLOUT);
    if (pushed)
        virtqueue_interrupt(queue);
}

/* From the client to the guest, as far as there are buffers. */
static void serve_in(struct port *port)
{
    struct virtqueue *queue = in_queue(port);
    struct virtqueue_chain *chain = &port->console->data_in;

    if (!port->open)
        set_client_events(port, port->holding ? EPOLLOUT : 0);
    while (port->open && port->client_fd >= 0) {
        struct msghdr message = {0};
        ssize_t n;

        if (!virtqueue_pop(queue, chain)) {
            /* The client waits until the guest gives buffers. */
            set_client_events(port, port->holding ? EPOLLOUT : 0);
            if (!virtqueue_set_notify(queue, true))
                return;
            continue;
        }
        message.msg_iov = chain_in(chain);
        message.msg_iovlen = chain->in_count;
        n = recvmsg(port->client_fd, &message, MSG_DONTWAIT);
        if (n <= 0) {
            int code = errno;

            virtqueue_unpop(queue, chain);
            if (n < 0 && code == EAGAIN) {
                set_client_events(port, EPOLLIN | (port->holding ? EPOLLOUT : 0));
                return;
            }
            drop_client(port);
            tell(port->console, port->id, PORT_OPEN, 0);
            send_controls(port->console);
            serve_out(port); /* what was held goes nowhere */
            return;
        }
        virtqueue_push(queue, chain, (uint32_t)n);
        virtqueue_interrupt(queue);
    }
}

static void client_event(void *opaque, uint32_t events)
{
    struct port *port = opaque;

    virtio_device_lock(&port->console->device);
    if ((events & EPOLLOUT) && port->holding)
        serve_out(port);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (virtio_device_runs(&port->console->device))
            serve_in(port);
        else
            set_client_events(port, 0);
    }
    if ((events & (EPOLLHUP | EPOLLERR)) && port->client_fd >= 0 && !(events & EPOLLIN)) {
        drop_client(port);
        tell(port->console, port->id, PORT_OPEN, 0);
        send_controls(port->console);
    }
    virtio_device_unlock(&port->console->device);
}

static void client_comes(void *opaque, uint32_t events)
{
    struct port *port = opaque;
    AUTO_CLOSE int fd = accept4(port->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0 || port->client_fd >= 0)
        return; /* one at a time */
    virtio_device_lock(&port->console->device);
    if (loop_add_fd(port->console->device.loop, fd, EPOLLIN, client_event, port,
                    &port->client_source, NULL) == 0) {
        port->client_fd = steal_fd(&fd);
        if (port->known) {
            tell(port->console, port->id, PORT_OPEN, 1);
            send_controls(port->console);
        }
    }
    virtio_device_unlock(&port->console->device);
}

/* --- Control messages from the guest --- */

static void take_control(struct console *c, const struct virtqueue_chain *chain)
{
    uint8_t message[CONTROL_SIZE];
    uint32_t id;
    struct port *port;

    if (iov_read(chain->iov, chain->out_count, 0, message, CONTROL_SIZE) != CONTROL_SIZE)
        return;
    id = load_le32(message);
    port = id >= 1 && id <= c->count ? &c->ports[id - 1] : NULL;
    switch (load_le16(message + 4)) {
    case DEVICE_READY:
        for (unsigned i = 0; i < c->count; i++)
            tell(c, c->ports[i].id, DEVICE_ADD, 0);
        break;
    case PORT_READY:
        if (!port)
            break;
        port->known = true;
        tell(c, id, PORT_NAME, 1);
        if (port->client_fd >= 0)
            tell(c, id, PORT_OPEN, 1);
        break;
    case PORT_OPEN:
        if (!port)
            break;
        port->open = load_le16(message + 6);
        serve_in(port);
        break;
    default:
        break;
    }
}

static void console_notify(struct virtio_device *device, unsigned index)
{
    struct console *c = container_of(device, struct console, device);
    struct virtqueue *queue = &device->queues[index];

    if (index == QUEUE_CONTROL_OUT) {
        do {
            virtqueue_set_notify(queue, false);
            while (virtqueue_pop(queue, &c->control_out)) {
                take_control(c, &c->control_out);
                virtqueue_push(queue, &c->control_out, 0);
            }
        } while (virtqueue_set_notify(queue, true));
        virtqueue_interrupt(queue);
        send_controls(c);
    } else if (index == QUEUE_CONTROL_IN) {
        send_controls(c);
    } else if (index >= QUEUE_PORTS) {
        struct port *port = &c->ports[(index - QUEUE_PORTS) / 2];

        if (index % 2)
            serve_out(port);
        else
            serve_in(port);
    }
}

static void console_reset(struct virtio_device *device)
{
    struct console *c = container_of(device, struct console, device);

    c->control_head = c->control_tail = 0;
    for (unsigned i = 0; i < c->count; i++) {
        struct port *port = &c->ports[i];

        port->known = port->open = false;
        if (port->holding) {
            port->holding = false;
            virtqueue_push(out_queue(port), &port->out, 0);
        }
    }
}

static void console_destroy(struct virtio_device *device)
{
    struct console *c = container_of(device, struct console, device);

    for (unsigned i = 0; i < c->count; i++) {
        struct port *port = &c->ports[i];

        drop_client(port);
        loop_remove(port->listen_source);
        if (port->listen_fd >= 0) {
            close(port->listen_fd);
            unlink(port->where.sun_path);
        }
    }
    virtio_device_fini(device);
    free(c);
}

static const struct virtio_device_ops console_ops = {
    .name = "virtio-console",
    .id = VIRTIO_ID_CONSOLE,
    .pci_class = 0x078000, /* another communication controller */
    .notify = console_notify,
    .reset = console_reset,
    .destroy = console_destroy,
};

static int listen_at(struct port *port, const char *path, struct error *err)
{
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(port->where.sun_path))
        return error_set(err, ENAMETOOLONG, "%s is too long for a socket's path", path);
    port->where.sun_family = AF_UNIX;
    strcpy(port->where.sun_path, path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&port->where, sizeof(port->where)) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    port->listen_fd = steal_fd(&fd);
    if (listen(port->listen_fd, 4) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    return loop_add_fd(port->console->device.loop, port->listen_fd, EPOLLIN, client_comes, port,
                       &port->listen_source, err);
}

static int open_port(struct console *c, const struct virtio_console_port *from, struct error *err)
{
    struct port *port = &c->ports[c->count];

    if (!*from->name || strlen(from->name) >= NAME_SIZE_MAX)
        return error_set(err, EINVAL, "the name of a channel has 1 to %u letters",
                         NAME_SIZE_MAX - 1);
    port->console = c;
    port->id = ++c->count;
    port->listen_fd = port->client_fd = -1;
    strcpy(port->name, from->name);
    return listen_at(port, from->path, err);
}

int virtio_console_create(const struct virtio_console_port *ports, unsigned count,
                          const struct log *log, struct virtio_device **ret_device,
                          struct error *err)
{
    struct console *c;
    int r;

    if (count > VIRTIO_CONSOLE_PORTS_MAX)
        return error_set(err, EINVAL, "a machine has at most %d channels",
                         VIRTIO_CONSOLE_PORTS_MAX);
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    store_le32(c->config + CONFIG_PORTS, count + 1);
    r = virtio_device_init(&c->device, &console_ops, F_MULTIPORT, c->config, CONFIG_SIZE,
                           QUEUE_PORTS + 2 * count, QUEUE_SIZE, log, err);
    if (r < 0) {
        free(c);
        return r;
    }
    for (unsigned i = 0; r == 0 && i < count; i++)
        r = open_port(c, &ports[i], err);
    if (r < 0) {
        console_destroy(&c->device);
        return r;
    }
    *ret_device = &c->device;
    return 0;
}
