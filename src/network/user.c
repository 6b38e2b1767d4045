/* The network that needs no rights: libslirp ends the guest's connections in
 * sockets of this process, and answers DHCP, DNS and router requests.
 *
 *   10.0.2.0/24           the guest is .15, the host (its loopback) .2, DNS .3
 *   fd4c:6f64:6765::/64   the host ::2, DNS ::3
 *
 * The guest is told of a large MTU: segments never leave this machine as such,
 * so each costs the guest as little as it can. But several must fit into the guest's first
 * window of 64 KiB: libslirp holds a segment back that the window cannot take whole, and then
 * waits for seconds (RFC 9293, 3.8.6.2.1 has the sender's rule). */
#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/bytes.h"
#include "network/kinds.h"
#include "network/packet.h"

#define USER_MTU 16384

/* A descriptor that libslirp waits for. */
struct watch {
    struct loop_source *source;
    uint32_t events;
    unsigned round; /* when libslirp last asked for it */
    struct user *user;
    int fd;
};

struct wish {
    int fd, events, ready;
};

struct user {
    struct network network;
    struct network_guest guest;
    struct loop *loop;
    const struct log *log;
    Slirp *slirp;
    struct loop_source *timer; /* libslirp's next time-out */
    uint64_t deadline;         /* when it fires; 0: never */
    struct watch **watches;    /* [fd], sparse */
    unsigned watch_count;
    struct wish *wishes; /* as of the last round */
    unsigned wish_count, wish_room;
    unsigned round;
};

struct slirp_timer {
    struct loop_source *source;
    SlirpTimerCb fn;
    void *opaque;
};

/* --- Waiting, as libslirp wishes --- */

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static void drop_watch(struct user *user, int fd)
{
    if (fd < 0 || (unsigned)fd >= user->watch_count || !user->watches[fd])
        return;
    loop_remove(user->watches[fd]->source);
    free(user->watches[fd]);
    user->watches[fd] = NULL;
}

static struct watch *watch_of(struct user *user, int fd)
{
    if ((unsigned)fd >= user->watch_count) {
        unsigned count = MAX((unsigned)fd + 1, user->watch_count * 2);
        struct watch **grown = realloc(user->watches, count * sizeof(struct watch *));

        if (!grown)
            return NULL;
        memset(grown + user->watch_count, 0,
               (count - user->watch_count) * sizeof(struct watch *));
        user->watches = grown;
        user->watch_count = count;
    }
    if (!user->watches[fd]) {
        user->watches[fd] = calloc(1, sizeof(struct watch));
        if (user->watches[fd])
            *user->watches[fd] = (struct watch){.user = user, .fd = fd};
    }
    return user->watches[fd];
}

static int add_wish(int fd, int events, void *opaque)
{
    struct user *user = opaque;

    if (user->wish_count == user->wish_room) {
        unsigned room = MAX(64u, user->wish_room * 2);
        struct wish *grown = realloc(user->wishes, room * sizeof(struct wish));

        if (!grown)
            return -1;
        user->wishes = grown;
        user->wish_room = room;
    }
    user->wishes[user->wish_count] = (struct wish){fd, events, 0};
    return (int)user->wish_count++;
}

static int wish_ready(int index, void *opaque)
{
    struct user *user = opaque;

    return index >= 0 && (unsigned)index < user->wish_count ? user->wishes[index].ready : 0;
}

static void watch_event(void *opaque, uint32_t events);

/* A time-out that comes early only makes us look again: most of the time a later one need not
 * be told to the kernel. */
static void fire_by(struct user *user, uint64_t deadline)
{
    if (user->deadline && user->deadline <= deadline)
        return;
    user->deadline = deadline;
    loop_arm_timer(user->timer, deadline);
}

