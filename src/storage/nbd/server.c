#include "storage/nbd/server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/format.h"
#include "storage/nbd/link.h"
#include "storage/nbd/protocol.h"

#define UNDER_WAY_MAX   64  /* requests of a connection; more wait in its socket */
#define STATUS_MAX      512 /* extents of one reply */
#define CONNECTIONS_MAX 64

struct nbd_server {
    struct loop *loop;
    struct loop_source *source;
    struct disk *disk;
    int listen_fd;
    char *name;
    const struct tls_credentials *credentials; /* NULL: no TLS */
    bool tls_required;
    struct connection *connections;
    unsigned count;
    struct fiber_queue ended; /* a connection has */
};

struct connection {
    struct nbd_server *server;
    struct storage *storage;
    struct link link;
    bool structured; /* replies */
    bool allocation; /* base:allocation was asked for */
    struct fiber_lock sending;
    unsigned under_way;
    struct fiber_queue one_ended; /* a request has */
    struct connection *next;
};

struct request {
    struct connection *connection;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
    uint8_t *buffer; /* a reply header's room, then the data */
};

/* --- Options: what comes before the disk --- */

static int send_option_reply(struct connection *c, uint32_t option, uint32_t type, const void *data,
                             uint32_t length)
{
    uint8_t reply[NBD_OPTION_REPLY_HEADER + 64 + NBD_NAME_MAX];

    if (length > sizeof(reply) - NBD_OPTION_REPLY_HEADER)
        return -EMSGSIZE;
    store_be64(reply, NBD_OPTION_REPLY);
    store_be32(reply + 8, option);
    store_be32(reply + 12, type);
    store_be32(reply + 16, length);
    if (length)
        memcpy(reply + NBD_OPTION_REPLY_HEADER, data, length);
    return link_send(&c->link, reply, NBD_OPTION_REPLY_HEADER + length);
}

static uint16_t transmission_flags(const struct connection *c)
{
    uint16_t flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN;

    if (c->structured)
        flags |= NBD_SEND_DF;
    if (!disk_writable(c->server->disk))
        return flags | NBD_READ_ONLY;
    return flags | NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES;
}

static bool is_our_name(const struct connection *c, const uint8_t *name, uint32_t length)
{
    return !length || (strlen(c->server->name) == length && !memcmp(c->server->name, name, length));
}

/* NBD_OPT_EXPORT_NAME: no reply but the export itself. */
static int answer_export_name(struct connection *c, const uint8_t *data, uint32_t length,
                              bool no_zeroes)
{
    uint8_t reply[10 + 124] = {0};

    if (!is_our_name(c, data, length))
        return -ENOENT; /* the protocol has no way but to hang up */
    store_be64(reply, disk_size(c->server->disk));
    store_be16(reply + 8, transmission_flags(c));
    return link_send(&c->link, reply, no_zeroes ? 10 : sizeof(reply));
}

/* NBD_OPT_INFO and NBD_OPT_GO. *ret_go: the export was named and asked for. */
static int answer_info(struct connection *c, uint32_t option, const uint8_t *data, uint32_t length,
                       bool *ret_go)
{
    uint8_t info[14];
    uint32_t name_length = length >= 4 ? load_be32(data) : 0;
    int r;

    if (length < 6 || name_length > length - 6)
        return send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_INVALID), NULL, 0);
    if (!is_our_name(c, data + 4, name_length))
        return send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_UNKNOWN), NULL, 0);
    store_be16(info, NBD_INFO_EXPORT);
    store_be64(info + 2, disk_size(c->server->disk));
    store_be16(info + 10, transmission_flags(c));
    r = send_option_reply(c, option, NBD_REP_INFO, info, 12);
    store_be16(info, NBD_INFO_BLOCK_SIZE);
    store_be32(info + 2, 1);
    store_be32(info + 6, 4096);
    store_be32(info + 10, NBD_LENGTH_MAX);
    if (r == 0)
        r = send_option_reply(c, option, NBD_REP_INFO, info, 14);
    if (r == 0)
        r = send_option_reply(c, option, NBD_REP_ACK, NULL, 0);
    *ret_go = r == 0 && option == NBD_OPT_GO;
    return r;
}

