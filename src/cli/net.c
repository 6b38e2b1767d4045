/* lodge net: networks of guests. */
#include "cli/verbs.h"

static const struct verb *const net_verbs[] = {
    &net_create_command, &net_ls_command, &net_inspect_command, &net_rm_command,
    &net_switch_command, &net_kinds_command, NULL,
};

const struct verb net_command = {
    .name = "net",
    .summary = "networks of guests",
    .verbs = net_verbs,
};
