/* network.c - a container's connection to the world. `user`: pasta(1) joins its network
 * namespace, with the host's addresses, and runs until network_disconnect. A named network: a
 * keeper plugs the namespace in (network/namespace.h), and ends with the container. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
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
#include "network/lease.h"
#include "network/namespace.h"
#include "network/publish.h"

#define PID_FILE "network.pid"

enum { PORTS_MAX = 64, LAST_MS = 2000 };

/* --- Ports --- */

int port_check(const char *text, struct error *err)
{
    AUTO_FREE struct network_publish *list = NULL;
    unsigned count = 0;

    return publish_parse(text, &list, &count, err);
}

/* Everything that a list of ports leads to; freed by the caller. */
static int parse_all(const json_t *ports, struct network_publish **list, unsigned *count,
                     struct error *err)
{
    json_t *port;
    size_t i;
    int r = 0;

    json_array_foreach(ports, i, port)
    {
        if (r == 0)
            r = publish_parse(json_string_value(port), list, count, err);
    }
    return r;
}

/* A port of the host that nobody has now, and that is not in the list. */
static int find_free(struct network_publish *publish, const struct network_publish *list,
                     unsigned count, struct error *err)
{
    bool taken;

    do {
        AUTO_CLOSE int fd = -1;
        struct sockaddr_in address;
        socklen_t size = sizeof(address);

        publish->host_port = 0;
        fd = publish_reserve(publish, err);
        if (fd < 0)
            return fd;
        if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
            return error_system(err, errno, "cannot find a free port");
        publish->host_port = ntohs(address.sin_port);
        taken = false;
        for (unsigned i = 0; i < count; i++)
            taken |= list[i].udp == publish->udp && list[i].host_port == publish->host_port;
    } while (taken);
    return 0;
}

int ports_add_free(json_t *ports, const char *text, bool once, struct error *err)
{
    AUTO_FREE struct network_publish *there = NULL, *wanted = NULL;
    AUTO_FREE char *both = NULL;
    unsigned count = 0, more = 0;
    int r = parse_all(ports, &there, &count, err);

    if (r == 0 && asprintf(&both, "%.*s:%s", (int)strcspn(text, "/"), text, text) < 0)
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = publish_parse(both, &wanted, &more, err);
    for (unsigned i = 0; r == 0 && i < more; i++) {
        bool published = false;

        for (unsigned n = 0; once && n < count; n++)
            published |= there[n].udp == wanted[i].udp &&
                         there[n].guest_port == wanted[i].guest_port;
        if (published)
            continue;
        if (json_array_size(ports) >= PORTS_MAX)
            return error_set(err, EINVAL, "more than %d ports are published", PORTS_MAX);
        r = find_free(wanted + i, there, count, err);
        if (r == 0)
            json_array_append_new(ports, json_sprintf("%u:%u%s", wanted[i].host_port,
                                                      wanted[i].guest_port,
                                                      wanted[i].udp ? "/udp" : ""));
    }
    return r;
}

/* "127.0.0.1:8080:80/udp" is "127.0.0.1/8080:80" for pasta's -u; one without an address is
 * of 127.0.0.1, as everywhere (publish.h). */
static char *pasta_port(const char *text, const char **ret_option)
{
    size_t length = strcspn(text, "/"), address = strcspn(text, ":");
    bool has_address = memchr(text + address + 1, ':', length - address - 1);
    char *port;

    *ret_option = !strcmp(text + length, "/udp") ? "-u" : "-t";
    if (has_address ? asprintf(&port, "%.*s/%.*s", (int)address, text, (int)(length - address - 1),
                               text + address + 1) < 0
                    : asprintf(&port, "127.0.0.1/%.*s", (int)length, text) < 0)
        return NULL;
    return port;
}

/* --- Named networks --- */

