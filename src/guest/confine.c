#include "guest/confine.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/privilege.h"
#include "container/capability.h"
#include "guest/seccomp.h"

enum { PIDS_DEFAULT = 2048 };

/* What programs in containers commonly need, and no more: podman's set. */
static const char *const default_capabilities[] = {
    "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FOWNER",           "CAP_FSETID",
    "CAP_KILL",    "CAP_SETFCAP",      "CAP_NET_BIND_SERVICE", "CAP_SETGID",
    "CAP_SETPCAP", "CAP_SETUID",       "CAP_SYS_CHROOT",
};

static const char *const masked[] = {
    "/proc/acpi",        "/proc/asound",
    "/proc/interrupts",  "/proc/kcore",
    "/proc/keys",        "/proc/latency_stats",
    "/proc/timer_list",  "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi",
    "/sys/dev/block",    "/sys/firmware",
    "/sys/fs/selinux",   "/sys/devices/virtual/powercap",
};

static const char *const read_only[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static const char *const writable[] = {"/tmp", "/run", "/var/tmp"};

static json_t *strings(const char *const *texts, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(texts[i]));
    return list;
}

static size_t count_of(const char *const *list)
{
    size_t count = 0;

    while (list && list[count])
        count++;
    return count;
}

/* --- Capabilities --- */

static bool has(const json_t *list, const char *name, size_t *ret_index)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (!strcmp(json_string_value(item), name)) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

/* The kernel's name of a capability, or "ALL". */
static int capability_find(const char *text, const char **ret_name, struct error *err)
{
    const char *name;

    if (!strcasecmp(text, "all")) {
        *ret_name = "ALL";
        return 0;
    }
    for (unsigned n = 0; (name = capability_name(n)); n++)
        if (!strcasecmp(text, name) || !strcasecmp(text, name + strlen("CAP_"))) {
            *ret_name = name;
            return 0;
        }
    return error_set(err, EINVAL, "there is no capability '%.60s'", text);
}

static int capabilities_record(json_t *record, const char *member, const char *const *texts,
                               struct error *err)
{
    json_t *list = json_array();
    const char *name = NULL;
    int r = 0;

    for (size_t i = 0; r == 0 && i < count_of(texts); i++)
        if ((r = capability_find(texts[i], &name, err)) == 0)
            json_array_append_new(list, json_string(name));
    json_object_set_new(record, member, list);
    return r;
}

static void set_all(json_t *list)
{
    const char *name;

    json_array_clear(list);
    for (unsigned n = 0; (name = capability_name(n)); n++)
        json_array_append_new(list, json_string(name));
}

/* What is added counts after what is dropped, but ALL before single ones. */
static json_t *capabilities_of(const json_t *record)
{
    const json_t *add = json_object_get(record, "capAdd"),
                 *drop = json_object_get(record, "capDrop");
    json_t *list = strings(default_capabilities, ARRAY_SIZE(default_capabilities));
    const json_t *item;
    size_t i, at;

    if (has(drop, "ALL", &at))
        json_array_clear(list);
    if (has(add, "ALL", &at) || json_is_true(json_object_get(record, "privileged")))
        set_all(list);
    json_array_foreach(drop, i, item)
    {
        if (has(list, json_string_value(item), &at))
            json_array_remove(list, at);
    }
    json_array_foreach(add, i, item)
    {
        const char *name = json_string_value(item);
        if (strcmp(name, "ALL") != 0 && !has(list, name, &at))
            json_array_append_new(list, json_string(name));
    }
    return list;
}

/* Root has them all. Another user may come to them by programs that give them, and keeps what was
 * asked for by name. */
static void capabilities_apply(const json_t *record, json_t *process)
{
    json_t *bounding = capabilities_of(record), *own = bounding, *inherited = json_array();

    if (json_integer_value(json_object_get(json_object_get(process, "user"), "uid")) != 0) {
        const json_t *item;
        size_t i, at;

        json_array_foreach(json_object_get(record, "capAdd"), i, item)
        {
            if (has(bounding, json_string_value(item), &at))
                json_array_append_new(inherited, json_string(json_string_value(item)));
        }
        own = inherited;
    }
    json_object_set_new(process, "capabilities",
                        json_pack("{sO sO sO sO sO}", "bounding", bounding, "effective", own,
                                  "permitted", own, "inheritable", inherited, "ambient",
                                  inherited));
    json_decref(bounding);
    json_decref(inherited);
}

/* --- Devices --- */

