#include "device/virtio/net.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rate.h"
#include "device/virtio/net_filter.h"
#include "network/packet.h"

#define QUEUE_SIZE     256u
#define HEADER_SIZE    12u /* struct virtio_net_hdr (5.1.6): the offload, then num_buffers */
#define HEADER_BUFFERS PACKET_OFFLOAD_SIZE
#define ETHERNET_SIZE  14u
#define FRAME_MIN      ETHERNET_SIZE
#define BACKLOG_MAX    (1u << 20) /* bytes kept for a guest that gives no buffers */
#define FLOWS          256u
#define SEND_BURST     64u /* frames sent before others get their turn */

/* Features (5.1.3). */
enum {
    F_CSUM = 0, F_GUEST_CSUM = 1, F_MTU = 3, F_MAC = 5, F_GUEST_TSO4 = 7, F_GUEST_TSO6 = 8,
    F_HOST_TSO4 = 11, F_HOST_TSO6 = 12, F_MERGEABLE = 15, F_STATUS = 16, F_CONTROL = 17,
    F_CONTROL_RX = 18, F_CONTROL_VLAN = 19, F_CONTROL_RX_EXTRA = 20, F_MULTI_QUEUE = 22,
    F_CONTROL_MAC = 23,
};
#define FEATURE(name) (1ull << F_##name)

/* Configuration layout (5.1.4). */
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_PAIRS = 8, CONFIG_MTU = 10, CONFIG_SIZE = 12 };
#define STATUS_LINK_UP 1

/* Commands of the control queue (5.1.6.5) that are not the filter's. */
enum { CONTROL_MAC = 1, CONTROL_QUEUES = 4 };
enum { CONTROL_MAC_ADDRESS = 1 };
enum { ACK_OK = 0, ACK_ERROR = 1 };

/* A frame that waits for the guest's buffers. */
struct waiting {
    struct waiting *next;
    struct network_offload offload;
    unsigned pair;
    size_t length;
    uint8_t frame[];
};

struct net {
    struct virtio_device device;
    struct network *network;
    struct loop_source *send_timer, *receive_timer; /* when the limit lets frames go again */
    struct rate send_rate, receive_rate;
    struct net_filter filter;
    unsigned pairs_max, pairs;
    uint8_t mac[NETWORK_MAC_SIZE]; /* until the driver sets another */
    uint8_t config[CONFIG_SIZE];
    uint8_t flow_pair[FLOWS]; /* the pair on which the guest last sent of a flow */
    struct waiting *backlog, **backlog_end;
    size_t backlog_size;
    struct virtqueue_chain chain;
    /* Buffers of one received frame, when several are merged. */
    struct virtqueue_chain merged[NETWORK_FRAME_MAX / 1024];
    uint8_t frame[NETWORK_FRAME_MAX];
};

static bool is_receive(unsigned queue)
{
    return queue % 2 == 0;
}

/* --- Flows: a reply comes on the pair that the guest sent on (5.1.6.5.6.1) --- */

/* The same both ways. */
static unsigned flow_of(const uint8_t *frame, size_t length)
{
    const uint8_t *ip = frame + ETHERNET_SIZE;
    uint32_t hash = 0;

    if (length >= ETHERNET_SIZE + 40 && load_be16(frame + 12) == 0x86dd) {
        for (unsigned i = 8; i < 40; i += 4)
            hash ^= load_be32(ip + i);
        if (length >= ETHERNET_SIZE + 44)
            hash ^= (uint32_t)load_be16(ip + 40) ^ load_be16(ip + 42);
    } else if (length >= ETHERNET_SIZE + 24 && load_be16(frame + 12) == 0x0800) {
        hash = load_be32(ip + 12) ^ load_be32(ip + 16) ^ load_be16(ip + 20) ^ load_be16(ip + 22);
    }
    hash ^= hash >> 16;
    hash ^= hash >> 8;
    return hash % FLOWS;
}

/* --- To the guest --- */

