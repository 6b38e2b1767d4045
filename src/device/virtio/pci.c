#include "device/virtio/pci.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define PCI_VENDOR_VIRTIO   0x1af4
#define PCI_DEVICE_MODERN   0x1040 /* plus the device type (4.1.2.1) */
#define CAPABILITY_VENDOR   0x09
#define NO_VECTOR           0xffff
#define ISR_QUEUE           0x01
#define ISR_CONFIG          0x02
#define NOTIFY_MULTIPLIER   4

/* The structures and where they lie in BAR 0 (4.1.4). */
enum structure { COMMON = 1, NOTIFY = 2, ISR = 3, DEVICE = 4, WINDOW = 5 };

#define BAR_STRUCTURES 0
#define BAR_MSIX       4
#define BAR_SIZE       0x4000u
#define STRUCTURE_SIZE 0x1000u
#define NOTIFY_OFFSET  0x3000u

static const struct {
    enum structure type;
    uint32_t offset, size;
} structures[] = {
    {COMMON, 0x0000, 56},
    {ISR, 0x1000, 1},
    {DEVICE, 0x2000, STRUCTURE_SIZE},
    {NOTIFY, NOTIFY_OFFSET, VIRTIO_QUEUES_MAX * NOTIFY_MULTIPLIER},
};

/* struct virtio_pci_cap (4.1.4). */
enum { CAP_LENGTH = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_SIZE = 12, CAP_END = 16 };
#define WINDOW_DATA CAP_END

/* struct virtio_pci_common_cfg (4.1.4.3): offset and width of each register. */
enum common {
    DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8, DRIVER_FEATURE = 12,
    CONFIG_MSIX_VECTOR = 16, NUM_QUEUES = 18, DEVICE_STATUS = 20, CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_MSIX_VECTOR = 26, QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30, QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48,
};

static const struct {
    uint8_t offset, width;
} common_registers[] = {
    {DEVICE_FEATURE_SELECT, 4}, {DEVICE_FEATURE, 4},    {DRIVER_FEATURE_SELECT, 4},
    {DRIVER_FEATURE, 4},        {CONFIG_MSIX_VECTOR, 2}, {NUM_QUEUES, 2},
    {DEVICE_STATUS, 1},         {CONFIG_GENERATION, 1}, {QUEUE_SELECT, 2},
    {QUEUE_SIZE, 2},            {QUEUE_MSIX_VECTOR, 2}, {QUEUE_ENABLE, 2},
    {QUEUE_NOTIFY_OFF, 2},      {QUEUE_DESC, 4},        {QUEUE_DESC + 4, 4},
    {QUEUE_DRIVER, 4},          {QUEUE_DRIVER + 4, 4},  {QUEUE_DEVICE, 4},
    {QUEUE_DEVICE + 4, 4},
};

/* --- Interrupts --- */

static void interrupt(void *opaque, int queue)
{
    struct virtio_pci *pci = opaque;

    if (msix_enabled(&pci->msix)) {
        uint16_t vector = queue < 0 ? pci->config_vector : pci->queue_vector[queue];

        if (vector != NO_VECTOR)
            msix_raise(&pci->msix, vector);
        return;
    }
    atomic_fetch_or(&pci->isr, queue < 0 ? ISR_CONFIG : ISR_QUEUE);
    pci_set_intx(&pci->function, true);
}

/* Reading acknowledges (4.1.4.5). */
static uint8_t read_isr(struct virtio_pci *pci)
{
    uint8_t isr;

    virtio_device_lock(pci->device); /* so that no interrupt comes in between */
    isr = atomic_exchange(&pci->isr, 0);
    pci_set_intx(&pci->function, false);
    virtio_device_unlock(pci->device);
    return isr;
}

/* --- Doorbells --- */

static void set_bells(struct virtio_pci *pci, bool on)
{
    const struct pci_doorbell_sink *sink = &pci->function.host->doorbells;

    for (unsigned i = 0; sink->set && i < pci->device->queue_count; i++)
        if (pci->bell_queues >> i & 1)
            sink->set(sink->opaque, pci->bells + i * NOTIFY_MULTIPLIER, pci->device->notify_fd,
                      on);
}

