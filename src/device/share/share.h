/* share.h - a folder of the host served by 9P2000.L, the protocol that Linux
 * mounts with "-t 9p -o trans=virtio,version=9p2000.L".
 *
 * Each fid is an O_PATH handle of one file. A walk goes on from a handle by one
 * name at a time and follows nothing: neither symbolic links, which are the
 * guest's to follow, nor "..". So there is no path that leads out of the folder.
 * Only regular files and directories are opened, and no device nodes are made. */
#ifndef LODGE_DEVICE_SHARE_SHARE_H
#define LODGE_DEVICE_SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SHARE_MESSAGE_MAX (512u << 10)

struct share;

int share_open(const char *folder, bool readonly, struct share **ret_share, struct error *err);
/* NULL is ignored. */
void share_close(struct share *share);
/* Forget all fids, as a new session does. */
void share_reset(struct share *share);

/* Carry out the request of length bytes; returns the length of the reply. room
 * is at most SHARE_MESSAGE_MAX, and bounds the reply; 0: not even an error fits. */
size_t share_serve(struct share *share, const uint8_t *request, size_t length, uint8_t *reply,
                   size_t room);

#endif
