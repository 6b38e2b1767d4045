#include "network/packet.h"

#include <string.h>

#include "base/bytes.h"

#define ETHERNET_SIZE  14u
#define IPV4_SIZE      20u
#define IPV6_SIZE      40u
#define TCP_SIZE       20u
#define PROTOCOL_TCP   6
#define SEGMENT_MIN    64u /* less payload a segment would be an attack */
#define TCP_FIN        0x01
#define TCP_PSH        0x08
#define TCP_CWR        0x80

/* Offsets of fields (RFC 791, 8200, 9293). */
enum { IPV4_LENGTH = 2, IPV4_ID = 4, IPV4_CHECKSUM = 10, IPV4_ADDRESSES = 12 };
enum { IPV6_LENGTH = 4, IPV6_NEXT = 6, IPV6_ADDRESSES = 8 };
enum { TCP_SEQUENCE = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16 };

/* Offsets in the header of a description. */
enum {
    HEADER_FLAGS = 0, HEADER_GSO_TYPE = 1, HEADER_LENGTH = 2, HEADER_GSO_SIZE = 4,
    HEADER_CHECKSUM_START = 6, HEADER_CHECKSUM_OFFSET = 8,
};

void packet_write_offload(uint8_t header[PACKET_OFFLOAD_SIZE],
                          const struct network_offload *offload)
{
    static const struct network_offload nothing;
    const struct network_offload *o = offload ? offload : &nothing;

    header[HEADER_FLAGS] = o->flags;
    header[HEADER_GSO_TYPE] = o->gso_type;
    store_le16(header + HEADER_LENGTH, o->header_size);
    store_le16(header + HEADER_GSO_SIZE, o->gso_size);
    store_le16(header + HEADER_CHECKSUM_START, o->checksum_start);
    store_le16(header + HEADER_CHECKSUM_OFFSET, o->checksum_offset);
}

void packet_read_offload(const uint8_t header[PACKET_OFFLOAD_SIZE],
                         struct network_offload *ret_offload)
{
    *ret_offload = (struct network_offload){
        .flags = header[HEADER_FLAGS],
        .gso_type = header[HEADER_GSO_TYPE],
        .header_size = load_le16(header + HEADER_LENGTH),
        .gso_size = load_le16(header + HEADER_GSO_SIZE),
        .checksum_start = load_le16(header + HEADER_CHECKSUM_START),
        .checksum_offset = load_le16(header + HEADER_CHECKSUM_OFFSET),
    };
}

uint32_t packet_sum(const uint8_t *bytes, size_t length, uint32_t sum)
{
    uint64_t total = sum;
    size_t i;

    for (i = 0; i + 4 <= length; i += 4)
        total += load_be32(bytes + i);
    if (i + 2 <= length) {
        total += load_be16(bytes + i);
        i += 2;
    }
    if (i < length)
        total += (uint32_t)bytes[i] << 8;
    while (total >> 32)
        total = (total & UINT32_MAX) + (total >> 32);
    return (total & 0xffff) + (total >> 16);
}

uint16_t packet_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

int packet_complete(uint8_t *frame, size_t length, const struct network_offload *offload)
{
    size_t start = offload->checksum_start, at = start + offload->checksum_offset;
    uint16_t sum;

    if (!(offload->flags & NETWORK_NEEDS_CHECKSUM))
        return 0;
    if (start >= length || at + 2 > length)
        return -EINVAL;
    /* The field holds the sum of the pseudo-header. */
    sum = (uint16_t)~packet_fold(packet_sum(frame + start, length - start, 0));
    store_be16(frame + at, sum ? sum : 0xffff); /* zero would mean none to UDP */
    return 0;
}

/* Where the parts of a TCP frame lie. */
struct layout {
    bool ipv6;
    size_t ip, tcp, payload;
};

static int find_layout(const uint8_t *frame, size_t length, const struct network_offload *offload,
                       struct layout *ret_layout)
{
    struct layout l = {.ip = ETHERNET_SIZE, .tcp = offload->checksum_start};
    size_t header;

