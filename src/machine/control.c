#include "machine/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/run_directory.h"
#include "device/virtio/balloon.h"
#include "device/virtio/blk.h"
#include "machine/machine.h"

#define LINE_SIZE      1024
#define REPLY_SECONDS  60 /* the client's patience */
#define FAILED         "failed: "

struct control {
    struct machine *machine;
    struct loop *loop;
    struct sockaddr_un address;
    int listener, client, passed; /* passed: the descriptor that came along, or -1 */
    struct loop_source *listen_source, *client_source;
    size_t length;
    char line[LINE_SIZE];
};

/* --- Requests --- */

static int change_engine(struct control *c, const char *name, struct error *err)
{
    const struct engine_ops *engine;
    int r = strcmp(name, "auto") ? engine_find(name, &engine, err)
                                 : error_set(err, EINVAL, "name one engine, not auto");

    if (r < 0)
        return r;
    if (engine->device && c->passed <= 0)
        return error_set(err, EINVAL, "the engine %s needs %s, open, with the request",
                         engine->name, engine->device);
    return machine_change_engine(c->machine, engine, MAX(c->passed, 0), err);
}

static int read_bytes(const char *text, char **ret_end, uint64_t *ret_bytes, struct error *err)
{
    errno = 0;
    *ret_bytes = strtoull(text, ret_end, 10);
    return errno || *ret_end == text || *text == '-'
               ? error_set(err, EINVAL, "'%.64s' is no number of bytes", text) : 0;
}

static int resize_disk(struct control *c, const char *operand, struct error *err)
{
    struct virtio_device *disk;
    uint64_t bytes;
    char *path;
    int r = read_bytes(operand, &path, &bytes, err);

    if (r == 0 && *path++ != ' ')
        r = error_set(err, EINVAL, "resize needs BYTES PATH");
    for (unsigned n = 0; r == 0 && (disk = machine_virtio(c->machine, VIRTIO_ID_BLOCK, n)); n++)
        if (!strcmp(virtio_blk_path(disk), path))
            return virtio_blk_resize(disk, bytes, err);
    return r < 0 ? r : error_set(err, ENOENT, "the machine has no disk %s", path);
}

static int set_balloon(struct control *c, const char *operand, struct error *err)
{
    struct virtio_device *balloon = machine_virtio(c->machine, VIRTIO_ID_BALLOON, 0);
    uint64_t bytes, size = machine_memory(c->machine)->size;
    char *end;
    int r = read_bytes(operand, &end, &bytes, err);

    if (r == 0 && !balloon)
        r = error_set(err, ENOENT, "the machine has no balloon");
    if (r == 0 && bytes >= size)
        r = error_set(err, EINVAL, "the guest has no more than %llu MiB",
                      (unsigned long long)(size >> 20));
    if (r == 0)
        virtio_balloon_inflate(balloon, bytes);
    return r;
}

static const struct {
    const char *verb;
    int (*run)(struct control *control, const char *operand, struct error *err);
} requests[] = {
    {"engine", change_engine},
    {"resize", resize_disk},
    {"balloon", set_balloon},
};

static int run_request(struct control *c, struct error *err)
{
    char *operand = strchr(c->line, ' ');

    if (operand)
        *operand++ = 0;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        if (!strcmp(c->line, requests[i].verb))
            return requests[i].run(c, operand ? operand : "", err);
    return error_set(err, EINVAL, "there is no request '%.64s'", c->line);
}

/* --- The machine's side --- */

static void hang_up(struct control *c)
{
    loop_remove(c->client_source);
    c->client_source = NULL;
    if (c->client >= 0)
        close(c->client);
    if (c->passed >= 0)
        close(c->passed);
    c->client = c->passed = -1;
    c->length = 0;
}

/* Take what has come, with a descriptor or without. Returns bytes, 0 at the end, -errno. */
static ssize_t receive(struct control *c)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec bytes = {.iov_base = c->line + c->length,
                          .iov_len = sizeof(c->line) - 1 - c->length};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(c->client, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);

    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        if (c->passed >= 0)
            close(c->passed);
        memcpy(&c->passed, CMSG_DATA(header), sizeof(int));
    }
    return n < 0 ? -errno : n;
}

