#include "storage/nbd/link.h"

#include <errno.h>

#include "base/bytes.h"

static int receive_some(struct link *link, void *buffer, size_t length)
{
    return link->tls ? tls_receive(link->tls, buffer, length)
                     : io_receive(link->storage, link->fd, buffer, length);
}

static int send_some(struct link *link, const void *buffer, size_t length)
{
    return link->tls ? tls_send(link->tls, buffer, length)
                     : io_send(link->storage, link->fd, buffer, length);
}

int link_receive(struct link *link, void *buffer, size_t length)
{
    uint8_t *p = buffer;

    while (length) {
        int n = receive_some(link, p, MIN(length, 1u << 30));

        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0)
            return n < 0 ? n : -EPIPE;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int link_send(struct link *link, const void *buffer, size_t length)
{
    const uint8_t *p = buffer;

    while (length) {
        int n = send_some(link, p, MIN(length, 1u << 30));

        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0)
            return n < 0 ? n : -EPIPE;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int link_start_tls(struct link *link, const struct tls_credentials *credentials, const char *host,
                   struct error *err)
{
    return tls_start(credentials, link->storage, link->fd, host, &link->tls, err);
}

void link_end(struct link *link)
{
    tls_end(link->tls);
    link->tls = NULL;
}
