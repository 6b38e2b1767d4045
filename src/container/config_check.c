/* config_check.c - what a table of fields cannot say: fields that need each other, paths that
 * must be absolute, values that would reach beyond the container. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "container/config-private.h"
#include "container/namespace.h"

/* field[index]member must be absolute. */
static int absolute_check(const char *path, const char *field, size_t index, const char *member,
                          struct error *err)
{
    if (path[0] == '/')
        return 0;
    return error_set(err, EINVAL, "%s[%zu]%s: \"%.128s\" must be an absolute path", field, index,
                     member, path);
}

static int paths_check(const string_list *paths, const char *field, struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < paths->count && r == 0; i++)
        r = absolute_check(paths->items[i], field, i, "", err);
    return r;
}

int process_check(const struct process *process, struct error *err)
{
    unsigned seen = 0;

    if (process->args.count == 0)
        return error_set(err, EINVAL, "process.args: must name a program to run");
    if (process->cwd[0] != '/')
        return error_set(err, EINVAL, "process.cwd: \"%.128s\" must be an absolute path",
                         process->cwd);
    FOR_EACH(rlimit, process->rlimits)
    {
        size_t index = (size_t)(rlimit - process->rlimits.items);

        if (seen & 1u << rlimit->type)
            return error_set(err, EINVAL, "process.rlimits[%zu].type: %s is given twice", index,
                             config_rlimit_names[rlimit->type]);
        seen |= 1u << rlimit->type;
        /* -1 is infinity: compare as the kernel does, unsigned. */
        if ((uint64_t)rlimit->soft.value > (uint64_t)rlimit->hard.value)
            return error_set(err, EINVAL, "process.rlimits[%zu].soft: is above hard", index);
    }
    if (process->exec_cpu_affinity && process->exec_cpu_affinity->initial &&
        !process->exec_cpu_affinity->initial[0])
        return error_set(err, EINVAL, "process.execCPUAffinity.initial: is empty");
    return 0;
}

static int hooks_check(const hook_list *hooks, const char *name, struct error *err)
{
    FOR_EACH(hook, *hooks)
    {
        if (hook->path[0] != '/')
            return error_set(err, EINVAL, "hooks.%s[%zu].path: \"%.128s\" must be absolute", name,
                             (size_t)(hook - hooks->items), hook->path);
    }
    return 0;
}

static int namespaces_check(const struct config *config, struct error *err)
{
    const struct linux_config *linux_ = config->linux_;
    const struct namespace *user = config_namespace(config, NAMESPACE_USER);
    unsigned seen = 0;

    FOR_EACH(namespace, linux_->namespaces)
    {
        size_t index = (size_t)(namespace - linux_->namespaces.items);

        if (seen & 1u << namespace->type)
            return error_set(err, EINVAL, "linux.namespaces[%zu].type: \"%s\" is given twice",
                             index, namespace_name((enum namespace_type) namespace->type));
        seen |= 1u << namespace->type;
        if (namespace->path && namespace->path[0] == 0)
        namespace->path = NULL;
        if (namespace->path && namespace->path[0] != '/')
            return error_set(err, EINVAL, "linux.namespaces[%zu].path: \"%.128s\" must be absolute",
                             index, namespace->path);
    }
    if (user && !user->path && (!linux_->uid_mappings.count || !linux_->gid_mappings.count))
        return error_set(err, EINVAL, "linux.%s: is required with a new user namespace",
                         linux_->uid_mappings.count ? "gidMappings" : "uidMappings");
    if (!user && (linux_->uid_mappings.count || linux_->gid_mappings.count))
        return error_set(err, EINVAL, "linux.uidMappings: needs a namespace of type \"user\"");
    if (config->hostname && config->hostname[0] && !config_namespace(config, NAMESPACE_UTS))
        return error_set(err, EINVAL, "hostname: needs a namespace of type \"uts\"");
    if (config->domainname && config->domainname[0] && !config_namespace(config, NAMESPACE_UTS))
        return error_set(err, EINVAL, "domainname: needs a namespace of type \"uts\"");
    if (linux_->time_offsets && !config_namespace(config, NAMESPACE_TIME))
        return error_set(err, EINVAL, "linux.timeOffsets: needs a namespace of type \"time\"");
    if (!config_namespace(config, NAMESPACE_MOUNT) &&
        (linux_->masked_paths.count || linux_->readonly_paths.count))
        return error_set(err, EINVAL, "linux.%s: needs a namespace of type \"mount\"",
                         linux_->masked_paths.count ? "maskedPaths" : "readonlyPaths");
    return 0;
}