/* Notifications of a device that runs need not wait for whoever serves the BAR. The device's
 * lock is held. */
static void update_bells(struct virtio_pci *pci)
{
    const struct pci_bar *bar = &pci->function.bar[BAR_STRUCTURES];
    const bool runs = bar->mapped && virtio_device_runs(pci->device);
    const uint64_t bells = runs ? bar->region.base + NOTIFY_OFFSET : 0;

    if (bells == pci->bells)
        return;
    if (pci->bells)
        set_bells(pci, false);
    pci->bells = bells;
    pci->bell_queues = 0;
    for (unsigned i = 0; bells && i < pci->device->queue_count; i++)
        pci->bell_queues |= (uint64_t)pci->device->queues[i].enabled << i;
    if (pci->bells)
        set_bells(pci, true);
}

/* --- The common structure --- */

static struct virtqueue *selected(struct virtio_pci *pci)
{
    return pci->queue_select < pci->device->queue_count ? &pci->device->queues[pci->queue_select]
                                                        : NULL;
}

static uint32_t half(uint64_t value, bool high)
{
    return (uint32_t)(high ? value >> 32 : value);
}

static uint32_t read_queue(struct virtio_pci *pci, unsigned reg)
{
    const struct virtqueue *queue = selected(pci);

    if (!queue)
        return reg == QUEUE_MSIX_VECTOR ? NO_VECTOR : 0;
    switch (reg) {
    case QUEUE_SIZE: return queue->size;
    case QUEUE_MSIX_VECTOR: return pci->queue_vector[queue->index];
    case QUEUE_ENABLE: return queue->enabled;
    case QUEUE_NOTIFY_OFF: return queue->index;
    default:
        return half(queue->address[(reg - QUEUE_DESC) / 8], reg & 4);
    }
}

static uint32_t read_common(struct virtio_pci *pci, unsigned reg)
{
    struct virtio_device *device = pci->device;

    switch (reg) {
    case DEVICE_FEATURE_SELECT: return pci->device_feature_select;
    case DEVICE_FEATURE:
        return pci->device_feature_select < 2 ? half(device->offered, pci->device_feature_select)
                                              : 0;
    case DRIVER_FEATURE_SELECT: return pci->driver_feature_select;
    case DRIVER_FEATURE:
        return pci->driver_feature_select < 2
                   ? half(pci->driver_features, pci->driver_feature_select)
                   : 0;
    case CONFIG_MSIX_VECTOR: return pci->config_vector;
    case NUM_QUEUES: return device->queue_count;
    case DEVICE_STATUS: return device->status;
    case CONFIG_GENERATION: return device->generation;
    case QUEUE_SELECT: return pci->queue_select;
    default: return read_queue(pci, reg);
    }
}

static void set_half(uint64_t *value, bool high, uint32_t bits)
{
    *value = high ? (*value & UINT32_MAX) | (uint64_t)bits << 32 : (*value & ~UINT32_MAX) | bits;
}

static uint16_t known_vector(const struct virtio_pci *pci, uint32_t vector)
{
    return vector < pci->msix.vectors ? (uint16_t)vector : NO_VECTOR;
}

static void write_queue(struct virtio_pci *pci, unsigned reg, uint32_t value)
{
    struct virtqueue *queue = selected(pci);

    if (!queue)
        return;
    if (reg == QUEUE_MSIX_VECTOR) {
        pci->queue_vector[queue->index] = known_vector(pci, value);
    } else if (queue->enabled) {
        return; /* the rest is fixed until the reset (4.1.4.3.2) */
    } else if (reg == QUEUE_SIZE) {
        queue->size = value;
    } else if (reg == QUEUE_ENABLE) {
        if (value == 1)
            virtio_device_enable_queue(pci->device, queue->index);
    } else if (reg >= QUEUE_DESC) {
        set_half(&queue->address[(reg - QUEUE_DESC) / 8], reg & 4, value);
    }
}

static void reset_registers(struct virtio_pci *pci)
{
    pci->device_feature_select = pci->driver_feature_select = 0;
    pci->driver_features = 0;
    pci->queue_select = 0;
    pci->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        pci->queue_vector[i] = NO_VECTOR;
    atomic_store(&pci->isr, 0);
    pci_set_intx(&pci->function, false);
}

