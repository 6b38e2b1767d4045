/* spec.c - a guest's record and its image's configuration as an OCI runtime
 * configuration (config.md; the conversion of the image specification, conversion.md). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/privilege.h"
#include "container/file.h"
#include "guest/confine.h"
#include "guest/guest-private.h"
#include "guest/init_program.h"
#include "guest/isolation.h"
#include "guest/rootless.h"

#define PATH_DEFAULT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#define INIT "init" /* in the guest's directory: the program of --init */

enum { SHM_DEFAULT = 64 << 20 };

static const struct {
    const char *target, *type, *options; /* separated by commas */
} mounts[] = {
    {"/proc", "proc", "nosuid,noexec,nodev"},
    {"/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"},
    {"/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"/dev/mqueue", "mqueue", "nosuid,noexec,nodev"},
    {"/sys", "sysfs", "nosuid,noexec,nodev,ro"},
    {"/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"},
};

/* The init that runs the command, or NULL. */
static const char *init_of(const struct guest *guest)
{
    return guest_flag(guest, "init") ? isolation_of(guest)->init : NULL;
}

/* --- The process --- */

/* Set NAME=VALUE in a list of them. */
static void set_variable(json_t *list, const char *text)
{
    size_t length = strcspn(text, "=") + 1, i;
    json_t *item;

    json_array_foreach(list, i, item)
    {
        if (!strncmp(json_string_value(item), text, length)) {
            json_array_set_new(list, i, json_string(text));
            return;
        }
    }
    json_array_append_new(list, json_string(text));
}

/* Where it is in the list, or the list's length. */
static size_t find_variable(const json_t *list, const char *name)
{
    size_t length = strlen(name), i;
    json_t *item;

    json_array_foreach(list, i, item)
    {
        if (!strncmp(json_string_value(item), name, length) &&
            json_string_value(item)[length] == '=')
            return i;
    }
    return i;
}

/* What the command has unless it is told otherwise. */
static void default_environment(json_t *list, const struct guest *guest,
                                const struct image_config *config, const char *home)
{
    char text[300];

    set_variable(list, PATH_DEFAULT);
    snprintf(text, sizeof(text), "HOSTNAME=%.255s", guest_text(guest, "hostname"));
    set_variable(list, text);
    snprintf(text, sizeof(text), "HOME=%.255s", home);
    set_variable(list, text);
    if (guest_flag(guest, "terminal"))
        set_variable(list, "TERM=xterm");
    for (size_t i = 0; config->environment[i]; i++)
        if (strchr(config->environment[i], '='))
            set_variable(list, config->environment[i]);
}

static json_t *environment(const struct guest *guest, const struct image_config *config,
                           const char *home)
{
    json_t *list = json_array(), *asked = json_object_get(guest->record, "environment"), *item;
    json_t *unset = json_object_get(guest->record, "unset");
    size_t i;

    if (!guest_flag(guest, "unsetAll"))
        default_environment(list, guest, config, home);
    json_array_foreach(unset, i, item)
        json_array_remove(list, find_variable(list, json_string_value(item)));
    json_array_foreach(asked, i, item) set_variable(list, json_string_value(item));
    /* The OCI runtime sees to that one, whatever is said. */
    if (find_variable(list, "HOME") == json_array_size(list))
        json_array_append_new(list, json_sprintf("HOME=%.255s", home));
    return list;
}

/* The entry point comes first; a command takes the place of the image's own, which another entry
 * point than the image's has no use for. */
static json_t *arguments(const struct guest *guest, const struct image_config *config)
{
    json_t *command = json_object_get(guest->record, "command");
    json_t *entrypoint = json_object_get(guest->record, "entrypoint");
    json_t *list = entrypoint ? json_copy(entrypoint) : json_array();

    for (size_t i = 0; !entrypoint && config->entrypoint[i]; i++)
        json_array_append_new(list, json_string(config->entrypoint[i]));
    if (json_array_size(command))
        json_array_extend(list, command);
    else if (!entrypoint)
        for (size_t i = 0; config->command[i]; i++)
            json_array_append_new(list, json_string(config->command[i]));
    return list;
}

static int make_process(const struct guest *guest, const struct image_config *config,
                        json_t **ret_process, struct error *err)
{
    AUTO_CLOSE int root = openat(guest->fd, "rootfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *home = NULL;
    const char *user = guest_text(guest, "user"), *cwd = guest_text(guest, "workingDirectory");
    json_t *who, *args = arguments(guest, config);
    int r =
        json_array_size(args) ? 0 : error_set(err, EINVAL, "the image says no command: give one");

    if (r == 0)
        r = user_resolve(root, user[0] ? user : config->user, &who, &home, err);
    if (r == 0) {
        r = user_add_groups(root, json_object_get(guest->record, "groups"), who, err);
        if (r < 0)
            json_decref(who);
    }
    if (r < 0) {
        json_decref(args);
        return r;
    }
    if (json_object_get(guest->record, "umask"))
        json_object_set(who, "umask", json_object_get(guest->record, "umask"));
    if (init_of(guest))
        json_array_insert_new(args, 0, json_string(init_of(guest)));
    if (!cwd[0])
        cwd = config->working_directory[0] ? config->working_directory : "/";
    *ret_process =
        json_pack("{sb so so so ss}", "terminal",
                  guest_flag(guest, "terminal"), "user", who, "args",
                  args, "env", environment(guest, config, home ? home : "/"), "cwd", cwd);
    return 0;
}

/* --- Mounts --- */

static json_t *make_mount(const char *target, const char *type, const char *source,
                          const char *options)
{
    AUTO_FREE char *copy = strdup(options);
    json_t *list = json_array();

    for (char *save = NULL, *one = strtok_r(copy, ",", &save); one;
         one = strtok_r(NULL, ",", &save))
        json_array_append_new(list, json_string(one));
    return json_pack("{ss ss ss so}", "destination", target, "type", type, "source", source,
                     "options", list);
}

static void add_file(json_t *list, const struct guest *guest, const char *name, const char *target,
                     const char *options)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", guest->path, name);
    json_array_append_new(list, make_mount(target, "bind", path, options));
}

/* Whether it shares the host's namespace of a type. */
static bool shares(const struct guest *guest, const char *type)
{
    json_t *item;
    size_t i;

    json_array_foreach(json_object_get(guest->record, "hostNamespaces"), i, item)
    {
        if (!strcmp(json_string_value(item), type))
            return true;
    }
    return !strcmp(type, "network") && !strcmp(guest_text(guest, "network"), "host");
}

const char *spec_shm_options(const struct guest *guest, char text[SHM_OPTIONS_MAX])
{
    json_int_t size = json_integer_value(json_object_get(guest->record, "shmSize"));

    snprintf(text, SHM_OPTIONS_MAX, "nosuid,noexec,nodev,mode=1777,size=%lld",
             (long long)(size ? size : SHM_DEFAULT));
    return text;
}

static json_t *make_mounts(const struct guest *guest)
{
    json_t *list = json_array(), *volume;
    char shm[SHM_OPTIONS_MAX];
    size_t i;

    for (i = 0; i < ARRAY_SIZE(mounts); i++)
        json_array_append_new(
            list, make_mount(mounts[i].target, mounts[i].type, mounts[i].type, mounts[i].options));
    json_array_append_new(list, shares(guest, "ipc")
                                    ? make_mount("/dev/shm", "bind", "/dev/shm", "rbind,rprivate")
                                    : make_mount("/dev/shm", "tmpfs", "shm",
                                                 spec_shm_options(guest, shm)));
    if (!guest_flag(guest, "noHosts"))
        add_file(list, guest, "hosts", "/etc/hosts", "rbind,rprivate");
    add_file(list, guest, "hostname", "/etc/hostname", "rbind,rprivate");
    add_file(list, guest, "resolv.conf", "/etc/resolv.conf", "rbind,rprivate");
    if (init_of(guest))
        add_file(list, guest, INIT, init_of(guest), "rbind,rprivate,ro");
    json_array_foreach(json_object_get(guest->record, "volumes"), i, volume)
    {
        json_array_append_new(
            list, make_mount(json_string_value(json_object_get(volume, "target")), "bind",
                             json_string_value(json_object_get(volume, "source")),
                             json_is_true(json_object_get(volume, "readOnly")) ? "rbind,rprivate,ro"
                                                                               : "rbind,rprivate"));
    }
    return list;
}

/* --- Files that cover the root's own --- */

static void print_lines(FILE *out, const char *before, const json_t *list)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item) fprintf(out, "%s%s\n", before, json_string_value(item));
}

