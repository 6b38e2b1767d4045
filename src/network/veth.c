#include "network/veth.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A request as it grows. What is put into it is bounded by its callers, and far smaller. */
struct request {
    _Alignas(struct nlmsghdr) uint8_t bytes[512];
    size_t used;
};

static void *put(struct request *request, const void *data, size_t size)
{
    void *at = request->bytes + request->used;

    if (data)
        memcpy(at, data, size);
    request->used += NLMSG_ALIGN(size);
    return at;
}

static void put_attribute(struct request *request, uint16_t type, const void *data, size_t size)
{
    const struct rtattr attribute = {(uint16_t)(sizeof(attribute) + size), type};

    put(request, &attribute, sizeof(attribute));
    put(request, data, size);
}

/* One that holds what follows, up to end. */
static struct rtattr *begin(struct request *request, uint16_t type)
{
    const struct rtattr attribute = {0, type};

    return put(request, &attribute, sizeof(attribute));
}

static void end(const struct request *request, struct rtattr *attribute)
{
    attribute->rta_len = (uint16_t)(request->bytes + request->used - (uint8_t *)attribute);
}

static void start(struct request *request, uint16_t type, uint16_t flags, const char *name)
{
    const struct nlmsghdr header = {.nlmsg_type = type,
                                    .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)};
    const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};

    *request = (struct request){0};
    put(request, &header, sizeof(header));
    put(request, &info, sizeof(info));
    put_attribute(request, IFLA_IFNAME, name, strlen(name) + 1);
}

/* The kernel's answer: 0 or a negative errno. */
static int carry_out(struct request *request)
{
    AUTO_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        uint8_t rest[1024];
    } answer;
    ssize_t n;

    ((struct nlmsghdr *)(void *)request->bytes)->nlmsg_len = (uint32_t)request->used;
    if (fd < 0 || send(fd, request->bytes, request->used, 0) < 0)
        return -errno;
    n = recv(fd, &answer, sizeof(answer), 0);
    if (n < 0)
        return -errno;
    return (size_t)n >= sizeof(answer.header) + sizeof(answer.error.error) &&
                   answer.header.nlmsg_type == NLMSG_ERROR
               ? answer.error.error : -EPROTO;
}

int veth_create(const char *name, const char *peer, const uint8_t mac[6], int namespace_fd,
                struct error *err)
{
    const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    struct rtattr *link, *data, *other;
    struct request request;
    int r;

    if (strlen(name) >= IFNAMSIZ || strlen(peer) >= IFNAMSIZ)
        return error_set(err, EINVAL, "'%s' is too long for a network device's name", name);
    start(&request, RTM_DELLINK, 0, name);
    carry_out(&request);
    start(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name);
    link = begin(&request, IFLA_LINKINFO);
    put_attribute(&request, IFLA_INFO_KIND, "veth", 4);
    data = begin(&request, IFLA_INFO_DATA);
    other = begin(&request, VETH_INFO_PEER);
    put(&request, &info, sizeof(info));
    put_attribute(&request, IFLA_IFNAME, peer, strlen(peer) + 1);
    put_attribute(&request, IFLA_ADDRESS, mac, 6);
    put_attribute(&request, IFLA_NET_NS_FD, &namespace_fd, sizeof(namespace_fd));
    end(&request, other);
    end(&request, data);
    end(&request, link);
    r = carry_out(&request);
    return r < 0 ? error_system(err, -r, "cannot make the network device %s", name) : 0;
}