/* SOURCE[:TARGET][:rwm] */
static int device_record(json_t *list, const char *text, struct error *err)
{
    AUTO_FREE char *copy = strdup(text);
    char *save = NULL, *source = copy ? strtok_r(copy, ":", &save) : NULL;
    char *second = strtok_r(NULL, ":", &save), *third = second ? strtok_r(NULL, ":", &save) : NULL;
    const char *target = source, *access = "rwm";
    struct stat status;

    if (second && second[0] == '/')
        target = second;
    else if (second)
        third = third ? "" : second;
    if (third)
        access = third;
    if (!source || target[0] != '/' || !access[0] || access[strspn(access, "rwm")])
        return error_set(err, EINVAL, "the device '%.200s' is not SOURCE[:TARGET][:rwm]", text);
    if (stat(source, &status) < 0)
        return error_system(err, errno, "the device %.200s", source);
    if (!S_ISCHR(status.st_mode) && !S_ISBLK(status.st_mode))
        return error_set(err, EINVAL, "%.200s is no device", source);
    json_array_append_new(list, json_pack("{ss ss si si si si si ss}", "path", target, "type",
                                          S_ISCHR(status.st_mode) ? "c" : "b", "major",
                                          (int)major(status.st_rdev), "minor",
                                          (int)minor(status.st_rdev), "fileMode",
                                          (int)(status.st_mode & 07777), "uid", (int)status.st_uid,
                                          "gid", (int)status.st_gid, "access", access));
    return 0;
}

/* All devices of a directory of the host, and of those below it. */
static void host_devices(json_t *list, const char *directory, int depth)
{
    static const char *const own[] = {"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console",
                                      "/dev/fd"};
    DIR *stream = opendir(directory);
    struct dirent *entry;
    char path[512];
    size_t i;

    while (stream && (entry = readdir(stream))) {
        struct stat status;

        if (entry->d_name[0] == '.' ||
            snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name) >= (int)sizeof(path))
            continue;
        for (i = 0; i < ARRAY_SIZE(own) && strcmp(own[i], path) != 0; i++)
            ;
        if (i < ARRAY_SIZE(own) || lstat(path, &status) < 0)
            continue;
        if (S_ISDIR(status.st_mode) && depth > 0)
            host_devices(list, path, depth - 1);
        else if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
            device_record(list, path, NULL);
    }
    if (stream)
        closedir(stream);
}

static void devices_apply(const json_t *record, json_t *config)
{
    json_t *linux_ = json_object_get(config, "linux"), *nodes = json_array(), *device;
    bool privileged = json_is_true(json_object_get(record, "privileged"));
    json_t *rules = json_pack("[{sb ss}]", "allow", privileged, "access", "rwm");
    size_t i;

    if (privileged)
        host_devices(nodes, "/dev", 3);
    json_array_foreach(json_object_get(record, "devices"), i, device)
    {
        json_t *rule = json_pack("{sb}", "allow", 1);

        json_array_append_new(nodes, json_copy(device));
        for (const char *const *name =
                 (const char *const[]){"type", "major", "minor", "access", NULL};
             *name; name++)
            json_object_set(rule, *name, json_object_get(device, *name));
        json_array_append_new(rules, rule);
    }
    json_array_foreach(nodes, i, device) json_object_del(device, "access");
    json_object_set_new(linux_, "devices", nodes);
    json_object_set_new(json_object_get(linux_, "resources"), "devices", rules);
}

/* --- Mounts --- */

static void add_tmpfs(void *mounts, const char *target, const char *options)
{
    AUTO_FREE char *copy = strdup(options);
    json_t *list = json_array();

    for (char *save = NULL, *one = strtok_r(copy, ",", &save); one;
         one = strtok_r(NULL, ",", &save))
        json_array_append_new(list, json_string(one));
    json_array_append_new(list, json_string("tmpcopyup"));
    json_array_append_new(mounts, json_pack("{ss ss ss so}", "destination", target, "type", "tmpfs",
                                            "source", "tmpfs", "options", list));
}

void confine_each_tmpfs(const json_t *record,
                        void (*fn)(void *opaque, const char *target, const char *options),
                        void *opaque)
{
    bool fixed = json_is_true(json_object_get(record, "readOnly"));
    const json_t *entry;
    size_t i;

    for (i = 0; fixed && i < ARRAY_SIZE(writable); i++)
        fn(opaque, writable[i], "nosuid,nodev,mode=1777");
    json_array_foreach(json_object_get(record, "tmpfs"), i, entry)
    {
        const char *target = json_string_value(entry), *colon = strchr(target, ':');
        AUTO_FREE char *path = strndup(target, colon ? (size_t)(colon - target) : strlen(target));

        fn(opaque, path, colon ? colon + 1 : "nosuid,nodev,noexec,mode=1777");
    }
}

