/* vmdk.h - what the two files of VMDK share (private to storage): vmdk.c opens a disk
 * that is one file or a text that names several, vmdk_sparse.c one sparse file. */
#ifndef LODGE_STORAGE_VMDK_H
#define LODGE_STORAGE_VMDK_H

#include "storage/format.h"

/* One sparse file alone, also with compressed grains. */
extern const struct disk_format vmdk_sparse_format;
bool vmdk_sparse_probe(const uint8_t *head, size_t length);

/* Refuse a disk that its descriptor, a text, says to rest on another. */
int vmdk_check_parent(const struct disk *disk, const char *descriptor, struct error *err);

#endif
