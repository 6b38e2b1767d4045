#include "cli/run_confine.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "cli/guest.h"

/* The options that may be repeated. */
static const struct {
    const char *name;
    size_t offset;
} lists[] = {
    {"cap-add", offsetof(struct confine_options, cap_add)},
    {"cap-drop", offsetof(struct confine_options, cap_drop)},
    {"security-opt", offsetof(struct confine_options, security)},
    {"device", offsetof(struct confine_options, devices)},
    {"tmpfs", offsetof(struct confine_options, tmpfs)},
    {"ulimit", offsetof(struct confine_options, limits)},
};

void run_confine_read(const struct cli *cli, struct confine_options *ret_options)
{
    *ret_options = (struct confine_options){
        .privileged = cli_flag(cli, "privileged"),
        .read_only = cli_flag(cli, "read-only"),
        .pids = cli_value(cli, "pids-limit"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        FIELD_AT(const char **, ret_options, lists[i].offset) = guest_values(cli, lists[i].name);
}

void run_confine_release(struct confine_options *options)
{
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        free(FIELD_AT(const char **, options, lists[i].offset));
        FIELD_AT(const char **, options, lists[i].offset) = NULL;
    }
}
