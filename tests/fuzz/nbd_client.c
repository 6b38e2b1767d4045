/* What an NBD server says, from its greeting to the replies: the input is sent whole, whatever
 * the client asks, and then the server hangs up. All that the client does comes to an end. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/disk.h"

#define PIECE 65536u

struct server {
    int listener;
    char url[128];
    const uint8_t *data;
    size_t size;
};

static void *serve(void *opaque)
{
    struct server *server = opaque;
    int peer = accept(server->listener, NULL, NULL);
    uint8_t taken[4096];

    for (size_t sent = 0; sent < server->size;) {
        ssize_t n = send(peer, server->data + sent, server->size - sent, MSG_NOSIGNAL);

        if (n < 0)
            break;
        sent += (size_t)n;
    }
    shutdown(peer, SHUT_WR);
    while (recv(peer, taken, sizeof(taken), 0) > 0)
        ;
    close(peer);
    return NULL;
}

static void listen_somewhere(struct server *server)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};

    snprintf(where.sun_path, sizeof(where.sun_path), "/tmp/lodge-fuzz-nbd-%d", (int)getpid());
    snprintf(server->url, sizeof(server->url), "nbd+unix:///x?socket=%s", where.sun_path);
    unlink(where.sun_path);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server->listener, (struct sockaddr *)&where, sizeof(where)) < 0 ||
        listen(server->listener, 1) < 0)
        abort();
}

static void use(struct disk *disk)
{
    static uint8_t buffer[PIECE];
    const uint64_t size = disk_size(disk), length = MIN(size, PIECE);
    struct disk_extent extent;

    if (size && disk_map(disk, 0, &extent) == 0 && !extent.length)
        abort();
    disk_read(disk, 0, buffer, length);
    disk_read(disk, size - length, buffer, length / 2);
    disk_write(disk, 0, buffer, length);
    disk_write_zeroes(disk, 0, size, DISK_MAY_UNMAP);
    disk_flush(disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct server server = {.listener = -1};
    static struct storage *storage;
    const struct disk_options options = {.format = "raw", .writable = true};
    struct disk *disk;
    pthread_t thread;

    if (server.listener < 0) {
        listen_somewhere(&server);
        if (storage_create(NULL, "threads", &storage, NULL) < 0)
            abort();
    }
    server.data = data;
    server.size = size;
    if (pthread_create(&thread, NULL, serve, &server) != 0)
        abort();
    if (disk_open(storage, server.url, &options, &disk, NULL) == 0) {
        use(disk);
        disk_close(disk, NULL);
    }
    pthread_join(thread, NULL);
    return 0;
}
