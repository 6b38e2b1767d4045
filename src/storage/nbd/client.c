/* An NBD export as a protocol: nbd://HOST[:PORT][/EXPORT], nbd+unix:///EXPORT?socket=PATH.
 * One connection; requests go out as they come, and one fiber takes the replies in. */
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/format.h"
#include "storage/nbd/protocol.h"
#include "storage/vec.h"

#define TCP_URL  "nbd://"
#define UNIX_URL "nbd+unix://"

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
    struct fiber *waiter;
    struct pending *next;
};

struct nbd {
    struct storage *storage;
    int fd;
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

/* --- The address --- */

struct address {
    char *socket; /* a Unix socket's path, or NULL */
    char *host, *port, *name;
};

static void address_free(struct address *a)
{
    free(a->socket);
    free(a->host);
    free(a->port);
    free(a->name);
}

/* %XX as in URLs. */
static void unescape(char *text)
{
    char *to = text;

    for (; *text; text++) {
        unsigned byte;

        if (*text == '%' && sscanf(text + 1, "%2x", &byte) == 1) {
            *to++ = (char)byte;
            text += 2;
        } else {
            *to++ = *text;
        }
    }
    *to = 0;
}

static int parse_unix(const char *url, struct address *a, struct error *err)
{
    const char *rest = url + strlen(UNIX_URL), *query = strstr(rest, "?socket=");

    if (*rest != '/' || !query || !query[8])
        return error_set(err, EINVAL, "%s: write nbd+unix:///EXPORT?socket=PATH", url);
    a->name = strndup(rest + 1, (size_t)(query - rest - 1));
    a->socket = strdup(query + 8);
    if (!a->name || !a->socket)
        return error_set(err, ENOMEM, "out of memory for an address");
    unescape(a->name);
    unescape(a->socket);
    return 0;
}

static int parse_tcp(const char *url, struct address *a, struct error *err)
{
    const char *rest = url + strlen(TCP_URL), *slash = strchrnul(rest, '/');
    const char *end = *rest == '[' ? memchr(rest, ']', (size_t)(slash - rest)) : NULL;
    const char *colon = memchr(end ? end : rest, ':', (size_t)(slash - (end ? end : rest)));

    if (slash == rest)
        return error_set(err, EINVAL, "%s: write nbd://HOST[:PORT][/EXPORT]", url);
    if (end)
        a->host = strndup(rest + 1, (size_t)(end - rest - 1));
    else
        a->host = strndup(rest, (size_t)((colon ? colon : slash) - rest));
    a->port = colon ? strndup(colon + 1, (size_t)(slash - colon - 1)) : strdup(NBD_PORT);
    a->name = strdup(*slash ? slash + 1 : "");
    if (!a->host || !a->port || !a->name)
        return error_set(err, ENOMEM, "out of memory for an address");
    unescape(a->name);
    return 0;
}

static int connect_unix(const char *url, const char *path, int *ret_fd, struct error *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(to.sun_path))
        return error_set(err, ENAMETOOLONG, "%s: the socket's path is too long", url);
    strcpy(to.sun_path, path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        return error_system(err, errno, "cannot connect to %s", url);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int connect_tcp(const char *url, const struct address *a, int *ret_fd, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(a->host, a->port, &hints, &list), code = ECONNREFUSED, fd = -1;
    const int one = 1;

    if (r)
        return error_set(err, EHOSTUNREACH, "%s: %s", url, gai_strerror(r));
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
        if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen) == 0)
            break;
        code = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return error_system(err, code, "cannot connect to %s", url);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    *ret_fd = fd;
    return 0;
}

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
    r = nbd_send(nbd->storage, nbd->fd, header, sizeof(header));
    return r < 0 ? r : nbd_send(nbd->storage, nbd->fd, data, length);
}

static int receive_option_reply(struct nbd *nbd, uint32_t option, struct option_reply *reply)
{
    uint8_t header[NBD_OPTION_REPLY_HEADER];
    int r = nbd_receive(nbd->storage, nbd->fd, header, sizeof(header));

    if (r < 0)
        return r;
    reply->type = load_be32(header + 12);
    reply->length = load_be32(header + 16);
    if (load_be64(header) != NBD_OPTION_REPLY || load_be32(header + 8) != option ||
        reply->length > sizeof(reply->data))
        return -EPROTO;
    return nbd_receive(nbd->storage, nbd->fd, reply->data, reply->length);
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
    if (r == 0 && (reply->type != NBD_REP_ACK || !told || nbd->size > INT64_MAX))
        r = -EPROTO;
    return r < 0 ? error_system(err, -r, "%s: the server does not let us in", url) : 0;
}

