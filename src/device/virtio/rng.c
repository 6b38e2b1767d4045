#include "device/virtio/rng.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/bytes.h"

#define REQUEST_MAX 4096 /* bytes given for one request; the driver asks again */

struct rng {
    struct virtio_device device;
};

/* Random bytes for the chain's writable part. */
static uint32_t fill(struct virtqueue_chain *chain)
{
    uint8_t bytes[REQUEST_MAX];
    size_t size = MIN(chain->in_size, sizeof(bytes)), done = 0;

    while (done < size) { /* at most 256 bytes come at once without a wait */
        ssize_t n = getrandom(bytes + done, MIN(size - done, 256u), 0);

        if (n < 0)
            break;
        done += (size_t)n;
    }
    return (uint32_t)iov_write(chain_in(chain), chain->in_count, 0, bytes, done);
}

static void rng_notify(struct virtio_device *device, unsigned index)
{
    struct virtqueue *queue = &device->queues[index];
    struct virtqueue_chain chain;

    do {
        virtqueue_set_notify(queue, false);
        while (virtqueue_pop(queue, &chain))
            virtqueue_push(queue, &chain, fill(&chain));
    } while (virtqueue_set_notify(queue, true));
    virtqueue_interrupt(queue);
}

static void rng_destroy(struct virtio_device *device)
{
    struct rng *rng = container_of(device, struct rng, device);

    virtio_device_fini(device);
    free(rng);
}

static const struct virtio_device_ops rng_ops = {
    .name = "virtio-rng",
    .id = VIRTIO_ID_ENTROPY,
    .pci_class = 0x10ff00, /* another encryption controller */
    .notify = rng_notify,
    .destroy = rng_destroy,
};

int virtio_rng_create(const struct log *log, struct virtio_device **ret_device, struct error *err)
{
    struct rng *rng = calloc(1, sizeof(*rng));
    int r;

    if (!rng)
        return error_set(err, ENOMEM, "out of memory");
    r = virtio_device_init(&rng->device, &rng_ops, 0, NULL, 0, 1, 64, log, err);
    if (r < 0) {
        free(rng);
        return r;
    }
    *ret_device = &rng->device;
    return 0;
}