static void write_common(struct virtio_pci *pci, unsigned reg, uint32_t value)
{
    switch (reg) {
    case DEVICE_FEATURE_SELECT:
        pci->device_feature_select = value;
        break;
    case DRIVER_FEATURE_SELECT:
        pci->driver_feature_select = value;
        break;
    case DRIVER_FEATURE:
        if (pci->driver_feature_select < 2) {
            set_half(&pci->driver_features, pci->driver_feature_select, value);
            virtio_device_set_features(pci->device, pci->driver_features);
        }
        break;
    case CONFIG_MSIX_VECTOR:
        pci->config_vector = known_vector(pci, value);
        break;
    case DEVICE_STATUS:
        /* A driver that chose what is not offered does not get FEATURES_OK (2.2.2). */
        if ((value & VIRTIO_FEATURES_OK) && (pci->driver_features & ~pci->device->offered))
            value &= (uint32_t)~VIRTIO_FEATURES_OK;
        if (value == 0)
            reset_registers(pci);
        virtio_device_set_status(pci->device, (uint8_t)value);
        update_bells(pci);
        break;
    case QUEUE_SELECT:
        pci->queue_select = (uint16_t)value;
        break;
    default:
        write_queue(pci, reg, value);
        break;
    }
}

/* --- The BAR --- */

static uint32_t read_structures(struct virtio_pci *pci, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (offset < STRUCTURE_SIZE) {
        virtio_device_lock(pci->device);
        for (unsigned i = 0; i < ARRAY_SIZE(common_registers); i++) {
            unsigned in = offset - common_registers[i].offset;

            if (in < common_registers[i].width)
                value = read_common(pci, common_registers[i].offset) >> (8 * in);
        }
        virtio_device_unlock(pci->device);
    } else if (offset == 0x1000) {
        value = read_isr(pci);
    } else if (offset - 0x2000 < STRUCTURE_SIZE) {
        virtio_device_config_read(pci->device, offset - 0x2000, &value, size);
    }
    return value;
}

