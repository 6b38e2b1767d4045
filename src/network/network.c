#include "network/network.h"

#include <stdio.h>
#include <string.h>

#include "network/kinds.h"

const struct network_kind *const network_kinds[] = {
    &network_user, &network_tap, &network_switch, &network_none, NULL,
};

int network_open(const struct network_config *config, struct loop *loop,
                 const struct network_guest *guest, struct network **ret_network,
                 struct error *err)
{
    char names[128] = "";

    for (unsigned i = 0; network_kinds[i]; i++) {
        if (strcmp(network_kinds[i]->name, config->kind) == 0)
            return network_kinds[i]->open(config, loop, guest, ret_network, err);
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
                 network_kinds[i]->name);
    }
    return error_set(err, EINVAL, "there is no network of kind '%s'; there are %s", config->kind,
                     names);
}

void network_close(struct network *network)
{
    if (network)
        network->kind->close(network);
}
