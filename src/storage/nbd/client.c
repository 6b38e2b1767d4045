/* An NBD export as a protocol, named by a URL (url.h). One connection; requests go out as they
 * come, and one fiber takes the replies in. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/format.h"
#include "storage/nbd/link.h"
#include "storage/nbd/protocol.h"
#include "storage/nbd/url.h"
#include "storage/vec.h"

/* One request that waits for its reply. */
struct pending {
    uint64_t cookie;
    enum nbd_command command;
    uint64_t offset;
    uint32_t length;
    const struct iovec *iov; /* read: where the data goes */
    unsigned iov_count;
    uint32_t status_length, status; /* block status: the first extent */
    int result;
    struct fiber *waiter; /* NULL: it is still sending */
    bool ended;
    struct pending *next;
};

struct nbd {
    struct storage *storage;
    struct link link;
    uint16_t flags;
    bool structured, allocation;
    uint64_t size;
    uint32_t context;
    uint64_t next_cookie;
    bool broken; /* the connection is gone: all fails */
    struct fiber_lock sending;
    struct pending *pending;
    struct fiber *closer; /* waits for the reader to end */
    bool reading;
};

/* --- Negotiation --- */

struct option_reply {
    uint32_t type, length;
    uint8_t data[4096];
};

static int send_option(struct nbd *nbd, uint32_t option, const void *data, uint32_t length)
{
    uint8_t header[NBD_OPTION_HEADER];
    int r;

    store_be64(header, NBD_OPTION_MAGIC);
    store_be32(header + 8, option);
    store_be32(header + 12, length);
    r = link_send(&nbd->link, header, sizeof(header));
    return r < 0 ? r : link_send(&nbd->link, data, length);
}

static int receive_option_reply(struct nbd *nbd, uint32_t option, struct option_reply *reply)
{
    uint8_t header[NBD_OPTION_REPLY_HEADER];
    int r = link_receive(&nbd->link, header, sizeof(header));

    if (r < 0)
        return r;
    reply->type = load_be32(header + 12);
    reply->length = load_be32(header + 16);
    if (load_be64(header) != NBD_OPTION_REPLY || load_be32(header + 8) != option ||
        reply->length > sizeof(reply->data))
        return -EPROTO;
    return link_receive(&nbd->link, reply->data, reply->length);
}

/* Ask for structured replies, and with them for where data is. Both may be refused. */
static int ask_structured(struct nbd *nbd, const char *name, struct option_reply *reply)
{
    const uint32_t name_length = (uint32_t)strlen(name), text = strlen(NBD_ALLOCATION);
    uint8_t data[4 + NBD_NAME_MAX + 8 + sizeof(NBD_ALLOCATION)], *at = data;
    int r = send_option(nbd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);

    if (r == 0)
        r = receive_option_reply(nbd, NBD_OPT_STRUCTURED_REPLY, reply);
    if (r < 0 || reply->type != NBD_REP_ACK)
        return r;
    nbd->structured = true;
    store_be32(at, name_length);
    memcpy(at + 4, name, name_length);
    at += 4 + name_length;
    store_be32(at, 1);
    store_be32(at + 4, text);
    memcpy(at + 8, NBD_ALLOCATION, text);
    r = send_option(nbd, NBD_OPT_SET_META_CONTEXT, data, (uint32_t)(at - data) + 8 + text);
    while (r == 0) {
        r = receive_option_reply(nbd, NBD_OPT_SET_META_CONTEXT, reply);
        if (r < 0 || reply->type != NBD_REP_META_CONTEXT)
            break;
        if (reply->length == 4 + text && !memcmp(reply->data + 4, NBD_ALLOCATION, text)) {
            nbd->context = load_be32(reply->data);
            nbd->allocation = true;
        }
    }
    return r;
}

static int ask_go(struct nbd *nbd, const char *url, const char *name, struct option_reply *reply,
                  struct error *err)
{
    const uint32_t name_length = (uint32_t)strlen(name);
    uint8_t data[4 + NBD_NAME_MAX + 2];
    bool told = false;
    int r;