static int answer_list(struct connection *c)
{
    uint8_t entry[4 + NBD_NAME_MAX];
    uint32_t length = (uint32_t)strlen(c->server->name);
    int r;

    store_be32(entry, length);
    memcpy(entry + 4, c->server->name, length);
    r = send_option_reply(c, NBD_OPT_LIST, NBD_REP_SERVER, entry, 4 + length);
    return r < 0 ? r : send_option_reply(c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

/* NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT: there is one context. */
static int answer_contexts(struct connection *c, uint32_t option, const uint8_t *data,
                           uint32_t length)
{
    static const char name[] = NBD_ALLOCATION;
    uint8_t context[4 + sizeof(name) - 1];
    uint32_t at, queries, text;
    bool wanted;
    int r = 0;

    if (length < 8 || load_be32(data) > length - 8)
        return send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_INVALID), NULL, 0);
    at = 4 + load_be32(data);
    queries = load_be32(data + at);
    at += 4;
    wanted = !queries && option == NBD_OPT_LIST_META_CONTEXT;
    for (; queries; queries--, at += text) {
        if (length - at < 4 || load_be32(data + at) > length - at - 4)
            return send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_INVALID), NULL, 0);
        text = load_be32(data + at);
        at += 4;
        if ((text == sizeof(name) - 1 && !memcmp(data + at, name, text)) ||
            (text == 5 && !memcmp(data + at, name, 5) && option == NBD_OPT_LIST_META_CONTEXT))
            wanted = true;
    }
    if (option == NBD_OPT_SET_META_CONTEXT)
        c->allocation = wanted && c->structured;
    store_be32(context, NBD_CONTEXT_ID);
    memcpy(context + 4, name, sizeof(name) - 1);
    if (wanted)
        r = send_option_reply(c, option, NBD_REP_META_CONTEXT, context, sizeof(context));
    return r < 0 ? r : send_option_reply(c, option, NBD_REP_ACK, NULL, 0);
}

/* NBD_OPT_STARTTLS. What was agreed on before it does not count any more. */
static int answer_starttls(struct connection *c, uint32_t length)
{
    int r;

    if (!c->server->credentials)
        return send_option_reply(c, NBD_OPT_STARTTLS, NBD_REP_ERROR(NBD_REP_UNSUPPORTED), NULL, 0);
    if (length || c->link.tls)
        return send_option_reply(c, NBD_OPT_STARTTLS, NBD_REP_ERROR(NBD_REP_INVALID), NULL, 0);
    r = send_option_reply(c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    c->structured = c->allocation = false;
    return r < 0 ? r : link_start_tls(&c->link, c->server->credentials, NULL, NULL);
}

/* Until a client has chosen the export: 0; otherwise the connection is to be ended. */
static int negotiate(struct connection *c)
{
    uint8_t hello[18], header[NBD_OPTION_HEADER], data[8192];
    uint32_t client_flags, option, length;
    bool go = false;
    int r;

    store_be64(hello, NBD_MAGIC);
    store_be64(hello + 8, NBD_OPTION_MAGIC);
    store_be16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    r = link_send(&c->link, hello, sizeof(hello));
    if (r == 0)
        r = link_receive(&c->link, header, 4);
    if (r < 0)
        return r;
    client_flags = load_be32(header);
    if (client_flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        return -EPROTO;
    while (r == 0 && !go) {
        r = link_receive(&c->link, header, sizeof(header));
        if (r < 0)
            return r;
        option = load_be32(header + 8);
        length = load_be32(header + 12);
        if (load_be64(header) != NBD_OPTION_MAGIC || length > sizeof(data))
            return -EPROTO;
        r = link_receive(&c->link, data, length);
        if (r < 0)
            return r;
        if (c->server->tls_required && !c->link.tls && option != NBD_OPT_STARTTLS &&
            option != NBD_OPT_ABORT) {
            if (option == NBD_OPT_EXPORT_NAME)
                return -EACCES; /* the protocol has no way but to hang up */
            r = send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_TLS_REQUIRED), NULL, 0);
            continue;
        }
        switch (option) {
        case NBD_OPT_EXPORT_NAME:
            return answer_export_name(c, data, length, client_flags & NBD_NO_ZEROES);
        case NBD_OPT_ABORT:
            send_option_reply(c, option, NBD_REP_ACK, NULL, 0);
            return -EPIPE;
        case NBD_OPT_STARTTLS:
            r = answer_starttls(c, length);
            break;
        case NBD_OPT_LIST:
            r = answer_list(c);
            break;
        case NBD_OPT_INFO:
        case NBD_OPT_GO:
            r = answer_info(c, option, data, length, &go);
            break;
        case NBD_OPT_STRUCTURED_REPLY:
            c->structured = true;
            r = send_option_reply(c, option, NBD_REP_ACK, NULL, 0);
            break;
        case NBD_OPT_LIST_META_CONTEXT:
        case NBD_OPT_SET_META_CONTEXT:
            r = answer_contexts(c, option, data, length);
            break;
        default:
            r = send_option_reply(c, option, NBD_REP_ERROR(NBD_REP_UNSUPPORTED), NULL, 0);
        }
    }
    return r;
}

