#include "cli/run_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "cli/run_network.h"
#include "cli/value.h"
#include "device/virtio/9p.h"
#include "device/virtio/balloon.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/rng.h"

#define QUEUES_MAX 8

/* --- Disks --- */

static int add_disk(const struct cli *cli, const char *value, struct machine *machine,
                    struct error *err)
{
    enum { READONLY, FORMAT, SERIAL, QUEUES };
    struct part parts[] = {
        [READONLY] = {"ro", true}, [FORMAT] = {"format"}, [SERIAL] = {"serial"},
        [QUEUES] = {"queues"},
    };
    AUTO_FREE char *text = strdup(value);
    struct virtio_blk_config config = {.path = text};
    struct virtio_device *device;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = value_split(text, "disk", parts, ARRAY_SIZE(parts), err);
    if (r == 0)
        r = value_count(parts[QUEUES].value, 1, 1, QUEUES_MAX, "--disk: queues", &config.queues,
                        err);
    if (r == 0)
        r = value_rate(cli, "disk-iops", &config.iops, err);
    if (r == 0)
        r = value_rate(cli, "disk-rate", &config.bytes_limit, err);
    if (r < 0)
        return r;
    config.readonly = parts[READONLY].value != NULL;
    config.format = parts[FORMAT].value;
    config.serial = parts[SERIAL].value;
    r = virtio_blk_create(&config, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* --- Shares and channels --- */

/* DIR:TAG[:ro] */
static int add_share(const struct cli *cli, const char *value, struct machine *machine,
                     struct error *err)
{
    AUTO_FREE char *text = strdup(value);
    struct virtio_device *device;
    bool readonly = false;
    char *colon;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    colon = strrchr(text, ':');
    if (colon && strcmp(colon, ":ro") == 0) {
        readonly = true;
        *colon = 0;
        colon = strrchr(text, ':');
    }
    if (!colon)
        return error_set(err, EINVAL, "--share '%s' is not like DIR:TAG", value);
    *colon++ = 0;
    r = virtio_9p_create(text, colon, readonly, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* NAME:PATH, all of them ports of one device. */
static int add_channels(const struct cli *cli, struct machine *machine, struct error *err)
{
    struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS_MAX];
    struct virtio_device *device;
    unsigned count = 0;
    const char *value;
    int r = 0;

    while (r == 0 && (value = cli_value_at(cli, "channel", count))) {
        char *name = count < ARRAY_SIZE(ports) ? strdup(value) : NULL;
        char *colon = name ? strchr(name, ':') : NULL;

        if (!colon) {
            free(name);
            r = error_set(err, EINVAL, "--channel '%s' is not like NAME:SOCKET, or is one of more "
                                       "than %d", value, VIRTIO_CONSOLE_PORTS_MAX);
            break;
        }
        *colon++ = 0;
        ports[count++] = (struct virtio_console_port){name, colon};
    }
    if (r == 0 && count) {
        r = virtio_console_create(ports, count, cli->log, &device, err);
        if (r == 0)
            r = machine_add_virtio(machine, device, err);
    }
    while (count)
        free((char *)ports[--count].name);
    return r;
}

/* --- All --- */

static int add_balloon(const struct cli *cli, struct machine *machine, struct error *err)
{
    const char *text = cli_value(cli, "balloon");
    struct virtio_device *device;
    uint64_t inflate = 0;
    int r = 0;

    if (text && size_parse(text, 1ull << 20, &inflate, err) < 0) {
        error_prepend(err, "--balloon");
        return -EINVAL;
    }
    r = virtio_balloon_create(inflate, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

static int add_rng(const struct cli *cli, struct machine *machine, struct error *err)
{
    struct virtio_device *device;
    int r = virtio_rng_create(cli->log, &device, err);

    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* Call add for each value of an option that may be repeated. */
static int add_each(const struct cli *cli, const char *option, struct machine *machine,
                    int (*add)(const struct cli *cli, const char *value, struct machine *machine,
                               struct error *err),
                    struct error *err)
{
    const char *value;
    int r = 0;

    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, option, n)); n++)
        r = add(cli, value, machine, err);
    return r;
}

int run_devices_add(const struct cli *cli, struct machine *machine, struct error *err)
{
    int r = add_rng(cli, machine, err);

    if (r == 0)
        r = add_balloon(cli, machine, err);
    if (r == 0)
        r = add_each(cli, "disk", machine, add_disk, err);
    if (r == 0)
        r = run_network_add(cli, machine, err);
    if (r == 0)
        r = add_each(cli, "share", machine, add_share, err);
    if (r == 0)
        r = add_channels(cli, machine, err);
    return r;
}

int run_devices_keep(const struct cli *cli, struct sandbox *sandbox, struct error *err)
{
    const char *value;
    int r = 0;

    /* The sockets of channels are removed at the end. */
    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, "channel", n)); n++)
        r = sandbox_keep(sandbox, strchr(value, ':') + 1, err);
    return r;
}
