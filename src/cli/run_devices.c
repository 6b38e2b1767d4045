#include "cli/run_devices.h"

#include "device/virtio/rng.h"

static int add_rng(const struct cli *cli, struct machine *machine, struct error *err)
{
    struct virtio_device *device;
    int r = virtio_rng_create(cli->log, &device, err);

    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

int run_devices_add(const struct cli *cli, struct machine *machine, struct error *err)
{
    return add_rng(cli, machine, err);
}