static int negotiate(struct nbd *nbd, const char *url, const char *name, struct error *err)
{
    AUTO_FREE struct option_reply *reply = malloc(sizeof(*reply));
    uint8_t hello[18], flags[4];
    int r = reply ? 0 : -ENOMEM;

    if (strlen(name) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "%s: the export's name is too long", url);
    if (r == 0)
        r = nbd_receive(nbd->storage, nbd->fd, hello, sizeof(hello));
    if (r == 0 && (load_be64(hello) != NBD_MAGIC || load_be64(hello + 8) != NBD_OPTION_MAGIC ||
                   !(load_be16(hello + 16) & NBD_FIXED_NEWSTYLE)))
        return error_set(err, EPROTO, "%s: this is no NBD server of today", url);
    store_be32(flags, NBD_FIXED_NEWSTYLE | (load_be16(hello + 16) & NBD_NO_ZEROES));
    if (r == 0)
        r = nbd_send(nbd->storage, nbd->fd, flags, sizeof(flags));
    if (r == 0)
        r = ask_structured(nbd, name, reply);
    if (r < 0)
        return error_system(err, -r, "%s: cannot agree with the server", url);
    return ask_go(nbd, url, name, reply, err);
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
            r = nbd_receive(nbd->storage, nbd->fd, pieces[i].iov_base, pieces[i].iov_len);
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
        r = length < 8 ? -EPROTO : nbd_receive(nbd->storage, nbd->fd, small, 8);
        return r < 0 ? r : receive_data(nbd, p, load_be64(small) - p->offset, length - 8);
    }
    if (type == NBD_CHUNK_STATUS && p->command == NBD_CMD_BLOCK_STATUS) {
        if (length < 12)
            return -EPROTO;
        r = nbd_receive(nbd->storage, nbd->fd, small, 12);
        if (r == 0 && load_be32(small) == nbd->context) {
            p->status_length = load_be32(small + 4);
            p->status = load_be32(small + 8);
        }
        for (length -= 12; r == 0 && length; length -= MIN(length, sizeof(small)))
            r = nbd_receive(nbd->storage, nbd->fd, small, MIN(length, sizeof(small)));
        return r;
    }
    if (length > sizeof(small))
        return -EPROTO;
    r = nbd_receive(nbd->storage, nbd->fd, small, length);
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
    int r = nbd_receive(nbd->storage, nbd->fd, header, NBD_SIMPLE_HEADER);

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
    r = nbd_receive(nbd->storage, nbd->fd, header + NBD_SIMPLE_HEADER, 4);
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
    p->waiter = fiber_self(fibers);
    p->next = nbd->pending;
    nbd->pending = p;
    store_be32(header, NBD_REQUEST_MAGIC);
    store_be16(header + 4, flags);
    store_be16(header + 6, (uint16_t)p->command);
    store_be64(header + 8, p->cookie);
    store_be64(header + 16, p->offset);
    store_be32(header + 24, p->length);
    r = nbd_send(nbd->storage, nbd->fd, header, sizeof(header));
    for (unsigned i = 0; i < data_count && r == 0; i++)
        r = nbd_send(nbd->storage, nbd->fd, data[i].iov_base, data[i].iov_len);
    if (r < 0)
        shutdown(nbd->fd, SHUT_RDWR); /* the reader ends all, this one too */
    fiber_unlock(&nbd->sending);
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
    struct address address = {0};
    int r;

    (void)options;
    if (!nbd)
        return error_set(err, ENOMEM, "out of memory for a connection");
    if (!strncmp(disk->path, UNIX_URL, strlen(UNIX_URL))) {
        r = parse_unix(disk->path, &address, err);
        if (r == 0)
            r = connect_unix(disk->path, address.socket, &fd, err);
    } else {
        r = parse_tcp(disk->path, &address, err);
        if (r == 0)
            r = connect_tcp(disk->path, &address, &fd, err);
    }
    nbd->storage = disk->storage;
    nbd->fd = fd;
    fiber_lock_init(&nbd->sending);
    if (r == 0)
        r = negotiate(nbd, disk->path, address.name, err);
    address_free(&address);
    if (r == 0 && disk->writable && (nbd->flags & NBD_READ_ONLY))
        r = error_set(err, EROFS, "%s can only be read", disk->path);
    if (r == 0) {
        nbd->reading = true;
        r = fiber_start(storage_fibers(disk->storage), reader_main, nbd);
        if (r < 0)
            error_set(err, ENOMEM, "out of memory for a connection");
    }
    if (r < 0)
        return r;
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
    nbd_send(nbd->storage, nbd->fd, bye, sizeof(bye));
    shutdown(nbd->fd, SHUT_RDWR);
    nbd->closer = fiber_self(storage_fibers(nbd->storage));
    if (nbd->reading)
        fiber_wait(storage_fibers(nbd->storage));
    close(nbd->fd);
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

const struct disk_format nbd_tcp_protocol = NBD_PROTOCOL("nbd", TCP_URL);
const struct disk_format nbd_unix_protocol = NBD_PROTOCOL("nbd+unix", UNIX_URL);
