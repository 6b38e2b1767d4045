#include "cli/oci.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/privilege.h"
#include "cli/verbs.h"
#include "container/socket.h"

#define ROOT_DEFAULT "/run/lodge-oci"

static const struct verb *const oci_verbs[] = {
    &oci_create_command, &oci_run_command,        &oci_start_command,
    &oci_exec_command,   &oci_state_command,      &oci_list_command,
    &oci_ps_command,     &oci_kill_command,       &oci_delete_command,
    &oci_pause_command,  &oci_resume_command,     &oci_update_command,
    &oci_events_command, &oci_checkpoint_command, &oci_restore_command,
    &oci_spec_command,   &oci_features_command,   NULL,
};

/* --- The log that engines read --- */

static void log_line(const char *path, bool json, const char *text)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    AUTO_FREE char *line = NULL, *quoted = NULL;
    time_t now = time(NULL);
    char stamp[40] = "";
    struct tm utc;
    int length;

    if (fd < 0 || !gmtime_r(&now, &utc))
        return; /* the standard error has it all the same */
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (json) {
        json_t *entry = json_pack("{s:s, s:s, s:s}", "level", "error", "time", stamp, "msg", text);
        quoted = json_dumps(entry, JSON_COMPACT);
        json_decref(entry);
        length = quoted ? asprintf(&line, "%s\n", quoted) : -1;
    } else {
        length = asprintf(&line, "time=\"%s\" level=error msg=\"%s\"\n", stamp, text);
    }
    if (length > 0 && write(fd, line, (size_t)length) != length)
        return;
}

static void failure_log(struct cli *cli, const char *text)
{
    const char *path = cli_value(cli, "log"), *format = cli_value(cli, "log-format");

    if (path && path[0])
        log_line(path, format && strcmp(format, "json") == 0, text);
}

/* --- Options --- */

static const char *root_default(char *buffer, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (privilege_is_full() || !runtime || runtime[0] != '/')
        return ROOT_DEFAULT;
    snprintf(buffer, size, "%s/lodge-oci", runtime);
    return buffer;
}

int oci_run(struct cli *cli, oci_fn *fn, int least, int most, struct error *err)
{
    struct container_options options = {.console_fd = -1, .log = cli->log};
    const char *format = cli_value(cli, "log-format");
    char root[PATH_MAX];
    int r;

    if (format && strcmp(format, "text") != 0 && strcmp(format, "json") != 0)
        return error_set(err, EINVAL, "--log-format is text or json, not '%s'", format);
    if (cli->argc < least || (most >= 0 && cli->argc > most))
        return error_set(err, EINVAL, "%s wants %s; see 'lodge help oci %s'", cli->verb->name,
                         cli->verb->operands ? cli->verb->operands : "no operand", cli->verb->name);
    options.root = cli_value(cli, "root");
    if (!options.root || !options.root[0])
        options.root = root_default(root, sizeof(root));
    options.id = least > 0 ? cli->argv[0] : NULL;
    options.systemd_cgroup = cli_flag(cli, "systemd-cgroup");
    r = fn(cli, &options, err);
    if (r >= 0)
        return r;
    failure_log(cli, err->text);
    return -ECANCELED;
}

int oci_read_number(struct cli *cli, const char *name, long long *ret_value, struct error *err)
{
    const char *text = cli_value(cli, name);
    long long value;
    char *end;

    if (!text)
        return 0;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end)
        return error_set(err, EINVAL, "--%s '%s' is no number", name, text);
    *ret_value = value;
    return 1;
}

int oci_read_launch_options(struct cli *cli, struct container_options *options, struct error *err)
{
    const char *socket_path = cli_value(cli, "console-socket");
    long long preserve = 0;
    int r = oci_read_number(cli, "preserve-fds", &preserve, err);

    if (r < 0)
        return r;
    if (preserve < 0 || preserve > 65536)
        return error_set(err, EINVAL, "--preserve-fds %lld is not within 0 to 65536", preserve);
    options->preserve_fds = (unsigned)preserve;
    /* sd_listen_fds(3): those come first. */
    if (getenv("LISTEN_FDS"))
        options->preserve_fds += (unsigned)strtoul(getenv("LISTEN_FDS"), NULL, 10) & 0xffff;
    options->bundle = cli_value(cli, "bundle") ? cli_value(cli, "bundle") : ".";
    options->pid_file = cli_value(cli, "pid-file");
    options->no_pivot = cli_flag(cli, "no-pivot");
    options->keyring = cli_flag(cli, "no-new-keyring") ? NULL : options->id;
    if (socket_path && socket_path[0]) {
        options->console_fd = socket_connect(socket_path, err);
        if (options->console_fd < 0)
            return options->console_fd;
    }
    return 0;
}

int oci_print_json(struct cli *cli, json_t *value, bool indented, struct error *err)
{
    int r = value ? json_dumpf(value, cli->out, indented ? JSON_INDENT(2) : JSON_COMPACT) : -1;

    json_decref(value);
    if (r < 0)
        return error_set(err, ENOMEM, "out of memory");
    fputc('\n', cli->out);
    return CLI_OK;
}

/* --- The verb --- */

static int oci_only(struct cli *cli, struct error *err)
{
    if (!cli_flag(cli, "version"))
        return error_set(err, EINVAL, "oci needs a verb; see 'lodge help oci'");
    fprintf(cli->out, "lodge-oci version %s\nspec: 1.2.0\n", LODGE_VERSION);
    return CLI_OK;
}

static const struct cli_option oci_options[] = {
    {"root", 0, "DIRECTORY",
     "Where the states of containers are kept (default " ROOT_DEFAULT
     ", without privileges $XDG_RUNTIME_DIR/lodge-oci).",
     "FILE"},
    {"log", 0, "FILE", "Errors are written to this file too.", "FILE"},
    {"log-format", 0, "FORMAT", "The format of that file: text (default) or json.", "text json"},
    {"systemd-cgroup", 0, NULL,
     "Let systemd make the control groups: linux.cgroupsPath is SLICE:PREFIX:NAME.", NULL},
    {"debug", 0, NULL, "Taken for the sake of callers; does nothing.", NULL},
    {"rootless", 0, "WHEN", "Taken for the sake of callers; it is found out.", "true false auto"},
    {"criu", 0, "FILE", "Taken for the sake of callers; does nothing.", "FILE"},
    {"version", 'v', NULL, "Print the version, and that of the specification.", NULL},
    {0},
};

const struct verb oci_command = {
    .name = "oci",
    .summary = "run containers as an OCI runtime",
    .operands = "VERB...",
    .description = "The runtime that podman, containerd and other engines call, with the command "
                   "line of runc. A program called lodge-oci is this verb: podman --runtime "
                   "/usr/local/bin/lodge-oci.",
    .options = oci_options,
    .verbs = oci_verbs,
    .run = oci_only,
};
