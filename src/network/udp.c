#include "network/udp.h"

#include <string.h>

#include "base/bytes.h"
#include "network/packet.h"

#define ETHERNET_SIZE 14u
#define IPV4_SIZE     20u
#define UDP_SIZE      8u
#define TYPE_IPV4     0x0800
#define PROTOCOL_UDP  17
#define FRAGMENT      0x3fff /* more fragments, or an offset */

enum { ETHERNET_SOURCE = 6, ETHERNET_TYPE = 12 };
enum { IPV4_LENGTH = 2, IPV4_FRAGMENT = 6, IPV4_TTL = 8, IPV4_PROTOCOL = 9, IPV4_CHECKSUM = 10,
       IPV4_SOURCE = 12, IPV4_TARGET = 16 };
enum { UDP_SOURCE = 0, UDP_TARGET = 2, UDP_LENGTH = 4 };

bool udp_parse(const uint8_t *frame, size_t length, struct udp_ends *ret_ends,
               const uint8_t **ret_payload, size_t *ret_size)
{
    const uint8_t *ip = frame + ETHERNET_SIZE, *udp = ip + IPV4_SIZE;
    size_t size;

    if (length < UDP_HEADERS || load_be16(frame + ETHERNET_TYPE) != TYPE_IPV4 || ip[0] != 0x45 ||
        ip[IPV4_PROTOCOL] != PROTOCOL_UDP || (load_be16(ip + IPV4_FRAGMENT) & FRAGMENT))
        return false;
    size = load_be16(udp + UDP_LENGTH);
    if (size < UDP_SIZE || size > length - ETHERNET_SIZE - IPV4_SIZE)
        return false;
    memcpy(ret_ends->to_mac, frame, 6);
    memcpy(ret_ends->from_mac, frame + ETHERNET_SOURCE, 6);
    memcpy(&ret_ends->from, ip + IPV4_SOURCE, 4);
    memcpy(&ret_ends->to, ip + IPV4_TARGET, 4);
    ret_ends->from_port = load_be16(udp + UDP_SOURCE);
    ret_ends->to_port = load_be16(udp + UDP_TARGET);
    *ret_payload = frame + UDP_HEADERS;
    *ret_size = size - UDP_SIZE;
    return true;
}

size_t udp_put_headers(uint8_t *frame, const struct udp_ends *ends, size_t size)
{
    uint8_t *ip = frame + ETHERNET_SIZE, *udp = ip + IPV4_SIZE;

    memset(frame, 0, UDP_HEADERS);
    memcpy(frame, ends->to_mac, 6);
    memcpy(frame + ETHERNET_SOURCE, ends->from_mac, 6);
    store_be16(frame + ETHERNET_TYPE, TYPE_IPV4);
    ip[0] = 0x45;
    store_be16(ip + IPV4_LENGTH, (uint16_t)(IPV4_SIZE + UDP_SIZE + size));
    ip[IPV4_TTL] = 64;
    ip[IPV4_PROTOCOL] = PROTOCOL_UDP;
    memcpy(ip + IPV4_SOURCE, &ends->from, 4);
    memcpy(ip + IPV4_TARGET, &ends->to, 4);
    store_be16(ip + IPV4_CHECKSUM, (uint16_t)~packet_fold(packet_sum(ip, IPV4_SIZE, 0)));
    store_be16(udp + UDP_SOURCE, ends->from_port);
    store_be16(udp + UDP_TARGET, ends->to_port);
    store_be16(udp + UDP_LENGTH, (uint16_t)(UDP_SIZE + size)); /* no checksum: zero */
    return UDP_HEADERS + size;
}