/* Put a frame into the guest's buffers. False: there are too few now. */
static bool deliver(struct net *net, unsigned pair, const struct network_offload *offload,
                    const uint8_t *frame, size_t length)
{
    struct virtio_device *device = &net->device;
    struct virtqueue *queue = &device->queues[2 * pair];
    unsigned limit = device->features & FEATURE(MERGEABLE) ? ARRAY_SIZE(net->merged) : 1;
    size_t room = 0, done = 0;
    uint8_t header[HEADER_SIZE];
    unsigned count = 0;

    while (room < HEADER_SIZE + length && count < limit) {
        if (!virtqueue_pop(queue, &net->merged[count]))
            break;
        room += net->merged[count++].in_size;
    }
    if (room < HEADER_SIZE + length) {
        bool too_large = count == limit;

        if (too_large && limit == 1) { /* it never fits: the frame is lost, not the buffer */
            virtqueue_unpop(queue, &net->merged[0]);
            return true;
        }
        while (count)
            virtqueue_unpop(queue, &net->merged[--count]);
        return too_large;
    }
    if (!(device->features & FEATURE(GUEST_CSUM)))
        offload = NULL;
    packet_write_offload(header, offload);
    store_le16(header + HEADER_BUFFERS, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        struct virtqueue_chain *chain = &net->merged[i];
        size_t at = 0, part;

        if (i == 0)
            at = iov_write(chain_in(chain), chain->in_count, 0, header, HEADER_SIZE);
        part = MIN(chain->in_size - at, length - done);
        iov_write(chain_in(chain), chain->in_count, at, frame + done, part);
        done += part;
        if (i + 1 < count)
            virtqueue_push_first(queue, chain, (uint32_t)(at + part));
        else
            virtqueue_push(queue, chain, (uint32_t)(at + part));
    }
    rate_spend(&net->receive_rate, length);
    virtqueue_interrupt(queue);
    return true;
}

static bool may_receive(struct net *net)
{
    uint64_t when;

    if (rate_ready(&net->receive_rate, loop_now_ns(), &when))
        return true;
    loop_arm_timer(net->receive_timer, when);
    return false;
}

static void keep(struct net *net, unsigned pair, const struct network_offload *offload,
                 const uint8_t *frame, size_t length)
{
    struct waiting *waiting;

    if (net->backlog_size + length > BACKLOG_MAX)
        return; /* lost, as on any full link */
    waiting = malloc(sizeof(*waiting) + length);
    if (!waiting)
        return;
    *waiting = (struct waiting){.pair = pair, .length = length};
    if (offload)
        waiting->offload = *offload;
    memcpy(waiting->frame, frame, length);
    *net->backlog_end = waiting;
    net->backlog_end = &waiting->next;
    net->backlog_size += length;
}

static void drop_first(struct net *net)
{
    struct waiting *first = net->backlog;

    net->backlog = first->next;
    if (!net->backlog)
        net->backlog_end = &net->backlog;
    net->backlog_size -= first->length;
    free(first);
}

/* Deliver a frame, or else hear of it when buffers come. */
static bool deliver_or_ask(struct net *net, unsigned pair, const struct network_offload *offload,
                           const uint8_t *frame, size_t length)
{
    if (deliver(net, pair, offload, frame, length))
        return true;
    virtqueue_set_notify(&net->device.queues[2 * pair], true);
    return deliver(net, pair, offload, frame, length);
}

/* What waits goes first, in order. */
static void deliver_backlog(struct net *net)
{
    while (net->backlog && may_receive(net)) {
        struct waiting *first = net->backlog;

        if (!deliver_or_ask(net, first->pair, &first->offload, first->frame, first->length))
            return;
        drop_first(net);
    }
}

/* From the network; on the device's thread, perhaps within net_notify. */
static void receive(void *opaque, const struct network_offload *offload, const uint8_t *frame,
                    size_t length)
{
    struct net *net = opaque;
    struct virtio_device *device = &net->device;

    virtio_device_lock(device);
    if (virtio_device_runs(device) && length >= FRAME_MIN && length <= NETWORK_FRAME_MAX &&
        net_filter_passes(&net->filter, net->config + CONFIG_MAC, frame, length)) {
        unsigned pair = net->flow_pair[flow_of(frame, length)];

        if (pair >= net->pairs)
            pair = 0;
        if (net->backlog || !may_receive(net) ||
            !deliver_or_ask(net, pair, offload, frame, length))
            keep(net, pair, offload, frame, length);
    }
    virtio_device_unlock(device);
}

static void receive_more(void *opaque)
{
    struct net *net = opaque;

    virtio_device_lock(&net->device);
    deliver_backlog(net);
    virtio_device_unlock(&net->device);
}

