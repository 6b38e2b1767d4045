/* config.h - a bundle's config.json as structs (OCI runtime specification 1.2,
 * config.md and config-linux.md). Members bear the names of the file. A
 * pointer is NULL, a list empty and an integer not given when the file has
 * none. Strings live as long as the config. */
#ifndef LODGE_CONTAINER_CONFIG_H
#define LODGE_CONTAINER_CONFIG_H

#include "container/field.h"

enum namespace_type {
    NAMESPACE_PID,
    NAMESPACE_NETWORK,
    NAMESPACE_MOUNT,
    NAMESPACE_IPC,
    NAMESPACE_UTS,
    NAMESPACE_USER,
    NAMESPACE_CGROUP,
    NAMESPACE_TIME,
    NAMESPACE_TYPES
};

struct id_map {
    struct integer container_id, host_id, size;
};

typedef LIST(struct id_map) id_map_list;
typedef LIST(const char *) string_list;

struct capability_names {
    string_list bounding, effective, inheritable, permitted, ambient;
};

struct rlimit_entry {
    int type; /* RLIMIT_... */
    struct integer soft, hard;
};

struct scheduler {
    int policy; /* SCHED_... */
    struct integer nice, priority, runtime, deadline, period;
    string_list flags;
};

struct io_priority {
    int class; /* IOPRIO_CLASS_... */
    struct integer priority;
};

struct user {
    struct integer uid, gid, umask;
    LIST(struct integer) additional_gids;
};

struct console_size {
    struct integer height, width;
};

struct cpu_affinity {
    const char *initial, *final;
};

struct process {
    bool terminal;
    bool no_new_privileges;
    struct console_size *console_size;
    struct user *user;
    string_list args;
    string_list env;
    const char *cwd;
    struct capability_names *capabilities; /* NULL: none at all */
    LIST(struct rlimit_entry) rlimits;
    const char *apparmor_profile, *selinux_label;
    struct integer oom_score_adj;
    struct scheduler *scheduler;
    struct io_priority *io_priority;
    struct cpu_affinity *exec_cpu_affinity;
};

struct rootfs {
    const char *path;
    bool readonly;
};

struct mount {
    const char *destination, *type, *source;
    string_list options;
    id_map_list uid_mappings, gid_mappings;
};

struct hook {
    const char *path;
    string_list args, env;
    struct integer timeout; /* seconds */
};

typedef LIST(struct hook) hook_list;

struct hooks {
    hook_list prestart, create_runtime, create_container, start_container, poststart, poststop;
};

struct namespace
{
    int type;         /* enum namespace_type */
    const char *path; /* NULL: a new one */
};

struct device {
    const char *path;
    const char *type; /* c, u, b or p */
    struct integer major, minor, file_mode, uid, gid;
};

struct device_rule {
    bool allow;
    const char *type; /* a, c, b; NULL: a */
    struct integer major, minor;
    const char *access; /* of r, w, m; NULL: all */
};

struct block_weight {
    struct integer major, minor, weight, leaf_weight;
};

struct block_rate {
    struct integer major, minor, rate;
};

typedef LIST(struct block_rate) block_rate_list;

struct block_io {
    struct integer weight, leaf_weight;
    LIST(struct block_weight) weight_device;
    block_rate_list throttle[4]; /* read bps, write bps, read iops, write iops */
};

struct memory_limits {
    struct integer limit, reservation, swap, kernel, kernel_tcp, swappiness;
    bool disable_oom_killer, check_before_update;
};

struct cpu_limits {
    struct integer shares, quota, burst, period, realtime_runtime, realtime_period, idle;
    const char *cpus, *mems;
};

struct pids_limit {
    struct integer limit;
};

struct hugepage_limit {
    const char *page_size;
    struct integer limit;
};

struct interface_priority {
    const char *name;
    struct integer priority;
};

struct network_class {
    struct integer class_id;
    LIST(struct interface_priority) priorities;
};

struct rdma_limit {
    const char *device;
    struct integer hca_handles, hca_objects;
};

struct resources {
    LIST(struct device_rule) devices;
    struct memory_limits *memory;
    struct cpu_limits *cpu;
    struct pids_limit *pids;
    struct block_io *block_io;
    LIST(struct hugepage_limit) hugepage_limits;
    struct network_class *network;
    LIST(struct rdma_limit) rdma;
    LIST(struct pair) unified;
};

struct seccomp_condition {
    struct integer index, value, value_two;
    int op; /* enum scmp_compare */
};

struct seccomp_rule {
    string_list names;
    int action; /* an index, see filter.c */
    struct integer errno_ret;
    LIST(struct seccomp_condition) args;
};

struct seccomp {
    int default_action;
    struct integer default_errno_ret;
    string_list architectures, flags;
    const char *listener_path, *listener_metadata;
    LIST(struct seccomp_rule) syscalls;
};

struct time_offset {
    struct integer secs, nanosecs;
};

struct time_offsets {
    struct time_offset *monotonic, *boottime;
};

struct personality {
    int domain; /* 0: LINUX, 1: LINUX32 */
};

struct intel_rdt {
    const char *clos_id;
};

enum propagation {
    PROPAGATION_NONE,
    PROPAGATION_SHARED,
    PROPAGATION_SLAVE,
    PROPAGATION_PRIVATE,
    PROPAGATION_UNBINDABLE
};

struct linux_config {
    id_map_list uid_mappings, gid_mappings;
    LIST(struct pair) sysctl;
    struct resources *resources;
    const char *cgroups_path;
    LIST(struct namespace) namespaces;
    LIST(struct device) devices;
    struct seccomp *seccomp;
    int rootfs_propagation; /* enum propagation, or that plus PROPAGATION_UNBINDABLE: recursive */
    string_list masked_paths, readonly_paths;
    const char *mount_label;
    struct intel_rdt *intel_rdt;
    struct personality *personality;
    struct time_offsets *time_offsets;
};

struct config {
    const char *oci_version;
    struct process *process;
    struct rootfs *root;
    const char *hostname, *domainname;
    LIST(struct mount) mounts;
    struct hooks *hooks; /* NULL: none */
    LIST(struct pair) annotations;
    struct linux_config *linux_; /* never NULL after config_read */
    struct field_store store;
};

enum { CONFIG_BYTES_MAX = 16 << 20 };

/* Read and check a config.json. Errors name the field. */
int config_read(struct config *config, const char *text, size_t length, struct error *err);
/* The same from a file; at most 16 MiB. */
int config_load(struct config *config, int dir_fd, const char *path, struct error *err);
void config_release(struct config *config);

/* The process object alone, as in `exec --process` (runc's process.json). */
int process_read(struct process *process, struct field_store *store, const char *text,
                 size_t length, struct error *err);
/* linux.resources alone, as in `update --resources`. */
int resources_read(struct resources *resources, struct field_store *store, const char *text,
                   size_t length, struct error *err);

/* The config's namespace of a type; NULL: the runtime's own is kept. */
const struct namespace *config_namespace(const struct config *config, enum namespace_type type);

#endif
