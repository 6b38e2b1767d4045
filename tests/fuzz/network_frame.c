/* Frames from guests and peers, and what they say of the work that is left: all that reads
 * them in src/network. Nothing outside the frame is touched, and what comes of it is no larger
 * than it may be. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "network/dhcp.h"
#include "network/dns.h"
#include "network/ndp.h"
#include "network/packet.h"
#include "network/udp.h"

#define HEADER 10u

static const struct dhcp_lease lease = {.guest.s_addr = 0x0200000a, .server.s_addr = 0x0100000a,
                                        .hostname = "guest", .domain = "lodge", .seconds = 60};

static void check_segment(void *opaque, uint8_t *frame, size_t length)
{
    size_t *total = opaque;

    if (length > NETWORK_FRAME_MAX || (*total += length) > 128u * NETWORK_FRAME_MAX)
        abort();
    packet_sum(frame, length, 0);
}

static void try_services(const uint8_t *frame, size_t length)
{
    uint8_t reply[DHCP_REPLY_MAX], answer[DNS_REPLY_MAX];
    const struct in_addr address = {0};
    struct dns_question question;
    const uint8_t *payload;
    struct udp_ends ends;
    size_t size;

    ndp_is_solicitation(frame, length);
    if (dhcp_answer(&lease, frame, length, reply) > sizeof(reply))
        abort();
    if (udp_parse(frame, length, &ends, &payload, &size) && payload + size > frame + length)
        abort();
    if (dns_parse(frame, length, &question) &&
        (strlen(question.name) > DNS_NAME_MAX ||
         dns_answer(frame, &question, DNS_NO_ERROR, &address, answer) > sizeof(answer)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct network_offload offload;
    size_t length = size - HEADER, total = 0;
    uint8_t *frame;

    if (size < HEADER || length > NETWORK_FRAME_MAX)
        return 0;
    offload = (struct network_offload){
        .flags = data[0], .gso_type = data[1], .header_size = load_le16(data + 2),
        .gso_size = load_le16(data + 4), .checksum_start = load_le16(data + 6),
        .checksum_offset = load_le16(data + 8),
    };
    frame = malloc(length ? length : 1); /* exactly so long, for the sanitizer */
    if (!frame)
        return 0;
    memcpy(frame, data + HEADER, length);
    try_services(frame, length);
    packet_complete(frame, length, &offload);
    packet_segment(frame, length, &offload, check_segment, &total);
    free(frame);
    return 0;
}
