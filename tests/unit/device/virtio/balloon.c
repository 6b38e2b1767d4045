/* The balloon: what the driver gives up reads as zeroes afterwards, and nothing else does. */
#include "driver.h"

#include "device/virtio/balloon.h"

#define PAGE 4096u
enum { INFLATE = 0, STATS = 2, REPORT = 3 };
enum { CONFIG_PAGES = 0, CONFIG_ACTUAL = 4 };

static int start(void **state, bool packed)
{
    static struct driver driver;
    struct virtio_device *device;

    assert_int_equal(virtio_balloon_create(PAGE, NULL, &device, NULL), 0);
    driver_start(&driver, device, packed, ~0ull, 4, 64);
    *state = &driver;
    return 0;
}

static int set_up_split(void **state)
{
    return start(state, false);
}

static int set_up_packed(void **state)
{
    return start(state, true);
}

static int tear_down(void **state)
{
    driver_stop(*state);
    return 0;
}

/* Pages of memory that hold something, from a page's border on. */
static uint64_t fill_pages(struct driver *d, unsigned count)
{
    uint64_t at = ALIGN_UP(driver_alloc(d, (count + 1) * PAGE), PAGE);

    memset(driver_at(d, at), 0x5a, (size_t)count * PAGE);
    return at;
}

static bool is_kept(struct driver *d, uint64_t page)
{
    return *driver_at(d, page) == 0x5a && *driver_at(d, page + PAGE - 1) == 0x5a;
}

static bool is_given_up(struct driver *d, uint64_t page)
{
    return *driver_at(d, page) == 0 && *driver_at(d, page + PAGE - 1) == 0;
}

static void request(struct driver *d, unsigned queue, uint64_t address, uint32_t length,
                    uint16_t flags)
{
    const struct buffer buffer = {address, length, flags};
    struct used used;

    driver_add(d, queue, &buffer, 1);
    driver_kick(d, queue);
    assert_false(driver_device_is_broken(d));
    assert_true(driver_used(d, queue, &used));
    assert_int_equal(used.length, 0);
}

static void pages_that_are_named_are_given_up(void **state)
{
    struct driver *d = *state;
    const uint64_t pages = fill_pages(d, 8), list = driver_alloc(d, 24);
    const unsigned named[] = {2, 3, 4, 6, 6};

    for (unsigned i = 0; i < ARRAY_SIZE(named); i++)
        store_le32(driver_at(d, list) + 4 * i, (uint32_t)(pages / PAGE + named[i]));
    store_le32(driver_at(d, list) + 20, DRIVER_MEMORY / PAGE); /* there is no such page */
    request(d, INFLATE, list, 24, 0);
    for (unsigned i = 0; i < 8; i++)
        if ((i >= 2 && i <= 4) || i == 6)
            assert_true(is_given_up(d, pages + i * PAGE));
        else
            assert_true(is_kept(d, pages + i * PAGE));
}

static void a_list_without_an_end_is_cut(void **state)
{
    enum { MANY = 20000 };
    struct driver *d = *state;
    const uint64_t pages = fill_pages(d, 2), list = driver_alloc(d, 4 * MANY);

    for (unsigned i = 0; i < MANY; i++)
        store_le32(driver_at(d, list) + 4 * (size_t)i,
                   (uint32_t)(pages / PAGE + (i + 1 == MANY)));
    request(d, INFLATE, list, 4 * MANY, 0);
    assert_true(is_given_up(d, pages));
    assert_true(is_kept(d, pages + PAGE));
}

static void of_what_is_reported_whole_pages_are_given_up(void **state)
{
    struct driver *d = *state;
    const uint64_t pages = fill_pages(d, 4);

    request(d, REPORT, pages + 100, 3 * PAGE, BUFFER_WRITE);
    assert_true(is_kept(d, pages));
    assert_true(is_given_up(d, pages + PAGE));
    assert_true(is_given_up(d, pages + 2 * PAGE));
    assert_true(is_kept(d, pages + 3 * PAGE));
}

static void statistics_are_taken_and_asked_for_again(void **state)
{
    struct driver *d = *state;
    const struct buffer list = {driver_alloc(d, 30), 30, 0};
    struct virtio_balloon_stats stats;
    struct used used;

    store_le16(driver_at(d, list.address), 4); /* free */
    store_le64(driver_at(d, list.address) + 2, 1234567);
    store_le16(driver_at(d, list.address) + 10, 99); /* nobody knows what */
    store_le16(driver_at(d, list.address) + 20, 5);  /* total */
    store_le64(driver_at(d, list.address) + 22, 7654321);
    driver_add(d, STATS, &list, 1);
    driver_kick(d, STATS);
    virtio_balloon_get_stats(d->device, &stats);
    assert_true(stats.free == 1234567 && stats.total == 7654321);
    assert_true(stats.available == UINT64_MAX);
    assert_false(driver_used(d, STATS, &used)); /* kept until news are wanted */
    assert_int_equal(d->device->in_flight, 1);
    virtio_device_set_status(d->device, 0);
    assert_int_equal(virtio_device_status(d->device), 0);
    virtio_balloon_get_stats(d->device, &stats);
    assert_true(stats.free == UINT64_MAX);
}

static void the_size_that_is_asked_for_is_told(void **state)
{
    struct driver *d = *state;
    uint8_t pages[4];

    virtio_device_config_read(d->device, CONFIG_PAGES, pages, 4);
    assert_int_equal(load_le32(pages), 1);
    virtio_balloon_inflate(d->device, 100 * PAGE);
    assert_int_equal(d->config_interrupts, 1);
    virtio_device_config_read(d->device, CONFIG_PAGES, pages, 4);
    assert_int_equal(load_le32(pages), 100);
    virtio_device_config_write(d->device, CONFIG_ACTUAL, pages, 4);
    assert_int_equal(virtio_balloon_actual(d->device), 100 * PAGE);
    virtio_device_config_write(d->device, CONFIG_PAGES, (uint8_t[4]){0}, 4); /* the device's own */
    virtio_device_config_read(d->device, CONFIG_PAGES, pages, 4);
    assert_int_equal(load_le32(pages), 100);
}

int main(void)
{
#define TEST(name, set_up) {#name " (" #set_up ")", name, set_up, tear_down, NULL}
#define IN_BOTH(name)      TEST(name, set_up_split), TEST(name, set_up_packed)
    const struct CMUnitTest tests[] = {
        IN_BOTH(pages_that_are_named_are_given_up),
        IN_BOTH(a_list_without_an_end_is_cut),
        IN_BOTH(of_what_is_reported_whole_pages_are_given_up),
        IN_BOTH(statistics_are_taken_and_asked_for_again),
        IN_BOTH(the_size_that_is_asked_for_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
