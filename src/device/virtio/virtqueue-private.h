/* virtqueue-private.h - descriptors, as both ring formats gather them. */
#ifndef LODGE_DEVICE_VIRTIO_VIRTQUEUE_PRIVATE_H
#define LODGE_DEVICE_VIRTIO_VIRTQUEUE_PRIVATE_H

#include "device/virtio/virtqueue.h"

/* Descriptor flags (VIRTIO 1.2, 2.7.5 and 2.8.1). */
#define DESCRIPTOR_NEXT     0x0001
#define DESCRIPTOR_WRITE    0x0002
#define DESCRIPTOR_INDIRECT 0x0004
#define DESCRIPTOR_SIZE     16

/* Begin an empty chain. */
void chain_start(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Add the buffer of one descriptor: bounded, in RAM, readable before writable. */
int chain_add(struct virtqueue *queue, struct virtqueue_chain *chain, uint64_t address,
              uint32_t length, uint16_t flags, struct error *err);
/* The table of an indirect descriptor: a host pointer and how many entries it has. */
int chain_indirect(struct virtqueue *queue, uint64_t address, uint32_t length,
                   const uint8_t **ret_table, unsigned *ret_count, struct error *err);

#endif