/* Ask libslirp what it waits for, and make the loop wait for that. */
static void wait_as_wished(struct user *user)
{
    uint32_t timeout = UINT32_MAX;

    user->round++;
    user->wish_count = 0;
    slirp_pollfds_fill(user->slirp, &timeout, add_wish, user);
    for (unsigned i = 0; i < user->wish_count; i++) {
        const struct wish *wish = &user->wishes[i];
        struct watch *watch = watch_of(user, wish->fd);
        uint32_t events = to_epoll(wish->events);

        if (!watch)
            continue;
        watch->round = user->round;
        if (!watch->source)
            loop_add_fd(user->loop, wish->fd, events, watch_event, watch, &watch->source, NULL);
        else if (watch->events != events)
            loop_modify_fd(watch->source, events, NULL);
        watch->events = events;
    }
    for (unsigned fd = 0; fd < user->watch_count; fd++)
        if (user->watches[fd] && user->watches[fd]->round != user->round)
            drop_watch(user, (int)fd);
    if (timeout != UINT32_MAX)
        fire_by(user, loop_now_ns() + (uint64_t)timeout * 1000000);
}

static void watch_event(void *opaque, uint32_t events)
{
    struct watch *watch = opaque;
    struct user *user = watch->user;

    for (unsigned i = 0; i < user->wish_count; i++)
        user->wishes[i].ready = user->wishes[i].fd == watch->fd ? from_epoll(events) : 0;
    slirp_pollfds_poll(user->slirp, 0, wish_ready, user);
    wait_as_wished(user);
}

static void timed_out(void *opaque)
{
    struct user *user = opaque;

    user->deadline = 0;
    for (unsigned i = 0; i < user->wish_count; i++)
        user->wishes[i].ready = 0;
    slirp_pollfds_poll(user->slirp, 0, wish_ready, user);
    wait_as_wished(user);
}

/* --- What libslirp calls --- */

static ssize_t to_guest(const void *frame, size_t length, void *opaque)
{
    /* It made the checksums itself. */
    static const struct network_offload valid = {.flags = NETWORK_CHECKSUM_VALID};
    struct user *user = opaque;

    user->guest.receive(user->guest.opaque, &valid, frame, length);
    return (ssize_t)length;
}

static void guest_error(const char *message, void *opaque)
{
    struct user *user = opaque;

    log_debug(user->log, "user network: %s", message);
}

static int64_t clock_now(void *opaque)
{
    (void)opaque;
    return (int64_t)loop_now_ns();
}

static void timer_fired(void *opaque)
{
    struct slirp_timer *timer = opaque;

    timer->fn(timer->opaque);
}

static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
    struct user *user = opaque;
    struct slirp_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        return NULL;
    timer->fn = fn;
    timer->opaque = fn_opaque;
    if (loop_add_timer(user->loop, timer_fired, timer, &timer->source, NULL) < 0) {
        free(timer);
        return NULL;
    }
    return timer;
}

static void timer_free(void *timer, void *opaque)
{
    struct slirp_timer *t = timer;

    (void)opaque;
    if (!t)
        return;
    loop_remove(t->source);
    free(t);
}

static void timer_modify(void *timer, int64_t expire_ms, void *opaque)
{
    struct slirp_timer *t = timer;

    (void)opaque;
    if (t)
        loop_arm_timer(t->source, (uint64_t)MAX(expire_ms, 1) * 1000000);
}

/* A new descriptor may have the number of one that is gone. */
static void descriptor_comes_or_goes(int fd, void *opaque)
{
    drop_watch(opaque, fd);
}

static void wake_up(void *opaque)
{
    (void)opaque; /* all runs on one thread: the next round looks again */
}

static const SlirpCb slirp_callbacks = {
    .send_packet = to_guest,
    .guest_error = guest_error,
    .clock_get_ns = clock_now,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_modify,
    .register_poll_fd = descriptor_comes_or_goes,
    .unregister_poll_fd = descriptor_comes_or_goes,
    .notify = wake_up,
};

/* --- The kind --- */

