#include "device/virtio/virtio.h"

#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/thread.h"

#define STATUS_DRIVER                                                                              \
    (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

/* What virtio_device_notify adds to the event descriptor: more than all bells together do. */
#define NOTIFIED (1ull << 40)

/* --- The thread --- */

void virtio_device_serve(struct virtio_device *device)
{
    uint64_t queues;

    virtio_device_lock(device);
    queues = atomic_exchange(&device->notified, 0);
    if (device->activating && virtio_device_runs(device)) {
        device->activating = false;
        if (device->ops->activate)
            device->ops->activate(device);
    }
    for (unsigned i = 0; queues; i++, queues >>= 1)
        if ((queues & 1) && virtio_device_runs(device))
            device->ops->notify(device, i);
    virtio_device_unlock(device);
}

static void notified(void *opaque, uint32_t events)
{
    struct virtio_device *device = opaque;
    uint64_t count;

    (void)events;
    /* The descriptor is emptied before the bits are taken, so none is left asleep. */
    if (read(device->notify_fd, &count, sizeof(count)) != sizeof(count))
        return;
    if (count % NOTIFIED)
        atomic_fetch_or(&device->notified, (1ull << device->queue_count) - 1);
    virtio_device_serve(device);
}

static void *thread_main(void *opaque)
{
    struct virtio_device *device = opaque;
    struct error err = {0};

    if (sandbox_thread(device->sandbox, SANDBOX_IO, &err) < 0 || loop_run(device->loop, &err) < 0)
        log_error(device->log, "%s: %s", device->ops->name, err.text);
    return NULL;
}

void virtio_device_notify(struct virtio_device *device, unsigned queue)
{
    const uint64_t one = NOTIFIED;

    if (queue >= device->queue_count)
        return;
    if (atomic_fetch_or(&device->notified, 1ull << queue) == 0 &&
        write(device->notify_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: it is awake */
}

/* --- Life --- */

int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                       uint64_t features, void *config, unsigned config_size,
                       unsigned queue_count, unsigned queue_size, const struct log *log,
                       struct error *err)
{
    pthread_mutexattr_t recursive;
    int r;

    device->ops = ops;
    device->log = log;
    device->offered = features | VIRTIO_F_COMMON;
    device->config = config;
    device->config_size = config_size;
    device->queue_count = queue_count;
    for (unsigned i = 0; i < queue_count; i++)
        virtqueue_init(&device->queues[i], device, i, queue_size);
    device->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (device->notify_fd < 0)
        return error_system(err, errno, "%s: cannot make an event descriptor", ops->name);
    r = loop_create(&device->loop, err);
    if (r == 0)
        r = loop_add_fd(device->loop, device->notify_fd, EPOLLIN, notified, device,
                        &device->notify_source, err);
    if (r < 0) {
        if (device->loop)
            loop_destroy(device->loop);
        close(device->notify_fd);
        return r;
    }
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&device->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_cond_init(&device->reset_done, NULL);
    return 0;
}

void virtio_device_fini(struct virtio_device *device)
{
    loop_remove(device->notify_source);
    loop_destroy(device->loop);
    close(device->notify_fd);
    pthread_mutex_destroy(&device->lock);
    pthread_cond_destroy(&device->reset_done);
}

int virtio_device_start(struct virtio_device *device, struct error *err)
{
    int code = thread_start(&device->thread, thread_main, device);

    if (code)
        return error_system(err, code, "cannot start the thread of %s", device->ops->name);
    device->started = true;
    return 0;
}

void virtio_device_destroy(struct virtio_device *device)
{
    if (!device)
        return;
    virtio_device_reset(device);
    if (device->started) {
        loop_stop(device->loop);
        pthread_join(device->thread, NULL);
    }
    device->ops->destroy(device);
}

/* --- Calls to the device's thread --- */

struct call {
    void (*fn)(void *opaque);
    void *opaque;
    sem_t done;
};

static void run_call(void *opaque)
{
    struct call *call = opaque;

    call->fn(call->opaque);
    sem_post(&call->done);
}

void virtio_device_call(struct virtio_device *device, void (*fn)(void *opaque), void *opaque)
{
    struct call call = {.fn = fn, .opaque = opaque};

    sem_init(&call.done, 0, 0);
    while (loop_post(device->loop, run_call, &call) < 0)
        sched_yield(); /* no memory: there will be */
    while (sem_wait(&call.done) < 0)
        continue;
    sem_destroy(&call.done);
}

/* --- Status --- */

/* The last request is done, and all is as after power-up. */
static void finish_reset(struct virtio_device *device)
{
    device->status = 0;
    device->features = 0;
    device->resetting = false;
    pthread_cond_broadcast(&device->reset_done);
}

static void begin_reset(struct virtio_device *device)
{
    if (device->resetting)
        return;
    device->resetting = true;
    device->activating = false;
    for (unsigned i = 0; i < device->queue_count; i++)
        virtqueue_reset(&device->queues[i]);
    atomic_store(&device->notified, 0);
    if (device->ops->reset)
        device->ops->reset(device);
    if (device->in_flight == 0)
        finish_reset(device);
}

void virtio_device_done(struct virtio_device *device)
{
    device->in_flight--;
    if (device->resetting && device->in_flight == 0)
        finish_reset(device);
}

void virtio_device_reset(struct virtio_device *device)
{
    virtio_device_lock(device);
    begin_reset(device);
    while (device->resetting)
        pthread_cond_wait(&device->reset_done, &device->lock);
    virtio_device_unlock(device);
}

uint8_t virtio_device_status(struct virtio_device *device)
{
    uint8_t status;

    virtio_device_lock(device);
    status = device->status;
    virtio_device_unlock(device);
    return status;
}

/* The driver says that it is ready. */
static void activate(struct virtio_device *device)
{
    device->activating = true;
    /* Buffers may wait already; the driver need not notify again. */
    for (unsigned i = 0; i < device->queue_count; i++)
        if (device->queues[i].enabled)
            virtio_device_notify(device, i);
}

void virtio_device_set_status(struct virtio_device *device, uint8_t status)
{
    uint8_t added;

    virtio_device_lock(device);
    if (status == 0) {
        if (device->status == 0 && !device->in_flight)
            device->status = VIRTIO_ACKNOWLEDGE; /* a reset of what is reset is one, too */
        begin_reset(device);
    } else if (!device->resetting) {
        /* Bits are only added (2.1.1), and a choice that cannot be served is not accepted. */
        added = status & STATUS_DRIVER & ~device->status;
        if ((added & VIRTIO_FEATURES_OK) && !(device->features & VIRTIO_F_VERSION_1))
            added &= (uint8_t)~VIRTIO_FEATURES_OK;
        if (!((device->status | added) & VIRTIO_FEATURES_OK))
            added &= (uint8_t)~VIRTIO_DRIVER_OK;
        device->status |= added;
        if (added & VIRTIO_DRIVER_OK)
            activate(device);
    }
    virtio_device_unlock(device);
}

void virtio_device_set_features(struct virtio_device *device, uint64_t features)
{
    virtio_device_lock(device);
    if (!(device->status & VIRTIO_FEATURES_OK))
        device->features = features & device->offered;
    virtio_device_unlock(device);
}

void virtio_device_break(struct virtio_device *device, const char *why)
{
    if (device->status & VIRTIO_NEEDS_RESET)
        return;
    log_warning(device->log, "%s stops until the guest resets it: %s", device->ops->name, why);
    device->status |= VIRTIO_NEEDS_RESET;
    if (device->status & VIRTIO_DRIVER_OK)
        virtio_device_config_changed(device);
}

/* --- Configuration and queues --- */

void virtio_device_config_changed(struct virtio_device *device)
{
    device->generation++;
    if (device->transport.interrupt)
        device->transport.interrupt(device->transport.opaque, -1);
}

void virtio_device_interrupt(struct virtio_device *device, unsigned queue)
{
    if (device->transport.interrupt)
        device->transport.interrupt(device->transport.opaque, (int)queue);
}

void virtio_device_config_read(struct virtio_device *device, unsigned offset, void *to,
                               unsigned size)
{
    memset(to, 0, size);
    virtio_device_lock(device);
    if (offset < device->config_size)
        memcpy(to, device->config + offset, MIN(size, device->config_size - offset));
    virtio_device_unlock(device);
}

void virtio_device_config_write(struct virtio_device *device, unsigned offset, const void *from,
                                unsigned size)
{
    virtio_device_lock(device);
    if (device->ops->config_write && offset < device->config_size &&
        size <= device->config_size - offset)
        device->ops->config_write(device, offset, from, size);
    virtio_device_unlock(device);
}

void virtio_device_enable_queue(struct virtio_device *device, unsigned queue)
{
    struct error err = {0};

    virtio_device_lock(device);
    if (!device->queues[queue].enabled && !device->resetting &&
        virtqueue_enable(&device->queues[queue], &err) < 0)
        virtio_device_break(device, err.text);
    virtio_device_unlock(device);
}
