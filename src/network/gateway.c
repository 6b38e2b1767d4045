#include "network/gateway.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "network/dhcp.h"
#include "network/ndp.h"
#include "network/resolver.h"
#include "network/udp.h"

#define LEASE_SECONDS 86400

struct gateway {
    struct network_guest guest;
    struct dhcp_lease lease;
    char hostname[DHCP_NAME_MAX + 1];
    bool ipv6;
    struct ndp_router router;
    struct loop_source *advertise_timer;
    bool (*find)(void *opaque, const char *name, struct in_addr *ret_address);
    void *opaque;
    struct resolver *resolver;
};

static void give(struct gateway *gateway, const uint8_t *frame, size_t length)
{
    gateway->guest.receive(gateway->guest.opaque, NULL, frame, length);
}

/* --- Names --- */

static bool find(void *opaque, const char *name, struct in_addr *ret_address)
{
    struct gateway *gateway = opaque;

    return gateway->find && gateway->find(gateway->opaque, name, ret_address);
}

/* Back to who asked, from the address that was asked. */
static void answer(void *opaque, const struct udp_ends *asked, const uint8_t *message, size_t size)
{
    struct gateway *gateway = opaque;
    struct udp_ends ends = {.from = asked->to, .to = asked->from,
                            .from_port = asked->to_port, .to_port = asked->from_port};
    uint8_t frame[UDP_HEADERS + RESOLVER_MESSAGE_MAX];

    memcpy(ends.from_mac, gateway->lease.server_mac, sizeof(ends.from_mac));
    memcpy(ends.to_mac, asked->from_mac, sizeof(ends.to_mac));
    memcpy(frame + UDP_HEADERS, message, size);
    give(gateway, frame, udp_put_headers(frame, &ends, size));
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
        if (ends.to.s_addr != gateway->lease.server.s_addr || ends.to_port != RESOLVER_PORT)
            return false;
        resolver_ask(gateway->resolver, &ends, payload, size);
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
    resolver_destroy(gateway->resolver);
    free(gateway);
}

static void fill_in(struct gateway *gateway, const struct gateway_config *config)
{
    gateway->ipv6 = config->ipv6;
    gateway->find = config->find;
    gateway->opaque = config->opaque;
    gateway->lease = (struct dhcp_lease){
        .server = subnet_host(&config->subnet),
        .guest = config->guest,
        .netmask.s_addr = htonl(subnet_mask(&config->subnet)),
        .dns = subnet_host(&config->subnet),
        .domain = RESOLVER_DOMAIN,
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
    const struct resolver_ops resolver = {find, answer, gateway};
    int r;

    if (!gateway)
        return error_set(err, ENOMEM, "out of memory");
    gateway->guest = *guest;
    fill_in(gateway, config);
    r = loop_add_timer(loop, advertise_again, gateway, &gateway->advertise_timer, err);
    if (r == 0)
        r = resolver_create(&resolver, loop, config->log, &gateway->resolver, err);
    if (r < 0) {
        gateway_destroy(gateway);
        return r;
    }
    *ret_gateway = gateway;
    return 0;
}