static void user_send(struct network *network, const struct network_offload *offload,
                      uint8_t *frame, size_t length)
{
    struct user *user = container_of(network, struct user, network);

    /* A large segment is taken as it is: to libslirp it is just a long one. */
    if (packet_complete(frame, length, offload) == 0)
        slirp_input(user->slirp, frame, (int)length);
}

static void user_flush(struct network *network)
{
    wait_as_wished(container_of(network, struct user, network));
}

static void user_close(struct network *network)
{
    struct user *user = container_of(network, struct user, network);

    if (user->slirp)
        slirp_cleanup(user->slirp);
    for (unsigned fd = 0; fd < user->watch_count; fd++)
        drop_watch(user, (int)fd);
    loop_remove(user->timer);
    free(user->watches);
    free(user->wishes);
    free(user);
}

static Slirp *make_slirp(struct user *user, const struct network_config *network)
{
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .in6_enabled = true,
        .vprefix_len = 64,
        .vhostname = network->hostname ? network->hostname : "lodge",
        .if_mtu = network->mtu ? network->mtu : USER_MTU,
        .if_mru = network->mtu ? network->mtu : USER_MTU,
    };

    inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &config.vhost);
    inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
    if (network->address.s_addr)
        config.vdhcp_start = network->address;
    inet_pton(AF_INET6, "fd4c:6f64:6765::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fd4c:6f64:6765::2", &config.vhost6);
    inet_pton(AF_INET6, "fd4c:6f64:6765::3", &config.vnameserver6);
    return slirp_new(&config, &slirp_callbacks, user);
}

static int publish(struct user *user, const struct network_publish *p, struct error *err)
{
    const struct in_addr any_guest = {0}; /* the first address that DHCP gives */
    char text[INET_ADDRSTRLEN];

    if (slirp_add_hostfwd(user->slirp, p->udp, p->address, p->host_port, any_guest,
                          p->guest_port) == 0)
        return 0;
    return error_system(err, errno ? errno : EIO, "cannot listen at %s port %u (%s)",
                        inet_ntop(AF_INET, &p->address, text, sizeof(text)), p->host_port,
                        p->udp ? "udp" : "tcp");
}

/* Of 10.0.2.0/24, and not one of libslirp's own. */
static int check_address(struct in_addr address, struct error *err)
{
    uint32_t a = ntohl(address.s_addr);

    if (a && (a >> 8 != 0x0a0002 || (a & 255) < 4 || (a & 255) == 255))
        return error_set(err, EINVAL, "the user network is 10.0.2.0/24: %s is no address for a "
                                      "guest in it",
                         inet_ntop(AF_INET, &address, (char[INET_ADDRSTRLEN]){0}, INET_ADDRSTRLEN));
    return 0;
}

static int user_open(const struct network_config *config, struct loop *loop,
                     const struct network_guest *guest, struct network **ret_network,
                     struct error *err)
{
    struct user *user = calloc(1, sizeof(*user));
    int r;

    if (!user)
        return error_set(err, ENOMEM, "out of memory");
    user->network.kind = &network_user;
    user->guest = *guest;
    user->loop = loop;
    user->log = config->log;
    r = check_address(config->address, err);
    if (r == 0)
        r = loop_add_timer(loop, timed_out, user, &user->timer, err);
    if (r == 0) {
        user->slirp = make_slirp(user, config);
        if (!user->slirp)
            r = error_set(err, EIO, "libslirp does not start");
    }
    for (unsigned i = 0; r == 0 && i < config->publish_count; i++)
        r = publish(user, &config->publish[i], err);
    if (r < 0) {
        user_close(&user->network);
        return r;
    }
    wait_as_wished(user);
    *ret_network = &user->network;
    return 0;
}

const struct network_kind network_user = {
    .name = "user",
    .summary = "the host's connections, without any rights; the guest is behind it",
    .open = user_open,
    .close = user_close,
    .send = user_send,
    .flush = user_flush,
    .mtu = USER_MTU,
};
