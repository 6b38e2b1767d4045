#include "container/config-private.h"

#include <fcntl.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/file.h"

#define ID_MAX    ((int64_t)UINT32_MAX - 1)
#define MAJOR_MAX 0xfff
#define MINOR_MAX 0xfffff

/* Rows: STRING(struct, "jsonName", member) and so on. */
#define STRING(type, json, member)                                                                 \
    {                                                                                              \
        json, FIELD_STRING, offsetof(struct type, member)                                          \
    }
#define BOOL(type, json, member)                                                                   \
    {                                                                                              \
        json, FIELD_BOOL, offsetof(struct type, member)                                            \
    }
#define STRINGS(type, json, member)                                                                \
    {                                                                                              \
        json, FIELD_STRINGS, offsetof(struct type, member)                                         \
    }
#define MAP(type, json, member)                                                                    \
    {                                                                                              \
        json, FIELD_MAP, offsetof(struct type, member)                                             \
    }
#define REQUIRED_STRING(type, json, member)                                                        \
    {                                                                                              \
        json, FIELD_STRING, offsetof(struct type, member), FIELD_REQUIRED                          \
    }
#define NUMBER(type, json, member, low, high)                                                      \
    {                                                                                              \
        json, FIELD_INTEGER, offsetof(struct type, member), 0, low, high                           \
    }
#define REQUIRED_NUMBER(type, json, member, low, high)                                             \
    {                                                                                              \
        json, FIELD_INTEGER, offsetof(struct type, member), FIELD_REQUIRED, low, high              \
    }
#define WORD(type, json, member, table)                                                            \
    {                                                                                              \
        json, FIELD_WORD, offsetof(struct type, member), .words = table                            \
    }
#define REQUIRED_WORD(type, json, member, table)                                                   \
    {                                                                                              \
        json, FIELD_WORD, offsetof(struct type, member), FIELD_REQUIRED, .words = table            \
    }
#define OBJECT(type, json, member, table, of)                                                      \
    {                                                                                              \
        json, FIELD_OBJECT, offsetof(struct type, member), .fields = table, .size = sizeof(of)     \
    }
#define OBJECTS(type, json, member, table, of)                                                     \
    {                                                                                              \
        json, FIELD_LIST, offsetof(struct type, member), .fields = table, .size = sizeof(of)       \
    }

static const struct field id_map_fields[] = {
    REQUIRED_NUMBER(id_map, "containerID", container_id, 0, ID_MAX),
    REQUIRED_NUMBER(id_map, "hostID", host_id, 0, ID_MAX),
    REQUIRED_NUMBER(id_map, "size", size, 1, ID_MAX + 1),
    {0},
};

/* config.md, Process, and config-linux.md. */

static const struct field console_size_fields[] = {
    NUMBER(console_size, "height", height, 0, UINT16_MAX),
    NUMBER(console_size, "width", width, 0, UINT16_MAX),
    {0},
};

static const struct field capability_fields[] = {
    STRINGS(capability_names, "bounding", bounding),
    STRINGS(capability_names, "effective", effective),
    STRINGS(capability_names, "inheritable", inheritable),
    STRINGS(capability_names, "permitted", permitted),
    STRINGS(capability_names, "ambient", ambient),
    {0},
};

