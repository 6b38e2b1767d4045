/* lodge image login, logout: passwords for registries. */
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/image.h"
#include "image/registry/registry.h"

enum { LINE_MAX_BYTES = 2048 };

/* A line of the standard input, without its end; a prompt where a person types it. */
static int read_line(const char *prompt, bool hidden, char *line, struct error *err)
{
    struct termios before, quiet;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    bool read;

    if (terminal) {
        fprintf(stderr, "%s: ", prompt);
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        if (hidden)
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    read = fgets(line, LINE_MAX_BYTES, stdin) != NULL;
    if (terminal && hidden) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    if (!read)
        return error_set(err, EIO, "there is no %s on the standard input", prompt);
    line[strcspn(line, "\r\n")] = 0;
    return 0;
}

static int login_run(struct cli *cli, struct error *err)
{
    const struct registry_options options = {
        .auth_file = cli_value(cli, "authfile"),
        .ca_file = cli_value(cli, "ca"),
        .insecure = cli_flag(cli, "insecure"),
    };
    const char *user = cli_value(cli, "username");
    char name[LINE_MAX_BYTES], password[LINE_MAX_BYTES];
    int r = image_operands(cli, 1, 1, err);

    if (r < 0)
        return r;
    if (!user && cli_flag(cli, "password-stdin"))
        return error_set(err, EINVAL, "--password-stdin needs --username");
    if (!user) {
        r = read_line("Username", false, name, err);
        user = name;
    }
    if (r == 0)
        r = read_line("Password", true, password, err);
    if (r == 0)
        r = registry_login(cli->argv[0], user, password, &options, err);
    explicit_bzero(password, sizeof(password));
    if (r < 0)
        return -EIO;
    fprintf(cli->out, "Login succeeded\n");
    return CLI_OK;
}

static int logout_run(struct cli *cli, struct error *err)
{
    bool all = cli_flag(cli, "all");
    int r = image_operands(cli, all ? 0 : 1, all ? 0 : 1, err);

    if (r < 0)
        return r;
    r = registry_logout(all ? NULL : cli->argv[0], cli_value(cli, "authfile"), err);
    return r < 0 ? -EIO : CLI_OK;
}

#define AUTHFILE_OPTION                                                                            \
    {                                                                                              \
        "authfile", 0, "FILE",                                                                     \
            "Where passwords are kept (default: $REGISTRY_AUTH_FILE, or "                          \
            "$XDG_RUNTIME_DIR/containers/auth.json).",                                             \
            "FILE"                                                                                 \
    }

static const struct cli_option login_options[] = {
    {"username", 'u', "NAME", "The user (default: it is asked for).", NULL},
    {"password-stdin", 0, NULL, "Read the password from the standard input, whatever that is.",
     NULL},
    AUTHFILE_OPTION,
    {"ca", 0, "FILE", "Certificates to trust, instead of the system's.", "FILE"},
    {"insecure", 0, NULL, "Take any certificate, and speak plain HTTP where there is no TLS.",
     NULL},
    {0},
};

static const struct cli_option logout_options[] = {
    {"all", 'a', NULL, "Forget all of them.", NULL},
    AUTHFILE_OPTION,
    {0},
};

const struct verb image_login_verb = {
    .name = "login",
    .summary = "keep the password for a registry",
    .operands = "HOST[:PORT]",
    .description = "The registry is asked whether it takes it. The file is that of podman's login, "
                   "which push and pull of both read.",
    .options = login_options,
    .run = login_run,
};

const struct verb image_logout_verb = {
    .name = "logout",
    .summary = "forget the password for a registry",
    .operands = "[HOST[:PORT]]",
    .options = logout_options,
    .run = logout_run,
};