static void client_ready(void *opaque, uint32_t events)
{
    struct control *c = opaque;
    struct error err = {0};
    char reply[LINE_SIZE], *end;
    ssize_t n = receive(c);

    (void)events;
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        hang_up(c);
        return;
    }
    c->length += (size_t)n;
    end = memchr(c->line, '\n', c->length);
    if (!end && c->length < sizeof(c->line) - 1)
        return;
    c->line[end ? (size_t)(end - c->line) : c->length] = 0;
    if (run_request(c, &err) == 0)
        n = snprintf(reply, sizeof(reply), "ok\n");
    else
        n = snprintf(reply, sizeof(reply), FAILED "%s\n", err.text);
    n = send(c->client, reply, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    hang_up(c);
}

static void accepted(void *opaque, uint32_t events)
{
    struct control *c = opaque;
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    hang_up(c); /* who says nothing gives way to the next */
    c->client = fd;
    if (loop_add_fd(c->loop, fd, EPOLLIN, client_ready, c, &c->client_source, NULL) < 0)
        hang_up(c);
}

/* --- Both sides --- */

static int socket_address(const char *name, struct sockaddr_un *address, struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    return run_directory_path(name, "sock", address->sun_path, sizeof(address->sun_path), err);
}

/* Whether somebody listens there. */
static bool alive(const struct sockaddr_un *address)
{
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                       errno == EAGAIN);
}

static int listen_at(struct control *c, const char *name, struct error *err)
{
    const struct sockaddr *address = (const struct sockaddr *)&c->address;

    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0)
        return error_system(err, errno, "cannot make a socket");
    if (bind(c->listener, address, sizeof(c->address)) < 0 && errno == EADDRINUSE) {
        if (alive(&c->address))
            return error_set(err, EADDRINUSE, "a machine called '%s' runs already", name);
        unlink(c->address.sun_path); /* of one that was killed */
        if (bind(c->listener, address, sizeof(c->address)) < 0)
            return error_system(err, errno, "cannot listen at %s", c->address.sun_path);
    }
    if (listen(c->listener, 4) < 0)
        return error_system(err, errno, "cannot listen at %s", c->address.sun_path);
    return 0;
}

int control_open(const char *name, struct machine *machine, struct loop *loop,
                 struct control **ret_control, struct error *err)
{
    struct control *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    *c = (struct control){.machine = machine, .loop = loop, .listener = -1, .client = -1,
                          .passed = -1};
    r = socket_address(name, &c->address, err);
    if (r == 0)
        r = listen_at(c, name, err);
    if (r == 0)
        r = loop_add_fd(loop, c->listener, EPOLLIN, accepted, c, &c->listen_source, err);
    if (r < 0) {
        if (c->listener >= 0)
            close(c->listener);
        free(c);
        return r;
    }
    *ret_control = c;
    return 0;
}

void control_close(struct control *control)
{
    if (!control)
        return;
    hang_up(control);
    loop_remove(control->listen_source);
    close(control->listener);
    unlink(control->address.sun_path);
    free(control);
}

const char *control_path(const struct control *control)
{
    return control->address.sun_path;
}

/* --- The client's side --- */

static int send_request(int socket_fd, const char *request, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec bytes[2] = {{.iov_base = (char *)request, .iov_len = strlen(request)},
                             {.iov_base = (char[]){"\n"}, .iov_len = 1}};
    struct msghdr message = {.msg_iov = bytes, .msg_iovlen = 2};

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
    }
    return sendmsg(socket_fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int control_request(const char *name, const char *request, int fd, struct error *err)
{
    AUTO_CLOSE int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = REPLY_SECONDS};
    struct sockaddr_un address;
    char reply[LINE_SIZE];
    size_t length = 0;
    ssize_t n;
    int r = socket_address(name, &address, err);

    if (r < 0)
        return r;
    if (socket_fd < 0)
        return error_system(err, errno, "cannot make a socket");
    if (connect(socket_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(err, ENOENT, "no machine called '%s' runs here; give --name to lodge run",
                         name);
    setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    r = send_request(socket_fd, request, fd);
    if (r < 0)
        return error_system(err, -r, "cannot ask the machine '%s'", name);
    do { /* what io_uring still ends may interrupt */
        n = recv(socket_fd, reply + length, sizeof(reply) - 1 - length, 0);
        length += n > 0 ? (size_t)n : 0;
    } while ((n > 0 && length < sizeof(reply) - 1) || (n < 0 && errno == EINTR));
    reply[length] = 0;
    reply[strcspn(reply, "\n")] = 0;
    if (!strcmp(reply, "ok"))
        return 0;
    if (!strncmp(reply, FAILED, strlen(FAILED)))
        return error_set(err, EIO, "%s", reply + strlen(FAILED));
    return error_set(err, EIO, "the machine '%s' gave no answer", name);
}
