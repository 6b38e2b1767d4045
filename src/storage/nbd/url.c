#include "storage/nbd/url.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/nbd/protocol.h"

static const struct scheme {
    const char *prefix, *usage;
    bool tls, unix_socket;
} schemes[] = {
    {NBD_URL_TCP, "nbd://HOST[:PORT][/EXPORT]", false, false},
    {NBD_URL_UNIX, "nbd+unix:///EXPORT?socket=PATH", false, true},
    {NBD_URL_TLS_TCP, "nbds://HOST[:PORT][/EXPORT][?tls-certificates=FOLDER]", true, false},
    {NBD_URL_TLS_UNIX, "nbds+unix:///EXPORT?socket=PATH[&tls-certificates=FOLDER]", true, true},
};

/* --- Parsing --- */

/* The first length bytes with %XX made bytes; NULL: out of memory. */
static char *unescape(const char *from, size_t length)
{
    char *text = malloc(length + 1), *to = text;
    const char *end = from + length;

    while (text && from < end) {
        unsigned byte;

        if (*from == '%' && end - from > 2 && sscanf(from + 1, "%2x", &byte) == 1) {
            *to++ = (char)byte;
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    if (text)
        *to = 0;
    return text;
}

/* HOST, HOST:PORT or [HOST]:PORT. */
static void parse_authority(struct nbd_url *url, const char *text, size_t length)
{
    const char *bracket = *text == '[' ? memchr(text, ']', length) : NULL;
    const char *from = bracket ? bracket : text;
    const char *colon = memchr(from, ':', length - (size_t)(from - text));

    if (bracket)
        url->host = strndup(text + 1, (size_t)(bracket - text - 1));
    else
        url->host = strndup(text, colon ? (size_t)(colon - text) : length);
    url->port = colon ? strndup(colon + 1, length - (size_t)(colon + 1 - text)) : strdup(NBD_PORT);
}

static int parse_query(struct nbd_url *url, const struct scheme *scheme, const char *query,
                       struct error *err)
{
    const struct {
        const char *key;
        char **value;
        bool wanted;
    } keys[] = {
        {"socket=", &url->socket, scheme->unix_socket},
        {"tls-certificates=", &url->tls_certificates, scheme->tls},
        {"tls-hostname=", &url->tls_hostname, scheme->tls},
    };

    while (*query) {
        size_t length = strcspn(query, "&"), known = 0;

        for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
            size_t key = strlen(keys[i].key);

            if (!keys[i].wanted || strncmp(query, keys[i].key, key))
                continue;
            free(*keys[i].value);
            *keys[i].value = unescape(query + key, length - key);
            known = key;
        }
        if (!known)
            return error_set(err, EINVAL, "%s: nothing is known of '%.*s'; write %s", url->text,
                             (int)length, query, scheme->usage);
        query += length + (query[length] == '&');
    }
    return 0;
}

int nbd_url_parse(const char *text, struct nbd_url *ret_url, struct error *err)
{
    struct nbd_url *url = ret_url;
    const struct scheme *scheme = NULL;
    const char *authority, *path, *query;
    int r;

    *url = (struct nbd_url){.text = text};
    for (unsigned i = 0; i < ARRAY_SIZE(schemes); i++)
        if (!strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)))
            scheme = &schemes[i];
    if (!scheme)
        return error_set(err, EINVAL, "%s: this is no name of an NBD export", text);
    url->tls = scheme->tls;
    authority = text + strlen(scheme->prefix);
    path = authority + strcspn(authority, "/?");
    query = path + strcspn(path, "?");
    if (scheme->unix_socket != (path == authority))
        return error_set(err, EINVAL, "%s: write %s", text, scheme->usage);
    url->name = *path == '/' ? unescape(path + 1, (size_t)(query - path - 1)) : strdup("");
    if (!scheme->unix_socket)
        parse_authority(url, authority, (size_t)(path - authority));
    r = parse_query(url, scheme, *query ? query + 1 : query, err);
    if (r < 0)
        return r;
    if (scheme->unix_socket && (!url->socket || !*url->socket))
        return error_set(err, EINVAL, "%s: write %s", text, scheme->usage);
    if (!url->tls_hostname)
        url->tls_hostname = strdup(url->host ? url->host : "localhost");
    if (!url->name || !url->tls_hostname || (!url->socket && (!url->host || !url->port)))
        return error_set(err, ENOMEM, "out of memory for an address");
    return 0;
}

void nbd_url_free(struct nbd_url *url)
{
    free(url->socket);
    free(url->host);
    free(url->port);
    free(url->name);
    free(url->tls_certificates);
    free(url->tls_hostname);
    *url = (struct nbd_url){0};
}

/* --- Connecting --- */

static int connect_unix(const struct nbd_url *url, int *ret_fd, struct error *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(url->socket) >= sizeof(to.sun_path))
        return error_set(err, ENAMETOOLONG, "%s: the socket's path is too long", url->text);
    strcpy(to.sun_path, url->socket);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        return error_system(err, errno, "cannot connect to %s", url->text);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int connect_tcp(const struct nbd_url *url, int *ret_fd, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(url->host, url->port, &hints, &list), code = ECONNREFUSED, fd = -1;
    const int one = 1;

    if (r)
        return error_set(err, EHOSTUNREACH, "%s: %s", url->text, gai_strerror(r));
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
        if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen) == 0)
            break;
        code = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return error_system(err, code, "cannot connect to %s", url->text);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    *ret_fd = fd;
    return 0;
}

int nbd_url_connect(const struct nbd_url *url, int *ret_fd, struct error *err)
{
    return url->socket ? connect_unix(url, ret_fd, err) : connect_tcp(url, ret_fd, err);
}
