#include "network/gateway.h"

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
#include "network/dhcp.h"
#include "network/dns.h"
#include "network/ndp.h"
#include "network/udp.h"

#define LEASE_SECONDS 86400
#define PORT_DNS      53
#define MESSAGE_MAX   1472u /* of DNS, in one frame */
#define MESSAGE_MIN   12u   /* its header */
#define FLAG_TRUNCATED 0x02 /* in the header's third byte */
#define PENDING_MAX   64u   /* questions asked of the host's name server; a power of two */

/* A question that waits for the host's name server: its answer goes back to these ends. */
struct pending {
    bool used;
    uint16_t id; /* as the guest has it */
    uint16_t our_id;
    struct udp_ends ends;
};

struct gateway {
    struct network_guest guest;
    const struct log *log;
    struct dhcp_lease lease;
    char hostname[DHCP_NAME_MAX + 1];
    bool ipv6;
    struct ndp_router router;
    struct loop_source *advertise_timer;
    bool (*find)(void *opaque, const char *name, struct in_addr *ret_address);
    void *opaque;
    int server_fd; /* to the host's name server, or -1 */
    struct loop_source *server;
    unsigned next_pending;
    struct pending pending[PENDING_MAX];
};

static void give(struct gateway *gateway, const uint8_t *frame, size_t length)
{
    gateway->guest.receive(gateway->guest.opaque, NULL, frame, length);
}

/* --- Names --- */

/* The first name server in /etc/resolv.conf: a connected socket, or -1. */
static int connect_name_server(void)
{
    AUTO_FCLOSE FILE *file = fopen("/etc/resolv.conf", "re");
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(PORT_DNS)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT_DNS)};
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

/* Back to who asked, from the address that was asked. */
static void answer(struct gateway *gateway, const struct udp_ends *asked, const uint8_t *message,
                   size_t size)
{
    struct udp_ends ends = {.from = asked->to, .to = asked->from,
                            .from_port = asked->to_port, .to_port = asked->from_port};
    uint8_t frame[UDP_HEADERS + MESSAGE_MAX];

    memcpy(ends.from_mac, gateway->lease.server_mac, sizeof(ends.from_mac));
    memcpy(ends.to_mac, asked->from_mac, sizeof(ends.to_mac));
    memcpy(frame + UDP_HEADERS, message, size);
    give(gateway, frame, udp_put_headers(frame, &ends, size));
}

/* Ask the host's name server, under a number of ours that is hard to guess. */
static void ask_on(struct gateway *gateway, const struct udp_ends *ends, const uint8_t *query,
                   size_t size)
{
    struct pending *pending = &gateway->pending[gateway->next_pending++ % PENDING_MAX];
    uint8_t message[MESSAGE_MAX];
    uint16_t id;

    if (gateway->server_fd < 0 || size > sizeof(message) ||
        getrandom(&id, sizeof(id), 0) != sizeof(id))
        return;
    *pending = (struct pending){true, load_be16(query), id, *ends};
    memcpy(message, query, size);
    store_be16(message, id);
    if (send(gateway->server_fd, message, size, MSG_NOSIGNAL) < 0)
        log_debug(gateway->log, "the host's name server: %s", strerror(errno));
}

static void server_answers(void *opaque, uint32_t events)
{
    struct gateway *gateway = opaque;
    uint8_t message[MESSAGE_MAX];
    ssize_t n = recv(gateway->server_fd, message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);

    (void)events;
    if (n < (ssize_t)MESSAGE_MIN)
        return; /* or it was an error of the socket, which is thereby taken off it */
    if ((size_t)n > sizeof(message)) { /* too long for a frame: the guest is told so */
        message[2] |= FLAG_TRUNCATED;
        memset(message + 4, 0, MESSAGE_MIN - 4);
        n = MESSAGE_MIN;
    }
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *pending = &gateway->pending[i];

        if (!pending->used || pending->our_id != load_be16(message))
            continue;
        pending->used = false;
        store_be16(message, pending->id);
        answer(gateway, &pending->ends, message, (size_t)n);
        return;
    }
}

/* Cut ".lodge" off. */
static bool cut_domain(char *name)
{
    char *dot = strrchr(name, '.');

    if (!dot || strcmp(dot + 1, GATEWAY_DOMAIN) != 0)
        return false;
    *dot = 0;
    return true;
}

