/* Virtio over PCI, as a driver finds and sets it up: configuration space, the
 * structures in the BAR, MSI-X. */
#include "../../unit.h"

#include <unistd.h>

#include "base/bytes.h"
#include "device/virtio/pci.h"
#include "device/virtio/rng.h"
#include "machine/memory_map.h"

enum { COMMON = 1, NOTIFY = 2, ISR = 3, DEVICE = 4, WINDOW = 5 };

/* Registers of the common structure. */
enum {
    DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8, DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16, NUM_QUEUES = 18, STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26, QUEUE_ENABLE = 28, QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48,
};

#define SLOT          1u
#define MESSAGE_DATA  0x4041u
#define DESCRIPTORS   0x10000u
#define AVAILABLE     0x11000u
#define USED          0x12000u
#define BUFFER        0x20000u

struct fixture {
    struct guest_memory *memory;
    struct bus ports, mmio;
    struct pci_host host;
    struct virtio_pci *pci;
    bool line;
    unsigned messages;
    uint64_t message_address;
    uint32_t message_data;
    unsigned message_source, prepared_source, prepared;
    uint64_t prepared_address;
    uint32_t prepared_data;
};

static void set_line(void *opaque, unsigned number, bool level)
{
    (void)number;
    ((struct fixture *)opaque)->line = level;
}

static void take_message(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;

    f->messages++;
    f->message_source = source;
    f->message_address = address;
    f->message_data = data;
}

static void prepare_message(void *opaque, unsigned source, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;

    f->prepared++;
    f->prepared_source = source;
    f->prepared_address = address;
    f->prepared_data = data;
}

static uint32_t config_read(struct fixture *f, unsigned at, unsigned size)
{
    return (uint32_t)bus_read(&f->mmio, 0, MAP_ECAM + (SLOT << 15) + at, size);
}

