/* socket.h - the Unix sockets that the ecosystem hands to a runtime, and the
 * descriptors sent over them. */
#ifndef LODGE_CONTAINER_SOCKET_H
#define LODGE_CONTAINER_SOCKET_H

#include <stddef.h>

#include "base/error.h"

/* Connect to the stream socket at path. Returns the descriptor. */
int socket_connect(const char *path, struct error *err);

/* Send text and one descriptor. Negative errno. */
int socket_send_fd(int socket_fd, int fd, const char *text, size_t length);
/* Receive one descriptor; the text is dropped. Negative errno; -EPROTO: none came. */
int socket_receive_fd(int socket_fd);

#endif
