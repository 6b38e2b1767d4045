/* layer.h - a layer's tar stream, plain or compressed, as a directory in the
 * form that overlayfs stacks (OCI image specification, layer.md).
 *
 * The stream is hostile. Each path is resolved inside the directory by
 * openat2(2), so that neither "..", nor an absolute name, nor a link made by an
 * earlier entry leads out of it; how far the stream may expand is bounded. */
#ifndef LODGE_IMAGE_LAYER_H
#define LODGE_IMAGE_LAYER_H

#include "image/digest.h"

#include <stdint.h>

/* A layer may expand to this much, and to that many times its size on top. */
#define LAYER_EXPANSION_FREE  (1ull << 30)
#define LAYER_EXPANSION_RATIO 100

/* Unpack length bytes of fd from offset on into the empty directory root_fd.
 *
 * Whiteouts become overlayfs's: character devices 0/0, and the opaque mark on
 * directories (trusted.overlay.opaque, or user.overlay.opaque for a user
 * without privileges). For such a user all files are their own, and device
 * nodes and file capabilities are left out. Attributes of overlayfs itself are never taken from
 * a layer. ret_diff_id is the digest, by the algorithm of like, of the tar stream. */
int layer_unpack(int fd, uint64_t offset, uint64_t length, int root_fd, const struct digest *like,
                 struct digest *ret_diff_id, struct error *err);

/* What compresses the layer in fd, as its media type says: MEDIA_LAYER, .._GZIP or .._ZSTD. */
const char *layer_media_type(int fd, uint64_t offset);

#endif