static void config_write(struct fixture *f, unsigned at, unsigned size, uint32_t value)
{
    bus_write(&f->mmio, 0, MAP_ECAM + (SLOT << 15) + at, size, value);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct irq_line irq[4];
    struct virtio_device *device;

    memset(&f, 0, sizeof(f));
    for (unsigned i = 0; i < 4; i++)
        irq[i] = (struct irq_line){set_line, &f, i};
    assert_int_equal(guest_memory_create(4u << 20, &f.memory, NULL), 0);
    bus_init(&f.ports);
    bus_init(&f.mmio);
    assert_int_equal(pci_host_init(&f.host, &f.ports, &f.mmio, irq, NULL), 0);
    f.host.messages = (struct pci_message_sink){take_message, prepare_message, &f};
    assert_int_equal(virtio_rng_create(NULL, &device, NULL), 0);
    assert_int_equal(virtio_pci_create(device, &f.host, f.memory, &f.pci, NULL), 0);
    pci_host_reset(&f.host);
    config_write(&f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    virtio_pci_destroy(f->pci);
    bus_destroy(&f->ports);
    bus_destroy(&f->mmio);
    guest_memory_destroy(f->memory);
    return 0;
}

static unsigned find_capability(struct fixture *f, uint8_t id, uint8_t type)
{
    unsigned at = config_read(f, PCI_CAPABILITIES, 1);

    for (unsigned i = 0; at && i < 48; i++, at = config_read(f, at + 1, 1))
        if (config_read(f, at, 1) == id && (id != 9 || config_read(f, at + 3, 1) == type))
            return at;
    return 0;
}

static uint64_t bar_base(struct fixture *f, unsigned bar)
{
    uint32_t low = config_read(f, PCI_BAR0 + 4 * bar, 4);

    return (low & ~15u) | (low & 4 ? (uint64_t)config_read(f, PCI_BAR0 + 4 * bar + 4, 4) << 32 : 0);
}

/* Where a structure lies in memory. */
static uint64_t structure(struct fixture *f, uint8_t type)
{
    unsigned at = find_capability(f, 9, type);

    assert_int_not_equal(at, 0);
    return bar_base(f, config_read(f, at + 4, 1)) + config_read(f, at + 8, 4);
}

static uint32_t common_read(struct fixture *f, unsigned reg, unsigned size)
{
    return (uint32_t)bus_read(&f->mmio, 0, structure(f, COMMON) + reg, size);
}

static void common_write(struct fixture *f, unsigned reg, unsigned size, uint64_t value)
{
    bus_write(&f->mmio, 0, structure(f, COMMON) + reg, size, value);
}

static void initialize(struct fixture *f, bool vectors)
{
    common_write(f, STATUS, 1, 0);
    common_write(f, STATUS, 1, 3);
    common_write(f, DRIVER_FEATURE_SELECT, 4, 1);
    common_write(f, DRIVER_FEATURE, 4, 1); /* VERSION_1 */
    common_write(f, STATUS, 1, 3 | 8);
    assert_int_equal(common_read(f, STATUS, 1), 3 | 8);
    common_write(f, QUEUE_SELECT, 2, 0);
    common_write(f, QUEUE_SIZE, 2, 4);
    common_write(f, QUEUE_DESC, 8, DESCRIPTORS); /* the bus makes two of it */
    common_write(f, QUEUE_DRIVER, 4, AVAILABLE);
    common_write(f, QUEUE_DEVICE, 4, USED);
    if (vectors)
        common_write(f, QUEUE_VECTOR, 2, 1);
    common_write(f, QUEUE_ENABLE, 2, 1);
    assert_int_equal(common_read(f, QUEUE_ENABLE, 2), 1);
    common_write(f, STATUS, 1, 3 | 8 | 4);
}

/* Ask for 16 random bytes and wait for the device's thread to give them. */
static void ask(struct fixture *f, uint16_t index)
{
    uint8_t *descriptor = guest_memory_at(f->memory, DESCRIPTORS, 16);
    uint8_t *available = guest_memory_at(f->memory, AVAILABLE, 16);
    uint8_t *used = guest_memory_at(f->memory, USED, 64);

    store_le64(descriptor, BUFFER);
    store_le32(descriptor + 8, 16);
    store_le16(descriptor + 12, 2);
    store_le16(available + 4 + 2 * ((index - 1) % 4), 0);
    __atomic_store_n((uint16_t *)(void *)(available + 2), index, __ATOMIC_RELEASE);
    bus_write(&f->mmio, 0, structure(f, NOTIFY), 2, 0);
    for (unsigned i = 0; i < 10000; i++) {
        /* The interrupt comes under the lock, after the index. */
        virtio_device_lock(f->pci->device);
        virtio_device_unlock(f->pci->device);
        if (__atomic_load_n((uint16_t *)(void *)(used + 2), __ATOMIC_ACQUIRE) == index)
            break;
        usleep(1000);
    }
    assert_int_equal(load_le16(used + 2), index);
    virtio_device_lock(f->pci->device);
    virtio_device_unlock(f->pci->device);
}

static void the_device_is_found_as_a_modern_one(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, PCI_VENDOR, 2), 0x1af4);
    assert_int_equal(config_read(f, PCI_DEVICE, 2), 0x1044);
    assert_true(config_read(f, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES);
    for (uint8_t type = COMMON; type <= WINDOW; type++)
        assert_int_not_equal(find_capability(f, 9, type), 0);
    assert_int_equal(common_read(f, NUM_QUEUES, 2), 1);
    assert_int_equal(common_read(f, QUEUE_SIZE, 2), 64);
    common_write(f, QUEUE_SELECT, 2, 1);
    assert_int_equal(common_read(f, QUEUE_SIZE, 2), 0); /* there is none */
}