    store_be32(data, name_length);
    memcpy(data + 4, name, name_length);
    store_be16(data + 4 + name_length, 0);
    r = send_option(nbd, NBD_OPT_GO, data, 6 + name_length);
    while (r == 0) {
        r = receive_option_reply(nbd, NBD_OPT_GO, reply);
        if (r < 0 || reply->type != NBD_REP_INFO)
            break;
        if (reply->length >= 12 && load_be16(reply->data) == NBD_INFO_EXPORT) {
            nbd->size = load_be64(reply->data + 2);
            nbd->flags = load_be16(reply->data + 10);
            told = true;
        }
    }
    if (r == 0 && reply->type == NBD_REP_ERROR(NBD_REP_UNKNOWN))
        return error_set(err, ENOENT, "%s: the server has no export '%s'", url, name);
    if (r == 0 && reply->type == NBD_REP_ERROR(NBD_REP_TLS_REQUIRED))
        return error_set(err, EPROTO, "%s: the server wants TLS: write nbds instead of nbd", url);
    if (r == 0 && (reply->type != NBD_REP_ACK || !told || nbd->size > INT64_MAX))
        r = -EPROTO;
    return r < 0 ? error_system(err, -r, "%s: the server does not let us in", url) : 0;
}

/* NBD_OPT_STARTTLS, and what it leads to. */
static int ask_tls(struct nbd *nbd, const struct nbd_url *url, struct option_reply *reply,
                   struct error *err)
{
    struct tls_credentials *credentials = NULL;
    int r = send_option(nbd, NBD_OPT_STARTTLS, NULL, 0);

    if (r == 0)
        r = receive_option_reply(nbd, NBD_OPT_STARTTLS, reply);
    if (r < 0)
        return error_system(err, -r, "%s: cannot agree with the server", url->text);
    if (reply->type != NBD_REP_ACK)
        return error_set(err, EPROTO, "%s: the server does not offer TLS", url->text);
    r = tls_credentials_load(TLS_CLIENT, url->tls_certificates, true, &credentials, err);
    if (r == 0)
        r = link_start_tls(&nbd->link, credentials, url->tls_hostname, err);
    tls_credentials_free(credentials);
    if (r < 0)
        error_prepend(err, "%s", url->text);
    return r;
}

