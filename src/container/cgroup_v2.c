/* cgroup_v2.c - limits by the files of the v2 tree
 * (Documentation/admin-guide/cgroup-v2.rst in the kernel's source), converted
 * from the v1 terms that config.json speaks. On a hybrid host only the
 * controllers that the v2 tree has are set here. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/cgroup-private.h"
#include "container/file.h"

void cgroup_v2_prepare(int parent_fd)
{
    const struct cgroup_tree parent = {.fd = parent_fd};
    char line[512], on[512], text[64];

    if (!cgroup_get(&parent, "cgroup.controllers", line, sizeof(line)) ||
        !cgroup_get(&parent, "cgroup.subtree_control", on, sizeof(on)) || !strcmp(line, on))
        return;
    /* One at a time: one that is refused (cpu with realtime tasks) must not hide the rest.
     * What is missing shows when a limit needs it. */
    for (char *save = NULL, *name = strtok_r(line, " ", &save); name;
         name = strtok_r(NULL, " ", &save)) {
        snprintf(text, sizeof(text), "+%.32s", name);
        file_put(parent_fd, "cgroup.subtree_control", text, NULL);
    }
}

static const char *number_or_max(int64_t value, char text[32])
{
    if (value < 0 || value == INT64_MAX)
        return "max";
    snprintf(text, 32, "%lld", (long long)value);
    return text;
}

static int memory_set(const struct cgroup_tree *tree, const struct memory_limits *memory,
                      struct error *err)
{
    char text[32], line[64];
    int r;

    if (memory->check_before_update && memory->limit.given && memory->limit.value > 0 &&
        cgroup_get(tree, "memory.current", line, sizeof(line)) &&
        strtoll(line, NULL, 10) > memory->limit.value)
        return error_set(err, EBUSY, "memory.limit: %lld is below the %s bytes in use",
                         (long long)memory->limit.value, line);
    /* memory.swap is memory plus swap in v1, swap alone in v2. */
    if (memory->swap.given && memory->swap.value != 0) {
        int64_t swap = memory->swap.value;

        if (swap > 0) {
            if (!memory->limit.given || memory->limit.value <= 0 || swap < memory->limit.value)
                return error_set(err, EINVAL,
                                 "memory.swap: is memory plus swap, and below memory.limit");
            swap -= memory->limit.value;
        }
        r = cgroup_put(tree, "memory.swap.max", number_or_max(swap, text), err);
        if (r < 0 && !(r == -ENOENT && swap <= 0)) /* a kernel without swap accounting */
            return r;
    }
    if (memory->limit.given && memory->limit.value != 0 &&
        (r = cgroup_put(tree, "memory.max", number_or_max(memory->limit.value, text), err)) < 0)
        return r;
    if (memory->reservation.given && memory->reservation.value != 0 &&
        (r = cgroup_put(tree, "memory.low", number_or_max(memory->reservation.value, text), err)) <
            0)
        return r;
    return 0;
}

/* Shares of 2 to 262144 onto weights of 1 to 10000, as runc and crun do. */
static int64_t shares_to_weight(int64_t shares)
{
    shares = MAX(shares, 2);
    shares = MIN(shares, 262144);
    return 1 + (shares - 2) * 9999 / 262142;
}

static int cpu_set(const struct cgroup_tree *tree, const struct cpu_limits *cpu, struct error *err)
{
    char text[80], number[32];
    int r;

    if (cpu->realtime_runtime.value || cpu->realtime_period.value)
        return error_set(err, ENOTSUP, "cpu.realtimeRuntime and realtimePeriod need cgroup v1");
    if (cpu->idle.given && (r = cgroup_put_number(tree, "cpu.idle", cpu->idle.value, err)) < 0)
        return r;
    if (cpu->shares.given && cpu->shares.value > 0 && cpu->idle.value != 1 &&
        (r = cgroup_put_number(tree, "cpu.weight", shares_to_weight(cpu->shares.value), err)) < 0)
        return r;
    if (cpu->burst.given &&
        (r = cgroup_put_number(tree, "cpu.max.burst", cpu->burst.value, err)) < 0)
        return r;
    if ((cpu->quota.given && cpu->quota.value != 0) ||
        (cpu->period.given && cpu->period.value > 0)) {
        int64_t quota = cpu->quota.value > 0 ? cpu->quota.value : -1;
        int64_t period = cpu->period.value > 0 ? cpu->period.value : 100000;

        snprintf(text, sizeof(text), "%s %lld", number_or_max(quota, number), (long long)period);
        if ((r = cgroup_put(tree, "cpu.max", text, err)) < 0)
            return r;
    }
    return 0;
}

static int cpuset_set(const struct cgroup_tree *tree, const struct cpu_limits *cpu,
                      struct error *err)
{
    int r = 0;

