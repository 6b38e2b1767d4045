/* server.h - a disk offered to others by the NBD protocol: fixed newstyle, structured
 * replies, block status, any number of connections, TLS for who asks or for all. */
#ifndef LODGE_STORAGE_NBD_SERVER_H
#define LODGE_STORAGE_NBD_SERVER_H

#include "base/loop.h"
#include "storage/disk.h"
#include "storage/nbd/tls.h"

struct nbd_server;

struct nbd_server_options {
    const char *name; /* the export's; clients that ask for "" get it too. NULL: "" */
    const struct tls_credentials *credentials; /* of TLS_SERVER; NULL: no TLS. Outlive the server */
    bool tls_required;                         /* nothing is told or given to others */
};

/* Serve disk, whose storage has this loop, to who connects to listen_fd (not owned,
 * non-blocking). The disk outlives the server; it is offered for writing when it is
 * open for that. */
int nbd_server_create(struct loop *loop, int listen_fd, struct disk *disk,
                      const struct nbd_server_options *options, struct nbd_server **ret_server,
                      struct error *err);

/* Ends all connections, once what they asked for is done. NULL is ignored. */
void nbd_server_destroy(struct nbd_server *server);

#endif
