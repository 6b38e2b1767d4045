/* network.c - the network card of the guest: its address is asked for by DHCP (RFC 2131), once. It
 * is the guest's as long as it runs, so it is never renewed. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init.h"

#define CARD "eth0"

enum { PORT_SERVER = 67, PORT_CLIENT = 68, TRIES = 10, PATIENCE_MS = 1000 };
enum { OP_REQUEST = 1, OP_REPLY = 2, ETHERNET = 1, XID = 0x4c4f4447 };
enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5 };
/* Options (RFC 2132). */
enum {
    PAD = 0, NETMASK = 1, ROUTER = 3, WANTED = 50, TYPE = 53, SERVER = 54, PARAMETERS = 55,
    END = 255,
};

/* RFC 2131, figure 1. */
struct message {
    uint8_t op, hardware, hardware_length, hops;
    uint32_t xid;
    uint16_t seconds, flags;
    struct in_addr client, your, next, relay;
    uint8_t hardware_address[16], names[192];
    uint8_t cookie[4], options[308];
};

/* What a server offers. */
struct offer {
    uint8_t type;
    struct in_addr address, netmask, router, server;
};

static const uint8_t cookie[4] = {99, 130, 83, 99};

static void raise_interface(int fd, const char *name)
{
    struct ifreq interface = {.ifr_flags = IFF_UP | IFF_RUNNING};

    snprintf(interface.ifr_name, sizeof(interface.ifr_name), "%s", name);
    ioctl(fd, SIOCSIFFLAGS, &interface);
}

/* --- Messages --- */

static uint8_t *put(uint8_t *at, uint8_t code, const void *value, uint8_t size)
{
    at[0] = code;
    at[1] = size;
    memcpy(at + 2, value, size);
    return at + 2 + size;
}

/* offer: what is asked for, of type REQUEST; NULL: DISCOVER. */
static void send_message(int fd, const uint8_t mac[6], const struct offer *offer)
{
    static const uint8_t parameters[] = {NETMASK, ROUTER};
    const struct sockaddr_in all = {.sin_family = AF_INET,
                                    .sin_port = htons(PORT_SERVER),
                                    .sin_addr.s_addr = INADDR_BROADCAST};
    struct message message = {.op = OP_REQUEST,
                              .hardware = ETHERNET,
                              .hardware_length = 6,
                              .xid = htonl(XID),
                              .flags = htons(0x8000)}; /* the answer goes to all */
    uint8_t *at = message.options, type = offer ? REQUEST : DISCOVER;

    memcpy(message.hardware_address, mac, 6);
    memcpy(message.cookie, cookie, sizeof(cookie));
    at = put(at, TYPE, &type, 1);
    if (offer) {
        at = put(at, WANTED, &offer->address, 4);
        at = put(at, SERVER, &offer->server, 4);
    }
    at = put(at, PARAMETERS, parameters, sizeof(parameters));
    *at = END;
    sendto(fd, &message, sizeof(message), 0, (const struct sockaddr *)&all, sizeof(all));
}

static void read_option(struct offer *offer, uint8_t code, const uint8_t *value, uint8_t size)
{
    if (code == TYPE && size == 1)
        offer->type = value[0];
    else if (code == NETMASK && size == 4)
        memcpy(&offer->netmask, value, 4);
    else if (code == ROUTER && size >= 4)
        memcpy(&offer->router, value, 4);
    else if (code == SERVER && size == 4)
        memcpy(&offer->server, value, 4);
}

/* Wait for an answer of that type. */
static bool receive(int fd, const uint8_t mac[6], uint8_t type, struct offer *ret_offer)
{
    struct pollfd readable = {fd, POLLIN, 0};
    struct message message;

    while (poll(&readable, 1, PATIENCE_MS) > 0) {
        ssize_t n = recv(fd, &message, sizeof(message), 0);
        ssize_t left = n - (ssize_t)(sizeof(message) - sizeof(message.options));
        struct offer offer = {.address = message.your};

        if (left <= 0 || message.op != OP_REPLY || message.xid != htonl(XID) ||
            memcmp(message.hardware_address, mac, 6) != 0 ||
            memcmp(message.cookie, cookie, sizeof(cookie)) != 0)
            continue;
        for (ssize_t i = 0; i + 1 < left && message.options[i] != END;) {
            uint8_t size = message.options[i + 1];

            if (message.options[i] == PAD) {
                i++;
                continue;
            }
            if (i + 2 + size > left)
                break;
            read_option(&offer, message.options[i], message.options + i + 2, size);
            i += 2 + size;
        }
        if (offer.type == type) {
            *ret_offer = offer;
            return true;
        }
    }
    return false;
}

/* --- The card --- */

static void set_address(int fd, unsigned long request, struct in_addr address)
{
    const struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr = address};
    struct ifreq interface = {.ifr_name = CARD};

    memcpy(&interface.ifr_addr, &value, sizeof(value));
    ioctl(fd, request, &interface);
}

static void set_router(int fd, struct in_addr router)
{
    const struct sockaddr_in gateway = {.sin_family = AF_INET, .sin_addr = router},
                             any = {.sin_family = AF_INET};
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

    memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
    memcpy(&route.rt_dst, &any, sizeof(any));
    memcpy(&route.rt_genmask, &any, sizeof(any));
    ioctl(fd, SIOCADDRT, &route);
}

static int open_client(void)
{
    const struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT_CLIENT)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, CARD, sizeof(CARD)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void network_raise_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    raise_interface(fd, "lo");
    close(fd);
}

bool network_configure(void)
{
    struct ifreq interface = {.ifr_name = CARD};
    const uint8_t *mac = (const uint8_t *)interface.ifr_hwaddr.sa_data;
    struct offer offer = {.type = 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), client;
    bool done = false;

    raise_interface(fd, CARD);
    client = open_client();
    if (client >= 0 && ioctl(fd, SIOCGIFHWADDR, &interface) == 0) {
        for (unsigned i = 0; i < TRIES && !done; i++) {
            send_message(client, mac, NULL);
            if (!receive(client, mac, OFFER, &offer))
                continue;
            send_message(client, mac, &offer);
            done = receive(client, mac, ACK, &offer);
        }
    }
    if (done) {
        set_address(fd, SIOCSIFADDR, offer.address);
        set_address(fd, SIOCSIFNETMASK, offer.netmask);
        set_router(fd, offer.router);
    }
    close(client);
    close(fd);
    if (!done)
        errno = ETIMEDOUT;
    return done;
}
