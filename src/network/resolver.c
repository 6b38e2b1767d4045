#include "network/resolver.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/dns.h"

#define MESSAGE_MIN    12u  /* its header */
#define FLAG_TRUNCATED 0x02 /* in the header's third byte */
#define PENDING_MAX    64u  /* questions asked of the host's name server; older ones are lost */

/* A question that waits for the host's name server: its answer goes back to the asker. */
struct pending {
    bool used;
    uint16_t id; /* as the guest has it */
    uint16_t our_id;
    struct udp_ends asker;
};

struct resolver {
    struct resolver_ops ops;
    const struct log *log;
    int server_fd; /* to the host's name server, or -1 */
    struct loop_source *server;
    unsigned next_pending;
    struct pending pending[PENDING_MAX];
};

/* --- The host's name server --- */

/* The first name server in /etc/resolv.conf: a connected socket, or -1. */
static int connect_name_server(void)
{
    AUTO_FCLOSE FILE *file = fopen("/etc/resolv.conf", "re");
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(RESOLVER_PORT)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(RESOLVER_PORT)};
    char line[256], text[64];

    while (file && fgets(line, sizeof(line), file)) {
        AUTO_CLOSE int fd = -1;
        int r = -1;

        if (sscanf(line, "nameserver %63s", text) != 1)
            continue;
        if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
            fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            r = connect(fd, (const struct sockaddr *)&in, sizeof(in));
        } else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1) {
            fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            r = connect(fd, (const struct sockaddr *)&in6, sizeof(in6));
        }
        if (r == 0)
            return steal_fd(&fd);
    }
    return -1;
}

/* Ask the host's name server, under a number of ours that is hard to guess. */
static void ask_on(struct resolver *resolver, const struct udp_ends *asker, const uint8_t *query,
                   size_t size)
{
    struct pending *pending = &resolver->pending[resolver->next_pending++ % PENDING_MAX];
    uint8_t message[RESOLVER_MESSAGE_MAX];
    uint16_t id;

    if (resolver->server_fd < 0 || size > sizeof(message) ||
        getrandom(&id, sizeof(id), 0) != sizeof(id))
        return;
    *pending = (struct pending){true, load_be16(query), id, *asker};
    memcpy(message, query, size);
    store_be16(message, id);
    if (send(resolver->server_fd, message, size, MSG_NOSIGNAL) < 0)
        log_debug(resolver->log, "the host's name server: %s", strerror(errno));
}

static void server_answers(void *opaque, uint32_t events)
{
    struct resolver *resolver = opaque;
    uint8_t message[RESOLVER_MESSAGE_MAX];
    ssize_t n = recv(resolver->server_fd, message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);

    (void)events;
    if (n < (ssize_t)MESSAGE_MIN)
        return; /* or it was an error of the socket, which is thereby taken off it */
    if ((size_t)n > sizeof(message)) { /* too long for a frame: the guest is told so */
        message[2] |= FLAG_TRUNCATED;
        memset(message + 4, 0, MESSAGE_MIN - 4);
        n = MESSAGE_MIN;
    }
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *pending = &resolver->pending[i];

        if (!pending->used || pending->our_id != load_be16(message))
            continue;
        pending->used = false;
        store_be16(message, pending->id);
        resolver->ops.reply(resolver->ops.opaque, &pending->asker, message, (size_t)n);
        return;
    }
}

/* --- Questions --- */

/* Cut ".lodge" off. */
static bool cut_domain(char *name)
{
    char *dot = strrchr(name, '.');

    if (!dot || strcmp(dot + 1, RESOLVER_DOMAIN) != 0)
        return false;
    *dot = 0;
    return true;
}

void resolver_ask(struct resolver *resolver, const struct udp_ends *asker, const uint8_t *query,
                  size_t size)
{
    struct dns_question question;
    uint8_t reply[DNS_REPLY_MAX];
    struct in_addr address;
    bool ours, known;

    if (!dns_parse(query, size, &question)) {
        if (size >= MESSAGE_MIN)
            ask_on(resolver, asker, query, size); /* somebody else may understand it */
        return;
    }
    ours = cut_domain(question.name);
    known = resolver->ops.find(resolver->ops.opaque, question.name, &address);
    if (known || ours)
        resolver->ops.reply(
            resolver->ops.opaque, asker, reply,
            dns_answer(query, &question, known ? DNS_NO_ERROR : DNS_NO_NAME,
                       known && question.type == DNS_TYPE_A ? &address : NULL, reply));
    else
        ask_on(resolver, asker, query, size);
}

/* --- The whole --- */

void resolver_destroy(struct resolver *resolver)
{
    if (!resolver)
        return;
    loop_remove(resolver->server);
    if (resolver->server_fd >= 0)
        close(resolver->server_fd);
    free(resolver);
}

int resolver_create(const struct resolver_ops *ops, struct loop *loop, const struct log *log,
                    struct resolver **ret_resolver, struct error *err)
{
    struct resolver *resolver = calloc(1, sizeof(*resolver));
    int r = 0;

    if (!resolver)
        return error_set(err, ENOMEM, "out of memory");
    resolver->ops = *ops;
    resolver->log = log;
    resolver->server_fd = connect_name_server();
    if (resolver->server_fd >= 0)
        r = loop_add_fd(loop, resolver->server_fd, EPOLLIN, server_answers, resolver,
                        &resolver->server, err);
    if (r < 0) {
        resolver_destroy(resolver);
        return r;
    }
    *ret_resolver = resolver;
    return 0;
}