/* The index is the kernel's RLIMIT_ number. */
const char *const config_rlimit_names[] = {
    [RLIMIT_CPU] = "RLIMIT_CPU",
    [RLIMIT_FSIZE] = "RLIMIT_FSIZE",
    [RLIMIT_DATA] = "RLIMIT_DATA",
    [RLIMIT_STACK] = "RLIMIT_STACK",
    [RLIMIT_CORE] = "RLIMIT_CORE",
    [RLIMIT_RSS] = "RLIMIT_RSS",
    [RLIMIT_NPROC] = "RLIMIT_NPROC",
    [RLIMIT_NOFILE] = "RLIMIT_NOFILE",
    [RLIMIT_MEMLOCK] = "RLIMIT_MEMLOCK",
    [RLIMIT_AS] = "RLIMIT_AS",
    [RLIMIT_LOCKS] = "RLIMIT_LOCKS",
    [RLIMIT_SIGPENDING] = "RLIMIT_SIGPENDING",
    [RLIMIT_MSGQUEUE] = "RLIMIT_MSGQUEUE",
    [RLIMIT_NICE] = "RLIMIT_NICE",
    [RLIMIT_RTPRIO] = "RLIMIT_RTPRIO",
    [RLIMIT_RTTIME] = "RLIMIT_RTTIME",
    NULL,
};

static const struct field rlimit_fields[] = {
    REQUIRED_WORD(rlimit_entry, "type", type, config_rlimit_names),
    REQUIRED_NUMBER(rlimit_entry, "soft", soft, -1, INT64_MAX),
    REQUIRED_NUMBER(rlimit_entry, "hard", hard, -1, INT64_MAX),
    {0},
};

/* The index is the kernel's SCHED_ number; 4 (SCHED_ISO) was never made. */
static const char *const scheduler_words[] = {
    [SCHED_OTHER] = "SCHED_OTHER",
    [SCHED_FIFO] = "SCHED_FIFO",
    [SCHED_RR] = "SCHED_RR",
    [SCHED_BATCH] = "SCHED_BATCH",
    [4] = "SCHED_ISO",
    [SCHED_IDLE] = "SCHED_IDLE",
    [6] = "SCHED_DEADLINE",
    NULL,
};

static const struct field scheduler_fields[] = {
    REQUIRED_WORD(scheduler, "policy", policy, scheduler_words),
    NUMBER(scheduler, "nice", nice, -20, 19),
    NUMBER(scheduler, "priority", priority, 0, 99),
    NUMBER(scheduler, "runtime", runtime, 0, INT64_MAX),
    NUMBER(scheduler, "deadline", deadline, 0, INT64_MAX),
    NUMBER(scheduler, "period", period, 0, INT64_MAX),
    STRINGS(scheduler, "flags", flags),
    {0},
};

static const char *const io_class_words[] = {
    [IOPRIO_CLASS_NONE] = "IOPRIO_CLASS_NONE",
    [IOPRIO_CLASS_RT] = "IOPRIO_CLASS_RT",
    [IOPRIO_CLASS_BE] = "IOPRIO_CLASS_BE",
    [IOPRIO_CLASS_IDLE] = "IOPRIO_CLASS_IDLE",
    NULL,
};

static const struct field io_priority_fields[] = {
    REQUIRED_WORD(io_priority, "class", class, io_class_words),
    NUMBER(io_priority, "priority", priority, 0, 7),
    {0},
};

static const struct field affinity_fields[] = {
    STRING(cpu_affinity, "initial", initial),
    STRING(cpu_affinity, "final", final),
    {0},
};

static const struct field user_fields[] = {
    NUMBER(user, "uid", uid, 0, ID_MAX),
    NUMBER(user, "gid", gid, 0, ID_MAX),
    NUMBER(user, "umask", umask, 0, 0777),
    {"additionalGids", FIELD_INTEGERS, offsetof(struct user, additional_gids), 0, 0, ID_MAX},
    {0},
};