static void print_hosts(FILE *out, const struct guest *guest)
{
    fprintf(out, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n",
            guest_text(guest, "hostname"));
    print_lines(out, "", json_object_get(guest->record, "hosts"));
}

static void print_hostname(FILE *out, const struct guest *guest)
{
    fprintf(out, "%s\n", guest_text(guest, "hostname"));
}

/* What was asked for, else where its network answers names. */
static void print_resolv(FILE *out, const struct guest *guest)
{
    const json_t *servers = json_object_get(guest->record, "nameServers");
    const json_t *domains = json_object_get(guest->record, "domains"), *domain;
    const json_t *options = json_object_get(guest->record, "resolverOptions");
    AUTO_FREE char *resolver = isolation_of(guest)->resolver(guest);
    size_t i;

    if (json_array_size(servers))
        print_lines(out, "nameserver ", servers);
    else
        fputs(resolver ? resolver : "", out);
    if (json_array_size(domains))
        fputs("search", out);
    json_array_foreach(domains, i, domain) fprintf(out, " %s", json_string_value(domain));
    if (json_array_size(domains))
        fputc('\n', out);
    if (json_array_size(options))
        fputs("options", out);
    json_array_foreach(options, i, domain) fprintf(out, " %s", json_string_value(domain));
    if (json_array_size(options))
        fputc('\n', out);
}

