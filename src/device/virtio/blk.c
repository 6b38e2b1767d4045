#include "device/virtio/blk.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rate.h"
#include "storage/disk.h"

#define SECTOR       512u
#define HEADER_SIZE  16u /* struct virtio_blk_req up to the data (5.2.6) */
#define SERIAL_SIZE  20u
#define QUEUE_SIZE   256u
#define REQUESTS_MAX 256u /* under way at once, of all queues */

/* Features (5.2.3). */
enum {
    F_SEG_MAX = 2, F_READONLY = 5, F_BLOCK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11, F_MULTI_QUEUE = 12, F_DISCARD = 13, F_WRITE_ZEROES = 14,
};
#define FEATURE(name) (1ull << F_##name)

enum request_type {
    TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8, TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
};
enum request_status { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_UNSUPPORTED = 2 };

/* Configuration layout (5.2.4). */
enum {
    CONFIG_CAPACITY = 0, CONFIG_SEG_MAX = 12, CONFIG_BLOCK_SIZE = 20, CONFIG_PHYSICAL_EXP = 24,
    CONFIG_OPTIMAL_IO = 28, CONFIG_WRITEBACK = 32, CONFIG_QUEUES = 34, CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGMENTS = 40, CONFIG_DISCARD_ALIGN = 44, CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEGMENTS = 52, CONFIG_ZEROES_UNMAP = 56, CONFIG_SIZE = 60,
};

#define RANGE_SIZE        16u /* struct virtio_blk_discard_write_zeroes */
#define RANGE_SECTORS_MAX (1u << 22)
#define RANGE_FLAG_UNMAP  1u

struct blk;

struct request {
    struct blk *blk;
    struct virtqueue *queue;
    struct request *next; /* in the list of free ones */
    size_t status_at;     /* offset of the status byte in the writable part */
    struct disk_request disk;
    struct virtqueue_chain chain;
    struct iovec data[VIRTQUEUE_SIZE_MAX];
};

struct blk {
    struct virtio_device device;
    struct storage *storage;
    struct disk *disk;
    char *path; /* of the disk, see virtio_blk_path */
    struct loop_source *timer; /* when a limit lets requests go again */
    struct rate iops, bytes;
    char serial[SERIAL_SIZE];
    uint8_t config[CONFIG_SIZE];
    struct request *free;
    unsigned requests; /* allocated */
    bool starved; /* a queue waits for a free request */
};

/* --- The end of a request --- */

static void finish(struct request *request, enum request_status status)
{
    struct blk *blk = request->blk;
    struct virtqueue_chain *chain = &request->chain;
    const uint8_t byte = (uint8_t)status;

    iov_write(chain_in(chain), chain->in_count, request->status_at, &byte, 1);
    virtqueue_push(request->queue, chain, (uint32_t)chain->in_size);
    request->next = blk->free;
    blk->free = request;
}

static void serve_starved(struct blk *blk)
{
    if (!blk->starved || !virtio_device_runs(&blk->device))
        return;
    blk->starved = false;
    for (unsigned i = 0; i < blk->device.queue_count; i++)
        virtio_device_notify(&blk->device, i);
}

static void disk_done(struct disk_request *disk, int result)
{
    struct request *request = disk->opaque;
    struct blk *blk = request->blk;
    struct virtqueue *queue = request->queue;

    virtio_device_lock(&blk->device);
    if (result < 0 && result != -EROFS)
        log_warning(blk->device.log, "disk %s: %s of %llu bytes at %llu failed: %s",
                    disk_path(blk->disk),
                    disk->op == DISK_READ    ? "read"
                    : disk->op == DISK_WRITE ? "write"
                                             : "flush or discard",
                    (unsigned long long)disk->length, (unsigned long long)disk->offset,
                    strerror(-result));
    finish(request, result < 0 ? STATUS_ERROR : STATUS_OK);
    virtqueue_interrupt(queue);
    serve_starved(blk);
    virtio_device_unlock(&blk->device);
}

/* --- The beginning of one --- */

static struct request *take_request(struct blk *blk)
{
    struct request *request = blk->free;

