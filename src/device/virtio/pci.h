/* pci.h - virtio over PCI (VIRTIO 1.2, 4.1): a modern device with its
 * structures in one memory BAR, and MSI-X with a vector for each queue and one
 * for the configuration. */
#ifndef LODGE_DEVICE_VIRTIO_PCI_H
#define LODGE_DEVICE_VIRTIO_PCI_H

#include "device/virtio/virtio.h"
#include "machine/msix.h"
#include "machine/pci.h"

struct virtio_pci {
    struct pci_function function;
    struct msix msix;
    struct virtio_device *device;
    unsigned window; /* where the capability that gives access to the BAR lies (4.1.4.9) */
    /* Guarded by the device's lock. */
    uint32_t device_feature_select, driver_feature_select;
    uint64_t driver_features;
    uint16_t queue_select, config_vector;
    uint16_t queue_vector[VIRTIO_QUEUES_MAX];
    uint64_t bells;        /* where the queues' doorbells are up; 0: they are not */
    uint64_t bell_queues;  /* bit n: that of queue n */
    _Atomic uint8_t isr;
};

/* Plug the device in, with memory to work in, and start its thread. It is
 * taken over, also on failure. */
int virtio_pci_create(struct virtio_device *device, struct pci_host *host,
                      struct guest_memory *memory, struct virtio_pci **ret_pci, struct error *err);
/* No vCPU runs any more. */
void virtio_pci_destroy(struct virtio_pci *pci);
void virtio_pci_reset(struct virtio_pci *pci);

#endif