    l.ipv6 = (offload->gso_type & ~NETWORK_GSO_ECN) == NETWORK_GSO_TCP6;
    header = l.ipv6 ? IPV6_SIZE : IPV4_SIZE;
    if (length > NETWORK_FRAME_MAX || l.tcp < l.ip + header || l.tcp + TCP_SIZE > length)
        return -EINVAL;
    if (frame[l.ip] >> 4 != (l.ipv6 ? 6 : 4))
        return -EINVAL;
    if (!l.ipv6 && ((size_t)(frame[l.ip] & 15) * 4 != l.tcp - l.ip ||
                    frame[l.ip + 9] != PROTOCOL_TCP))
        return -EINVAL;
    l.payload = l.tcp + (size_t)(frame[l.tcp + TCP_OFFSET] >> 4) * 4;
    if (l.payload < l.tcp + TCP_SIZE || l.payload > length)
        return -EINVAL;
    *ret_layout = l;
    return 0;
}

/* Set the lengths and checksums of a segment of length bytes. */
static void finish_segment(uint8_t *frame, size_t length, const struct layout *l)
{
    uint8_t *ip = frame + l->ip, *tcp = frame + l->tcp;
    uint32_t sum = (uint32_t)(length - l->tcp) + PROTOCOL_TCP;

    if (l->ipv6) {
        store_be16(ip + IPV6_LENGTH, (uint16_t)(length - l->ip - IPV6_SIZE));
        sum = packet_sum(ip + IPV6_ADDRESSES, 32, sum);
    } else {
        store_be16(ip + IPV4_LENGTH, (uint16_t)(length - l->ip));
        store_be16(ip + IPV4_CHECKSUM, 0);
        store_be16(ip + IPV4_CHECKSUM,
                   (uint16_t)~packet_fold(packet_sum(ip, l->tcp - l->ip, 0)));
        sum = packet_sum(ip + IPV4_ADDRESSES, 8, sum);
    }
    store_be16(tcp + TCP_CHECKSUM, 0);
    store_be16(tcp + TCP_CHECKSUM,
               (uint16_t)~packet_fold(packet_sum(tcp, length - l->tcp, sum)));
}

int packet_segment(uint8_t *frame, size_t length, const struct network_offload *offload,
                   void (*emit)(void *opaque, uint8_t *frame, size_t length), void *opaque)
{
    uint8_t segment[NETWORK_FRAME_MAX];
    struct layout l;
    uint32_t sequence;
    uint16_t id;
    uint8_t flags;

    if (offload->gso_type == NETWORK_GSO_NONE) {
        int r = packet_complete(frame, length, offload);

        if (r == 0)
            emit(opaque, frame, length);
        return r;
    }
    if (!(offload->flags & NETWORK_NEEDS_CHECKSUM) || offload->gso_size < SEGMENT_MIN ||
        find_layout(frame, length, offload, &l) < 0)
        return -EINVAL;
    sequence = load_be32(frame + l.tcp + TCP_SEQUENCE);
    id = load_be16(frame + l.ip + IPV4_ID);
    flags = frame[l.tcp + TCP_FLAGS];
    memcpy(segment, frame, l.payload);
    for (size_t at = l.payload, n = 0; at < length || !n; at += offload->gso_size, n++) {
        size_t part = MIN(length - at, (size_t)offload->gso_size);
        bool last = at + part == length;

        memcpy(segment + l.payload, frame + at, part);
        if (!l.ipv6)
            store_be16(segment + l.ip + IPV4_ID, (uint16_t)(id + n));
        store_be32(segment + l.tcp + TCP_SEQUENCE, (uint32_t)(sequence + at - l.payload));
        /* The end's flags belong to the last, the congestion mark to the first. */
        segment[l.tcp + TCP_FLAGS] =
            (uint8_t)(flags & ~((last ? 0 : TCP_FIN | TCP_PSH) | (n ? TCP_CWR : 0)));
        finish_segment(segment, l.payload + part, &l);
        emit(opaque, segment, l.payload + part);
    }
    return 0;
}
