/* cgroup_v1.c - limits by the files of the v1 controllers
 * (Documentation/admin-guide/cgroup-v1 in the kernel's source). */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/cgroup-private.h"
#include "container/file.h"

int cgroup_v1_prepare(const struct cgroup_tree *tree, int parent_fd, struct error *err)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    const struct cgroup_tree parent = {.fd = parent_fd};
    char line[4096];
    int r;

    if (!cgroup_tree_has(tree, "cpuset"))
        return 0;
    /* A cpuset begins empty, and nobody can enter it. */
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        if (!cgroup_get(&parent, files[i], line, sizeof(line)) || !line[0])
            continue;
        if ((r = cgroup_put(tree, files[i], line, err)) < 0)
            return r;
    }
    return 0;
}

/* One number given in config.json: which file takes it. */
struct limit {
    const char *controller, *file;
    const struct integer *value;
};

static int limits_set(const struct cgroup *cgroup, const struct limit *limits, size_t count,
                      struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        int r;

        if (!limits[i].value->given)
            continue;
        r = cgroup_put_number(cgroup_find(cgroup, limits[i].controller), limits[i].file,
                              limits[i].value->value, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* limit must stay at or below limit plus swap at every moment: the order of
 * the two files depends on which way they go. */
static int memory_and_swap_set(const struct cgroup_tree *tree, const struct memory_limits *memory,
                               struct error *err)
{
    static const char limit_file[] = "memory.limit_in_bytes";
    static const char swap_file[] = "memory.memsw.limit_in_bytes";
    int64_t limit = memory->limit.value, swap = memory->swap.value;
    int r;

    /* No limit on memory means none on swap either (runc does the same). */
    if (memory->limit.given && limit == -1 && !memory->swap.given) {
        cgroup_put_number(tree, swap_file, -1, NULL);
        return cgroup_put_number(tree, limit_file, -1, err);
    }
    if (!memory->swap.given || swap == 0)
        return memory->limit.given && limit ? cgroup_put_number(tree, limit_file, limit, err) : 0;
    if (!memory->limit.given || limit == 0)
        return cgroup_put_number(tree, swap_file, swap, err);
    if (swap != -1 && (limit == -1 || swap < limit))
        return error_set(err, EINVAL, "memory.swap: is memory plus swap, and below memory.limit");
    r = cgroup_put_number(tree, limit_file, limit, NULL);
    if (r < 0) {
        r = cgroup_put_number(tree, swap_file, swap, err);
        return r < 0 ? r : cgroup_put_number(tree, limit_file, limit, err);
    }
    return cgroup_put_number(tree, swap_file, swap, err);
}

static int memory_set(const struct cgroup *cgroup, const struct memory_limits *memory,
                      struct error *err)
{
    const struct cgroup_tree *tree = cgroup_find(cgroup, "memory");
    const struct limit limits[] = {
        {"memory", "memory.soft_limit_in_bytes", &memory->reservation},
        {"memory", "memory.kmem.tcp.limit_in_bytes", &memory->kernel_tcp},
    };
    char line[64];
    int r;

    if (!tree && !memory->limit.given && !memory->swap.given && !memory->reservation.given)
        return 0;
    if (!tree)
        return error_set(err, ENOENT, "the host has no cgroup controller for memory limits");
    if (memory->check_before_update && memory->limit.given && memory->limit.value > 0 &&
        cgroup_get(tree, "memory.usage_in_bytes", line, sizeof(line)) &&
        strtoll(line, NULL, 10) > memory->limit.value)
        return error_set(err, EBUSY, "memory.limit: %lld is below the %s bytes in use",
                         (long long)memory->limit.value, line);
    if ((r = memory_and_swap_set(tree, memory, err)) < 0)
        return r;
    /* memory.kernel is obsolete (config-linux.md), and gone from kernels. */
    if ((r = limits_set(cgroup, limits, ARRAY_SIZE(limits), err)) < 0)
        return r;
    if (memory->swappiness.given && memory->swappiness.value >= 0 &&
        memory->swappiness.value != INT64_MAX) {
        if (memory->swappiness.value > 100)
            return error_set(err, EINVAL, "memory.swappiness: %lld is not within 0 to 100",
                             (long long)memory->swappiness.value);
        r = cgroup_put_number(tree, "memory.swappiness", memory->swappiness.value, err);
        if (r < 0)
            return r;
    }
    if (memory->disable_oom_killer)
        return cgroup_put(tree, "memory.oom_control", "1", err);
    return 0;
}

/* A quota may only be set with the period it fits in: try both orders. */
static int cpu_set(const struct cgroup *cgroup, const struct cpu_limits *cpu, struct error *err)
{
    const struct cgroup_tree *tree = cgroup_find(cgroup, "cpu");
    const struct limit first[] = {
        {"cpu", "cpu.idle", &cpu->idle},
        {"cpu", "cpu.rt_period_us", &cpu->realtime_period},
        {"cpu", "cpu.rt_runtime_us", &cpu->realtime_runtime},
    };
    const struct limit last[] = {{"cpu", "cpu.cfs_burst_us", &cpu->burst}};
    bool period_late = false;
    int r;

    if (cpu->shares.given && cpu->shares.value > 0 &&
        (r = cgroup_put_number(tree, "cpu.shares", cpu->shares.value, err)) < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(first); i++) {
        if (first[i].value->value == 0) /* 0 is Go's "not given" */
            continue;
        if ((r = limits_set(cgroup, &first[i], 1, err)) < 0)
            return r;
    }
    if (cpu->period.given && cpu->period.value > 0) {
        r = cgroup_put_number(tree, "cpu.cfs_period_us", cpu->period.value, err);
        period_late = r == -EINVAL && cpu->quota.given;
        if (r < 0 && !period_late)
            return r;
    }
    if (cpu->quota.given && cpu->quota.value != 0) {
        int64_t quota = cpu->quota.value < 0 ? -1 : cpu->quota.value;
        if ((r = cgroup_put_number(tree, "cpu.cfs_quota_us", quota, err)) < 0)
            return r;
    }
    if (period_late &&
        (r = cgroup_put_number(tree, "cpu.cfs_period_us", cpu->period.value, err)) < 0)
        return r;
    if ((r = limits_set(cgroup, last, ARRAY_SIZE(last), err)) < 0)
        return r;
    tree = cgroup_find(cgroup, "cpuset");
    if (cpu->cpus && cpu->cpus[0] && (r = cgroup_put(tree, "cpuset.cpus", cpu->cpus, err)) < 0)
        return r;
    if (cpu->mems && cpu->mems[0] && (r = cgroup_put(tree, "cpuset.mems", cpu->mems, err)) < 0)
        return r;
    return 0;
}

/* The weight files bear the scheduler's name: BFQ's, or that of old CFQ. */
static const char *blkio_file(const struct cgroup_tree *tree, const char *cfq, const char *bfq)
{
    return tree && faccessat(tree->fd, bfq, W_OK, 0) == 0 ? bfq : cfq;
}

static int block_io_set(const struct cgroup *cgroup, const struct block_io *io, struct error *err)
{
    static const char *const throttles[] = {
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    };
    const struct cgroup_tree *tree = cgroup_find(cgroup, "blkio");
    const char *weight = blkio_file(tree, "blkio.weight", "blkio.bfq.weight");
    const char *weight_device = blkio_file(tree, "blkio.weight_device", "blkio.bfq.weight_device");
    char text[96];
    int r;

    if (io->weight.given && io->weight.value &&
        (r = cgroup_put_number(tree, weight, io->weight.value, err)) < 0)
        return r;
    if (io->leaf_weight.given && io->leaf_weight.value &&
        (r = cgroup_put_number(tree, "blkio.leaf_weight", io->leaf_weight.value, err)) < 0)
        return r;
    FOR_EACH(device, io->weight_device)
    {
        if (!device->weight.given)
            continue;
        snprintf(text, sizeof(text), "%lld:%lld %lld", (long long)device->major.value,
                 (long long)device->minor.value, (long long)device->weight.value);
        if ((r = cgroup_put(tree, weight_device, text, err)) < 0)
            return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(throttles); i++) {
        FOR_EACH(device, io->throttle[i])
        {
            snprintf(text, sizeof(text), "%lld:%lld %lld", (long long)device->major.value,
                     (long long)device->minor.value, (long long)device->rate.value);
            if ((r = cgroup_put(tree, throttles[i], text, err)) < 0)
                return r;
        }
    }
    return 0;
}

static int device_rule_set(const struct cgroup_tree *tree, const struct device_rule *rule,
                           struct error *err)
{
    const char *file = rule->allow ? "devices.allow" : "devices.deny";
    char type = rule->type && rule->type[0] ? rule->type[0] : 'a';
    char major[24] = "*", minor[24] = "*", text[80];
    bool whole = !rule->access || !rule->access[0] || strlen(rule->access) >= 3;

    if (rule->major.given && rule->major.value >= 0)
        snprintf(major, sizeof(major), "%lld", (long long)rule->major.value);
    if (rule->minor.given && rule->minor.value >= 0)
        snprintf(minor, sizeof(minor), "%lld", (long long)rule->minor.value);
    if (type == 'a') {
        /* The kernel's "a" stands for every device and every access, and nothing less. */
        if (major[0] != '*' || minor[0] != '*' || !whole)
            return error_set(err, EINVAL,
                             "linux.resources.devices: a rule of type a must be for all devices");
        return cgroup_put(tree, file, "a", err);
    }
    snprintf(text, sizeof(text), "%c %s:%s %s", type, major, minor,
             rule->access && rule->access[0] ? rule->access : "rwm");
    return cgroup_put(tree, file, text, err);
}

static int devices_set(const struct cgroup *cgroup, const struct resources *resources,
                       struct error *err)
{
    const struct cgroup_tree *tree = cgroup_find(cgroup, "devices");
    int r;

    if (!tree || resources->devices.count == 0)
        return tree || cgroup->unprivileged || cgroup_find_v2(cgroup) ||
                       resources->devices.count == 0
                   ? 0
                   : error_set(err, ENOENT, "the host has no cgroup controller for devices");
    FOR_EACH(rule, resources->devices)
    if ((r = device_rule_set(tree, rule, err)) < 0)
        return r;
    for (size_t i = 0; i < cgroup_default_devices_count; i++)
        if ((r = device_rule_set(tree, &cgroup_default_devices[i], err)) < 0)
            return r;
    return 0;
}

static int hugepages_set(const struct cgroup *cgroup, const struct resources *resources,
                         struct error *err)
{
    const struct cgroup_tree *tree = cgroup_find(cgroup, "hugetlb");
    char file[64];
    int r;

    if (!tree && cgroup_find_v2(cgroup)) /* a hybrid host has it there */
        return 0;
    FOR_EACH(huge, resources->hugepage_limits)
    {
        snprintf(file, sizeof(file), "hugetlb.%.16s.limit_in_bytes", huge->page_size);
        if ((r = cgroup_put_number(tree, file, huge->limit.value, err)) < 0)
            return r;
    }
    return 0;
}

static int network_set(const struct cgroup *cgroup, const struct network_class *network,
                       struct error *err)
{
    char text[64];
    int r;

    if (network->class_id.given &&
        (r = cgroup_put_number(cgroup_find(cgroup, "net_cls"), "net_cls.classid",
                               network->class_id.value, err)) < 0)
        return r;
    FOR_EACH(interface, network->priorities)
    {
        snprintf(text, sizeof(text), "%.32s %lld", interface->name,
                 (long long)interface->priority.value);
        r = cgroup_put(cgroup_find(cgroup, "net_prio"), "net_prio.ifpriomap", text, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int cgroup_v1_set(const struct cgroup *cgroup, const struct resources *resources, struct error *err)
{
    int r;

    if ((r = devices_set(cgroup, resources, err)) < 0)
        return r;
    if (resources->memory && (r = memory_set(cgroup, resources->memory, err)) < 0)
        return r;
    if (resources->cpu && (r = cpu_set(cgroup, resources->cpu, err)) < 0)
        return r;
    if (resources->pids && resources->pids->limit.value != 0) {
        const struct cgroup_tree *tree = cgroup_find(cgroup, "pids");
        r = resources->pids->limit.value > 0
                ? cgroup_put_number(tree, "pids.max", resources->pids->limit.value, err)
                : cgroup_put(tree, "pids.max", "max", err);
        if (r < 0)
            return r;
    }
    if (resources->block_io && (r = block_io_set(cgroup, resources->block_io, err)) < 0)
        return r;
    if (resources->network && (r = network_set(cgroup, resources->network, err)) < 0)
        return r;
    return hugepages_set(cgroup, resources, err);
}
