#include "container/cgroup_systemd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/dbus.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define MANAGER "org.freedesktop.systemd1.Manager"
#define OBJECT  "/org/freedesktop/systemd1"

enum { USEC_PER_SEC = 1000000 };

/* --- Names --- */

static int part_copy(char *to, size_t size, const char *from, size_t length, struct error *err)
{
    if (length >= size || memchr(from, '/', length))
        return error_set(err, EINVAL, "linux.cgroupsPath: %.*s is no name of a unit",
                         (int)(length > 128 ? 128 : length), from);
    memcpy(to, from, length);
    to[length] = 0;
    return 0;
}

static int path_read(struct cgroup_scope *scope, const char *path, const char *id,
                     struct error *err)
{
    const char *prefix = strchr(path, ':'), *name = prefix ? strchr(prefix + 1, ':') : NULL;
    char head[128], tail[128];
    int r;

    if (!path[0]) {
        snprintf(scope->slice, sizeof(scope->slice), scope->user ? "user.slice" : "system.slice");
        snprintf(scope->unit, sizeof(scope->unit), "lodge-%.200s.scope", id);
        return 0;
    }
    if (!name || strchr(name + 1, ':') || !name[1])
        return error_set(err, EINVAL,
                         "linux.cgroupsPath: \"%.128s\" is not SLICE:PREFIX:NAME, as cgroups by "
                         "systemd want it",
                         path);
    r = part_copy(scope->slice, sizeof(scope->slice), path, (size_t)(prefix - path), err);
    if (r == 0)
        r = part_copy(head, sizeof(head), prefix + 1, (size_t)(name - prefix - 1), err);
    if (r == 0)
        r = part_copy(tail, sizeof(tail), name + 1, strlen(name + 1), err);
    if (r < 0)
        return r;
    if (!scope->slice[0])
        snprintf(scope->slice, sizeof(scope->slice), scope->user ? "user.slice" : "system.slice");
    if (snprintf(scope->unit, sizeof(scope->unit), "%s%s%s.scope", head, head[0] ? "-" : "",
                 tail) >= (int)sizeof(scope->unit))
        return error_set(err, ENAMETOOLONG, "linux.cgroupsPath: %.128s... is too long", path);
    return 0;
}

/* systemd.slice(5): a-b.slice is in a.slice; -.slice is the root. */
static int slice_path(const char *slice, char *path, size_t size, struct error *err)
{
    size_t length = strlen(slice), used = 0, stem;

    if (!strcmp(slice, "-.slice")) {
        path[0] = 0;
        return 0;
    }
    stem = length > 6 && !strcmp(slice + length - 6, ".slice") ? length - 6 : 0;
    if (!stem || slice[0] == '-' || slice[stem - 1] == '-' || strstr(slice, "--"))
        return error_set(err, EINVAL, "linux.cgroupsPath: \"%.128s\" is no slice", slice);
    for (size_t i = 1; i <= stem; i++) {
        if (i < stem && slice[i] != '-')
            continue;
        used += (size_t)snprintf(path + used, size - used, "/%.*s.slice", (int)i, slice);
        if (used >= size)
            return error_set(err, ENAMETOOLONG, "linux.cgroupsPath: %.128s is too deep", slice);
    }
    return 0;
}

/* --- Speaking with the manager --- */

static int manager_connect(const struct cgroup_scope *scope, struct dbus **ret_bus,
                           struct error *err)
{
    int r = dbus_connect(scope->user, ret_bus, err);

    if (r < 0)
        error_prepend(err, "cgroups by systemd (leave --systemd-cgroup out where none runs)");
    return r;
}

static int manager_call(struct dbus *bus, const char *member, const char *signature,
                        const struct dbus_body *body, struct error *err)
{
    const struct dbus_call call = {SYSTEMD, OBJECT, MANAGER, member, signature};
    struct dbus_message reply;

    return dbus_call(bus, &call, body, &reply, err);
}

/* Where the manager's own groups begin: "" for the system's, in most cases. */
static int manager_root(const struct cgroup_scope *scope, char *path, size_t size,
                        struct error *err)
{
    static const struct dbus_call get = {SYSTEMD, OBJECT, "org.freedesktop.DBus.Properties", "Get",
                                         "ss"};
    struct dbus_body body = {0};
    struct dbus_message reply;
    struct dbus *bus;
    size_t offset = 0;
    const char *text;
    int r = manager_connect(scope, &bus, err);