static void a_line_interrupt_is_acknowledged_by_reading_it(void **state)
{
    struct fixture *f = *state;

    initialize(f, false);
    ask(f, 1);
    assert_true(f->line);
    assert_true(config_read(f, PCI_STATUS, 2) & PCI_STATUS_INTX);
    config_write(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_OFF);
    assert_false(f->line);
    config_write(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(f->line);
    assert_int_equal(bus_read(&f->mmio, 0, structure(f, ISR), 1), 1);
    assert_false(f->line);
    assert_int_equal(bus_read(&f->mmio, 0, structure(f, ISR), 1), 0);
}

static void a_masked_message_waits_until_it_is_unmasked(void **state)
{
    struct fixture *f = *state;
    const unsigned msix = find_capability(f, 0x11, 0);
    const uint64_t table = bar_base(f, config_read(f, msix + 4, 4) & 7);
    const uint64_t pending = table + (config_read(f, msix + 8, 4) & ~7u);

    assert_int_equal((config_read(f, msix + 2, 2) & 0x7ff) + 1, 2);
    config_write(f, msix + 2, 2, 0x8000);
    bus_write(&f->mmio, 0, table + 16, 4, 0xfee01000);
    bus_write(&f->mmio, 0, table + 24, 4, MESSAGE_DATA);
    initialize(f, true);
    ask(f, 1);
    assert_int_equal(f->messages, 0); /* vectors are masked at first */
    assert_int_equal(bus_read(&f->mmio, 0, pending, 4), 2);
    bus_write(&f->mmio, 0, table + 28, 4, 0);
    assert_int_equal(f->messages, 1);
    assert_int_equal(f->message_address, 0xfee01000);
    assert_int_equal(f->message_data, MESSAGE_DATA);
    assert_int_equal(bus_read(&f->mmio, 0, pending, 4), 0);
    ask(f, 2);
    assert_int_equal(f->messages, 2);
    config_write(f, msix + 2, 2, 0xc000); /* all of the function's */
    ask(f, 3);
    assert_int_equal(f->messages, 2);
    config_write(f, msix + 2, 2, 0x8000);
    assert_int_equal(f->messages, 3);
    assert_false(f->line);
}

static void a_message_is_told_ahead_once_nothing_masks_it(void **state)
{
    struct fixture *f = *state;
    const unsigned msix = find_capability(f, 0x11, 0);
    const uint64_t table = bar_base(f, config_read(f, msix + 4, 4) & 7);

    bus_write(&f->mmio, 0, table + 16, 4, 0xfee01000);
    bus_write(&f->mmio, 0, table + 24, 4, MESSAGE_DATA);
    bus_write(&f->mmio, 0, table + 28, 4, 0);
    config_write(f, msix + 2, 2, 0xc000);
    assert_int_equal(f->prepared, 0); /* the function is off, then masked */
    config_write(f, msix + 2, 2, 0x8000);
    assert_int_equal(f->prepared, 1);
    assert_int_equal(f->prepared_address, 0xfee01000);
    assert_int_equal(f->prepared_data, MESSAGE_DATA);
    bus_write(&f->mmio, 0, table + 28, 4, 1);
    bus_write(&f->mmio, 0, table + 16, 4, 0xfee02000);
    assert_int_equal(f->prepared, 1);
    bus_write(&f->mmio, 0, table + 28, 4, 0);
    assert_int_equal(f->prepared, 2);
    assert_int_equal(f->prepared_address, 0xfee02000);
    initialize(f, true);
    ask(f, 1);
    assert_int_equal(f->messages, 1);
    assert_int_equal(f->message_source, f->prepared_source);
    msix_announce(&f->pci->msix); /* to an engine that is new */
    assert_int_equal(f->prepared, 3);
    assert_int_equal(f->messages, 1);
}

static void features_not_offered_are_refused(void **state)
{
    struct fixture *f = *state;

    common_write(f, STATUS, 1, 3);
    common_write(f, DRIVER_FEATURE_SELECT, 4, 1);
    common_write(f, DRIVER_FEATURE, 4, 1 | 1u << 20);
    common_write(f, STATUS, 1, 3 | 8);
    assert_int_equal(common_read(f, STATUS, 1), 3);
}

static void the_window_in_configuration_space_leads_to_the_bar(void **state)
{
    struct fixture *f = *state;
    const unsigned window = find_capability(f, 9, WINDOW);

    config_write(f, window + 4, 1, 0);
    config_write(f, window + 8, 4, STATUS);
    config_write(f, window + 12, 4, 1);
    config_write(f, window + 16, 1, 3);
    assert_int_equal(common_read(f, STATUS, 1), 3);
    assert_int_equal(config_read(f, window + 16, 1), 3);
    config_write(f, window + 8, 4, UINT32_MAX); /* nowhere */
    config_write(f, window + 16, 1, 0);
    assert_int_equal(common_read(f, STATUS, 1), 3);
    config_write(f, window + 12, 4, 3);
    config_read(f, window + 16, 4);
}

static void odd_accesses_do_no_harm(void **state)
{
    struct fixture *f = *state;
    const uint64_t base = bar_base(f, 0);

    initialize(f, false);
    for (uint64_t at = 0; at < 0x4000; at++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            bus_read(&f->mmio, 0, base + at, size);
            if (at < STATUS || at > STATUS)
                bus_write(&f->mmio, 0, base + at, size, UINT64_MAX);
        }
    common_write(f, STATUS, 1, 0);
    for (unsigned i = 0; common_read(f, STATUS, 1) && i < 1000; i++)
        usleep(1000);
    assert_int_equal(common_read(f, STATUS, 1), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_device_is_found_as_a_modern_one),
        TEST(a_line_interrupt_is_acknowledged_by_reading_it),
        TEST(a_masked_message_waits_until_it_is_unmasked),
        TEST(a_message_is_told_ahead_once_nothing_masks_it),
        TEST(features_not_offered_are_refused),
        TEST(the_window_in_configuration_space_leads_to_the_bar),
        TEST(odd_accesses_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