static const struct field process_fields[] = {
    BOOL(process, "terminal", terminal),
    OBJECT(process, "consoleSize", console_size, console_size_fields, struct console_size),
    OBJECT(process, "user", user, user_fields, struct user),
    STRINGS(process, "args", args),
    STRINGS(process, "env", env),
    REQUIRED_STRING(process, "cwd", cwd),
    OBJECT(process, "capabilities", capabilities, capability_fields, struct capability_names),
    OBJECTS(process, "rlimits", rlimits, rlimit_fields, struct rlimit_entry),
    BOOL(process, "noNewPrivileges", no_new_privileges),
    STRING(process, "apparmorProfile", apparmor_profile),
    STRING(process, "selinuxLabel", selinux_label),
    NUMBER(process, "oomScoreAdj", oom_score_adj, -1000, 1000),
    OBJECT(process, "scheduler", scheduler, scheduler_fields, struct scheduler),
    OBJECT(process, "ioPriority", io_priority, io_priority_fields, struct io_priority),
    OBJECT(process, "execCPUAffinity", exec_cpu_affinity, affinity_fields, struct cpu_affinity),
    {0},
};

/* config.md: Root, Mounts, Hooks. */

static const struct field root_fields[] = {
    REQUIRED_STRING(rootfs, "path", path),
    BOOL(rootfs, "readonly", readonly),
    {0},
};

static const struct field mount_fields[] = {
    REQUIRED_STRING(mount, "destination", destination),
    STRING(mount, "type", type),
    STRING(mount, "source", source),
    STRINGS(mount, "options", options),
    OBJECTS(mount, "uidMappings", uid_mappings, id_map_fields, struct id_map),
    OBJECTS(mount, "gidMappings", gid_mappings, id_map_fields, struct id_map),
    {0},
};

static const struct field hook_fields[] = {
    REQUIRED_STRING(hook, "path", path),
    STRINGS(hook, "args", args),
    STRINGS(hook, "env", env),
    NUMBER(hook, "timeout", timeout, 1, INT32_MAX),
    {0},
};

#define HOOKS(json, member) OBJECTS(hooks, json, member, hook_fields, struct hook)

static const struct field hooks_fields[] = {
    HOOKS("prestart", prestart),
    HOOKS("createRuntime", create_runtime),
    HOOKS("createContainer", create_container),
    HOOKS("startContainer", start_container),
    HOOKS("poststart", poststart),
    HOOKS("poststop", poststop),
    {0},
};

/* config-linux.md: Namespaces, Devices. */

static const char *const namespace_words[] = {
    [NAMESPACE_PID] = "pid",       [NAMESPACE_NETWORK] = "network", [NAMESPACE_MOUNT] = "mount",
    [NAMESPACE_IPC] = "ipc",       [NAMESPACE_UTS] = "uts",         [NAMESPACE_USER] = "user",
    [NAMESPACE_CGROUP] = "cgroup", [NAMESPACE_TIME] = "time",       NULL,
};

static const struct field namespace_fields[] = {
    REQUIRED_WORD(namespace, "type", type, namespace_words),
    STRING(namespace, "path", path),
    {0},
};

static const struct field device_fields[] = {
    REQUIRED_STRING(device, "path", path),
    REQUIRED_STRING(device, "type", type),
    NUMBER(device, "major", major, -1, MAJOR_MAX),
    NUMBER(device, "minor", minor, -1, MINOR_MAX),
    NUMBER(device, "fileMode", file_mode, 0, UINT32_MAX),
    NUMBER(device, "uid", uid, 0, ID_MAX),
    NUMBER(device, "gid", gid, 0, ID_MAX),
    {0},
};

/* config-linux.md: Control groups. */

static const struct field device_rule_fields[] = {
    BOOL(device_rule, "allow", allow),
    STRING(device_rule, "type", type),
    NUMBER(device_rule, "major", major, -1, MAJOR_MAX),
    NUMBER(device_rule, "minor", minor, -1, MINOR_MAX),
    STRING(device_rule, "access", access),
    {0},
};

static const struct field block_weight_fields[] = {
    REQUIRED_NUMBER(block_weight, "major", major, 0, MAJOR_MAX),
    REQUIRED_NUMBER(block_weight, "minor", minor, 0, MINOR_MAX),
    NUMBER(block_weight, "weight", weight, 0, 1000),
    NUMBER(block_weight, "leafWeight", leaf_weight, 0, 1000),
    {0},
};

