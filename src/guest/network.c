/* network.c - a container's connection to the world: pasta(1) joins its network
 * namespace, with the host's addresses. It runs until network_disconnect. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "guest/guest-private.h"
#include "image/program.h"

#define PID_FILE "network.pid"

enum { PORTS_MAX = 64 };

/* The digits at text are a port; returns what is behind them, or NULL. */
static const char *port_end(const char *text)
{
    size_t length = strspn(text, "0123456789");
    long port = length && length <= 5 ? strtol(text, NULL, 10) : 0;

    return port >= 1 && port <= 65535 ? text + length : NULL;
}

int port_check(const char *text, struct error *err)
{
    const char *host = strrchr(text, ':'), *end;

    /* The last colon stands before the guest's port, the one before it behind an address. */
    for (const char *p = text; host && p < host; p++)
        if (*p == ':')
            text = p + 1;
    end = host ? port_end(text) : NULL;
    if (!end || end != host || !(end = port_end(host + 1)) ||
        (*end && strcmp(end, "/tcp") && strcmp(end, "/udp")))
        return error_set(err, EINVAL,
                         "'%.60s' publishes no port: [ADDRESS:]HOST-PORT:GUEST-PORT[/tcp|/udp]",
                         text);
    return 0;
}

/* "127.0.0.1:8080:80/udp" is "127.0.0.1/8080:80" for pasta's -u. */
static char *pasta_port(const char *text, const char **ret_option)
{
    size_t length = strcspn(text, "/");
    char *port = strndup(text, length);
    char *last = port ? strrchr(port, ':') : NULL, *address = NULL;

    *ret_option = !strcmp(text + length, "/udp") ? "-u" : "-t";
    for (char *p = port; last && p < last; p++)
        if (*p == ':')
            address = p;
    if (address)
        *address = '/';
    return port;
}

int network_connect(const struct guest *guest, pid_t pid, struct error *err)
{
    const json_t *ports = json_object_get(guest->record, "ports");
    char *texts[PORTS_MAX], namespace[64], pid_file[4096], log[4096];
    AUTO_CLOSE int fd = -1;
    const char *argv[24 + 2 * PORTS_MAX] = {"pasta",   "--quiet", "--config-net", "--runas", "0",
                                            "--netns", namespace, "--pid",        pid_file,  "-T",
                                            "none",    "-U",      "none"};
    size_t n = 13, count = 0;
    bool published[2] = {false, false}; /* tcp, udp */
    int r;

    if (strcmp(guest_text(guest, "network"), "user") != 0)
        return 0;
    /* Handed down open: pasta gives up the right to look into the container by its pid. */
    snprintf(namespace, sizeof(namespace), "/proc/%d/ns/net", (int)pid);
    fd = open(namespace, O_RDONLY);
    if (fd < 0)
        return error_system(err, errno, "cannot open %s", namespace);
    snprintf(namespace, sizeof(namespace), "/proc/self/fd/%d", fd);
    for (size_t i = 0; i < json_array_size(ports) && count < PORTS_MAX; i++) {
        texts[count] = pasta_port(json_string_value(json_array_get(ports, i)), argv + n);
        published[argv[n][1] == 'u'] = true;
        argv[n + 1] = texts[count++];
        n += 2;
    }
    for (int i = 0; i < 2; i++)
        if (!published[i]) {
            argv[n++] = i ? "-u" : "-t";
            argv[n++] = "none";
        }
    snprintf(pid_file, sizeof(pid_file), "%s/" PID_FILE, guest->path);
    snprintf(log, sizeof(log), "%s/network.log", guest->path);
    r = program_run(argv, NULL, log, err); /* it goes to the background when all is set up */
    while (count > 0)
        free(texts[--count]);
    if (r < 0)
        error_prepend(err, "the network of the guest %s", guest->name);
    return r;
}

/* Whether a process has the guest's file among its arguments: no later one of the same id has. */
static bool is_ours(const struct guest *guest, pid_t pid)
{
    char path[64], pid_file[4096];
    AUTO_FREE char *arguments = NULL;
    size_t length;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    snprintf(pid_file, sizeof(pid_file), "%s/" PID_FILE, guest->path);
    return file_read(AT_FDCWD, path, 1 << 16, &arguments, &length, NULL) == 0 &&
           memmem(arguments, length, pid_file, strlen(pid_file) + 1);
}

void network_disconnect(const struct guest *guest)
{
    AUTO_FREE char *text = NULL;
    AUTO_CLOSE int fd = -1;
    pid_t pid;

    if (file_read(guest->fd, PID_FILE, 64, &text, NULL, NULL) < 0)
        return;
    pid = atoi(text);
    /* The descriptor is taken first: what is then found to be ours cannot become another. */
    fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd >= 0 && is_ours(guest, pid))
        syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
    unlinkat(guest->fd, PID_FILE, 0);
}
