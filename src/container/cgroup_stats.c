/* cgroup_stats.c - what a container uses, in the words of runc's events. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/cgroup-private.h"
#include "container/file.h"

enum { STAT_BYTES_MAX = 1 << 20 };

/* "max" and v1's page-rounded 2^63 are no limit: 0 in pids, the number in memory. */
static json_int_t number_read(const struct cgroup_tree *tree, const char *file)
{
    char line[64];

    if (!cgroup_get(tree, file, line, sizeof(line)))
        return 0;
    return strcmp(line, "max") == 0 ? 0 : (json_int_t)strtoll(line, NULL, 10);
}

/* Lines of "name number" as an object; NULL when there is no such file. */
static json_t *table_read(const struct cgroup_tree *tree, const char *file)
{
    AUTO_FREE char *text = NULL;
    json_t *table;

    if (!tree || file_read(tree->fd, file, STAT_BYTES_MAX, &text, NULL, NULL) < 0)
        return NULL;
    table = json_object();
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *space = strchr(line, ' ');

        if (!space)
            continue;
        *space = 0;
        json_object_set_new(table, line, json_integer(strtoll(space + 1, NULL, 10)));
    }
    return table;
}

static json_int_t table_get(const json_t *table, const char *name)
{
    return json_integer_value(json_object_get(table, name));
}

/* --- v1 --- */

static json_t *per_cpu_v1(const struct cgroup_tree *tree)
{
    AUTO_FREE char *text = NULL;
    json_t *list = json_array();
    char *at, *end;

    if (!tree || file_read(tree->fd, "cpuacct.usage_percpu", STAT_BYTES_MAX, &text, NULL, NULL) < 0)
        return list;
    for (at = text;; at = end) {
        long long value = strtoll(at, &end, 10);
        if (end == at)
            return list;
        json_array_append_new(list, json_integer(value));
    }
}

static json_t *cpu_v1(const struct cgroup *cgroup)
{
    const struct cgroup_tree *account = cgroup_find(cgroup, "cpuacct");
    json_t *throttling = table_read(cgroup_find(cgroup, "cpu"), "cpu.stat");
    json_t *cpu = json_pack("{s:{s:I, s:o, s:I, s:I}, s:{s:I, s:I, s:I}}", "usage", "total",
                            number_read(account, "cpuacct.usage"), "percpu", per_cpu_v1(account),
                            "kernel", number_read(account, "cpuacct.usage_sys"), "user",
                            number_read(account, "cpuacct.usage_user"), "throttling", "periods",
                            table_get(throttling, "nr_periods"), "throttledPeriods",
                            table_get(throttling, "nr_throttled"), "throttledTime",
                            table_get(throttling, "throttled_time"));

    json_decref(throttling);
    return cpu;
}

static json_t *memory_entry_v1(const struct cgroup_tree *tree, const char *prefix)
{
    char file[64];
    json_int_t values[4];
    static const char *const suffixes[] = {"limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes",
                                           "failcnt"};

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        snprintf(file, sizeof(file), "%s.%s", prefix, suffixes[i]);
        values[i] = number_read(tree, file);
    }
    return json_pack("{s:I, s:I, s:I, s:I}", "limit", values[0], "usage", values[1], "max",
                     values[2], "failcnt", values[3]);
}

static json_t *memory_v1(const struct cgroup_tree *tree)
{
    json_t *raw = table_read(tree, "memory.stat");

    return json_pack("{s:o, s:o, s:o, s:o, s:I, s:o*}", "usage", memory_entry_v1(tree, "memory"),
                     "swap", memory_entry_v1(tree, "memory.memsw"), "kernel",
                     memory_entry_v1(tree, "memory.kmem"), "kernelTCP",
                     memory_entry_v1(tree, "memory.kmem.tcp"), "cache", table_get(raw, "cache"),
                     "raw", raw);
}

/* --- v2 --- */

static json_t *cpu_v2(const struct cgroup_tree *tree)
{
    json_t *stat = table_read(tree, "cpu.stat"); /* in microseconds */
    json_t *cpu = json_pack(
        "{s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}}", "usage", "total",
        1000 * table_get(stat, "usage_usec"), "kernel", 1000 * table_get(stat, "system_usec"),
        "user", 1000 * table_get(stat, "user_usec"), "throttling", "periods",
        table_get(stat, "nr_periods"), "throttledPeriods", table_get(stat, "nr_throttled"),
        "throttledTime", 1000 * table_get(stat, "throttled_usec"));

    json_decref(stat);
    return cpu;
}

static json_t *memory_v2(const struct cgroup_tree *tree)
{
    json_t *raw = table_read(tree, "memory.stat"), *events = table_read(tree, "memory.events");
    json_int_t used = number_read(tree, "memory.current");
    json_t *memory = json_pack(
        "{s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I}, s:I, s:o*}", "usage", "limit",
        number_read(tree, "memory.max"), "usage", used, "max", number_read(tree, "memory.peak"),
        "failcnt", table_get(events, "max"), "swap", "limit", number_read(tree, "memory.swap.max"),
        "usage", number_read(tree, "memory.swap.current"), "cache", table_get(raw, "file"), "raw",
        raw);

    json_decref(events);
    return memory;
}

json_t *cgroup_stats(const struct cgroup *cgroup)
{
    const struct cgroup_tree *v2 = cgroup_find_v2(cgroup);
    const struct cgroup_tree *memory = cgroup_find(cgroup, "memory");
    const struct cgroup_tree *pids = cgroup_find(cgroup, "pids");

    if (!pids)
        pids = v2;
    return json_pack("{s:o, s:o, s:{s:I, s:I}}", "cpu",
                     cgroup_find(cgroup, "cpuacct") ? cpu_v1(cgroup) : cpu_v2(v2), "memory",
                     memory ? memory_v1(memory) : memory_v2(v2), "pids", "current",
                     number_read(pids, "pids.current"), "limit", number_read(pids, "pids.max"));
}

/* --- Out of memory --- */

/* memory.txt, 10: an eventfd is tied to memory.oom_control. */
static int watch_v1(const struct cgroup_tree *tree)
{
    AUTO_CLOSE int event = eventfd(0, EFD_CLOEXEC), control = -1;
    char text[64];

    control = openat(tree->fd, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    if (event < 0 || control < 0)
        return -1;
    snprintf(text, sizeof(text), "%d %d", event, control);
    return file_put(tree->fd, "cgroup.event_control", text, NULL) < 0 ? -1 : steal_fd(&event);
}

int cgroup_watch_oom(const struct cgroup *cgroup)
{
    const struct cgroup_tree *memory = cgroup_find(cgroup, "memory");
    AUTO_CLOSE int fd = -1;
    char path[64];

    if (memory)
        return watch_v1(memory);
    memory = cgroup_find_v2(cgroup);
    fd = memory ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1;
    if (fd < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d/memory.events", memory->fd);
    return inotify_add_watch(fd, path, IN_MODIFY) < 0 ? -1 : steal_fd(&fd);
}

uint64_t cgroup_count_oom(const struct cgroup *cgroup, int fd, uint64_t *seen)
{
    char events[4096];
    uint64_t count, before = *seen;
    json_t *table;

    /* v1 counts notifications; the file's own counter goes up only later. */
    if (cgroup_find(cgroup, "memory"))
        return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
    while (read(fd, events, sizeof(events)) > 0)
        ;
    table = table_read(cgroup_find_v2(cgroup), "memory.events");
    *seen = (uint64_t)table_get(table, "oom");
    json_decref(table);
    return *seen - before;
}
