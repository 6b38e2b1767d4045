/* udp.h - UDP over IPv4 over Ethernet (RFC 768, 791), for the few services that are
 * answered to a guest frame by frame. */
#ifndef LODGE_NETWORK_UDP_H
#define LODGE_NETWORK_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UDP_HEADERS 42u /* Ethernet, IPv4 without options, UDP */

struct udp_ends {
    uint8_t from_mac[6], to_mac[6];
    struct in_addr from, to;
    uint16_t from_port, to_port;
};

/* Is the frame a whole datagram? Then who sends it to whom, and what: a part of frame. */
bool udp_parse(const uint8_t *frame, size_t length, struct udp_ends *ret_ends,
               const uint8_t **ret_payload, size_t *ret_size);

/* Write the headers of a frame that carries size bytes behind them; its whole length. */
size_t udp_put_headers(uint8_t *frame, const struct udp_ends *ends, size_t size);

#endif