/* The sysctls that belong to a namespace; others would change the host. */
static const struct {
    const char *prefix; /* whole names end without a dot */
    enum namespace_type type;
} sysctl_namespaces[] = {
    {"kernel.msgmax", NAMESPACE_IPC},
    {"kernel.msgmnb", NAMESPACE_IPC},
    {"kernel.msgmni", NAMESPACE_IPC},
    {"kernel.sem", NAMESPACE_IPC},
    {"kernel.shmall", NAMESPACE_IPC},
    {"kernel.shmmax", NAMESPACE_IPC},
    {"kernel.shmmni", NAMESPACE_IPC},
    {"kernel.shm_rmid_forced", NAMESPACE_IPC},
    {"kernel.msg_next_id", NAMESPACE_IPC},
    {"kernel.sem_next_id", NAMESPACE_IPC},
    {"kernel.shm_next_id", NAMESPACE_IPC},
    {"kernel.auto_msgmni", NAMESPACE_IPC},
    {"fs.mqueue.", NAMESPACE_IPC},
    {"net.", NAMESPACE_NETWORK},
    {"kernel.domainname", NAMESPACE_UTS},
    {"kernel.hostname", NAMESPACE_UTS},
    {"user.", NAMESPACE_USER},
};

static int sysctl_check(const struct config *config, const struct pair *sysctl, struct error *err)
{
    char name[128];
    size_t i, length = strlen(sysctl->key);

    if (length == 0 || length >= sizeof(name))
        return error_set(err, EINVAL, "linux.sysctl: \"%.64s\" is not a sysctl", sysctl->key);
    /* sysctl(8) takes both a.b and a/b. */
    for (i = 0; i <= length; i++)
        name[i] = sysctl->key[i] == '/' ? '.' : sysctl->key[i];
    /* An empty name between two of them is "..", or was: it would climb. */
    if (name[0] == '.' || name[length - 1] == '.' || strstr(name, ".."))
        return error_set(err, EINVAL, "linux.sysctl: \"%.64s\" is not a sysctl", sysctl->key);
    for (i = 0; i < ARRAY_SIZE(sysctl_namespaces); i++) {
        const char *prefix = sysctl_namespaces[i].prefix;
        size_t prefix_length = strlen(prefix);
        bool whole = prefix[prefix_length - 1] != '.';

        if (whole ? strcmp(name, prefix) != 0 : strncmp(name, prefix, prefix_length) != 0)
            continue;
        if (config_namespace(config, sysctl_namespaces[i].type))
            return 0;
        return error_set(err, EINVAL, "linux.sysctl.%s: needs a namespace of type \"%s\"", name,
                         namespace_name(sysctl_namespaces[i].type));
    }
    return error_set(err, EINVAL,
                     "linux.sysctl.%s: is not of a namespace, it would change the host", name);
}

static int devices_check(const struct linux_config *linux_, struct error *err)
{
    FOR_EACH(device, linux_->devices)
    {
        size_t index = (size_t)(device - linux_->devices.items);
        int r = absolute_check(device->path, "linux.devices", index, ".path", err);

        if (r < 0)
            return r;
        if (!device->type[0] || device->type[1] || !strchr("cubp", device->type[0]))
            return error_set(err, EINVAL, "linux.devices[%zu].type: must be c, u, b or p", index);
        if (device->type[0] != 'p' && !device->major.given)
            return error_set(err, EINVAL, "linux.devices[%zu].major: is required, but missing",
                             index);
        if (device->type[0] != 'p' && !device->minor.given)
            return error_set(err, EINVAL, "linux.devices[%zu].minor: is required, but missing",
                             index);
    }
    return 0;
}