static const struct field block_rate_fields[] = {
    REQUIRED_NUMBER(block_rate, "major", major, 0, MAJOR_MAX),
    REQUIRED_NUMBER(block_rate, "minor", minor, 0, MINOR_MAX),
    REQUIRED_NUMBER(block_rate, "rate", rate, 0, INT64_MAX),
    {0},
};

#define THROTTLE(json, index)                                                                      \
    OBJECTS(block_io, json, throttle[index], block_rate_fields, struct block_rate)

static const struct field block_io_fields[] = {
    NUMBER(block_io, "weight", weight, 0, 1000),
    NUMBER(block_io, "leafWeight", leaf_weight, 0, 1000),
    OBJECTS(block_io, "weightDevice", weight_device, block_weight_fields, struct block_weight),
    THROTTLE("throttleReadBpsDevice", 0),
    THROTTLE("throttleWriteBpsDevice", 1),
    THROTTLE("throttleReadIOPSDevice", 2),
    THROTTLE("throttleWriteIOPSDevice", 3),
    {0},
};

static const struct field memory_fields[] = {
    NUMBER(memory_limits, "limit", limit, -1, INT64_MAX),
    NUMBER(memory_limits, "reservation", reservation, -1, INT64_MAX),
    NUMBER(memory_limits, "swap", swap, -1, INT64_MAX),
    NUMBER(memory_limits, "kernel", kernel, -1, INT64_MAX),
    NUMBER(memory_limits, "kernelTCP", kernel_tcp, -1, INT64_MAX),
    /* runc takes -1 and Go's unsigned -1 as "leave it". */
    NUMBER(memory_limits, "swappiness", swappiness, -1, INT64_MAX),
    BOOL(memory_limits, "disableOOMKiller", disable_oom_killer),
    BOOL(memory_limits, "checkBeforeUpdate", check_before_update),
    {0},
};

static const struct field cpu_fields[] = {
    NUMBER(cpu_limits, "shares", shares, 0, INT64_MAX),
    NUMBER(cpu_limits, "quota", quota, INT64_MIN, INT64_MAX),
    NUMBER(cpu_limits, "burst", burst, 0, INT64_MAX),
    NUMBER(cpu_limits, "period", period, 0, INT64_MAX),
    NUMBER(cpu_limits, "realtimeRuntime", realtime_runtime, INT64_MIN, INT64_MAX),
    NUMBER(cpu_limits, "realtimePeriod", realtime_period, 0, INT64_MAX),
    NUMBER(cpu_limits, "idle", idle, 0, 1),
    STRING(cpu_limits, "cpus", cpus),
    STRING(cpu_limits, "mems", mems),
    {0},
};

static const struct field pids_fields[] = {
    REQUIRED_NUMBER(pids_limit, "limit", limit, INT64_MIN, INT64_MAX),
    {0},
};

static const struct field hugepage_fields[] = {
    REQUIRED_STRING(hugepage_limit, "pageSize", page_size),
    REQUIRED_NUMBER(hugepage_limit, "limit", limit, -1, INT64_MAX),
    {0},
};

static const struct field interface_fields[] = {
    REQUIRED_STRING(interface_priority, "name", name),
    REQUIRED_NUMBER(interface_priority, "priority", priority, 0, UINT32_MAX),
    {0},
};

static const struct field network_fields[] = {
    NUMBER(network_class, "classID", class_id, 0, UINT32_MAX),
    OBJECTS(network_class, "priorities", priorities, interface_fields, struct interface_priority),
    {0},
};

static const struct field rdma_fields[] = {
    NUMBER(rdma_limit, "hcaHandles", hca_handles, 0, UINT32_MAX),
    NUMBER(rdma_limit, "hcaObjects", hca_objects, 0, UINT32_MAX),
    {0},
};

