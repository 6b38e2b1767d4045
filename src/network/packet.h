/* packet.h - do what a sender left to the network card: fill a checksum in, cut
 * a large TCP segment into those that fit. Frames and their descriptions come
 * from guests; nothing outside the frame is touched. */
#ifndef LODGE_NETWORK_PACKET_H
#define LODGE_NETWORK_PACKET_H

#include "network/network.h"

/* A description as it stands before a frame: the start of struct virtio_net_hdr (VIRTIO 1.2,
 * 5.1.6), little-endian. offload NULL: nothing was left undone. */
#define PACKET_OFFLOAD_SIZE 10
void packet_write_offload(uint8_t header[PACKET_OFFLOAD_SIZE],
                          const struct network_offload *offload);
void packet_read_offload(const uint8_t header[PACKET_OFFLOAD_SIZE],
                         struct network_offload *ret_offload);

/* The Internet checksum (RFC 1071) of bytes, added to sum; not yet inverted. */
uint32_t packet_sum(const uint8_t *bytes, size_t length, uint32_t sum);
uint16_t packet_fold(uint32_t sum);

/* Fill the checksum in. -EINVAL when the description does not fit the frame. */
int packet_complete(uint8_t *frame, size_t length, const struct network_offload *offload);

/* Call emit for each frame that results; a frame that needs no cutting is
 * completed and given as it is. -EINVAL when it is no such frame. */
int packet_segment(uint8_t *frame, size_t length, const struct network_offload *offload,
                   void (*emit)(void *opaque, uint8_t *frame, size_t length), void *opaque);

#endif