bool network_is_named(const struct guest *guest)
{
    static const char *const others[] = {"user", "host", "none"};

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strcmp(guest_text(guest, "network"), others[i]) == 0)
            return false;
    return true;
}

void network_guest_name(const struct guest *guest, char name[NAMED_NAME_MAX + 1])
{
    snprintf(name, NAMED_NAME_MAX + 1, "%s", guest->name);
    for (char *c = name; *c; c++)
        if (*c == '.' || *c == '_')
            *c = '-';
}

static int connect_named(const struct guest *guest, pid_t pid, struct error *err)
{
    AUTO_FREE struct network_publish *publish = NULL;
    char name[NAMED_NAME_MAX + 1];
    struct namespace_config config = {.network = guest_text(guest, "network"), .hostname = name,
                                      .pid = pid};
    int r = parse_all(json_object_get(guest->record, "ports"), &publish, &config.publish_count,
                      err);

    if (r < 0)
        return r;
    network_guest_name(guest, name);
    config.publish = publish;
    return namespace_connect(&config, err);
}

struct search {
    const char *name;
    struct in_addr address; /* out */
};

static int compare_name(const struct lease_guest *guest, void *opaque)
{
    struct search *search = opaque;

    if (strcasecmp(guest->name, search->name) == 0)
        search->address = guest->address;
    return 0;
}

bool guest_address(const struct guest *guest, char ret_text[GUEST_ADDRESS_MAX])
{
    char name[NAMED_NAME_MAX + 1];
    struct search search = {.name = name};
    struct named_network network;

    network_guest_name(guest, name);
    if (!network_is_named(guest) || named_open(guest_text(guest, "network"), &network, NULL) < 0 ||
        lease_guests(&network, compare_name, &search, NULL) < 0 || !search.address.s_addr)
        return false;
    return inet_ntop(AF_INET, &search.address, ret_text, GUEST_ADDRESS_MAX);
}

/* --- By pasta --- */

/* Whether a process has the guest's file among its arguments: no later one of the same id has. One
 * that is ending has none any more. */
static bool is_ours(const struct guest *guest, pid_t pid)
{
    char path[64], pid_file[4096];
    AUTO_FREE char *arguments = NULL;
    size_t length;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    snprintf(pid_file, sizeof(pid_file), "%s/" PID_FILE, guest->path);
    return file_read(AT_FDCWD, path, 1 << 16, &arguments, &length, NULL) == 0 &&
           (!length || memmem(arguments, length, pid_file, strlen(pid_file) + 1));
}

/* The pasta that the guest has or had; -1: there is none. */
static int open_pasta(const struct guest *guest)
{
    AUTO_FREE char *text = NULL;
    AUTO_CLOSE int fd = -1;
    pid_t pid;

    if (file_read(guest->fd, PID_FILE, 64, &text, NULL, NULL) < 0)
        return -1;
    pid = atoi(text);
    /* The descriptor is taken first: what is then found to be ours cannot become another. */
    fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    return fd >= 0 && is_ours(guest, pid) ? steal_fd(&fd) : -1;
}

/* That of the last run may be ending, and have the ports that this one wants. */
static void await_last(const struct guest *guest)
{
    AUTO_CLOSE int fd = open_pasta(guest);
    struct pollfd gone = {.fd = fd, .events = POLLIN};

    if (fd >= 0)
        poll(&gone, 1, LAST_MS);
    unlinkat(guest->fd, PID_FILE, 0);
}

static int connect_user(const struct guest *guest, pid_t pid, struct error *err)
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

    await_last(guest);
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

int network_connect(const struct guest *guest, pid_t pid, struct error *err)
{
    if (strcmp(guest_text(guest, "network"), "user") == 0)
        return connect_user(guest, pid, err);
    return network_is_named(guest) ? connect_named(guest, pid, err) : 0;
}

void network_disconnect(const struct guest *guest)
{
    AUTO_CLOSE int fd = open_pasta(guest);

    if (fd >= 0)
        syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
}
