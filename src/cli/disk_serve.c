/* lodge disk serve: an image as an NBD export. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/disk.h"
#include "storage/nbd/server.h"

#define ADDRESS_DEFAULT "127.0.0.1:10809"

struct serve {
    struct loop *loop;
    struct loop_source *signals;
    int signal_fd, listen_fd;
    const char *socket_path; /* made by us, to be removed */
    pid_t child;             /* --run: ends the server when it ends */
    int status;
};

static int listen_unix(struct serve *serve, const char *path, struct error *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(at.sun_path))
        return error_set(err, ENAMETOOLONG, "--unix %s: the path is too long", path);
    strcpy(at.sun_path, path);
    serve->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (serve->listen_fd < 0 || bind(serve->listen_fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    serve->socket_path = path;
    if (listen(serve->listen_fd, SOMAXCONN) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    return 0;
}

static int listen_tcp(struct serve *serve, const char *address, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *colon = strrchr(address, ':');
    AUTO_FREE char *host = NULL;
    struct addrinfo *found;
    const int one = 1;
    int r;

    if (!colon || !colon[1])
        return error_set(err, EINVAL, "--tcp %s: write HOST:PORT", address);
    host = *address == '[' && colon > address + 1 && colon[-1] == ']'
               ? strndup(address + 1, (size_t)(colon - address - 2))
               : strndup(address, (size_t)(colon - address));
    if (!host)
        return error_set(err, ENOMEM, "out of memory for an address");
    r = getaddrinfo(host, colon + 1, &hints, &found);
    if (r)
        return error_set(err, EHOSTUNREACH, "--tcp %s: %s", address, gai_strerror(r));
    serve->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    r = serve->listen_fd < 0 ||
        setsockopt(serve->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(serve->listen_fd, found->ai_addr, found->ai_addrlen) < 0 ||
        listen(serve->listen_fd, SOMAXCONN) < 0;
    r = r ? error_system(err, errno, "cannot listen at %s", address) : 0;
    freeaddrinfo(found);
    return r;
}

static void signalled(void *opaque, uint32_t events)
{
    struct serve *serve = opaque;
    struct signalfd_siginfo info;
    int status;

    (void)events;
    if (read(serve->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD) {
        if (!serve->child || waitpid(serve->child, &status, WNOHANG) != serve->child)
            return;
        serve->child = 0;
        serve->status = WIFEXITED(status) ? WEXITSTATUS(status) : CLI_FAILED;
    }
    loop_stop(serve->loop);
}

static int watch_signals(struct serve *serve, struct error *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        sigaddset(&set, signals[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    serve->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (serve->signal_fd < 0)
        return error_system(err, errno, "cannot watch signals");
    return loop_add_fd(serve->loop, serve->signal_fd, EPOLLIN, signalled, serve, &serve->signals,
                       err);
}

static int start_child(struct serve *serve, const char *command, struct error *err)
{
    sigset_t none;

    serve->child = fork();
    if (serve->child < 0)
        return error_system(err, errno, "cannot run the command");
    if (serve->child)
        return 0;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(127);
}

/* --tls and what belongs to it, in nbdkit's words. *ret_credentials: NULL without TLS. */
static int load_tls(struct cli *cli, struct tls_credentials **ret_credentials,
                    struct nbd_server_options *options, struct error *err)
{
    const char *folder = cli_value(cli, "tls-certificates"), *mode = cli_value(cli, "tls");
    bool verify = cli_flag(cli, "tls-verify-peer");

    if (!mode)
        mode = folder ? "on" : "off";
    if (strcmp(mode, "off") && strcmp(mode, "on") && strcmp(mode, "require"))
        return error_set(err, EINVAL, "--tls %s: write off, on or require", mode);
    if (!strcmp(mode, "off"))
        return verify ? error_set(err, EINVAL, "--tls-verify-peer needs --tls-certificates") : 0;
    if (!folder)
        return error_set(err, EINVAL, "--tls %s needs --tls-certificates", mode);
    options->tls_required = verify || !strcmp(mode, "require");
    return tls_credentials_load(TLS_SERVER, folder, verify, ret_credentials, err);
}

static int serve_disk(struct cli *cli, struct serve *serve, struct error *err)
{
    const struct disk_options options = {.format = cli_value(cli, "format"),
                                         .writable = cli_flag(cli, "writable")};
    const char *tcp = cli_value(cli, "tcp") ? cli_value(cli, "tcp") : ADDRESS_DEFAULT;
    struct nbd_server_options server_options = {.name = cli_value(cli, "name")};
    struct tls_credentials *credentials = NULL;
    struct nbd_server *server = NULL;
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    int r = load_tls(cli, &credentials, &server_options, err), r2;

    server_options.credentials = credentials;
    if (r == 0)
        r = storage_create(serve->loop, cli_value(cli, "io"), &storage, err);
    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0)
        r = cli_value(cli, "unix") ? listen_unix(serve, cli_value(cli, "unix"), err)
                                   : listen_tcp(serve, tcp, err);
    if (r == 0)
        r = nbd_server_create(serve->loop, serve->listen_fd, disk, &server_options, &server, err);
    if (r == 0 && cli_value(cli, "run"))
        r = start_child(serve, cli_value(cli, "run"), err);
    if (r == 0)
        r = loop_run(serve->loop, err);
    if (serve->socket_path)
        unlink(serve->socket_path);
    nbd_server_destroy(server);
    tls_credentials_free(credentials);
    r2 = disk_close(disk, r < 0 ? NULL : err);
    storage_destroy(storage);
    return r < 0 ? r : r2;
}

static int serve_run(struct cli *cli, struct error *err)
{
    struct serve serve = {.signal_fd = -1, .listen_fd = -1};
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = loop_create(&serve.loop, err);
    if (r == 0)
        r = watch_signals(&serve, err); /* before there are threads, which inherit the mask */
    if (r == 0)
        r = serve_disk(cli, &serve, err);
    loop_remove(serve.signals);
    if (serve.signal_fd >= 0)
        close(serve.signal_fd);
    if (serve.listen_fd >= 0)
        close(serve.listen_fd);
    loop_destroy(serve.loop);
    return r < 0 ? r : serve.status;
}

static const struct cli_option serve_options[] = {
    DISK_OPTION_FORMAT,
    {"unix", 0, "PATH", "Listen at a Unix socket.", "FILE"},
    {"tcp", 0, "HOST:PORT", "Listen at an address (default " ADDRESS_DEFAULT ").", NULL},
    {"name", 'n', "NAME", "The export's name (default: none).", NULL},
    {"writable", 'w', NULL, "Let clients write.", NULL},
    {"tls", 0, "MODE",
     "off; on: offer TLS (the default with --tls-certificates); require: refuse who does without.",
     "off on require"},
    {"tls-certificates", 0, "FOLDER",
     "Where server-cert.pem, server-key.pem and, for --tls-verify-peer, ca-cert.pem are.", "FILE"},
    {"tls-verify-peer", 0, NULL,
     "Refuse clients without a certificate signed by ca-cert.pem; implies --tls require.", NULL},
    {"run", 0, "COMMAND", "Run a command of the shell, and end with it and its exit status.", NULL},
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_serve_command = {
    .name = "serve",
    .summary = "offer a disk to others as an NBD export",
    .operands = "IMAGE",
    .description =
        "Serves until SIGINT or SIGTERM. Whoever reaches the address may use the disk, unless "
        "TLS is required and clients are verified.",
    .options = serve_options,
    .run = serve_run,
};
