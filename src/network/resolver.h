/* resolver.h - answers questions for names on behalf of guests: the names of guests, and all
 * others from the host's name server. How questions come and answers go is the user's
 * matter. */
#ifndef LODGE_NETWORK_RESOLVER_H
#define LODGE_NETWORK_RESOLVER_H

#include "base/log.h"
#include "base/loop.h"
#include "network/udp.h"

/* Guests are known as NAME and as NAME.lodge. */
#define RESOLVER_DOMAIN "lodge"
#define RESOLVER_PORT   53
#define RESOLVER_MESSAGE_MAX 1472u /* what fits into one frame */

struct resolver_ops {
    /* The address of a guest by its name; false when there is none of that name. */
    bool (*find)(void *opaque, const char *name, struct in_addr *ret_address);
    /* An answer to who asked. */
    void (*reply)(void *opaque, const struct udp_ends *asker, const uint8_t *message, size_t size);
    void *opaque;
};

struct resolver;

/* Without a name server of the host, or a way to it, only the names of guests are known. */
int resolver_create(const struct resolver_ops *ops, struct loop *loop, const struct log *log,
                    struct resolver **ret_resolver, struct error *err);
void resolver_destroy(struct resolver *resolver); /* NULL is ignored */

/* A question; the answer comes at once, or later, or not at all. */
void resolver_ask(struct resolver *resolver, const struct udp_ends *asker, const uint8_t *query,
                  size_t size);

#endif