/* --- Requests --- */

static int send_locked(struct connection *c, const void *data, size_t length)
{
    struct fibers *fibers = storage_fibers(c->storage);
    int r;

    fiber_lock(fibers, &c->sending);
    r = link_send(&c->link, data, length);
    fiber_unlock(&c->sending);
    return r;
}

static void put_chunk(uint8_t *at, const struct request *request, uint16_t type, uint32_t length)
{
    store_be32(at, NBD_STRUCTURED_MAGIC);
    store_be16(at + 4, NBD_CHUNK_DONE);
    store_be16(at + 6, type);
    store_be64(at + 8, request->cookie);
    store_be32(at + 16, length);
}

static void put_simple(uint8_t *at, const struct request *request, uint32_t error)
{
    store_be32(at, NBD_SIMPLE_MAGIC);
    store_be32(at + 4, error);
    store_be64(at + 8, request->cookie);
}

/* How a request without data in its reply went. */
static int reply_result(const struct request *request, int result)
{
    uint8_t reply[NBD_STRUCTURED_HEADER + 6];

    if (!request->connection->structured || result == 0) {
        put_simple(reply, request, nbd_error_of(result));
        return send_locked(request->connection, reply, NBD_SIMPLE_HEADER);
    }
    put_chunk(reply, request, NBD_CHUNK_ERROR_PLAIN, 6);
    store_be32(reply + NBD_STRUCTURED_HEADER, nbd_error_of(result));
    store_be16(reply + NBD_STRUCTURED_HEADER + 4, 0); /* no text */
    return send_locked(request->connection, reply, sizeof(reply));
}

/* The header goes right before the data. */
static int do_read(struct request *request)
{
    struct connection *c = request->connection;
    uint8_t *data = request->buffer + NBD_STRUCTURED_HEADER + 8, *start;
    int r = disk_read(c->server->disk, request->offset, data, request->length);

    if (r < 0 || !request->length)
        return c->structured && r == 0 ? (put_chunk(request->buffer, request, NBD_CHUNK_NONE, 0),
                                          send_locked(c, request->buffer, NBD_STRUCTURED_HEADER))
                                       : reply_result(request, r);
    if (c->structured) {
        start = request->buffer;
        put_chunk(start, request, NBD_CHUNK_DATA, 8 + request->length);
        store_be64(start + NBD_STRUCTURED_HEADER, request->offset);
    } else {
        start = data - NBD_SIMPLE_HEADER;
        put_simple(start, request, 0);
    }
    return send_locked(c, start, (size_t)(data - start) + request->length);
}

