/* oci_spec.c - a config.json to begin with. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/oci.h"

/* A configuration to begin with: a shell in a container with few privileges. */
static const char template[] =
    "{'ociVersion':'1.2.0',"
    "'process':{'terminal':true,'user':{'uid':0,'gid':0},'args':['sh'],"
    "'env':['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin','TERM=xterm'],"
    "'cwd':'/','capabilities':{"
    "'bounding':['CAP_AUDIT_WRITE','CAP_KILL','CAP_NET_BIND_SERVICE'],"
    "'effective':['CAP_AUDIT_WRITE','CAP_KILL','CAP_NET_BIND_SERVICE'],"
    "'permitted':['CAP_AUDIT_WRITE','CAP_KILL','CAP_NET_BIND_SERVICE']},"
    "'rlimits':[{'type':'RLIMIT_NOFILE','hard':1024,'soft':1024}],'noNewPrivileges':true},"
    "'root':{'path':'rootfs','readonly':true},'hostname':'lodge',"
    "'mounts':["
    "{'destination':'/proc','type':'proc','source':'proc'},"
    "{'destination':'/dev','type':'tmpfs','source':'tmpfs',"
    "'options':['nosuid','strictatime','mode=755','size=65536k']},"
    "{'destination':'/dev/pts','type':'devpts','source':'devpts',"
    "'options':['nosuid','noexec','newinstance','ptmxmode=0666','mode=0620','gid=5']},"
    "{'destination':'/dev/shm','type':'tmpfs','source':'shm',"
    "'options':['nosuid','noexec','nodev','mode=1777','size=65536k']},"
    "{'destination':'/dev/mqueue','type':'mqueue','source':'mqueue',"
    "'options':['nosuid','noexec','nodev']},"
    "{'destination':'/sys','type':'sysfs','source':'sysfs',"
    "'options':['nosuid','noexec','nodev','ro']},"
    "{'destination':'/sys/fs/cgroup','type':'cgroup','source':'cgroup',"
    "'options':['nosuid','noexec','nodev','relatime','ro']}],"
    "'linux':{'resources':{'devices':[{'allow':false,'access':'rwm'}]},"
    "'namespaces':[{'type':'pid'},{'type':'network'},{'type':'ipc'},{'type':'uts'},"
    "{'type':'mount'},{'type':'cgroup'}],"
    "'maskedPaths':['/proc/acpi','/proc/asound','/proc/kcore','/proc/keys','/proc/latency_stats',"
    "'/proc/timer_list','/proc/timer_stats','/proc/sched_debug','/sys/firmware','/proc/scsi'],"
    "'readonlyPaths':['/proc/bus','/proc/fs','/proc/irq','/proc/sys','/proc/sysrq-trigger']}}";

static json_t *id_map(unsigned id)
{
    return json_pack("[{s:i, s:I, s:i}]", "containerID", 0, "hostID", (json_int_t)id, "size", 1);
}

/* Without privileges: root is the caller, the network is the host's, sysfs can
 * only be bound, and gid 5 for devpts is not mapped. */
static void make_rootless(json_t *config)
{
    json_t *linux_ = json_object_get(config, "linux");
    json_t *mounts = json_object_get(config, "mounts");
    json_t *namespaces = json_array(), *entry;
    static const char *const types[] = {"pid", "ipc", "uts", "mount", "cgroup", "user"};
    size_t i;

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        json_array_append_new(namespaces, json_pack("{s:s}", "type", types[i]));
    json_object_set_new(linux_, "namespaces", namespaces);
    json_object_set_new(linux_, "uidMappings", id_map(geteuid()));
    json_object_set_new(linux_, "gidMappings", id_map(getegid()));
    json_object_del(linux_, "resources");
    json_array_foreach(mounts, i, entry)
    {
        const char *type = json_string_value(json_object_get(entry, "type"));

        if (strcmp(type, "devpts") == 0)
            json_array_remove(json_object_get(entry, "options"), 5);
        if (strcmp(type, "sysfs") == 0)
            json_array_set_new(mounts, i,
                               json_pack("{s:s, s:s, s:s, s:[s,s,s,s,s]}", "destination", "/sys",
                                         "type", "none", "source", "/sys", "options", "rbind",
                                         "nosuid", "noexec", "nodev", "ro"));
    }
    json_array_remove(mounts, json_array_size(mounts) - 1);
}

static int spec(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *bundle = cli_value(cli, "bundle") ? cli_value(cli, "bundle") : ".";
    AUTO_CLOSE int dir = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
    char text[sizeof(template)];
    json_t *config;
    int r;

    (void)options;
    if (dir < 0)
        return error_system(err, errno, "cannot open the bundle %s", bundle);
    fd = openat(dir, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, EEXIST, "%s/config.json exists; remove it first", bundle);
    if (fd < 0)
        return error_system(err, errno, "cannot make %s/config.json", bundle);
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = template[i] == '\'' ? '"' : template[i];
    config = json_loads(text, 0, NULL);
    if (cli_flag(cli, "rootless"))
        make_rootless(config);
    r = json_dumpfd(config, fd, JSON_INDENT(4));
    json_decref(config);
    if (r < 0 || write(fd, "\n", 1) != 1) {
        r = error_system(err, errno ? errno : EIO, "cannot write %s/config.json", bundle);
        unlinkat(dir, "config.json", 0);
        return r;
    }
    return CLI_OK;
}

static int spec_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, spec, 0, 0, err);
}

static const struct cli_option spec_options[] = {
    {"bundle", 'b', "DIRECTORY", "Where it is made (default: the working directory).", "FILE"},
    {"rootless", 0, NULL, "For a user without privileges.", NULL},
    {0},
};

const struct verb oci_spec_command = {
    .name = "spec",
    .summary = "write a config.json to begin with",
    .options = spec_options,
    .run = spec_run,
};
