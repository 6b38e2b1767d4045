/* A card with nothing at the other end. */
#include <stdlib.h>

#include "network/kinds.h"

static int none_open(const struct network_config *config, struct loop *loop,
                     const struct network_guest *guest, struct network **ret_network,
                     struct error *err)
{
    struct network *network = calloc(1, sizeof(*network));

    (void)config;
    (void)loop;
    (void)guest;
    if (!network)
        return error_set(err, ENOMEM, "out of memory");
    network->kind = &network_none;
    *ret_network = network;
    return 0;
}

static void none_close(struct network *network)
{
    free(network);
}

static void none_send(struct network *network, const struct network_offload *offload,
                      uint8_t *frame, size_t length)
{
    (void)network;
    (void)offload;
    (void)frame;
    (void)length;
}

const struct network_kind network_none = {
    .name = "none",
    .summary = "a card with nothing plugged in",
    .open = none_open,
    .close = none_close,
    .send = none_send,
    .mtu = 1500,
};
