/* dhcp.h - answers a guest's DHCP requests (RFC 2131, 2132) with the one address
 * that it is to have, so that a private network needs no server. */
#ifndef LODGE_NETWORK_DHCP_H
#define LODGE_NETWORK_DHCP_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

struct dhcp_lease {
    uint8_t server_mac[6];
    struct in_addr server; /* the router, too */
    struct in_addr guest, netmask;
    struct in_addr dns; /* 0: none */
    const char *hostname, *domain; /* of the guest, at most DHCP_NAME_MAX bytes; or NULL */
    uint32_t seconds;
};

#define DHCP_NAME_MAX  64
#define DHCP_REPLY_MAX 640

/* The reply to an Ethernet frame: its length, or 0 when there is none to give. */
size_t dhcp_answer(const struct dhcp_lease *lease, const uint8_t *frame, size_t length,
                   uint8_t reply[DHCP_REPLY_MAX]);

#endif