static int negotiate(struct nbd *nbd, const struct nbd_url *url, struct error *err)
{
    AUTO_FREE struct option_reply *reply = malloc(sizeof(*reply));
    uint8_t hello[18], flags[4];
    int r = reply ? 0 : -ENOMEM;

    if (strlen(url->name) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "%s: the export's name is too long", url->text);
    if (r == 0)
        r = link_receive(&nbd->link, hello, sizeof(hello));
    if (r == 0 && (load_be64(hello) != NBD_MAGIC || load_be64(hello + 8) != NBD_OPTION_MAGIC ||
                   !(load_be16(hello + 16) & NBD_FIXED_NEWSTYLE)))
        return error_set(err, EPROTO, "%s: this is no NBD server of today", url->text);
    store_be32(flags, NBD_FIXED_NEWSTYLE | (load_be16(hello + 16) & NBD_NO_ZEROES));
    if (r == 0)
        r = link_send(&nbd->link, flags, sizeof(flags));
    if (r == 0 && url->tls) {
        r = ask_tls(nbd, url, reply, err);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = ask_structured(nbd, url->name, reply);
    if (r < 0)
        return error_system(err, -r, "%s: cannot agree with the server", url->text);
    return ask_go(nbd, url->text, url->name, reply, err);
}

/* --- Replies --- */

static struct pending *find_pending(const struct nbd *nbd, uint64_t cookie)
{
    struct pending *p = nbd->pending;

    while (p && p->cookie != cookie)
        p = p->next;
    return p;
}

static void end_pending(struct nbd *nbd, struct pending *p)
{
    struct pending **link = &nbd->pending;

    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
    p->ended = true;
    if (p->waiter)
        fiber_wake(p->waiter);
}

/* length bytes of the answer, from skip on, go to the reader's memory. */
static int receive_data(struct nbd *nbd, const struct pending *p, uint64_t skip, uint32_t length)
{
    struct iovec pieces[VEC_PIECES];
    unsigned n;
    int r = 0;

    if (p->command != NBD_CMD_READ || skip > p->length || length > p->length - skip)
        return -EPROTO;
    while (length && r == 0) {
        size_t part = vec_cut(p->iov, p->iov_count, skip, length, pieces, &n);

        for (unsigned i = 0; i < n && r == 0; i++)
            r = link_receive(&nbd->link, pieces[i].iov_base, pieces[i].iov_len);
        skip += part;
        length -= (uint32_t)part;
    }
    return r;
}

static int receive_chunk(struct nbd *nbd, struct pending *p, uint16_t type, uint32_t length)
{
    uint8_t small[1024];
    int r;

    if (type == NBD_CHUNK_DATA) {
        r = length < 8 ? -EPROTO : link_receive(&nbd->link, small, 8);
        return r < 0 ? r : receive_data(nbd, p, load_be64(small) - p->offset, length - 8);
    }
    if (type == NBD_CHUNK_STATUS && p->command == NBD_CMD_BLOCK_STATUS) {
        if (length < 12)
            return -EPROTO;
        r = link_receive(&nbd->link, small, 12);
        if (r == 0 && load_be32(small) == nbd->context) {
            p->status_length = load_be32(small + 4);
            p->status = load_be32(small + 8);
        }
        for (length -= 12; r == 0 && length; length -= MIN(length, sizeof(small)))
            r = link_receive(&nbd->link, small, MIN(length, sizeof(small)));
        return r;
    }
    if (length > sizeof(small))
        return -EPROTO;
    r = link_receive(&nbd->link, small, length);
    if (r < 0)
        return r;
    if (type & NBD_CHUNK_ERROR) {
        p->result = length >= 4 && load_be32(small) ? nbd_error_to(load_be32(small)) : -EIO;
        return 0;
    }
    if (type == NBD_CHUNK_HOLE && length == 12 && p->command == NBD_CMD_READ) {
        uint64_t skip = load_be64(small) - p->offset, zeroes = load_be32(small + 8);

        if (skip > p->length || zeroes > p->length - skip)
            return -EPROTO;
        vec_fill(p->iov, p->iov_count, skip, 0, zeroes);
        return 0;
    }
    return type == NBD_CHUNK_NONE && !length ? 0 : -EPROTO;
}

/* One reply, or a part of one. */
static int receive_reply(struct nbd *nbd)
{
    uint8_t header[NBD_STRUCTURED_HEADER];
    struct pending *p;
    int r = link_receive(&nbd->link, header, NBD_SIMPLE_HEADER);

    if (r < 0)
        return r;
    p = find_pending(nbd, load_be64(header + 8));
    if (!p)
        return -EPROTO;
    if (load_be32(header) == NBD_SIMPLE_MAGIC) {
        p->result = nbd_error_to(load_be32(header + 4));
        if (p->result == 0 && p->command == NBD_CMD_READ)
            r = receive_data(nbd, p, 0, p->length);
        if (r == 0)
            end_pending(nbd, p);
        return r;
    }
    if (load_be32(header) != NBD_STRUCTURED_MAGIC || !nbd->structured)
        return -EPROTO;
    r = link_receive(&nbd->link, header + NBD_SIMPLE_HEADER, 4);
    if (r == 0)
        r = receive_chunk(nbd, p, load_be16(header + 6), load_be32(header + NBD_SIMPLE_HEADER));
    if (r == 0 && (load_be16(header + 4) & NBD_CHUNK_DONE))
        end_pending(nbd, p);
    return r;
}

static void reader_main(void *opaque)
{
    struct nbd *nbd = opaque;

    while (receive_reply(nbd) == 0)
        ;
    nbd->broken = true;
    while (nbd->pending) {
        nbd->pending->result = -EIO;
        end_pending(nbd, nbd->pending);
    }
    nbd->reading = false;
    if (nbd->closer)
        fiber_wake(nbd->closer);
}

/* --- Requests --- */

static int perform(struct nbd *nbd, struct pending *p, uint16_t flags, const struct iovec *data,
                   unsigned data_count)
{
    struct fibers *fibers = storage_fibers(nbd->storage);
    uint8_t header[NBD_REQUEST_HEADER];
    int r;

    fiber_lock(fibers, &nbd->sending);
    if (nbd->broken) {
        fiber_unlock(&nbd->sending);
        return -EIO;
    }
    p->cookie = ++nbd->next_cookie;
    p->next = nbd->pending;
    nbd->pending = p;
    store_be32(header, NBD_REQUEST_MAGIC);
    store_be16(header + 4, flags);
    store_be16(header + 6, (uint16_t)p->command);
    store_be64(header + 8, p->cookie);
    store_be64(header + 16, p->offset);
    store_be32(header + 24, p->length);
    r = link_send(&nbd->link, header, sizeof(header));
    for (unsigned i = 0; i < data_count && r == 0; i++)
        r = link_send(&nbd->link, data[i].iov_base, data[i].iov_len);
    if (r < 0)
        shutdown(nbd->link.fd, SHUT_RDWR); /* the reader ends all, this one too */
    fiber_unlock(&nbd->sending);
    p->waiter = fiber_self(fibers);
    if (!p->ended) /* a reply may be quicker than the news that all was sent */
        fiber_wait(fibers);
    return p->result;
}

/* Split by the longest request there may be. */
static int transfer(struct disk *disk, enum nbd_command command, uint64_t offset,
                    const struct iovec *iov, unsigned count, uint64_t length)
{
    struct iovec pieces[VEC_PIECES];
    uint64_t done = 0;
    int r = 0;

    while (done < length && r == 0) {
        struct pending p = {.command = command, .offset = offset + done};
        unsigned n;

        p.length =
            (uint32_t)vec_cut(iov, count, done, MIN(length - done, NBD_LENGTH_MAX), pieces, &n);
        p.iov = pieces;
        p.iov_count = n;
        r = perform(disk->state, &p, 0, pieces, command == NBD_CMD_WRITE ? n : 0);
        done += p.length;
    }
    return r;
}

/* What the export has to offer ends at its size; beyond there are zeroes, as in a file. */
static int nbd_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                    uint64_t length)
{
    uint64_t there = offset < disk->size ? MIN(length, disk->size - offset) : 0;

    vec_fill(iov, count, there, 0, length - there);
    return transfer(disk, NBD_CMD_READ, offset, iov, count, there);
}