int resources_check(const struct resources *resources, struct error *err)
{
    FOR_EACH(rule, resources->devices)
    {
        size_t index = (size_t)(rule - resources->devices.items);

        if (rule->type && rule->type[0] && (rule->type[1] || !strchr("acb", rule->type[0])))
            return error_set(err, EINVAL, "linux.resources.devices[%zu].type: must be a, c or b",
                             index);
        if (rule->access && strspn(rule->access, "rwm") != strlen(rule->access))
            return error_set(err, EINVAL,
                             "linux.resources.devices[%zu].access: must be made of r, w and m",
                             index);
    }
    FOR_EACH(unified, resources->unified)
    {
        /* The name becomes a file's: it must be one inside the cgroup. */
        if (!unified->key[0] || strchr(unified->key, '/') || !strchr(unified->key, '.') ||
            unified->key[0] == '.')
            return error_set(err, EINVAL, "linux.resources.unified: \"%.64s\" is not a cgroup file",
                             unified->key);
    }
    FOR_EACH(huge, resources->hugepage_limits)
    {
        if (!huge->page_size[0] || strchr(huge->page_size, '/') || strlen(huge->page_size) > 16)
            return error_set(err, EINVAL,
                             "linux.resources.hugepageLimits[%zu].pageSize: \"%.32s\" is not one",
                             (size_t)(huge - resources->hugepage_limits.items), huge->page_size);
    }
    return 0;
}

static int linux_check(const struct config *config, struct error *err)
{
    const struct linux_config *linux_ = config->linux_;
    int r;

    if (linux_->intel_rdt)
        return error_set(err, ENOTSUP, "linux.intelRdt: Intel RDT is not supported; remove it");
    if ((r = namespaces_check(config, err)) < 0 || (r = devices_check(linux_, err)) < 0)
        return r;
    if (linux_->resources && (r = resources_check(linux_->resources, err)) < 0)
        return r;
    if ((r = paths_check(&linux_->masked_paths, "linux.maskedPaths", err)) < 0 ||
        (r = paths_check(&linux_->readonly_paths, "linux.readonlyPaths", err)) < 0)
        return r;
    FOR_EACH(sysctl, linux_->sysctl)
    if ((r = sysctl_check(config, sysctl, err)) < 0)
        return r;
    return 0;
}

static int version_check(const char *version, struct error *err)
{
    int major, minor, patch, used = 0;

    if (sscanf(version, "%d.%d.%d%n", &major, &minor, &patch, &used) != 3 || used < 5)
        return error_set(err, EINVAL, "ociVersion: \"%.32s\" is not a version", version);
    if (major != 1)
        return error_set(err, EINVAL, "ociVersion: %.32s is not supported, only 1.x is", version);
    return 0;
}

int config_check(const struct config *config, struct error *err)
{
    int r;

    if ((r = version_check(config->oci_version, err)) < 0)
        return r;
    if (!config->root->path[0])
        return error_set(err, EINVAL, "root.path: is empty");
    if (!config->process)
        return error_set(err, EINVAL, "process: is required, but missing");
    if ((r = process_check(config->process, err)) < 0)
        return r;
    FOR_EACH(mount, config->mounts)
    {
        size_t index = (size_t)(mount - config->mounts.items);

        if ((r = absolute_check(mount->destination, "mounts", index, ".destination", err)) < 0)
            return r;
        if (!mount->uid_mappings.count != !mount->gid_mappings.count)
            return error_set(err, EINVAL, "mounts[%zu].%s: is required with the other mapping",
                             index, mount->uid_mappings.count ? "gidMappings" : "uidMappings");
    }
    if (config->hooks) {
        const struct {
            const hook_list *list;
            const char *name;
        } kinds[] = {
            {&config->hooks->prestart, "prestart"},
            {&config->hooks->create_runtime, "createRuntime"},
            {&config->hooks->create_container, "createContainer"},
            {&config->hooks->start_container, "startContainer"},
            {&config->hooks->poststart, "poststart"},
            {&config->hooks->poststop, "poststop"},
        };
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
            if ((r = hooks_check(kinds[i].list, kinds[i].name, err)) < 0)
                return r;
    }
    return linux_check(config, err);
}
