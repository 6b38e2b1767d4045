/* oci_features.c - features.md and features-linux.md: what the runtime understands. */
#include "cli/oci.h"
#include "container/capability.h"
#include "container/config.h"
#include "container/filter.h"
#include "container/mount.h"
#include "container/namespace.h"

typedef const char *name_fn(unsigned n);

static json_t *names(name_fn *fn)
{
    json_t *list = json_array();
    const char *name;

    for (unsigned n = 0; (name = fn(n)); n++)
        json_array_append_new(list, json_string(name));
    return list;
}

static const char *namespace_nth(unsigned n)
{
    return n < NAMESPACE_TYPES ? namespace_name((enum namespace_type)n) : NULL;
}

static json_t *mount_options(void)
{
    json_t *list = json_array();
    const char *name;

    for (unsigned n = 0; (name = mount_option_name(n)); n++) {
        json_array_append_new(list, json_string(name));
        if (mount_option_is_recursive(n))
            json_array_append_new(list, json_sprintf("r%s", name));
    }
    return list;
}

static json_t *seccomp_features(void)
{
    return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o}", "enabled", 1, "actions",
                     names(filter_action_name), "operators", names(filter_operator_name), "archs",
                     names(filter_architecture_name), "knownFlags", names(filter_flag_name),
                     "supportedFlags", names(filter_flag_name));
}

static json_t *linux_features(void)
{
    return json_pack("{s:o, s:o, s:{s:b, s:b, s:b, s:b, s:b}, s:o, s:{s:b}, s:{s:b}, s:{s:b},"
                     " s:{s:{s:b}}}",
                     "namespaces", names(namespace_nth), "capabilities", names(capability_name),
                     "cgroup", "v1", 1, "v2", 1, "systemd", 1, "systemdUser", 1, "rdma", 1,
                     "seccomp", seccomp_features(), "apparmor", "enabled", 1, "selinux", "enabled",
                     1, "intelRdt", "enabled", 0, "mountExtensions", "idmap", "enabled", 1);
}

static int features(struct cli *cli, struct container_options *options, struct error *err)
{
    json_t *value =
        json_pack("{s:s, s:s, s:[s,s,s,s,s,s], s:o, s:o, s:{s:s}, s:[]}", "ociVersionMin", "1.0.0",
                  "ociVersionMax", "1.2.0", "hooks", "prestart", "createRuntime", "createContainer",
                  "startContainer", "poststart", "poststop", "mountOptions", mount_options(),
                  "linux", linux_features(), "annotations", "io.lodge.version", LODGE_VERSION,
                  "potentiallyUnsafeConfigAnnotations");

    (void)options;
    return oci_print_json(cli, value, true, err);
}

static int features_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, features, 0, 0, err);
}

const struct verb oci_features_command = {
    .name = "features",
    .summary = "print what the runtime can do",
    .run = features_run,
};