static const struct field resources_fields[] = {
    OBJECTS(resources, "devices", devices, device_rule_fields, struct device_rule),
    OBJECT(resources, "memory", memory, memory_fields, struct memory_limits),
    OBJECT(resources, "cpu", cpu, cpu_fields, struct cpu_limits),
    OBJECT(resources, "pids", pids, pids_fields, struct pids_limit),
    OBJECT(resources, "blockIO", block_io, block_io_fields, struct block_io),
    OBJECTS(resources, "hugepageLimits", hugepage_limits, hugepage_fields, struct hugepage_limit),
    OBJECT(resources, "network", network, network_fields, struct network_class),
    {"rdma", FIELD_KEYED, offsetof(struct resources, rdma), .fields = rdma_fields,
     .size = sizeof(struct rdma_limit)},
    MAP(resources, "unified", unified),
    {0},
};

/* config-linux.md: Seccomp. The order of actions is that of filter.c's table. */

static const char *const seccomp_action_words[] = {
    "SCMP_ACT_KILL",         "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",        "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",        "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",       NULL,
};

/* The index is libseccomp's enum scmp_compare; 0 is none of them. */
static const char *const seccomp_op_words[] = {
    "",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
    NULL,
};

static const struct field seccomp_condition_fields[] = {
    REQUIRED_NUMBER(seccomp_condition, "index", index, 0, 5),
    REQUIRED_NUMBER(seccomp_condition, "value", value, INT64_MIN, INT64_MAX),
    NUMBER(seccomp_condition, "valueTwo", value_two, INT64_MIN, INT64_MAX),
    REQUIRED_WORD(seccomp_condition, "op", op, seccomp_op_words),
    {0},
};

static const struct field seccomp_rule_fields[] = {
    {"names", FIELD_STRINGS, offsetof(struct seccomp_rule, names), FIELD_REQUIRED},
    REQUIRED_WORD(seccomp_rule, "action", action, seccomp_action_words),
    NUMBER(seccomp_rule, "errnoRet", errno_ret, 0, UINT16_MAX),
    OBJECTS(seccomp_rule, "args", args, seccomp_condition_fields, struct seccomp_condition),
    {0},
};

static const struct field seccomp_fields[] = {
    REQUIRED_WORD(seccomp, "defaultAction", default_action, seccomp_action_words),
    NUMBER(seccomp, "defaultErrnoRet", default_errno_ret, 0, UINT16_MAX),
    STRINGS(seccomp, "architectures", architectures),
    STRINGS(seccomp, "flags", flags),
    STRING(seccomp, "listenerPath", listener_path),
    STRING(seccomp, "listenerMetadata", listener_metadata),
    OBJECTS(seccomp, "syscalls", syscalls, seccomp_rule_fields, struct seccomp_rule),
    {0},
};

/* config-linux.md: the rest. */

static const struct field time_offset_fields[] = {
    NUMBER(time_offset, "secs", secs, INT64_MIN, INT64_MAX),
    NUMBER(time_offset, "nanosecs", nanosecs, 0, 999999999),
    {0},
};

static const struct field time_offsets_fields[] = {
    OBJECT(time_offsets, "monotonic", monotonic, time_offset_fields, struct time_offset),
    OBJECT(time_offsets, "boottime", boottime, time_offset_fields, struct time_offset),
    {0},
};

static const char *const personality_words[] = {"LINUX", "LINUX32", NULL};

static const struct field personality_fields[] = {
    REQUIRED_WORD(personality, "domain", domain, personality_words),
    {0},
};

static const struct field intel_rdt_fields[] = {
    STRING(intel_rdt, "closID", clos_id),
    {0},
};

/* enum propagation; runc's names with an r mean the same here. */
static const char *const propagation_words[] = {
    "",        "shared", "slave",    "private",     "unbindable",
    "rshared", "rslave", "rprivate", "runbindable", NULL,
};

