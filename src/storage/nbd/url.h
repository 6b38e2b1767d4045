/* url.h - names of NBD exports, as the NBD URI specification writes them, with libnbd's
 * words for TLS (private to this folder):
 *
 *   nbd://HOST[:PORT][/EXPORT]              nbd+unix:///EXPORT?socket=PATH
 *   nbds://HOST[:PORT][/EXPORT][?OPTIONS]   nbds+unix:///EXPORT?socket=PATH[&OPTIONS]
 *
 * where OPTIONS are tls-certificates=FOLDER and tls-hostname=NAME, joined by '&'. */
#ifndef LODGE_STORAGE_NBD_URL_H
#define LODGE_STORAGE_NBD_URL_H

#include <stdbool.h>

#include "base/error.h"

#define NBD_URL_TCP      "nbd://"
#define NBD_URL_UNIX     "nbd+unix://"
#define NBD_URL_TLS_TCP  "nbds://"
#define NBD_URL_TLS_UNIX "nbds+unix://"

struct nbd_url {
    const char *text; /* the whole, for messages; the caller's */
    bool tls;
    char *socket;           /* a Unix socket's path, or NULL */
    char *host, *port;      /* otherwise these */
    char *name;             /* the export's, perhaps "" */
    char *tls_certificates; /* a folder, or NULL */
    char *tls_hostname;     /* whom the server's certificate is for */
};

/* Fills ret_url, which nbd_url_free clears, also after a failure. -EINVAL with the reason. */
int nbd_url_parse(const char *text, struct nbd_url *ret_url, struct error *err);
void nbd_url_free(struct nbd_url *url);

/* A connected socket, of the caller's from then on. Waits for the connection. */
int nbd_url_connect(const struct nbd_url *url, int *ret_fd, struct error *err);

#endif