    if (r < 0)
        return r;
    dbus_put_string(&body, MANAGER);
    dbus_put_string(&body, "ControlGroup");
    r = dbus_call(bus, &get, &body, &reply, err);
    if (r == 0) {
        text = dbus_get_string(&reply, &offset);
        if (!text || strlen(text) >= size || strstr(text, ".."))
            r = error_set(err, EPROTO, "systemd does not say where its control groups are");
        else
            strcpy(path, strcmp(text, "/") == 0 ? "" : text);
    }
    dbus_close(bus);
    return r;
}

int cgroup_scope_init(struct cgroup_scope *scope, const char *cgroups_path, const char *id,
                      bool user, char ret_path[PATH_MAX], struct error *err)
{
    char slices[PATH_MAX / 2], root[PATH_MAX / 4];
    int r;

    *scope = (struct cgroup_scope){.user = user};
    r = path_read(scope, cgroups_path ? cgroups_path : "", id, err);
    if (r == 0)
        r = slice_path(scope->slice, slices, sizeof(slices), err);
    if (r == 0)
        r = manager_root(scope, root, sizeof(root), err);
    if (r == 0)
        snprintf(ret_path, PATH_MAX, "%s%s/%s", root, slices, scope->unit);
    return r;
}

/* --- Properties: an array of (name, variant) --- */

static void property(struct dbus_body *body, const char *name, const char *signature)
{
    dbus_put_align(body, 8);
    dbus_put_string(body, name);
    dbus_put_signature(body, signature);
}

static void property_text(struct dbus_body *body, const char *name, const char *text)
{
    property(body, name, "s");
    dbus_put_string(body, text);
}

static void property_true(struct dbus_body *body, const char *name)
{
    property(body, name, "b");
    dbus_put_u32(body, 1);
}

/* A limit of config.json; without one there, nothing is told. -1 and its like: infinity. */
static void property_limit(struct dbus_body *body, const char *name, const struct integer *value)
{
    if (!value->given || value->value == 0)
        return;
    property(body, name, "t");
    dbus_put_u64(body, value->value < 0 ? UINT64_MAX : (uint64_t)value->value);
}

/* CPU time by the second, in microseconds, for a quota by the period. */
static void property_quota(struct dbus_body *body, const struct cpu_limits *cpu)
{
    uint64_t period =
        cpu->period.given && cpu->period.value > 0 ? (uint64_t)cpu->period.value : 100000;

    if (!cpu->quota.given || cpu->quota.value == 0)
        return;
    property(body, "CPUQuotaPerSecUSec", "t");
    dbus_put_u64(body, cpu->quota.value < 0 ? UINT64_MAX
                                            : (uint64_t)cpu->quota.value * USEC_PER_SEC / period);
}

static void properties_limits(struct dbus_body *body, const struct resources *resources)
{
    if (!resources)
        return;
    if (resources->memory) {
        property_limit(body, "MemoryMax", &resources->memory->limit);
        property_limit(body, "MemoryLow", &resources->memory->reservation);
    }
    if (resources->cpu) {
        property_limit(body, "CPUShares", &resources->cpu->shares);
        property_quota(body, resources->cpu);
    }
    if (resources->pids)
        property_limit(body, "TasksMax", &resources->pids->limit);
}

/* --- The scope --- */

/* What is waited for: the end of the job that starts the scope. */
struct start {
    const char *unit;
    bool ended, done;
};

/* JobRemoved(id, job, unit, result) */
static void job_removed(void *opaque, const struct dbus_message *message)
{
    struct start *start = opaque;
    size_t offset = 0;
    const char *unit, *result;
    uint32_t id;

    if (strcmp(message->member, "JobRemoved") != 0 || !dbus_get_u32(message, &offset, &id) ||
        !dbus_get_string(message, &offset) || !(unit = dbus_get_string(message, &offset)) ||
        strcmp(unit, start->unit) != 0)
        return;
    result = dbus_get_string(message, &offset);
    start->ended = true;
    start->done = result && !strcmp(result, "done");
}

