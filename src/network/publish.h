/* publish.h - ports of the host that lead to a guest, as people write them:
 *
 *     [ADDRESS:]HOST[-LAST]:GUEST[-LAST][/tcp|/udp]     127.0.0.1:8080-8089:80-89/tcp
 */
#ifndef LODGE_NETWORK_PUBLISH_H
#define LODGE_NETWORK_PUBLISH_H

#include "network/network.h"

#define PUBLISH_MAX 1024 /* ports of one guest */

/* Add what text says to a list of *count, which grows by realloc; the caller frees it.
 * Without an address 127.0.0.1 is meant. -EINVAL with what is wrong. */
int publish_parse(const char *text, struct network_publish **list, unsigned *count,
                  struct error *err);

/* "127.0.0.1:8080->80/tcp", for messages. */
#define PUBLISH_TEXT_MAX 48
const char *publish_format(const struct network_publish *publish, char text[PUBLISH_TEXT_MAX]);

/* Take the port of the host by a socket that is bound and never read, so that nobody else
 * thinks it is free. Its descriptor, or -EADDRINUSE and the like with one line. */
int publish_reserve(const struct network_publish *publish, struct error *err);

#endif