    if (cpu->cpus && cpu->cpus[0])
        r = cgroup_put(tree, "cpuset.cpus", cpu->cpus, err);
    if (r == 0 && cpu->mems && cpu->mems[0])
        r = cgroup_put(tree, "cpuset.mems", cpu->mems, err);
    return r;
}

static int io_set(const struct cgroup_tree *tree, const struct block_io *io, struct error *err)
{
    static const char *const throttles[] = {"rbps", "wbps", "riops", "wiops"};
    char text[96];
    int r;

    if (io->weight.given && io->weight.value) {
        /* BFQ's weights are those of v1; io.weight has 1 to 10000 for v1's 10 to 1000. */
        if (file_put(tree->fd, "io.bfq.weight", "100", NULL) == 0)
            r = cgroup_put_number(tree, "io.bfq.weight", io->weight.value, err);
        else
            r = cgroup_put_number(tree, "io.weight",
                                  1 + (MAX(io->weight.value, 10) - 10) * 9999 / 990, err);
        if (r < 0)
            return r;
    }
    FOR_EACH(device, io->weight_device)
    {
        snprintf(text, sizeof(text), "%lld:%lld %lld", (long long)device->major.value,
                 (long long)device->minor.value, (long long)device->weight.value);
        if (device->weight.given && (r = cgroup_put(tree, "io.bfq.weight", text, err)) < 0)
            return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(throttles); i++) {
        FOR_EACH(device, io->throttle[i])
        {
            snprintf(text, sizeof(text), "%lld:%lld %s=%lld", (long long)device->major.value,
                     (long long)device->minor.value, throttles[i], (long long)device->rate.value);
            if ((r = cgroup_put(tree, "io.max", text, err)) < 0)
                return r;
        }
    }
    return 0;
}

static int hugepages_set(const struct cgroup_tree *tree, const struct resources *resources,
                         struct error *err)
{
    char file[64], text[32];
    int r;

    FOR_EACH(huge, resources->hugepage_limits)
    {
        const char *limit = number_or_max(huge->limit.value, text);

        snprintf(file, sizeof(file), "hugetlb.%.16s.max", huge->page_size);
        if ((r = cgroup_put(tree, file, limit, err)) < 0)
            return r;
        /* Reservations too, where the kernel counts them: else mmap is refused too late. */
        snprintf(file, sizeof(file), "hugetlb.%.16s.rsvd.max", huge->page_size);
        r = cgroup_put(tree, file, limit, err);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return 0;
}

static int rdma_set(const struct cgroup_tree *tree, const struct resources *resources,
                    struct error *err)
{
    char text[192], handles[32], objects[32];
    int r;

    FOR_EACH(limit, resources->rdma)
    {
        snprintf(text, sizeof(text), "%.64s hca_handle=%s hca_object=%s", limit->device,
                 number_or_max(limit->hca_handles.given ? limit->hca_handles.value : -1, handles),
                 number_or_max(limit->hca_objects.given ? limit->hca_objects.value : -1, objects));
        if ((r = cgroup_put(tree, "rdma.max", text, err)) < 0)
            return r;
    }
    return 0;
}

int cgroup_v2_set(const struct cgroup *cgroup, const struct cgroup_tree *tree,
                  const struct resources *resources, struct error *err)
{
    int r = 0;

    if (resources->memory && !cgroup_find(cgroup, "memory"))
        r = memory_set(tree, resources->memory, err);
    if (r == 0 && resources->cpu && !cgroup_find(cgroup, "cpu"))
        r = cpu_set(tree, resources->cpu, err);
    if (r == 0 && resources->cpu && !cgroup_find(cgroup, "cpuset"))
        r = cpuset_set(tree, resources->cpu, err);
    if (r == 0 && resources->pids && resources->pids->limit.value != 0 &&
        !cgroup_find(cgroup, "pids")) {
        char text[32];
        r = cgroup_put(tree, "pids.max", number_or_max(resources->pids->limit.value, text), err);
    }
    if (r == 0 && resources->block_io && !cgroup_find(cgroup, "blkio"))
        r = io_set(tree, resources->block_io, err);
    if (r == 0 && !cgroup_find(cgroup, "hugetlb"))
        r = hugepages_set(tree, resources, err);
    if (r == 0 && !cgroup_find(cgroup, "rdma"))
        r = rdma_set(tree, resources, err);
    if (r == 0 && resources->devices.count && !cgroup_find(cgroup, "devices"))
        r = cgroup_device_attach(tree->fd, resources, err);
    FOR_EACH(unified, resources->unified)
    {
        if (r < 0)
            break;
        r = cgroup_put(tree, unified->key, unified->value, err);
    }
    return r;
}