/* /sys and the control groups can be written by who has all rights. */
static void mounts_open(json_t *mounts)
{
    json_t *mount;
    size_t i, at;

    json_array_foreach(mounts, i, mount)
    {
        const char *target = json_string_value(json_object_get(mount, "destination"));

        if (!strncmp(target, "/sys", 4) && has(json_object_get(mount, "options"), "ro", &at))
            json_array_remove(json_object_get(mount, "options"), at);
    }
}

static void mounts_apply(const json_t *record, json_t *config)
{
    json_t *mounts = json_object_get(config, "mounts");

    json_object_set_new(json_object_get(config, "root"), "readonly",
                        json_boolean(json_is_true(json_object_get(record, "readOnly"))));
    confine_each_tmpfs(record, add_tmpfs, mounts);
    if (json_is_true(json_object_get(record, "privileged")))
        mounts_open(mounts);
}

/* --- Limits --- */

/* "nofile=1024:2048" as an entry of process.rlimits. */
static int limit_record(json_t *list, const char *text, struct error *err)
{
    char type[24] = "RLIMIT_", *end;
    const char *equals = strchr(text, '=');
    long long soft, hard;

    if (!equals || equals == text || (size_t)(equals - text) > sizeof(type) - sizeof("RLIMIT_"))
        return error_set(err, EINVAL, "the limit '%.60s' is not NAME=SOFT[:HARD]", text);
    for (size_t i = 0; text + i < equals; i++)
        type[strlen("RLIMIT_") + i] = (char)toupper(text[i]);
    errno = 0;
    soft = hard = strtoll(equals + 1, &end, 10);
    if (*end == ':')
        hard = strtoll(end + 1, &end, 10);
    if (errno || *end || end == equals + 1 || soft < -1 || hard < -1 ||
        (hard >= 0 && (soft > hard || soft < 0)))
        return error_set(err, EINVAL, "the limit '%.60s' is not NAME=SOFT[:HARD]", text);
    json_array_append_new(list, json_pack("{ss sI sI}", "type", type, "soft", (json_int_t)soft,
                                          "hard", (json_int_t)hard));
    return 0;
}

static int pids_record(json_t *record, const char *text, struct error *err)
{
    char *end;
    long long count = strtoll(text, &end, 10);

    if (end == text || *end || count < -1 || count > 4 << 20)
        return error_set(err, EINVAL, "--pids-limit '%.30s' is no count of processes", text);
    json_object_set_new(record, "pids", json_integer(count ? count : -1));
    return 0;
}

static void limits_apply(const json_t *record, json_t *config)
{
    json_t *resources = json_object_get(json_object_get(config, "linux"), "resources");
    const json_t *pids = json_object_get(record, "pids");
    json_t *limits = json_object_get(record, "limits");

    /* A user may have no control group to count in. */
    if (pids || privilege_is_full())
        json_object_set_new(
            resources, "pids",
            json_pack("{sI}", "limit", pids ? json_integer_value(pids) : (json_int_t)PIDS_DEFAULT));
    if (json_array_size(limits))
        json_object_set(json_object_get(config, "process"), "rlimits", limits);
}

/* --- Security options --- */

static int security_record(json_t *record, const char *text, struct error *err)
{
    const char *equals = strpbrk(text, "=:"), *value = equals ? equals + 1 : "";
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    json_t *profile;
    int r = 0;

#define IS(name) (length == strlen(name) && !strncmp(text, name, length))
    if (IS("no-new-privileges") && (!equals || !strcmp(value, "true"))) {
        json_object_set_new(record, "noNewPrivileges", json_true());
    } else if (IS("seccomp") && !strcmp(value, "unconfined")) {
        json_object_set_new(record, "seccomp", json_null());
    } else if (IS("seccomp") && value[0]) {
        if ((r = seccomp_read(value, &profile, err)) == 0)
            json_object_set_new(record, "seccomp", profile);
    } else if (IS("apparmor") && value[0]) {
        json_object_set_new(record, "apparmor", json_string(value));
    } else if (IS("unmask") && !strcasecmp(value, "all")) {
        json_object_set_new(record, "unmasked", json_true());
    } else if (!IS("label")) { /* labels are not set anyway */
        r = error_set(err, EINVAL,
                      "the security option '%.100s' is not seccomp=FILE, seccomp=unconfined, "
                      "no-new-privileges, apparmor=PROFILE, label=... or unmask=ALL",
                      text);
    }
#undef IS
    return r;
}

