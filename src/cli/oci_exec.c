/* oci_exec.c - further programs in a container. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/oci.h"
#include "container/protect.h"
#include "container/relay.h"

struct request {
    struct process process;
    struct field_store store;
};

static int word_add(json_t *list, const char *text)
{
    return json_array_append_new(list, json_string(text));
}

/* "UID[:GID]", and the groups of --additional-gids. */
static json_t *user_read(struct cli *cli, const json_t *otherwise, struct error *err)
{
    const char *text = cli_value(cli, "user"), *gid;
    json_t *user, *groups;
    char *end;

    if (!text)
        user = json_deep_copy(otherwise);
    else {
        unsigned long uid = strtoul(text, &end, 10);
        unsigned long group = *end == ':' ? strtoul(end + 1, &end, 10) : 0;

        if (end == text || *end) {
            error_set(err, EINVAL, "--user '%s' is not UID or UID:GID", text);
            return NULL;
        }
        user = json_pack("{s:I, s:I}", "uid", (json_int_t)uid, "gid", (json_int_t)group);
    }
    if (!user)
        user = json_object();
    if (cli_value(cli, "additional-gids")) {
        groups = json_array();
        for (unsigned i = 0; (gid = cli_value_at(cli, "additional-gids", i)); i++)
            json_array_append_new(groups, json_integer(strtoll(gid, NULL, 10)));
        json_object_set_new(user, "additionalGids", groups);
    }
    return user;
}

/* --cap adds to what the container's own process has, in all sets as runc does. */
static void capabilities_add(struct cli *cli, json_t *process)
{
    static const char *const sets[] = {"bounding", "effective", "permitted", "ambient"};
    json_t *capabilities = json_object_get(process, "capabilities");
    const char *name;

    if (!cli_value(cli, "cap"))
        return;
    capabilities = json_is_object(capabilities) ? json_deep_copy(capabilities) : json_object();
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        json_t *list = json_object_get(capabilities, sets[i]);

        list = json_is_array(list) ? json_copy(list) : json_array();
        for (unsigned n = 0; (name = cli_value_at(cli, "cap", n)); n++)
            word_add(list, name);
        json_object_set_new(capabilities, sets[i], list);
    }
    json_object_set_new(process, "capabilities", capabilities);
}

/* The container's own process object, changed by the options and the command. */
static json_t *request_build(struct cli *cli, const char *config_text, struct error *err)
{
    json_t *config = json_loads(config_text, 0, NULL);
    json_t *process = json_deep_copy(json_object_get(config, "process"));
    const char *value, *directory = cli_value(cli, "cwd");
    json_t *args = json_array(), *env, *user;

    user = user_read(cli, json_object_get(process, "user"), err);
    json_decref(config);
    if (!user) {
        json_decref(args);
        json_decref(process);
        return NULL;
    }
    for (int i = 1; i < cli->argc; i++)
        word_add(args, cli->argv[i]);
    json_object_set_new(process, "args", args);
    json_object_set_new(process, "user", user);
    json_object_set_new(process, "terminal", json_boolean(cli_flag(cli, "tty")));
    json_object_del(process, "consoleSize");
    env = json_object_get(process, "env");
    if (!json_is_array(env))
        json_object_set_new(process, "env", env = json_array());
    for (unsigned i = 0; (value = cli_value_at(cli, "env", i)); i++)
        word_add(env, value);
    if (directory)
        json_object_set_new(process, "cwd", json_string(directory));
    if (cli_flag(cli, "no-new-privs"))
        json_object_set_new(process, "noNewPrivileges", json_true());
    if ((value = cli_value(cli, "apparmor")))
        json_object_set_new(process, "apparmorProfile", json_string(value));
    if ((value = cli_value(cli, "process-label")))
        json_object_set_new(process, "selinuxLabel", json_string(value));
    capabilities_add(cli, process);
    return process;
}