static int do_status(struct request *request)
{
    struct connection *c = request->connection;
    uint8_t reply[NBD_STRUCTURED_HEADER + 4 + STATUS_MAX * 8];
    uint64_t at = request->offset, end = request->offset + request->length;
    unsigned count = 0, most = request->flags & NBD_FLAG_REQ_ONE ? 1 : STATUS_MAX;

    if (!c->allocation || !request->length || end > disk_size(c->server->disk))
        return reply_result(request, -EINVAL);
    while (at < end && count < most) {
        uint8_t *entry = reply + NBD_STRUCTURED_HEADER + 4 + count * 8;
        struct disk_extent extent;
        uint32_t state, length;
        int r = disk_map(c->server->disk, at, &extent);

        if (r < 0)
            return reply_result(request, r);
        length = (uint32_t)MIN(extent.length, end - at);
        state = (extent.data ? 0 : NBD_STATE_HOLE) | (extent.zero ? NBD_STATE_ZERO : 0);
        at += length;
        if (count && load_be32(entry - 4) == state) {
            store_be32(entry - 8, load_be32(entry - 8) + length);
            continue;
        }
        store_be32(entry, length);
        store_be32(entry + 4, state);
        count++;
    }
    put_chunk(reply, request, NBD_CHUNK_STATUS, 4 + count * 8);
    store_be32(reply + NBD_STRUCTURED_HEADER, NBD_CONTEXT_ID);
    return send_locked(c, reply, NBD_STRUCTURED_HEADER + 4 + count * 8);
}

static int change(const struct request *request)
{
    struct disk *disk = request->connection->server->disk;
    int r = -EINVAL;

    switch (request->type) {
    case NBD_CMD_WRITE:
        r = disk_write(disk, request->offset, request->buffer, request->length);
        break;
    case NBD_CMD_WRITE_ZEROES:
        r = disk_write_zeroes(disk, request->offset, request->length,
                              request->flags & NBD_FLAG_NO_HOLE ? 0 : DISK_MAY_UNMAP);
        break;
    case NBD_CMD_TRIM:
        r = disk_discard(disk, request->offset, request->length);
        break;
    case NBD_CMD_FLUSH:
        return disk_flush(disk);
    }
    return r == 0 && (request->flags & NBD_FLAG_FUA) ? disk_flush(disk) : r;
}

static void request_main(void *opaque)
{
    struct request *request = opaque;
    struct connection *c = request->connection;
    int r;

    if (request->type == NBD_CMD_READ)
        r = do_read(request);
    else if (request->type == NBD_CMD_BLOCK_STATUS)
        r = do_status(request);
    else
        r = reply_result(request, change(request));
    if (r < 0)
        shutdown(c->link.fd, SHUT_RDWR); /* the reader sees it */
    c->under_way--;
    fiber_queue_wake_all(&c->one_ended);
    free(request->buffer);
    free(request);
}