static int nbd_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                     uint64_t length)
{
    if (offset > disk->size || length > disk->size - offset)
        return -ENOSPC;
    return transfer(disk, NBD_CMD_WRITE, offset, iov, count, length);
}

static int nbd_flush(struct disk *disk)
{
    struct nbd *nbd = disk->state;
    struct pending p = {.command = NBD_CMD_FLUSH};

    return nbd->flags & NBD_SEND_FLUSH ? perform(nbd, &p, 0, NULL, 0) : 0;
}

static int without_data(struct disk *disk, enum nbd_command command, uint16_t flags,
                        uint64_t offset, uint64_t length)
{
    int r = 0;

    while (length && r == 0) {
        struct pending p = {.command = command, .offset = offset};

        p.length = (uint32_t)MIN(length, 1u << 30);
        r = perform(disk->state, &p, flags, NULL, 0);
        offset += p.length;
        length -= p.length;
    }
    return r;
}

static int nbd_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    const struct nbd *nbd = disk->state;

    return nbd->flags & NBD_SEND_TRIM ? without_data(disk, NBD_CMD_TRIM, 0, offset, length) : 0;
}

static int nbd_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    static const uint8_t zeroes[65536];
    const struct nbd *nbd = disk->state;
    int r = 0;

    if (offset > disk->size || length > disk->size - offset)
        return -ENOSPC;
    if (nbd->flags & NBD_SEND_WRITE_ZEROES)
        return without_data(disk, NBD_CMD_WRITE_ZEROES,
                            flags & DISK_MAY_UNMAP ? 0 : NBD_FLAG_NO_HOLE, offset, length);
    while (length && r == 0) {
        const struct iovec iov = {(void *)zeroes, MIN(length, sizeof(zeroes))};

        r = transfer(disk, NBD_CMD_WRITE, offset, &iov, 1, iov.iov_len);
        offset += iov.iov_len;
        length -= iov.iov_len;
    }
    return r;
}