static int request_read(struct cli *cli, const struct container_options *options,
                        struct request *request, struct error *err)
{
    const char *path = cli_value(cli, "process");
    AUTO_FREE char *text = NULL;
    size_t length;
    int r;

    if (path) {
        r = container_read_file(path, &text, &length, err);
    } else {
        AUTO_FREE char *config = NULL;
        json_t *process;

        if (cli->argc < 2)
            return error_set(err, EINVAL, "exec needs a command, or --process FILE");
        r = container_read_config(options, &config, err);
        if (r < 0)
            return r;
        process = request_build(cli, config, err);
        text = process ? json_dumps(process, JSON_COMPACT) : NULL;
        json_decref(process);
        if (!text)
            return err->code ? -err->code : error_set(err, ENOMEM, "out of memory");
        length = strlen(text);
    }
    return r < 0 ? r : process_read(&request->process, &request->store, text, length, err);
}

static int exec_launch(struct cli *cli, struct container_options *options,
                       const struct process *process, struct error *err)
{
    bool detach = cli_flag(cli, "detach");
    struct relay *relay = NULL;
    pid_t pid;
    int r = 0;

    if (!detach)
        r = relay_open(process->terminal && options->console_fd < 0, &relay,
                       &options->console_fd, err);
    if (r == 0)
        r = container_exec(options, process, cli_value(cli, "cgroup"),
                           cli_flag(cli, "ignore-paused"), &pid, err);
    if (options->console_fd >= 0)
        close(options->console_fd);
    options->console_fd = -1;
    if (r == 0 && !detach)
        r = relay_run(relay, pid, err);
    relay_close(relay);
    return r;
}

static int exec(struct cli *cli, struct container_options *options, struct error *err)
{
    struct request request = {0};
    int r = protect_self(err);

    if (r == 0)
        r = oci_read_launch_options(cli, options, err);
    if (r == 0)
        r = request_read(cli, options, &request, err);
    if (r == 0) {
        r = exec_launch(cli, options, &request.process, err);
        field_release(&request.store);
    }
    if (options->console_fd >= 0)
        close(options->console_fd);
    return r;
}

static int exec_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, exec, 1, -1, err);
}

static const struct cli_option exec_options[] = {
    {"process", 'p', "FILE", "The process as in config.json, instead of a command.", "FILE"},
    {"pid-file", 0, "FILE", "Write the process's id to this file.", "FILE"},
    {"console-socket", 0, "SOCKET", "Send the terminal's master to this Unix socket.", "FILE"},
    {"preserve-fds", 0, "N", "Pass this many descriptors from 3 on.", NULL},
    {"detach", 'd', NULL, "Return once the program runs.", NULL},
    {"tty", 't', NULL, "With a terminal.", NULL},
    {"cwd", 0, "DIRECTORY", "The working directory.", NULL},
    {"env", 'e', "NAME=VALUE", "A further variable.", NULL},
    {"user", 'u', "UID[:GID]", "The user.", NULL},
    {"additional-gids", 'g', "GID", "A further group.", NULL},
    {"cap", 'c', "NAME", "A further capability.", NULL},
    {"no-new-privs", 0, NULL, "No privileges by set-user-id programs.", NULL},
    {"apparmor", 0, "PROFILE", "The AppArmor profile.", NULL},
    {"process-label", 0, "LABEL", "The SELinux label.", NULL},
    {"cgroup", 0, "PATH", "A control group below the container's, or CONTROLLER:PATH.", NULL},
    {"ignore-paused", 0, NULL, "Even in a paused container.", NULL},
    {"no-new-keyring", 0, NULL, "Keep the caller's session keyring.", NULL},
    {0},
};

const struct verb oci_exec_command = {
    .name = "exec",
    .summary = "run a further program in a container",
    .operands = "ID [COMMAND...]",
    .description = "The exit status is the program's, or 128 and the number of the signal that "
                   "killed it.",
    .options = exec_options,
    .raw_options = true,
    .run = exec_run,
};