/* Read one request with its data and let it run. */
static int take_request(struct connection *c)
{
    struct fibers *fibers = storage_fibers(c->storage);
    uint8_t header[NBD_REQUEST_HEADER];
    struct request *request;
    size_t room = 0;
    int r = link_receive(&c->link, header, sizeof(header));

    if (r < 0)
        return r;
    if (load_be32(header) != NBD_REQUEST_MAGIC || load_be16(header + 6) == NBD_CMD_DISCONNECT)
        return -EPIPE;
    request = calloc(1, sizeof(*request));
    if (!request)
        return -ENOMEM;
    request->connection = c;
    request->flags = load_be16(header + 4);
    request->type = load_be16(header + 6);
    request->cookie = load_be64(header + 8);
    request->offset = load_be64(header + 16);
    request->length = load_be32(header + 24);
    if (request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE)
        room = request->length + NBD_STRUCTURED_HEADER + 8ull;
    if (room > NBD_LENGTH_MAX + 64) { /* a write's data would have to be read over */
        r = request->type == NBD_CMD_READ ? reply_result(request, -EINVAL) : -EPROTO;
        free(request);
        return r;
    }
    request->buffer = room ? malloc(room) : NULL;
    r = room && !request->buffer ? -ENOMEM : 0;
    if (r == 0 && request->type == NBD_CMD_WRITE)
        r = link_receive(&c->link, request->buffer, request->length);
    while (r == 0 && c->under_way >= UNDER_WAY_MAX)
        fiber_queue_wait(fibers, &c->one_ended);
    if (r == 0)
        r = fiber_start(fibers, request_main, request);
    if (r < 0) {
        free(request->buffer);
        free(request);
        return r;
    }
    c->under_way++;
    return 0;
}

/* --- Connections --- */

static void connection_main(void *opaque)
{
    struct connection *c = opaque, **link = &c->server->connections;
    int r = negotiate(c);

    while (r == 0)
        r = take_request(c);
    shutdown(c->link.fd, r == -EPIPE ? SHUT_RD : SHUT_RDWR);
    while (c->under_way)
        fiber_queue_wait(storage_fibers(c->storage), &c->one_ended);
    link_end(&c->link);
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    c->server->count--;
    fiber_queue_wake_all(&c->server->ended);
    close(c->link.fd);
    free(c);
}

static void accept_one(void *opaque, uint32_t events)
{
    struct nbd_server *server = opaque;
    const int one = 1;
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct connection *c = NULL;

    (void)events;
    if (fd < 0)
        return;
    if (server->count < CONNECTIONS_MAX)
        c = calloc(1, sizeof(*c));
    if (!c) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on Unix sockets: well */
    c->server = server;
    c->storage = disk_storage(server->disk);
    c->link = (struct link){.storage = c->storage, .fd = fd};
    fiber_lock_init(&c->sending);
    fiber_queue_init(&c->one_ended);
    c->next = server->connections;
    server->connections = c;
    server->count++;
    if (storage_start(c->storage, connection_main, c) < 0) {
        server->connections = c->next;
        server->count--;
        close(fd);
        free(c);
    }
}

int nbd_server_create(struct loop *loop, int listen_fd, struct disk *disk,
                      const struct nbd_server_options *options, struct nbd_server **ret_server,
                      struct error *err)
{
    const char *name = options->name ? options->name : "";
    struct nbd_server *server;
    int r;

    if (strlen(name) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "an export's name has at most %d bytes", NBD_NAME_MAX);
    server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(err, ENOMEM, "out of memory for a server");
    server->loop = loop;
    server->listen_fd = listen_fd;
    server->disk = disk;
    server->credentials = options->credentials;
    server->tls_required = options->tls_required;
    fiber_queue_init(&server->ended);
    server->name = strdup(name);
    r = server->name
            ? loop_add_fd(loop, listen_fd, EPOLLIN, accept_one, server, &server->source, err)
            : error_set(err, ENOMEM, "out of memory for a server");
    if (r < 0) {
        free(server->name);
        free(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

static int wait_for_connections(void *opaque)
{
    struct nbd_server *server = opaque;

    while (server->connections)
        fiber_queue_wait(storage_fibers(disk_storage(server->disk)), &server->ended);
    return 0;
}

void nbd_server_destroy(struct nbd_server *server)
{
    if (!server)
        return;
    loop_remove(server->source);
    for (struct connection *c = server->connections; c; c = c->next)
        shutdown(c->link.fd, SHUT_RD); /* what was asked for is still answered */
    storage_run(disk_storage(server->disk), wait_for_connections, server);
    free(server->name);
    free(server);
}
