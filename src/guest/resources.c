#include "guest/resources.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/size.h"

enum { CPU_PERIOD = 100000 }; /* microseconds */

#define SCORE "oomScoreAdj"

static const struct {
    const char *option;
    enum { NUMBER, SIZE, TEXT } kind;
    const char *group, *key; /* in linux.resources; group NULL: of the process */
    long long low, high;     /* of a number */
} rows[LIMITS] = {
    {"cpu-period", NUMBER, "cpu", "period", 1000, 1000000},
    {"cpu-quota", NUMBER, "cpu", "quota", 1000, INT64_MAX},
    {"cpu-shares", NUMBER, "cpu", "shares", 2, 262144},
    {"cpuset-cpus", TEXT, "cpu", "cpus", 0, 0},
    {"cpuset-mems", TEXT, "cpu", "mems", 0, 0},
    {"memory-swap", SIZE, "memory", "swap", 0, 0},
    {"memory-reservation", SIZE, "memory", "reservation", 0, 0},
    {"memory-swappiness", NUMBER, "memory", "swappiness", 0, 100},
    {"blkio-weight", NUMBER, "blockIO", "weight", 10, 1000},
    {"oom-score-adj", NUMBER, NULL, SCORE, -1000, 1000},
};

const char *limit_name(unsigned n)
{
    return n < LIMITS ? rows[n].option : NULL;
}

const char *limits_foreign_to_vm(const struct limit_options *options)
{
    for (size_t i = 0; i < LIMITS; i++)
        if (options->values[i])
            return rows[i].option;
    return NULL;
}

/* As much as one wants is -1. */
static int read_size(const char *option, const char *text, long long *ret_value, struct error *err)
{
    uint64_t size;

    *ret_value = -1;
    if (!strcmp(text, "-1"))
        return 0;
    if (size_parse(text, 1ull << 20, &size, err) < 0) {
        error_prepend(err, "--%s", option);
        return -EINVAL;
    }
    *ret_value = (long long)MIN(size, (uint64_t)INT64_MAX);
    return 0;
}

static int read_value(size_t row, const char *text, json_t **ret_value, struct error *err)
{
    long long value = 0;
    char *end;
    int r = 0;

    if (rows[row].kind == TEXT) {
        *ret_value = json_string(text);
        return *ret_value ? 0 : error_set(err, EINVAL, "'%.60s' is no UTF-8 text", text);
    }
    if (rows[row].kind == SIZE) {
        r = read_size(rows[row].option, text, &value, err);
    } else {
        errno = 0;
        value = strtoll(text, &end, 10);
        if (errno || *end || end == text || value < rows[row].low || value > rows[row].high)
            r = rows[row].high == INT64_MAX
                    ? error_set(err, EINVAL, "--%s '%.30s' is not a number from %lld on",
                                rows[row].option, text, rows[row].low)
                    : error_set(err, EINVAL, "--%s '%.30s' is not a number from %lld to %lld",
                                rows[row].option, text, rows[row].low, rows[row].high);
    }
    *ret_value = json_integer(value);
    return r;
}

/* The group of that name, made where missing. */
static json_t *group_of(json_t *record, const char *name)
{
    json_t *group = name ? json_object_get(record, name) : record;

    if (!group) {
        group = json_object();
        json_object_set_new(record, name, group);
    }
    return group;
}

static int check(const json_t *record, double cpus, struct error *err)
{
    const json_t *memory = json_object_get(record, "memory"), *cpu = json_object_get(record, "cpu");
    const json_t *swap = json_object_get(memory, "swap");
    json_int_t limit = json_integer_value(json_object_get(memory, "limit"));

    if (swap && !limit)
        return error_set(err, EINVAL, "--memory-swap is memory and swap together: it needs "
                                      "--memory");
    if (swap && json_integer_value(swap) != -1 && json_integer_value(swap) < limit)
        return error_set(err, EINVAL,
                         "--memory-swap is memory and swap together: it cannot be less than "
                         "--memory");
    if (cpus > 0 && (json_object_get(cpu, "quota") || json_object_get(cpu, "period")))
        return error_set(err, EINVAL,
                         "--cpus is a quota of a period: it does not go with --cpu-quota and "
                         "--cpu-period");
    return 0;
}

int limits_record(const struct limit_options *options, uint64_t memory, double cpus,
                  json_t **ret_record, struct error *err)
{
    json_t *record = json_object(), *value = NULL;
    int r = 0;

    if (memory)
        json_object_set_new(group_of(record, "memory"), "limit",
                            json_integer((json_int_t)memory));
    for (size_t i = 0; r == 0 && i < LIMITS; i++) {
        if (!options->values[i])
            continue;
        r = read_value(i, options->values[i], &value, err);
        if (value)
            json_object_set_new(group_of(record, rows[i].group), rows[i].key, value);
        value = NULL;
    }
    if (r == 0)
        r = check(record, cpus, err);
    if (r < 0) {
        json_decref(record);
        return r;
    }
    if (cpus > 0) {
        json_object_set_new(group_of(record, "cpu"), "quota",
                            json_integer((json_int_t)(cpus * CPU_PERIOD)));
        json_object_set_new(group_of(record, "cpu"), "period", json_integer(CPU_PERIOD));
    }
    *ret_record = record;
    return 0;
}

void limits_apply(const json_t *record, json_t *config)
{
    json_t *resources = json_object_get(json_object_get(config, "linux"), "resources");
    json_t *process = json_object_get(config, "process");

    json_object_update(resources, (json_t *)(uintptr_t)record);
    if (json_object_get(resources, SCORE)) {
        json_object_set(process, SCORE, json_object_get(resources, SCORE));
        json_object_del(resources, SCORE);
    }
}