static int nbd_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    struct nbd *nbd = disk->state;
    struct pending p = {.command = NBD_CMD_BLOCK_STATUS, .offset = offset};
    int r;

    *ret_extent =
        (struct disk_extent){.length = disk->size - offset, .present = true, .data = true};
    if (!nbd->allocation)
        return 0;
    p.length = (uint32_t)MIN(disk->size - offset, 1u << 30);
    r = perform(nbd, &p, NBD_FLAG_REQ_ONE, NULL, 0);
    if (r < 0)
        return r;
    if (!p.status_length)
        return -EPROTO;
    ret_extent->length = p.status_length;
    ret_extent->zero = p.status & NBD_STATE_ZERO;
    ret_extent->data = !(p.status & NBD_STATE_HOLE);
    return 0;
}

static int nbd_resize(struct disk *disk, uint64_t size, struct error *err)
{
    (void)size;
    return error_set(err, ENOTSUP, "%s: the size of an NBD export is its server's", disk->path);
}

/* --- Opening and closing --- */

static int nbd_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    AUTO_FREE struct nbd *nbd = calloc(1, sizeof(*nbd));
    AUTO_CLOSE int fd = -1;
    struct nbd_url url;
    int r;

    (void)options;
    if (!nbd)
        return error_set(err, ENOMEM, "out of memory for a connection");
    r = nbd_url_parse(disk->path, &url, err);
    if (r == 0)
        r = nbd_url_connect(&url, &fd, err);
    nbd->storage = disk->storage;
    nbd->link = (struct link){.storage = disk->storage, .fd = fd};
    fiber_lock_init(&nbd->sending);
    if (r == 0)
        r = negotiate(nbd, &url, err);
    nbd_url_free(&url);
    if (r == 0 && disk->writable && (nbd->flags & NBD_READ_ONLY))
        r = error_set(err, EROFS, "%s can only be read", disk->path);
    if (r == 0) {
        nbd->reading = true;
        r = fiber_start(storage_fibers(disk->storage), reader_main, nbd);
        if (r < 0)
            error_set(err, ENOMEM, "out of memory for a connection");
    }
    if (r < 0) {
        link_end(&nbd->link);
        return r;
    }
    steal_fd(&fd);
    disk->size = nbd->size;
    disk->state = steal_pointer(&nbd);
    return 0;
}

static int nbd_close(struct disk *disk, struct error *err)
{
    struct nbd *nbd = disk->state;
    uint8_t bye[NBD_REQUEST_HEADER] = {0};

    (void)err;
    store_be32(bye, NBD_REQUEST_MAGIC);
    store_be16(bye + 6, NBD_CMD_DISCONNECT);
    link_send(&nbd->link, bye, sizeof(bye));
    shutdown(nbd->link.fd, SHUT_RDWR);
    nbd->closer = fiber_self(storage_fibers(nbd->storage));
    if (nbd->reading)
        fiber_wait(storage_fibers(nbd->storage));
    link_end(&nbd->link);
    close(nbd->link.fd);
    free(nbd);
    return 0;
}

#define NBD_PROTOCOL(word, prefix)                                                                 \
    {                                                                                              \
        .name = word, .url = prefix, .summary = "an export of an NBD server", .open = nbd_open,    \
        .close = nbd_close, .read = nbd_read, .write = nbd_write, .flush = nbd_flush,              \
        .discard = nbd_discard, .write_zeroes = nbd_write_zeroes, .resize = nbd_resize,            \
        .map = nbd_map,                                                                            \
    }

const struct disk_format nbd_tcp_protocol = NBD_PROTOCOL("nbd", NBD_URL_TCP);
const struct disk_format nbd_unix_protocol = NBD_PROTOCOL("nbd+unix", NBD_URL_UNIX);
const struct disk_format nbd_tls_tcp_protocol = NBD_PROTOCOL("nbds", NBD_URL_TLS_TCP);
const struct disk_format nbd_tls_unix_protocol = NBD_PROTOCOL("nbds+unix", NBD_URL_TLS_UNIX);