static int signals_ask(struct dbus *bus, struct error *err)
{
    static const struct dbus_call match = {"org.freedesktop.DBus", "/org/freedesktop/DBus",
                                           "org.freedesktop.DBus", "AddMatch", "s"};
    struct dbus_body body = {0};
    struct dbus_message reply;
    int r;

    dbus_put_string(&body, "type='signal',interface='" MANAGER "',member='JobRemoved'");
    r = dbus_call(bus, &match, &body, &reply, err);
    return r < 0 ? r : manager_call(bus, "Subscribe", "", NULL, err);
}

/* StartTransientUnit(name, mode, properties, auxiliary units) */
static int start_call(struct dbus *bus, const struct cgroup_scope *scope,
                      const struct resources *resources, pid_t pid, struct error *err)
{
    static const char *const yes[] = {"Delegate", "MemoryAccounting", "CPUAccounting",
                                      "TasksAccounting", "IOAccounting"};
    struct dbus_body body = {0};
    struct dbus_array properties, list;

    dbus_put_string(&body, scope->unit);
    dbus_put_string(&body, "replace");
    properties = dbus_begin_array(&body, 8);
    property_text(&body, "Description", "a container of Lodge");
    property_text(&body, "Slice", scope->slice);
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        property_true(&body, yes[i]);
    property(&body, "DefaultDependencies", "b");
    dbus_put_u32(&body, 0);
    property(&body, "PIDs", "au");
    list = dbus_begin_array(&body, 4);
    dbus_put_u32(&body, (uint32_t)pid);
    dbus_end_array(&body, &list);
    properties_limits(&body, resources);
    dbus_end_array(&body, &properties);
    list = dbus_begin_array(&body, 8);
    dbus_end_array(&body, &list);
    return manager_call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body, err);
}

static pid_t holder_make(void)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    while (getppid() == parent)
        pause();
    _exit(0);
}

void cgroup_scope_let_go(pid_t holder)
{
    if (holder <= 0)
        return;
    kill(holder, SIGKILL);
    while (waitpid(holder, NULL, 0) < 0 && errno == EINTR)
        ;
}

int cgroup_scope_start(const struct cgroup_scope *scope, const struct resources *resources,
                       pid_t *ret_holder, struct error *err)
{
    struct start start = {.unit = scope->unit};
    struct dbus *bus;
    pid_t holder = -1;
    int r = manager_connect(scope, &bus, err);

    if (r < 0)
        return r;
    dbus_on_signal(bus, job_removed, &start);
    r = signals_ask(bus, err);
    if (r == 0 && (holder = holder_make()) < 0)
        r = error_system(err, errno, "cannot make a process for the scope");
    if (r == 0)
        r = start_call(bus, scope, resources, holder, err);
    if (r == 0)
        r = dbus_wait(bus, &start.ended, err);
    if (r == 0 && !start.done)
        r = error_set(err, EREMOTEIO, "systemd could not start the scope %s", scope->unit);
    dbus_close(bus);
    if (r < 0)
        cgroup_scope_let_go(holder);
    else
        *ret_holder = holder;
    return r;
}

/* SetUnitProperties(name, runtime, properties) */
int cgroup_scope_set(const struct cgroup_scope *scope, const struct resources *resources,
                     struct error *err)
{
    struct dbus_body body = {0};
    struct dbus_array properties;
    struct dbus *bus;
    int r = manager_connect(scope, &bus, err);

    if (r < 0)
        return r;
    dbus_put_string(&body, scope->unit);
    dbus_put_u32(&body, 1);
    properties = dbus_begin_array(&body, 8);
    properties_limits(&body, resources);
    dbus_end_array(&body, &properties);
    r = manager_call(bus, "SetUnitProperties", "sba(sv)", &body, err);
    dbus_close(bus);
    return r;
}

void cgroup_scope_stop(const struct cgroup_scope *scope)
{
    struct dbus_body body = {0};
    struct dbus *bus;

    if (manager_connect(scope, &bus, NULL) < 0)
        return;
    dbus_put_string(&body, scope->unit);
    manager_call(bus, "ResetFailedUnit", "s", &body, NULL);
    dbus_put_string(&body, "replace");
    manager_call(bus, "StopUnit", "ss", &body, NULL);
    dbus_close(bus);
}
