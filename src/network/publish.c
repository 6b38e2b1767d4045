#include "network/publish.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

struct range {
    uint16_t first, last;
};

/* "80" or "80-89". */
static int parse_range(const char *text, struct range *ret_range, struct error *err)
{
    unsigned long ports[2];
    const char *at = text;

    for (unsigned i = 0; i < 2; i++) {
        char *end;

        ports[i] = strtoul(at, &end, 10);
        if (*at < '0' || *at > '9' || ports[i] == 0 || ports[i] > 65535)
            return error_set(err, EINVAL, "'%.60s' is no port, nor a range of ports", text);
        if (i == 0 && *end == 0)
            ports[++i] = ports[0];
        else if (*end != (i == 0 ? '-' : 0))
            return error_set(err, EINVAL, "'%.60s' is no port, nor a range of ports", text);
        at = end + 1;
    }
    if (ports[1] < ports[0])
        return error_set(err, EINVAL, "the range of ports '%.60s' ends before it begins", text);
    *ret_range = (struct range){(uint16_t)ports[0], (uint16_t)ports[1]};
    return 0;
}

static int add_range(const struct network_publish *what, struct range host, struct range guest,
                     struct network_publish **list, unsigned *count, struct error *err)
{
    unsigned more = (unsigned)(host.last - host.first) + 1;
    struct network_publish *grown;

    if (guest.last - guest.first != host.last - host.first)
        return error_set(err, EINVAL, "the ranges %u-%u and %u-%u are not equally long", host.first,
                         host.last, guest.first, guest.last);
    if (more > PUBLISH_MAX - *count)
        return error_set(err, EINVAL, "a guest publishes at most %d ports", PUBLISH_MAX);
    grown = realloc(*list, (*count + more) * sizeof(*grown));
    if (!grown)
        return error_set(err, ENOMEM, "out of memory");
    *list = grown;
    for (unsigned i = 0; i < more; i++) {
        grown[*count] = *what;
        grown[*count].host_port = (uint16_t)(host.first + i);
        grown[(*count)++].guest_port = (uint16_t)(guest.first + i);
    }
    return 0;
}

int publish_parse(const char *value, struct network_publish **list, unsigned *count,
                  struct error *err)
{
    struct network_publish publish = {.address.s_addr = htonl(INADDR_LOOPBACK)};
    AUTO_FREE char *text = strdup(value);
    struct range host_ports, guest_ports;
    char *slash, *guest, *host;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    slash = strchr(text, '/');
    if (slash) {
        *slash++ = 0;
        publish.udp = strcmp(slash, "udp") == 0;
        if (!publish.udp && strcmp(slash, "tcp") != 0)
            return error_set(err, EINVAL, "'%.60s' is neither tcp nor udp", slash);
    }
    guest = strrchr(text, ':');
    if (!guest)
        return error_set(err, EINVAL, "'%.60s' is not like 8080:80", value);
    *guest++ = 0;
    host = strrchr(text, ':');
    if (host) {
        *host++ = 0;
        if (inet_pton(AF_INET, text, &publish.address) != 1)
            return error_set(err, EINVAL, "'%.60s' is no IPv4 address", text);
    }
    r = parse_range(host ? host : text, &host_ports, err);
    if (r == 0)
        r = parse_range(guest, &guest_ports, err);
    return r < 0 ? r : add_range(&publish, host_ports, guest_ports, list, count, err);
}

const char *publish_format(const struct network_publish *publish, char text[PUBLISH_TEXT_MAX])
{
    char address[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &publish->address, address, sizeof(address));
    snprintf(text, PUBLISH_TEXT_MAX, "%s:%u->%u/%s", address, publish->host_port,
             publish->guest_port, publish->udp ? "udp" : "tcp");
    return text;
}

int publish_reserve(const struct network_publish *publish, struct error *err)
{
    const struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr = publish->address,
                                      .sin_port = htons(publish->host_port)};
    AUTO_CLOSE int fd =
        socket(AF_INET, (publish->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    char text[PUBLISH_TEXT_MAX];

    if (fd < 0 || bind(fd, (const struct sockaddr *)&where, sizeof(where)) < 0)
        return error_system(err, errno, "cannot publish %s", publish_format(publish, text));
    return steal_fd(&fd);
}
