/* link.h - the bytes of one NBD connection, over its socket as they are or within
 * TLS (private to this folder). All calls are made from fibers; one fiber at a time
 * may receive and one may send. */
#ifndef LODGE_STORAGE_NBD_LINK_H
#define LODGE_STORAGE_NBD_LINK_H

#include <stddef.h>

#include "base/error.h"
#include "storage/io.h"
#include "storage/nbd/tls.h"

struct link {
    struct storage *storage;
    int fd;          /* the owner's */
    struct tls *tls; /* NULL: plain */
};

/* All length bytes: 0, or a negative errno; -EPIPE when the peer is gone. */
int link_receive(struct link *link, void *buffer, size_t length);
int link_send(struct link *link, const void *buffer, size_t length);

/* From here on within TLS. host: a client's, the name or the IP address that the
 * server's certificate has to be for; NULL: we are the server. */
int link_start_tls(struct link *link, const struct tls_credentials *credentials, const char *host,
                   struct error *err);

/* Says goodbye as TLS wants it, as far as the peer still listens, and frees what
 * link_start_tls made. The socket stays open. */
void link_end(struct link *link);

#endif
