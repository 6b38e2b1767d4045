/* server.h - a disk offered to others by the NBD protocol: fixed newstyle, structured
 * replies, block status, any number of connections. No TLS: listen on a Unix socket or the
 * loopback, and leave the rest to SSH or a tunnel. */
#ifndef LODGE_STORAGE_NBD_SERVER_H
#define LODGE_STORAGE_NBD_SERVER_H

#include "base/loop.h"
#include "storage/disk.h"

struct nbd_server;

/* Serve disk, whose storage has this loop, to who connects to listen_fd (not owned,
 * non-blocking). name: the export's; clients that ask for "" get it too. The disk
 * outlives the server; it is offered for writing when it is open for that. */
int nbd_server_create(struct loop *loop, int listen_fd, struct disk *disk, const char *name,
                      struct nbd_server **ret_server, struct error *err);

/* Ends all connections, once what they asked for is done. NULL is ignored. */
void nbd_server_destroy(struct nbd_server *server);

#endif
