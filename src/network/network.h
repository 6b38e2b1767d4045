/* network.h - what a guest's network card is plugged into. A kind of network
 * is one file and one row in the table; each attachment is one `struct
 * network`, used on the thread of its loop only. Frames are Ethernet's,
 * without the check sequence. */
#ifndef LODGE_NETWORK_NETWORK_H
#define LODGE_NETWORK_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

#define NETWORK_MAC_SIZE  6
#define NETWORK_FRAME_MAX (65536 + 64) /* a 64 KiB packet with its link header */

/* Work on a frame that its sender left undone: a checksum to fill in, a large
 * TCP segment to cut. The fields are virtio's (VIRTIO 1.2, 5.1.6) and the
 * kernel's struct virtio_net_hdr. */
struct network_offload {
    uint8_t flags;    /* NETWORK_NEEDS_CHECKSUM, NETWORK_CHECKSUM_VALID */
    uint8_t gso_type; /* enum network_gso */
    uint16_t header_size, gso_size, checksum_start, checksum_offset;
};

#define NETWORK_NEEDS_CHECKSUM 1
#define NETWORK_CHECKSUM_VALID 2

enum network_gso {
    NETWORK_GSO_NONE = 0, NETWORK_GSO_TCP4 = 1, NETWORK_GSO_TCP6 = 4, NETWORK_GSO_ECN = 0x80,
};

/* A port of the host that leads to one of the guest. */
struct network_publish {
    bool udp;
    struct in_addr address; /* on the host */
    uint16_t host_port, guest_port;
};

struct network_config {
    const char *kind;    /* a name in network_kinds, or that of a network (named.h) */
    const char *target;  /* what follows the kind's name and a colon, or NULL */
    const char *bridge;  /* tap: put it into this bridge, or NULL */
    const char *hostname; /* what others on the network call the guest, or NULL */
    uint8_t mac[NETWORK_MAC_SIZE]; /* of the guest's card */
    struct in_addr address; /* that the guest is to have; 0: whichever is free */
    unsigned mtu;        /* that the guest is told of; 0: the kind's own */
    const struct network_publish *publish;
    unsigned publish_count;
    const struct log *log;
};

/* The guest's end. */
struct network_guest {
    /* A frame for the guest; it is copied. offload may be NULL. */
    void (*receive)(void *opaque, const struct network_offload *offload, const uint8_t *frame,
                    size_t length);
    void *opaque;
};

struct network;

struct network_kind {
    const char *name;
    const char *summary;
    /* May block for a short while. */
    int (*open)(const struct network_config *config, struct loop *loop,
                const struct network_guest *guest, struct network **ret_network,
                struct error *err);
    void (*close)(struct network *network);
    /* A frame from the guest. May be dropped, as networks do. The frame may be changed. */
    void (*send)(struct network *network, const struct network_offload *offload, uint8_t *frame,
                 size_t length);
    /* No more frames for now: a chance to do what one does for many. May be NULL. */
    void (*flush)(struct network *network);
    /* What the guest can take itself. Kinds without it send plain frames only. */
    void (*set_offload)(struct network *network, bool checksum, bool tcp4, bool tcp6);
    uint16_t mtu; /* that the guest is told of, unless the configuration says otherwise */
};

/* What every kind's struct begins with. */
struct network {
    const struct network_kind *kind;
};

/* The table; NULL at its end. */
extern const struct network_kind *const network_kinds[];

/* The row of that name, or NULL. */
const struct network_kind *network_kind_find(const char *name);

/* -ENOENT with the known names when there is neither a kind nor a named network so called. */
int network_open(const struct network_config *config, struct loop *loop,
                 const struct network_guest *guest, struct network **ret_network,
                 struct error *err);
/* NULL is ignored. */
void network_close(struct network *network);

#endif