static const struct {
    const char *name;
    void (*print)(FILE *out, const struct guest *guest);
} files[] = {
    {"hosts", print_hosts}, {"hostname", print_hostname}, {"resolv.conf", print_resolv}};

/* The guest's users read them. */
static int write_files(const struct guest *guest, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
        AUTO_FREE char *text = NULL;
        size_t length;
        FILE *out = open_memstream(&text, &length);

        if (out)
            files[i].print(out, guest);
        if (!out || fclose(out) != 0)
            return error_set(err, ENOMEM, "out of memory");
        r = guest_write(guest, files[i].name, text, err);
        if (r == 0 && fchmodat(guest->fd, files[i].name, 0644, 0) < 0)
            r = error_system(err, errno, "cannot change the mode of %s", files[i].name);
    }
    return r;
}

static int write_init(const struct guest *guest, struct error *err)
{
    int r = file_replace(guest->fd, INIT, lodge_init_start,
                         (size_t)(lodge_init_end - lodge_init_start), err);

    if (r == 0 && fchmodat(guest->fd, INIT, 0755, 0) < 0)
        r = error_system(err, errno, "cannot change the mode of " INIT);
    return r;
}

/* --- The whole --- */

static json_t *make_namespaces(const struct guest *guest)
{
    static const char *const types[] = {"pid", "ipc", "uts", "mount", "cgroup", "network"};
    json_t *list = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (!shares(guest, types[i]))
            json_array_append_new(list, json_pack("{ss}", "type", types[i]));
    return list;
}

int spec_write(const struct guest *guest, const struct image_config *config, struct error *err)
{
    AUTO_FREE char *text = NULL;
    json_t *process, *tree;
    char cgroup[300];
    int r = make_process(guest, config, &process, err);

    if (r < 0)
        return r;
    snprintf(cgroup, sizeof(cgroup), "/lodge/%.255s", guest->name);
    tree = json_pack("{ss so s{ss} ss* so s{so so ss} so}", "ociVersion", "1.2.0", "process",
                     process, "root", "path", "rootfs", "hostname",
                     shares(guest, "uts") ? NULL : guest_text(guest, "hostname"), "mounts",
                     make_mounts(guest), "linux", "resources", json_object(), "namespaces",
                     make_namespaces(guest), "cgroupsPath", cgroup, "annotations",
                     json_copy(json_object_get(guest->record, "labels")));
    json_object_update(json_object_get(tree, "annotations"),
                       json_object_get(guest->record, "annotations"));
    limits_apply(json_object_get(guest->record, "limits"), tree);
    r = confine_apply(json_object_get(guest->record, "confine"), tree, err);
    json_object_update(json_object_get(json_object_get(tree, "linux"), "sysctl"),
                       json_object_get(guest->record, "sysctls"));
    if (!privilege_is_full())
        rootless_adapt(tree);
    text = r < 0 ? NULL : json_dumps(tree, JSON_INDENT(2));
    json_decref(tree);
    if (r < 0)
        return r;
    if (!text)
        return error_set(err, EINVAL, "the image's configuration cannot be written");
    r = write_files(guest, err);
    if (r == 0 && init_of(guest))
        r = write_init(guest, err);
    return r < 0 ? r : guest_write(guest, "config.json", text, err);
}