    if (request) {
        blk->free = request->next;
        return request;
    }
    if (blk->requests == REQUESTS_MAX)
        return NULL;
    request = malloc(sizeof(*request));
    if (request) {
        request->blk = blk;
        blk->requests++;
    }
    return request;
}

static void submit(struct request *request, enum disk_op op, uint64_t offset, uint64_t length,
                   unsigned iov_count, unsigned flags)
{
    struct blk *blk = request->blk;

    request->disk = (struct disk_request){
        .op = op, .flags = flags, .offset = offset, .length = length, .iov = request->data,
        .iov_count = iov_count, .done = disk_done, .opaque = request};
    rate_spend(&blk->iops, 1);
    rate_spend(&blk->bytes, op == DISK_READ || op == DISK_WRITE ? length : 0);
    disk_submit(blk->disk, &request->disk);
}

/* Whether sectors [sector, sector + length / 512) are on the disk. */
static bool on_disk(const struct blk *blk, uint64_t sector, uint64_t length)
{
    uint64_t sectors = disk_size(blk->disk) / SECTOR;

    return length % SECTOR == 0 && sector <= sectors && length / SECTOR <= sectors - sector;
}

static void transfer(struct request *request, enum request_type type, uint64_t sector)
{
    struct virtqueue_chain *chain = &request->chain;
    bool in = type == TYPE_IN;
    uint64_t length = in ? request->status_at : chain->out_size - HEADER_SIZE;
    unsigned count = in ? iov_slice(chain_in(chain), chain->in_count, 0, length, request->data,
                                    VIRTQUEUE_SIZE_MAX)
                        : iov_slice(chain->iov, chain->out_count, HEADER_SIZE, length,
                                    request->data, VIRTQUEUE_SIZE_MAX);

    if (!on_disk(request->blk, sector, length)) {
        finish(request, STATUS_ERROR);
    } else if (!length) {
        finish(request, STATUS_OK);
    } else {
        submit(request, in ? DISK_READ : DISK_WRITE, sector * SECTOR, length, count,
               /* Without a write-back cache a write is durable when it ends (5.2.6.2). */
               in || request->blk->config[CONFIG_WRITEBACK] ? 0 : DISK_FUA);
    }
}

/* Discard or write zeroes: one range, as the configuration says. */
static void clear(struct request *request, enum request_type type)
{
    struct virtqueue_chain *chain = &request->chain;
    uint8_t range[RANGE_SIZE];
    uint32_t sectors, flags;
    uint64_t sector, length;

    if (chain->out_size != HEADER_SIZE + RANGE_SIZE) {
        finish(request, STATUS_UNSUPPORTED);
        return;
    }
    iov_read(chain->iov, chain->out_count, HEADER_SIZE, range, sizeof(range));
    sector = load_le64(range);
    sectors = load_le32(range + 8);
    flags = load_le32(range + 12);
    length = (uint64_t)sectors * SECTOR;
    if (flags & (type == TYPE_DISCARD ? UINT32_MAX : ~RANGE_FLAG_UNMAP))
        finish(request, STATUS_UNSUPPORTED);
    else if (sectors > RANGE_SECTORS_MAX || !on_disk(request->blk, sector, length))
        finish(request, STATUS_ERROR);
    else
        submit(request, type == TYPE_DISCARD ? DISK_DISCARD : DISK_WRITE_ZEROES, sector * SECTOR,
               length, 0, flags & RANGE_FLAG_UNMAP ? DISK_MAY_UNMAP : 0);
}

static void identify(struct request *request)
{
    struct virtqueue_chain *chain = &request->chain;

    if (request->status_at < SERIAL_SIZE) {
        finish(request, STATUS_ERROR);
        return;
    }
    iov_write(chain_in(chain), chain->in_count, 0, request->blk->serial, SERIAL_SIZE);
    finish(request, STATUS_OK);
}

