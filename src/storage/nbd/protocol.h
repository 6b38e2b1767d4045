/* protocol.h - the words of the Network Block Device protocol (proto.md of
 * NetworkBlockDevice/nbd; private to this folder). */
#ifndef LODGE_STORAGE_NBD_PROTOCOL_H
#define LODGE_STORAGE_NBD_PROTOCOL_H

#include <stdint.h>

#define NBD_MAGIC            0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC     0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY     0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

#define NBD_PORT       "10809"
#define NBD_LENGTH_MAX (32u << 20) /* of one request's data */
#define NBD_NAME_MAX   4096
#define NBD_ALLOCATION "base:allocation"
#define NBD_CONTEXT_ID 1 /* how our server calls it */

enum { NBD_FIXED_NEWSTYLE = 1 << 0, NBD_NO_ZEROES = 1 << 1 }; /* handshake flags */

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERROR(n) (0x80000000u + (n))
enum {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
    NBD_REP_UNSUPPORTED = 1, /* as NBD_REP_ERROR(n) */
    NBD_REP_INVALID = 3,
    NBD_REP_TLS_REQUIRED = 5,
    NBD_REP_UNKNOWN = 6,
};

enum { NBD_INFO_EXPORT = 0, NBD_INFO_BLOCK_SIZE = 3 };

enum { /* transmission flags */
       NBD_HAS_FLAGS = 1 << 0,
       NBD_READ_ONLY = 1 << 1,
       NBD_SEND_FLUSH = 1 << 2,
       NBD_SEND_FUA = 1 << 3,
       NBD_SEND_TRIM = 1 << 5,
       NBD_SEND_WRITE_ZEROES = 1 << 6,
       NBD_SEND_DF = 1 << 7,
       NBD_CAN_MULTI_CONN = 1 << 8,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISCONNECT = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum { /* command flags */
       NBD_FLAG_FUA = 1 << 0,
       NBD_FLAG_NO_HOLE = 1 << 1,
       NBD_FLAG_REQ_ONE = 1 << 3,
};

enum {                          /* chunks of structured replies */
       NBD_CHUNK_DONE = 1 << 0, /* a flag: the last chunk */
       NBD_CHUNK_NONE = 0,
       NBD_CHUNK_DATA = 1,
       NBD_CHUNK_HOLE = 2,
       NBD_CHUNK_STATUS = 5,
       NBD_CHUNK_ERROR = 1 << 15, /* error types have this bit */
       NBD_CHUNK_ERROR_PLAIN = NBD_CHUNK_ERROR + 1,
};

enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };

/* Sizes of what is sent */
enum {
    NBD_OPTION_HEADER = 16,
    NBD_OPTION_REPLY_HEADER = 20,
    NBD_REQUEST_HEADER = 28,
    NBD_SIMPLE_HEADER = 16,
    NBD_STRUCTURED_HEADER = 20,
};

/* The protocol's error numbers are Linux's, but only these. */
uint32_t nbd_error_of(int negative_errno);
int nbd_error_to(uint32_t error);

#endif
