#include "network/dhcp.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "network/udp.h"

#define BOOTP_SIZE    236u
#define COOKIE        0x63825363u
#define PORT_SERVER   67
#define PORT_CLIENT   68

/* The fixed part of a message (RFC 2131, figure 1). */
enum {
    BOOTP_OP = 0, BOOTP_HARDWARE = 1, BOOTP_XID = 4, BOOTP_FLAGS = 10, BOOTP_CLIENT = 12,
    BOOTP_YOUR = 16, BOOTP_SERVER = 20, BOOTP_CHADDR = 28,
};
enum { OP_REQUEST = 1, OP_REPLY = 2 };

/* Options (RFC 2132). */
enum {
    OPTION_PAD = 0, OPTION_NETMASK = 1, OPTION_ROUTER = 3, OPTION_DNS = 6, OPTION_HOSTNAME = 12,
    OPTION_DOMAIN = 15, OPTION_WANTED = 50, OPTION_LEASE = 51, OPTION_TYPE = 53,
    OPTION_SERVER = 54, OPTION_END = 255,
};
enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5, NAK = 6, INFORM = 8 };

/* The value of an option that is size bytes long, or NULL. */
static const uint8_t *find_option(const uint8_t *options, size_t length, uint8_t code, size_t size)
{
    for (size_t i = 0; i < length && options[i] != OPTION_END;) {
        if (options[i] == OPTION_PAD) {
            i++;
            continue;
        }
        if (i + 2 > length || options[i + 1] > length - i - 2)
            return NULL;
        if (options[i] == code)
            return options[i + 1] == size ? options + i + 2 : NULL;
        i += 2u + options[i + 1];
    }
    return NULL;
}

static uint8_t *put_option(uint8_t *at, uint8_t code, const void *value, size_t size)
{
    at[0] = code;
    at[1] = (uint8_t)size;
    memcpy(at + 2, value, size);
    return at + 2 + size;
}

static uint8_t *put_options(uint8_t *at, const struct dhcp_lease *lease, uint8_t type)
{
    const uint32_t seconds = htobe32(lease->seconds);

    at = put_option(at, OPTION_TYPE, &type, 1);
    at = put_option(at, OPTION_SERVER, &lease->server, 4);
    if (type != NAK) {
        at = put_option(at, OPTION_LEASE, &seconds, 4);
        at = put_option(at, OPTION_NETMASK, &lease->netmask, 4);
        at = put_option(at, OPTION_ROUTER, &lease->server, 4);
        if (lease->dns.s_addr)
            at = put_option(at, OPTION_DNS, &lease->dns, 4);
        if (lease->hostname)
            at = put_option(at, OPTION_HOSTNAME, lease->hostname,
                            strnlen(lease->hostname, DHCP_NAME_MAX));
        if (lease->domain)
            at = put_option(at, OPTION_DOMAIN, lease->domain,
                            strnlen(lease->domain, DHCP_NAME_MAX));
    }
    *at++ = OPTION_END;
    return at;
}

/* The message in a frame from a client to a server: its start, or NULL. */
static const uint8_t *find_message(const uint8_t *frame, size_t length, size_t *ret_length)
{
    const uint8_t *message;
    struct udp_ends ends;

    if (!udp_parse(frame, length, &ends, &message, ret_length) || ends.to_port != PORT_SERVER ||
        *ret_length < BOOTP_SIZE + 4)
        return NULL;
    if (message[BOOTP_OP] != OP_REQUEST || message[BOOTP_HARDWARE] != 1 ||
        load_be32(message + BOOTP_SIZE) != COOKIE)
        return NULL;
    return message;
}

/* To everybody on the link: the client has no address yet. */
static size_t finish(uint8_t *reply, const struct dhcp_lease *lease, size_t size)
{
    struct udp_ends ends = {.from = lease->server, .to.s_addr = INADDR_BROADCAST,
                            .from_port = PORT_SERVER, .to_port = PORT_CLIENT};

    memset(ends.to_mac, 0xff, sizeof(ends.to_mac));
    memcpy(ends.from_mac, lease->server_mac, sizeof(ends.from_mac));
    return udp_put_headers(reply, &ends, size);
}

size_t dhcp_answer(const struct dhcp_lease *lease, const uint8_t *frame, size_t length,
                   uint8_t reply[DHCP_REPLY_MAX])
{
    const uint8_t *message = find_message(frame, length, &length), *options, *type, *wanted;
    uint8_t *out = reply + UDP_HEADERS, *end;
    uint8_t answer;

    if (!message)
        return 0;
    options = message + BOOTP_SIZE + 4;
    length -= BOOTP_SIZE + 4;
    type = find_option(options, length, OPTION_TYPE, 1);
    if (!type || (*type != DISCOVER && *type != REQUEST && *type != INFORM))
        return 0;
    wanted = find_option(options, length, OPTION_WANTED, 4);
    answer = *type == DISCOVER ? OFFER : ACK;
    if (*type == REQUEST && wanted && memcmp(wanted, &lease->guest, 4) != 0)
        answer = NAK;
    memset(reply, 0, DHCP_REPLY_MAX);
    out[BOOTP_OP] = OP_REPLY;
    out[BOOTP_HARDWARE] = 1;
    out[BOOTP_HARDWARE + 1] = 6;
    memcpy(out + BOOTP_XID, message + BOOTP_XID, 4);
    memcpy(out + BOOTP_FLAGS, message + BOOTP_FLAGS, 2);
    memcpy(out + BOOTP_CHADDR, message + BOOTP_CHADDR, 16);
    if (answer != NAK) {
        memcpy(out + BOOTP_CLIENT, message + BOOTP_CLIENT, 4);
        memcpy(out + BOOTP_YOUR, &lease->guest, 4);
        memcpy(out + BOOTP_SERVER, &lease->server, 4);
    }
    store_be32(out + BOOTP_SIZE, COOKIE);
    end = put_options(out + BOOTP_SIZE + 4, lease, answer);
    return finish(reply, lease, (size_t)(end - out));
}
