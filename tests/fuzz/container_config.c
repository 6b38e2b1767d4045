/* A config.json, a process.json and an update's resources from the same bytes:
 * what is accepted is also compiled as far as that touches nothing. */
#include <stdint.h>

#include "container/capability.h"
#include "container/config.h"
#include "container/filter.h"
#include "container/mount.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct config *config)
{
    struct capability_sets sets;
    struct filter filter = {0};

    capability_parse(config->process->capabilities, &sets, NULL);
    if (config->linux_->seccomp &&
        filter_compile(config->linux_->seccomp, &filter, NULL, NULL) == 0)
        filter_release(&filter);
    FOR_EACH (mount, config->mounts) {
        struct mount_plan plan;

        if (mount_plan_init(&plan, mount, config->linux_->mount_label, NULL) == 0)
            mount_plan_release(&plan);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    struct process process;
    struct resources resources;
    struct field_store store;
    const char *text = (const char *)data;

    if (config_read(&config, text, size, NULL) == 0) {
        use(&config);
        config_release(&config);
    }
    if (process_read(&process, &store, text, size, NULL) == 0)
        field_release(&store);
    if (resources_read(&resources, &store, text, size, NULL) == 0)
        field_release(&store);
    return 0;
}
