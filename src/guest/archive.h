/* archive.h - a file or a directory as a stream of bytes, between the host and Lodge's init in a
 * virtual machine: with owners, modes, times, extended attributes and special files; links are
 * carried, not followed, and other filesystems below are left out. Shared with guest/.
 *
 *     entry      u32 mode (stat(2)), u32 uid, u32 gid, u64 device, 2 times, name, attributes,
 *                then: a regular file's content, a link's text, or a directory's entries until END
 *     time       u64 seconds, u32 nanoseconds: of access, of modification
 *     text       u16 length, bytes
 *     attributes u16 how many; of each a text, the name, and a text, the value
 *     content    chunks, u32 length and bytes, until one of no length
 *
 * Little-endian. In place of a mode or of a length of content there may be ARCHIVE_FAILURE and a
 * text: the sender could not go on. */
#ifndef LODGE_GUEST_ARCHIVE_H
#define LODGE_GUEST_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define ARCHIVE_END     0u
#define ARCHIVE_FAILURE UINT32_MAX

/* Send what is called name in the directory. What cannot be read is told to the receiver too. */
int archive_send(int directory, const char *name, FILE *out, struct error *err);
/* Tell the receiver that there is nothing to send. */
void archive_send_failure(FILE *out, const struct error *why);

/* Make it as name in the directory, where it is not there yet; what is half done stays. The sender
 * is not believed: a name has one component, and depth is bounded. From one who is not trusted
 * there are no devices (-EPERM with words), no set-user-ID and set-group-ID bits, and no attributes
 * but those of users. -EPIPE with words when the stream ends too early. */
int archive_receive(FILE *in, bool trusted, int directory, const char *name, struct error *err);

#endif