/* --- From the guest --- */

static void send_frame(struct net *net, unsigned pair, const struct virtqueue_chain *chain)
{
    uint8_t header[HEADER_SIZE];
    struct network_offload offload;
    size_t length = chain->out_size - HEADER_SIZE;

    if (chain->out_size < HEADER_SIZE + FRAME_MIN || length > NETWORK_FRAME_MAX)
        return; /* no frame: dropped */
    iov_read(chain->iov, chain->out_count, 0, header, HEADER_SIZE);
    iov_read(chain->iov, chain->out_count, HEADER_SIZE, net->frame, length);
    packet_read_offload(header, &offload);
    offload.flags &= NETWORK_NEEDS_CHECKSUM;
    if (net->pairs > 1)
        net->flow_pair[flow_of(net->frame, length)] = (uint8_t)pair;
    rate_spend(&net->send_rate, length);
    net->network->kind->send(net->network, &offload, net->frame, length);
}

static bool may_send(struct net *net)
{
    uint64_t when;

    if (rate_ready(&net->send_rate, loop_now_ns(), &when))
        return true;
    loop_arm_timer(net->send_timer, when);
    return false;
}

static void send_more(void *opaque)
{
    struct net *net = opaque;

    for (unsigned pair = 0; pair < net->pairs_max; pair++)
        virtio_device_notify(&net->device, 2 * pair + 1);
}

static void serve_send(struct net *net, unsigned index)
{
    struct virtqueue *queue = &net->device.queues[index];
    unsigned burst = 0;
    bool more = false;

    virtqueue_set_notify(queue, false);
    do {
        while (burst < SEND_BURST && may_send(net) && virtqueue_pop(queue, &net->chain)) {
            send_frame(net, index / 2, &net->chain);
            virtqueue_push(queue, &net->chain, 0);
            burst++;
        }
        more = virtqueue_set_notify(queue, true);
    } while (more && burst < SEND_BURST && may_send(net));
    if (net->network->kind->flush)
        net->network->kind->flush(net->network);
    virtqueue_interrupt(queue);
    if (more && burst == SEND_BURST)
        virtio_device_notify(&net->device, index);
}

/* --- The control queue --- */

static uint8_t control(struct net *net, const struct virtqueue_chain *chain)
{
    uint8_t command[2] = {0}, bytes[NETWORK_MAC_SIZE];
    unsigned pairs;

    if (iov_read(chain->iov, chain->out_count, 0, command, 2) != 2)
        return ACK_ERROR;
    if (net_filter_command(&net->filter, chain->iov, chain->out_count))
        return ACK_OK;
    switch (command[0]) {
    case CONTROL_MAC:
        if (command[1] != CONTROL_MAC_ADDRESS ||
            iov_read(chain->iov, chain->out_count, 2, bytes, sizeof(bytes)) != sizeof(bytes))
            return ACK_ERROR;
        memcpy(net->config + CONFIG_MAC, bytes, sizeof(bytes));
        return ACK_OK;
    case CONTROL_QUEUES:
        if (command[1] != 0 || iov_read(chain->iov, chain->out_count, 2, bytes, 2) != 2)
            return ACK_ERROR;
        pairs = load_le16(bytes);
        if (!pairs || pairs > net->pairs_max)
            return ACK_ERROR;
        net->pairs = pairs;
        return ACK_OK;
    default:
        return ACK_ERROR;
    }
}

static void serve_control(struct net *net, struct virtqueue *queue)
{
    struct virtqueue_chain *chain = &net->chain;

    do {
        virtqueue_set_notify(queue, false);
        while (virtqueue_pop(queue, chain)) {
            uint8_t ack = control(net, chain);

            virtqueue_push(queue, chain,
                           (uint32_t)iov_write(chain_in(chain), chain->in_count, 0, &ack, 1));
        }
    } while (virtqueue_set_notify(queue, true));
    virtqueue_interrupt(queue);
}

/* --- The device --- */

/* Without the feature the control queue follows the first pair (5.1.2). */
static unsigned control_queue(const struct net *net)
{
    return net->device.features & FEATURE(MULTI_QUEUE) ? 2 * net->pairs_max : 2;
}

