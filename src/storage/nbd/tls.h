/* tls.h - TLS 1.2 and 1.3 by OpenSSL, for fibers: a session turns the bytes of a
 * socket into those of its peer, and gives way while it waits for the socket.
 * OpenSSL itself sees memory only. It is loaded with the first credentials. */
#ifndef LODGE_STORAGE_NBD_TLS_H
#define LODGE_STORAGE_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct storage;
struct tls_credentials;
struct tls;

enum tls_side { TLS_CLIENT, TLS_SERVER };

/* What a side proves itself by and whom it believes. In folder, PEM files by the names
 * that QEMU, nbdkit and libnbd use: ca-cert.pem; server-cert.pem and server-key.pem, or
 * client-cert.pem and client-key.pem, which a client may lack. NULL folder: a client that
 * believes the system's authorities. verify: a server takes only clients with
 * a certificate of ca-cert.pem; clients always verify. */
int tls_credentials_load(enum tls_side side, const char *folder, bool verify,
                         struct tls_credentials **ret_credentials, struct error *err);
/* Sessions keep what they need. NULL is ignored. */
void tls_credentials_free(struct tls_credentials *credentials);

/* Shake hands over a connected socket, which is the caller's and stays it. host: of a client,
 * the name or IP address that the server's certificate must be for; NULL: the server's side.
 * -EPROTO with the reason when one side does not believe the other. From a fiber, as all
 * that follows. */
int tls_start(const struct tls_credentials *credentials, struct storage *storage, int fd,
              const char *host, struct tls **ret_tls, struct error *err);
/* Some bytes: how many, 0 at the end, or a negative errno. One fiber at a time each. */
int tls_receive(struct tls *tls, void *buffer, size_t length);
int tls_send(struct tls *tls, const void *buffer, size_t length);
/* Tell the peer, if it can still be told, and free. NULL is ignored. */
void tls_end(struct tls *tls);

#endif
