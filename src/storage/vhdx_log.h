/* vhdx_log.h - the log of a VHDX image that was not closed ([MS-VHDX], section 2.3): its
 * changes are taken into memory, and the file is read as if they had been written
 * (private to storage). */
#ifndef LODGE_STORAGE_VHDX_LOG_H
#define LODGE_STORAGE_VHDX_LOG_H

#include "storage/format.h"

/* CRC-32C of a structure that keeps it in its bytes 4 to 7, which count as zeroes.
 * length: a multiple of 4. */
uint32_t vhdx_checksum(const uint8_t *data, size_t length);

/* The file as it is after the log at offset: a disk for reading, which leaves file to its
 * opener. Only entries of the log called guid count. path: for messages. -EINVAL when no
 * sequence of entries is whole, -ENOTSUP when the log is larger than is reasonable. */
int vhdx_log_replay(struct disk *file, uint64_t offset, uint32_t length, const uint8_t guid[16],
                    struct disk **ret_replayed, struct error *err);
/* Frees what vhdx_log_replay made. */
void vhdx_log_forget(struct disk *replayed);

#endif