static const struct field linux_fields[] = {
    OBJECTS(linux_config, "uidMappings", uid_mappings, id_map_fields, struct id_map),
    OBJECTS(linux_config, "gidMappings", gid_mappings, id_map_fields, struct id_map),
    MAP(linux_config, "sysctl", sysctl),
    OBJECT(linux_config, "resources", resources, resources_fields, struct resources),
    STRING(linux_config, "cgroupsPath", cgroups_path),
    OBJECTS(linux_config, "namespaces", namespaces, namespace_fields, struct namespace),
    OBJECTS(linux_config, "devices", devices, device_fields, struct device),
    OBJECT(linux_config, "seccomp", seccomp, seccomp_fields, struct seccomp),
    WORD(linux_config, "rootfsPropagation", rootfs_propagation, propagation_words),
    STRINGS(linux_config, "maskedPaths", masked_paths),
    STRINGS(linux_config, "readonlyPaths", readonly_paths),
    STRING(linux_config, "mountLabel", mount_label),
    OBJECT(linux_config, "intelRdt", intel_rdt, intel_rdt_fields, struct intel_rdt),
    OBJECT(linux_config, "personality", personality, personality_fields, struct personality),
    OBJECT(linux_config, "timeOffsets", time_offsets, time_offsets_fields, struct time_offsets),
    {0},
};

static const struct field config_fields[] = {
    REQUIRED_STRING(config, "ociVersion", oci_version),
    OBJECT(config, "process", process, process_fields, struct process),
    {"root", FIELD_OBJECT, offsetof(struct config, root), FIELD_REQUIRED, .fields = root_fields,
     .size = sizeof(struct rootfs)},
    STRING(config, "hostname", hostname),
    STRING(config, "domainname", domainname),
    OBJECTS(config, "mounts", mounts, mount_fields, struct mount),
    OBJECT(config, "hooks", hooks, hooks_fields, struct hooks),
    MAP(config, "annotations", annotations),
    OBJECT(config, "linux", linux_, linux_fields, struct linux_config),
    {0},
};

const struct namespace *config_namespace(const struct config *config, enum namespace_type type)
{
    FOR_EACH(namespace, config->linux_->namespaces)
    if (namespace->type == (int)type)
        return namespace;
    return NULL;
}

int config_read(struct config *config, const char *text, size_t length, struct error *err)
{
    int r;

    *config = (struct config){0};
    r = field_read(&config->store, text, length, "config.json", config_fields, config, err);
    if (r < 0)
        return r;
    if (!config->linux_)
        config->linux_ = field_allocate(&config->store, sizeof(*config->linux_));
    if (!config->linux_)
        r = error_set(err, ENOMEM, "out of memory");
    else
        r = config_check(config, err);
    if (r < 0) {
        error_prepend(err, "config.json");
        config_release(config);
    }
    return r;
}

int config_load(struct config *config, int dir_fd, const char *path, struct error *err)
{
    AUTO_FREE char *text = NULL;
    size_t length;
    int r = file_read(dir_fd, path, CONFIG_BYTES_MAX, &text, &length, err);

    return r < 0 ? r : config_read(config, text, length, err);
}

void config_release(struct config *config)
{
    field_release(&config->store);
    *config = (struct config){0};
}

int process_read(struct process *process, struct field_store *store, const char *text,
                 size_t length, struct error *err)
{
    int r;

    *process = (struct process){0};
    *store = (struct field_store){0};
    r = field_read(store, text, length, "process", process_fields, process, err);
    if (r == 0 && (r = process_check(process, err)) < 0)
        field_release(store);
    return r;
}

int resources_read(struct resources *resources, struct field_store *store, const char *text,
                   size_t length, struct error *err)
{
    int r;

    *resources = (struct resources){0};
    *store = (struct field_store){0};
    r = field_read(store, text, length, "resources", resources_fields, resources, err);
    if (r == 0 && (r = resources_check(resources, err)) < 0)
        field_release(store);
    return r;
}