static void write_structures(struct virtio_pci *pci, unsigned offset, unsigned size, uint32_t value)
{
    if (offset < STRUCTURE_SIZE) {
        virtio_device_lock(pci->device);
        for (unsigned i = 0; i < ARRAY_SIZE(common_registers); i++)
            if (common_registers[i].offset == offset && common_registers[i].width == size)
                write_common(pci, offset, value);
        virtio_device_unlock(pci->device);
    } else if (offset - 0x2000 < STRUCTURE_SIZE) {
        virtio_device_config_write(pci->device, offset - 0x2000, &value, size);
    } else if (offset >= NOTIFY_OFFSET) {
        virtio_device_notify(pci->device, (offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
    }
}

static uint64_t bar_read(void *owner, unsigned cpu, uint64_t offset, unsigned size)
{
    (void)cpu;
    return read_structures(owner, (unsigned)offset, size);
}

static void bar_write(void *owner, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    (void)cpu;
    write_structures(owner, (unsigned)offset, size, (uint32_t)value);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

/* --- Configuration space --- */

/* Whether [offset, offset + size) of configuration space touches the window's
 * data, and where in the BAR that leads. */
static bool window_target(struct virtio_pci *pci, unsigned offset, unsigned size,
                          unsigned *ret_offset, unsigned *ret_size)
{
    const uint8_t *window = pci->function.config + pci->window;
    uint32_t at = load_le32(window + CAP_OFFSET), length = load_le32(window + CAP_SIZE);

    if (offset + size <= pci->window + WINDOW_DATA || offset >= pci->window + WINDOW_DATA + 4)
        return false;
    if (window[CAP_BAR] != BAR_STRUCTURES || (length != 1 && length != 2 && length != 4) ||
        at > BAR_SIZE - length || at % length)
        return false;
    *ret_offset = at;
    *ret_size = length;
    return true;
}

static void config_reading(struct pci_function *function, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = container_of(function, struct virtio_pci, function);
    unsigned at, length;

    if (window_target(pci, offset, size, &at, &length))
        store_le32(function->config + pci->window + WINDOW_DATA,
                   read_structures(pci, at, length));
}

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = container_of(function, struct virtio_pci, function);
    unsigned at, length;

    msix_config_written(&pci->msix);
    virtio_device_lock(pci->device);
    update_bells(pci);
    virtio_device_unlock(pci->device);
    if (window_target(pci, offset, size, &at, &length))
        write_structures(pci, at, length,
                         load_le32(function->config + pci->window + WINDOW_DATA));
}

static const struct pci_function_ops function_ops = {
    .config_reading = config_reading,
    .config_written = config_written,
};

static unsigned add_structure(struct pci_function *function, enum structure type, uint32_t offset,
                              uint32_t size, unsigned extra)
{
    unsigned at = pci_add_capability(function, CAPABILITY_VENDOR, CAP_END + extra);
    uint8_t *capability = function->config + at;

    capability[CAP_LENGTH] = (uint8_t)(CAP_END + extra);
    capability[CAP_TYPE] = (uint8_t)type;
    capability[CAP_BAR] = BAR_STRUCTURES;
    store_le32(capability + CAP_OFFSET, offset);
    store_le32(capability + CAP_SIZE, size);
    return at;
}

static void prepare_function(struct virtio_pci *pci)
{
    const struct virtio_device_ops *ops = pci->device->ops;
    struct pci_function *function = &pci->function;

    pci_function_init(function, ops->name, PCI_VENDOR_VIRTIO,
                      (uint16_t)(PCI_DEVICE_MODERN + ops->id), ops->pci_class);
    function->ops = &function_ops;
    function->config[PCI_REVISION] = 1;
    store_le16(function->config + PCI_SUBSYSTEM_VENDOR, PCI_VENDOR_VIRTIO);
    store_le16(function->config + PCI_SUBSYSTEM, 0x1100);
    function->config[PCI_INTERRUPT_PIN] = 1;
    msix_init(&pci->msix, function, BAR_MSIX, pci->device->queue_count + 1);
    for (unsigned i = 0; i < ARRAY_SIZE(structures); i++) {
        bool notify = structures[i].type == NOTIFY;
        unsigned at = add_structure(function, structures[i].type, structures[i].offset,
                                    structures[i].size, notify ? 4 : 0);

        if (notify)
            store_le32(function->config + at + CAP_END, NOTIFY_MULTIPLIER);
    }
    pci->window = add_structure(function, WINDOW, 0, 0, 4);
    function->writable[pci->window + CAP_BAR] = 0xff;
    memset(function->writable + pci->window + CAP_OFFSET, 0xff, 12);
    function->bar[BAR_STRUCTURES].kind = PCI_BAR_MEMORY64;
    function->bar[BAR_STRUCTURES].region = (struct bus_region){
        .name = ops->name, .size = BAR_SIZE, .min = 1, .max = 4, .ops = &bar_ops, .owner = pci};
}

int virtio_pci_create(struct virtio_device *device, struct pci_host *host,
                      struct guest_memory *memory, struct virtio_pci **ret_pci, struct error *err)
{
    struct virtio_pci *pci = calloc(1, sizeof(*pci));
    int r;

    if (!pci) {
        virtio_device_destroy(device);
        return error_set(err, ENOMEM, "out of memory");
    }
    pci->device = device;
    device->memory = memory;
    device->transport = (struct virtio_transport){interrupt, pci};
    prepare_function(pci);
    pci->function.host = host;
    reset_registers(pci);
    r = virtio_device_start(device, err);
    if (r == 0)
        r = pci_host_add(host, &pci->function, err);
    if (r < 0) {
        virtio_pci_destroy(pci);
        return r;
    }
    *ret_pci = pci;
    return 0;
}

void virtio_pci_destroy(struct virtio_pci *pci)
{
    if (!pci)
        return;
    virtio_device_destroy(pci->device);
    msix_destroy(&pci->msix);
    free(pci);
}

void virtio_pci_reset(struct virtio_pci *pci)
{
    virtio_device_reset(pci->device);
    virtio_device_lock(pci->device);
    reset_registers(pci);
    update_bells(pci);
    virtio_device_unlock(pci->device);
    msix_reset(&pci->msix);
}