static void take_question(struct gateway *gateway, const struct udp_ends *ends,
                          const uint8_t *query, size_t size)
{
    struct dns_question question;
    uint8_t reply[DNS_REPLY_MAX];
    struct in_addr address;
    bool ours, known;

    if (!dns_parse(query, size, &question)) {
        if (size >= MESSAGE_MIN)
            ask_on(gateway, ends, query, size); /* somebody else may understand it */
        return;
    }
    ours = cut_domain(question.name);
    known = gateway->find && gateway->find(gateway->opaque, question.name, &address);
    if (known || ours)
        answer(gateway, ends, reply,
               dns_answer(query, &question, known ? DNS_NO_ERROR : DNS_NO_NAME,
                          known && question.type == DNS_TYPE_A ? &address : NULL, reply));
    else
        ask_on(gateway, ends, query, size);
}

/* --- Addresses --- */

static void advertise(struct gateway *gateway)
{
    uint8_t frame[NDP_ADVERTISEMENT_MAX];

    give(gateway, frame, ndp_advertise(&gateway->router, frame));
    loop_arm_timer(gateway->advertise_timer,
                   loop_now_ns() + NDP_PERIOD_SECONDS * 1000000000ull);
}

static void advertise_again(void *opaque)
{
    advertise(opaque);
}

/* --- The whole --- */

bool gateway_take(struct gateway *gateway, const uint8_t *frame, size_t length)
{
    uint8_t reply[DHCP_REPLY_MAX];
    const uint8_t *payload;
    struct udp_ends ends;
    size_t size;

    if (udp_parse(frame, length, &ends, &payload, &size)) {
        size_t n = dhcp_answer(&gateway->lease, frame, length, reply);

        if (n) {
            give(gateway, reply, n);
            return true;
        }
        if (ends.to.s_addr != gateway->lease.server.s_addr || ends.to_port != PORT_DNS)
            return false;
        take_question(gateway, &ends, payload, size);
        return true;
    }
    if (gateway->ipv6 && ndp_is_solicitation(frame, length)) {
        advertise(gateway);
        return true;
    }
    return false;
}

void gateway_destroy(struct gateway *gateway)
{
    if (!gateway)
        return;
    loop_remove(gateway->advertise_timer);
    loop_remove(gateway->server);
    if (gateway->server_fd >= 0)
        close(gateway->server_fd);
    free(gateway);
}

static void fill_in(struct gateway *gateway, const struct gateway_config *config)
{
    gateway->ipv6 = config->ipv6;
    gateway->find = config->find;
    gateway->opaque = config->opaque;
    gateway->log = config->log;
    gateway->lease = (struct dhcp_lease){
        .server = subnet_host(&config->subnet),
        .guest = config->guest,
        .netmask.s_addr = htonl(subnet_mask(&config->subnet)),
        .dns = subnet_host(&config->subnet),
        .domain = GATEWAY_DOMAIN,
        .seconds = LEASE_SECONDS,
    };
    memcpy(gateway->lease.server_mac, config->mac, NETWORK_MAC_SIZE);
    if (config->hostname) {
        snprintf(gateway->hostname, sizeof(gateway->hostname), "%s", config->hostname);
        gateway->lease.hostname = gateway->hostname;
    }
    gateway->router = (struct ndp_router){
        .address = {.s6_addr = {0xfe, 0x80, [15] = 1}},
        .prefix = subnet_host_ipv6(&config->subnet),
    };
    memcpy(gateway->router.mac, config->mac, NETWORK_MAC_SIZE);
}

int gateway_create(const struct gateway_config *config, struct loop *loop,
                   const struct network_guest *guest, struct gateway **ret_gateway,
                   struct error *err)
{
    struct gateway *gateway = calloc(1, sizeof(*gateway));
    int r;

    if (!gateway)
        return error_set(err, ENOMEM, "out of memory");
    gateway->guest = *guest;
    fill_in(gateway, config);
    gateway->server_fd = connect_name_server();
    r = loop_add_timer(loop, advertise_again, gateway, &gateway->advertise_timer, err);
    if (r == 0 && gateway->server_fd >= 0)
        r = loop_add_fd(loop, gateway->server_fd, EPOLLIN, server_answers, gateway,
                        &gateway->server, err);
    if (r < 0) {
        gateway_destroy(gateway);
        return r;
    }
    *ret_gateway = gateway;
    return 0;
}
