#include "network/network.h"

#include <stdio.h>
#include <string.h>

#include "network/kinds.h"
#include "network/named.h"

const struct network_kind *const network_kinds[] = {
    &network_user, &network_tap, &network_switch, &network_none, NULL,
};

const struct network_kind *network_kind_find(const char *name)
{
    for (unsigned i = 0; network_kinds[i]; i++)
        if (strcmp(network_kinds[i]->name, name) == 0)
            return network_kinds[i];
    return NULL;
}

int network_open(const struct network_config *config, struct loop *loop,
                 const struct network_guest *guest, struct network **ret_network,
                 struct error *err)
{
    const struct network_kind *kind = network_kind_find(config->kind);
    struct named_network network;
    char names[128] = "";

    if (!kind && named_open(config->kind, &network, err) != -ENOENT)
        kind = &network_named;
    if (kind)
        return kind->open(config, loop, guest, ret_network, err);
    for (unsigned i = 0; network_kinds[i]; i++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
                 network_kinds[i]->name);
    return error_set(err, ENOENT, "there is no network '%.60s': 'lodge net ls' lists those with a "
                                  "name; kinds are %s", config->kind, names);
}

void network_close(struct network *network)
{
    if (network)
        network->kind->close(network);
}