static void begin(struct request *request)
{
    struct virtqueue_chain *chain = &request->chain;
    struct blk *blk = request->blk;
    uint8_t header[HEADER_SIZE];
    uint32_t type;

    if (chain->out_size < HEADER_SIZE || !chain->in_size) {
        virtio_device_break(&blk->device, "a request has no header or no place for its status");
        virtqueue_push(request->queue, chain, 0);
        request->next = blk->free;
        blk->free = request;
        return;
    }
    request->status_at = chain->in_size - 1;
    iov_read(chain->iov, chain->out_count, 0, header, sizeof(header));
    type = load_le32(header);
    if (!disk_writable(blk->disk) &&
        (type == TYPE_OUT || type == TYPE_DISCARD || type == TYPE_WRITE_ZEROES)) {
        finish(request, STATUS_ERROR);
        return;
    }
    switch (type) {
    case TYPE_IN: case TYPE_OUT:
        transfer(request, type, load_le64(header + 8));
        break;
    case TYPE_FLUSH:
        submit(request, DISK_FLUSH, 0, 0, 0, 0);
        break;
    case TYPE_GET_ID:
        identify(request);
        break;
    case TYPE_DISCARD: case TYPE_WRITE_ZEROES:
        clear(request, type);
        break;
    default:
        finish(request, STATUS_UNSUPPORTED);
        break;
    }
}

/* Whether the limits let a request go; otherwise a timer comes when they do. */
static bool within_limits(struct blk *blk)
{
    uint64_t now, when = 0, later = 0;
    bool requests, bytes;

    if (!blk->iops.per_second && !blk->bytes.per_second)
        return true;
    now = loop_now_ns();
    requests = rate_ready(&blk->iops, now, &when);
    bytes = rate_ready(&blk->bytes, now, &later);
    if (requests && bytes)
        return true;
    loop_arm_timer(blk->timer, MAX(when, later));
    return false;
}

static void limit_lifted(void *opaque)
{
    struct blk *blk = opaque;

    for (unsigned i = 0; i < blk->device.queue_count; i++)
        virtio_device_notify(&blk->device, i);
}

static void serve(struct blk *blk, struct virtqueue *queue)
{
    while (within_limits(blk)) {
        struct request *request = take_request(blk);

        if (!request) {
            blk->starved = true;
            return;
        }
        if (!virtqueue_pop(queue, &request->chain)) {
            request->next = blk->free;
            blk->free = request;
            return;
        }
        request->queue = queue;
        begin(request);
    }
}

static void blk_notify(struct virtio_device *device, unsigned index)
{
    struct blk *blk = container_of(device, struct blk, device);
    struct virtqueue *queue = &device->queues[index];

    storage_hold(blk->storage);
    do {
        virtqueue_set_notify(queue, false);
        serve(blk, queue);
    } while (virtqueue_set_notify(queue, true) && !blk->starved && within_limits(blk));
    storage_release(blk->storage);
    virtqueue_interrupt(queue);
}

/* Only the cache's mode is the driver's to set (5.2.5). */
static void blk_config_write(struct virtio_device *device, unsigned offset, const uint8_t *from,
                             unsigned size)
{
    struct blk *blk = container_of(device, struct blk, device);

    if (offset == CONFIG_WRITEBACK && size == 1)
        blk->config[CONFIG_WRITEBACK] = *from != 0;
}

/* --- Its size --- */

static void resized(void *opaque, uint64_t size)
{
    struct blk *blk = opaque;

    virtio_device_lock(&blk->device);
    store_le64(blk->config + CONFIG_CAPACITY, size / SECTOR);
    virtio_device_config_changed(&blk->device);
    virtio_device_unlock(&blk->device);
}

struct resize {
    struct blk *blk;
    uint64_t bytes;
    struct error *err;
    int result;
};

static void resize(void *opaque)
{
    struct resize *r = opaque;

    r->result = disk_resize(r->blk->disk, r->bytes, r->err);
}

int virtio_blk_resize(struct virtio_device *device, uint64_t bytes, struct error *err)
{
    struct resize r = {.blk = container_of(device, struct blk, device), .bytes = bytes, .err = err};

    if (bytes % SECTOR)
        return error_set(err, EINVAL, "%s: a size is a multiple of %d bytes", r.blk->path, SECTOR);
    virtio_device_call(device, resize, &r);
    return r.result;
}

/* --- Life --- */

const char *virtio_blk_path(const struct virtio_device *device)
{
    return container_of(device, const struct blk, device)->path;
}