static void security_apply(const json_t *record, json_t *config)
{
    json_t *process = json_object_get(config, "process"), *profile;
    json_t *linux_ = json_object_get(config, "linux");
    const json_t *given = json_object_get(record, "seccomp");
    json_t *apparmor = json_object_get(record, "apparmor");
    json_t *capabilities = json_object_get(json_object_get(process, "capabilities"), "bounding");
    bool privileged = json_is_true(json_object_get(record, "privileged"));

    if (json_is_true(json_object_get(record, "noNewPrivileges")))
        json_object_set_new(process, "noNewPrivileges", json_true());
    if (apparmor && strcmp(json_string_value(apparmor), "unconfined") != 0)
        json_object_set(process, "apparmorProfile", apparmor);
    if (!privileged && !json_is_true(json_object_get(record, "unmasked"))) {
        json_object_set_new(linux_, "maskedPaths", strings(masked, ARRAY_SIZE(masked)));
        json_object_set_new(linux_, "readonlyPaths", strings(read_only, ARRAY_SIZE(read_only)));
    }
    if (given ? json_is_null(given) : privileged)
        return;
    profile = given ? json_deep_copy(given) : seccomp_default();
    json_object_set_new(linux_, "seccomp", seccomp_resolve(profile, capabilities));
    json_decref(profile);
}

/* --- The whole --- */

const char *confine_foreign_to_vm(const struct confine_options *options)
{
    const struct {
        const char *option;
        bool asked;
    } foreign[] = {
        {"--cap-drop", count_of(options->cap_drop)},
        {"--security-opt", count_of(options->security)},
        {"--device", count_of(options->devices)},
        {"--pids-limit", options->pids},
    };

    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
        if (foreign[i].asked)
            return foreign[i].option;
    return NULL;
}

static int lists_record(const struct confine_options *options, json_t *record, struct error *err)
{
    json_t *devices = json_array(), *limits = json_array();
    int r = 0;

    json_object_set_new(record, "devices", devices);
    json_object_set_new(record, "limits", limits);
    for (size_t i = 0; r == 0 && i < count_of(options->devices); i++)
        r = device_record(devices, options->devices[i], err);
    for (size_t i = 0; r == 0 && i < count_of(options->limits); i++)
        r = limit_record(limits, options->limits[i], err);
    for (size_t i = 0; r == 0 && i < count_of(options->tmpfs); i++)
        if (options->tmpfs[i][0] != '/')
            r = error_set(err, EINVAL, "the tmpfs '%.100s' is not /TARGET[:OPTION,...]",
                          options->tmpfs[i]);
    json_object_set_new(record, "tmpfs", strings(options->tmpfs, count_of(options->tmpfs)));
    for (size_t i = 0; r == 0 && i < count_of(options->security); i++)
        r = security_record(record, options->security[i], err);
    return r;
}

int confine_record(const struct confine_options *options, json_t **ret_record, struct error *err)
{
    json_t *record =
        json_pack("{sb sb}", "privileged", options->privileged, "readOnly", options->read_only);
    int r = capabilities_record(record, "capAdd", options->cap_add, err);

    if (r == 0)
        r = capabilities_record(record, "capDrop", options->cap_drop, err);
    if (r == 0)
        r = lists_record(options, record, err);
    if (r == 0 && options->pids)
        r = pids_record(record, options->pids, err);
    if (r < 0)
        json_decref(record);
    else
        *ret_record = record;
    return r;
}

/* Users may send echo requests without a capability, where the network is the guest's own. */
static void sysctls_apply(json_t *config)
{
    json_t *linux_ = json_object_get(config, "linux"), *sysctl = json_object(), *namespace;
    size_t i;

    json_array_foreach(json_object_get(linux_, "namespaces"), i, namespace)
    {
        if (!strcmp(json_string_value(json_object_get(namespace, "type")), "network"))
            json_object_set_new(sysctl, "net.ipv4.ping_group_range", json_string("0 0"));
    }
    json_object_set_new(linux_, "sysctl", sysctl);
}

int confine_apply(const json_t *record, json_t *config, struct error *err)
{
    capabilities_apply(record, json_object_get(config, "process"));
    devices_apply(record, config);
    mounts_apply(record, config);
    limits_apply(record, config);
    security_apply(record, config);
    sysctls_apply(config);
    return json_object_get(json_object_get(config, "process"), "capabilities")
               ? 0
               : error_set(err, ENOMEM, "out of memory");
}
