#include "device/virtio/9p.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "device/share/share.h"

#define QUEUE_SIZE 128u
#define F_MOUNT_TAG (1ull << 0)

struct p9 {
    struct virtio_device device;
    struct share *share;
    uint8_t config[2 + VIRTIO_9P_TAG_MAX]; /* the tag, its length before it */
    struct virtqueue_chain chain;
    uint8_t request[SHARE_MESSAGE_MAX], reply[SHARE_MESSAGE_MAX];
};

/* A request that is too long is cut, and refused for its wrong size. */
static uint32_t serve(struct p9 *p9, struct virtqueue_chain *chain)
{
    size_t length =
        iov_read(chain->iov, chain->out_count, 0, p9->request, sizeof(p9->request));
    size_t reply = share_serve(p9->share, p9->request, length, p9->reply,
                               MIN(chain->in_size, sizeof(p9->reply)));

    return (uint32_t)iov_write(chain_in(chain), chain->in_count, 0, p9->reply, reply);
}

static void p9_notify(struct virtio_device *device, unsigned index)
{
    struct p9 *p9 = container_of(device, struct p9, device);
    struct virtqueue *queue = &device->queues[index];

    do {
        virtqueue_set_notify(queue, false);
        while (virtqueue_pop(queue, &p9->chain))
            virtqueue_push(queue, &p9->chain, serve(p9, &p9->chain));
    } while (virtqueue_set_notify(queue, true));
    virtqueue_interrupt(queue);
}

static void p9_reset(struct virtio_device *device)
{
    share_reset(container_of(device, struct p9, device)->share);
}

static void p9_destroy(struct virtio_device *device)
{
    struct p9 *p9 = container_of(device, struct p9, device);

    share_close(p9->share);
    virtio_device_fini(device);
    free(p9);
}

static const struct virtio_device_ops p9_ops = {
    .name = "virtio-9p",
    .id = VIRTIO_ID_9P,
    .pci_class = 0x018000, /* another mass storage controller */
    .notify = p9_notify,
    .reset = p9_reset,
    .destroy = p9_destroy,
};

int virtio_9p_create(const char *folder, const char *tag, bool readonly, const struct log *log,
                     struct virtio_device **ret_device, struct error *err)
{
    size_t length = strlen(tag);
    struct p9 *p9;
    int r;

    if (!length || length > VIRTIO_9P_TAG_MAX)
        return error_set(err, EINVAL, "the tag of a share has 1 to %d letters, not %zu",
                         VIRTIO_9P_TAG_MAX, length);
    p9 = calloc(1, sizeof(*p9));
    if (!p9)
        return error_set(err, ENOMEM, "out of memory");
    store_le16(p9->config, (uint16_t)length);
    memcpy(p9->config + 2, tag, length);
    r = virtio_device_init(&p9->device, &p9_ops, F_MOUNT_TAG, p9->config, 2 + (unsigned)length, 1,
                           QUEUE_SIZE, log, err);
    if (r < 0) {
        free(p9);
        return r;
    }
    r = share_open(folder, readonly, &p9->share, err);
    if (r < 0) {
        p9_destroy(&p9->device);
        return r;
    }
    *ret_device = &p9->device;
    return 0;
}