static void blk_destroy(struct virtio_device *device)
{
    struct blk *blk = container_of(device, struct blk, device);
    struct error err = {0};

    if (disk_close(blk->disk, &err) < 0)
        log_error(device->log, "%s", err.text);
    loop_remove(blk->timer);
    storage_destroy(blk->storage);
    virtio_device_fini(device);
    while (blk->free) {
        struct request *request = blk->free;

        blk->free = request->next;
        free(request);
    }
    free(blk->path);
    free(blk);
}

/* No guest had any part in what the disk's threads did before. */
static void blk_activate(struct virtio_device *device)
{
    storage_confine(container_of(device, struct blk, device)->storage, device->sandbox);
}

static const struct virtio_device_ops blk_ops = {
    .name = "virtio-blk",
    .id = VIRTIO_ID_BLOCK,
    .pci_class = 0x010000, /* SCSI controller, as others show it */
    .notify = blk_notify,
    .activate = blk_activate,
    .config_write = blk_config_write,
    .destroy = blk_destroy,
};

static void fill_config(struct blk *blk, unsigned queues)
{
    uint8_t *config = blk->config;

    store_le64(config + CONFIG_CAPACITY, disk_size(blk->disk) / SECTOR);
    store_le32(config + CONFIG_SEG_MAX, QUEUE_SIZE - 2); /* header and status take two */
    store_le32(config + CONFIG_BLOCK_SIZE, SECTOR);
    config[CONFIG_PHYSICAL_EXP] = 3; /* 4 KiB: what the host's files like */
    config[CONFIG_WRITEBACK] = 1;
    store_le16(config + CONFIG_QUEUES, (uint16_t)queues);
    store_le32(config + CONFIG_DISCARD_SECTORS, RANGE_SECTORS_MAX);
    store_le32(config + CONFIG_DISCARD_SEGMENTS, 1);
    store_le32(config + CONFIG_DISCARD_ALIGN, 4096 / SECTOR);
    store_le32(config + CONFIG_ZEROES_SECTORS, RANGE_SECTORS_MAX);
    store_le32(config + CONFIG_ZEROES_SEGMENTS, 1);
    config[CONFIG_ZEROES_UNMAP] = 1;
}

int virtio_blk_create(const struct virtio_blk_config *config, const struct log *log,
                      struct virtio_device **ret_device, struct error *err)
{
    const struct disk_options options = {.format = config->format, .writable = !config->readonly};
    uint64_t features = FEATURE(SEG_MAX) | FEATURE(BLOCK_SIZE) | FEATURE(FLUSH) |
                        FEATURE(TOPOLOGY) | FEATURE(CONFIG_WCE) |
                        (config->queues > 1 ? FEATURE(MULTI_QUEUE) : 0) |
                        (config->readonly ? FEATURE(READONLY)
                                          : FEATURE(DISCARD) | FEATURE(WRITE_ZEROES));
    struct blk *blk = calloc(1, sizeof(*blk));
    int r;

    if (!blk)
        return error_set(err, ENOMEM, "out of memory");
    r = virtio_device_init(&blk->device, &blk_ops, features, blk->config, CONFIG_SIZE,
                           config->queues, QUEUE_SIZE, log, err);
    if (r < 0) {
        free(blk);
        return r;
    }
    rate_init(&blk->iops, config->iops, loop_now_ns());
    rate_init(&blk->bytes, config->bytes_limit, loop_now_ns());
    if (config->serial)
        memcpy(blk->serial, config->serial, MIN(strlen(config->serial), SERIAL_SIZE));
    blk->path = realpath(config->path, NULL); /* a URL has none */
    if (!blk->path)
        blk->path = strdup(config->path);
    r = blk->path ? loop_add_timer(blk->device.loop, limit_lifted, blk, &blk->timer, err)
                  : error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = storage_create(blk->device.loop, NULL, &blk->storage, err);
    if (r == 0)
        r = disk_open(blk->storage, config->path, &options, &blk->disk, err);
    if (r < 0) {
        blk_destroy(&blk->device);
        return r;
    }
    fill_config(blk, config->queues);
    disk_on_resize(blk->disk, resized, blk);
    *ret_device = &blk->device;
    return 0;
}