static void net_notify(struct virtio_device *device, unsigned index)
{
    struct net *net = container_of(device, struct net, device);

    if (index == control_queue(net)) {
        serve_control(net, &device->queues[index]);
    } else if (is_receive(index)) {
        /* Buffers came: only while frames wait for them is that news. */
        virtqueue_set_notify(&device->queues[index], false);
        deliver_backlog(net);
    } else {
        serve_send(net, index);
    }
}

static void net_activate(struct virtio_device *device)
{
    struct net *net = container_of(device, struct net, device);
    const struct network_kind *kind = net->network->kind;

    net->filter.by_vlan = device->features & FEATURE(CONTROL_VLAN);
    if (kind->set_offload)
        kind->set_offload(net->network, device->features & FEATURE(GUEST_CSUM),
                          device->features & FEATURE(GUEST_TSO4),
                          device->features & FEATURE(GUEST_TSO6));
}

static void net_reset(struct virtio_device *device)
{
    struct net *net = container_of(device, struct net, device);

    while (net->backlog)
        drop_first(net);
    memset(net->flow_pair, 0, sizeof(net->flow_pair));
    net_filter_reset(&net->filter);
    memcpy(net->config + CONFIG_MAC, net->mac, NETWORK_MAC_SIZE);
    net->pairs = 1;
}

static void net_destroy(struct virtio_device *device)
{
    struct net *net = container_of(device, struct net, device);

    network_close(net->network);
    while (net->backlog)
        drop_first(net);
    loop_remove(net->send_timer);
    loop_remove(net->receive_timer);
    virtio_device_fini(device);
    free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .pci_class = 0x020000, /* Ethernet */
    .notify = net_notify,
    .activate = net_activate,
    .reset = net_reset,
    .destroy = net_destroy,
};

static void offer(struct net *net, unsigned mtu)
{
    const struct network_kind *kind = net->network->kind;

    if (kind->set_offload)
        net->device.offered |= FEATURE(GUEST_TSO4) | FEATURE(GUEST_TSO6);
    store_le16(net->config + CONFIG_STATUS, STATUS_LINK_UP);
    store_le16(net->config + CONFIG_PAIRS, (uint16_t)net->pairs_max);
    store_le16(net->config + CONFIG_MTU, mtu ? (uint16_t)mtu : kind->mtu);
}

int virtio_net_create(const struct virtio_net_config *config, const struct log *log,
                      struct virtio_device **ret_device, struct error *err)
{
    const uint64_t features = FEATURE(CSUM) | FEATURE(GUEST_CSUM) | FEATURE(MTU) | FEATURE(MAC) |
                              FEATURE(HOST_TSO4) | FEATURE(HOST_TSO6) | FEATURE(MERGEABLE) |
                              FEATURE(STATUS) | FEATURE(CONTROL) | FEATURE(CONTROL_RX) |
                              FEATURE(CONTROL_RX_EXTRA) | FEATURE(CONTROL_VLAN) |
                              FEATURE(CONTROL_MAC) |
                              (config->queue_pairs > 1 ? FEATURE(MULTI_QUEUE) : 0);
    struct net *net = calloc(1, sizeof(*net));
    const struct network_guest guest = {receive, net};
    int r;

    if (!net)
        return error_set(err, ENOMEM, "out of memory");
    net->backlog_end = &net->backlog;
    net->pairs_max = config->queue_pairs;
    net->pairs = 1;
    net_filter_reset(&net->filter);
    memcpy(net->mac, config->network.mac, NETWORK_MAC_SIZE);
    memcpy(net->config + CONFIG_MAC, net->mac, NETWORK_MAC_SIZE);
    rate_init(&net->send_rate, config->rate, loop_now_ns());
    rate_init(&net->receive_rate, config->rate, loop_now_ns());
    r = virtio_device_init(&net->device, &net_ops, features, net->config, CONFIG_SIZE,
                           2 * config->queue_pairs + 1, QUEUE_SIZE, log, err);
    if (r < 0) {
        free(net);
        return r;
    }
    r = loop_add_timer(net->device.loop, send_more, net, &net->send_timer, err);
    if (r == 0)
        r = loop_add_timer(net->device.loop, receive_more, net, &net->receive_timer, err);
    if (r == 0)
        r = network_open(&config->network, net->device.loop, &guest, &net->network, err);
    if (r < 0) {
        net_destroy(&net->device);
        return r;
    }
    offer(net, config->network.mtu);
    *ret_device = &net->device;
    return 0;
}
