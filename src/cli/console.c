#include "cli/console.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define ESCAPE 0x1d /* Ctrl-] */

struct console_end {
    struct loop *loop;
    struct console_events events;
    struct loop_source *in_source, *listen_source;
    int in, out, listener;
    bool terminal, escaped, failed;
    struct termios saved;
    char *socket_path;
    pthread_mutex_t lock; /* out, when it is a socket that may go */
    size_t held_start, held_length;
    uint8_t held[4096]; /* input that the guest has not taken yet */
};

/* --- Input --- */

static void watch_input(struct console_end *c, bool on)
{
    if (c->in_source)
        loop_modify_fd(c->in_source, on ? EPOLLIN : 0, NULL);
}

/* Give the guest what is held; stop reading while it takes no more. */
static void feed(struct console_end *c)
{
    size_t taken =
        c->held_length
            ? c->events.input(c->events.opaque, c->held + c->held_start, c->held_length)
            : 0;

    c->held_start += taken;
    c->held_length -= taken;
    if (!c->held_length)
        c->held_start = 0;
    watch_input(c, !c->held_length);
}

static void tell(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));

    (void)n;
}

/* The escape key: q quits, itself sends itself, anything else tells. */
static bool escape_key(struct console_end *c, uint8_t key)
{
    c->escaped = false;
    if (key == ESCAPE)
        return true;
    if (key == 'q')
        c->events.quit(c->events.opaque);
    else
        tell("\r\nlodge: Ctrl-] then: q quits, Ctrl-] sends itself, ? tells this\r\n");
    return false;
}

static void take_input(struct console_end *c, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (c->terminal && c->escaped) {
            if (!escape_key(c, bytes[i]))
                continue;
        } else if (c->terminal && bytes[i] == ESCAPE) {
            c->escaped = true;
            continue;
        }
        c->held[c->held_start + c->held_length++] = bytes[i];
    }
    feed(c);
}

static void drop_client(struct console_end *c)
{
    loop_remove(c->in_source);
    c->in_source = NULL;
    if (!c->listen_source)
        return;
    pthread_mutex_lock(&c->lock);
    close(c->in);
    c->in = c->out = -1;
    pthread_mutex_unlock(&c->lock);
}

static void input_ready(void *opaque, uint32_t events)
{
    struct console_end *c = opaque;
    uint8_t bytes[1024];
    ssize_t n;

    (void)events;
    if (c->held_length) {
        /* Not wanted now; a hang-up still shows. */
        if (events & (EPOLLHUP | EPOLLERR))
            drop_client(c);
        return;
    }
    n = read(c->in, bytes, sizeof(bytes));
    if (n > 0)
        take_input(c, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        drop_client(c); /* the end of input is not the end of the guest */
}

static void ready_on_loop(void *opaque)
{
    feed(opaque);
}

void console_ready(struct console_end *console)
{
    loop_post(console->loop, ready_on_loop, console);
}

/* --- Output --- */

static void write_failed(struct console_end *c)
{
    char why[160];

    if (c->listen_source)
        return; /* the client went; another may come */
    if (c->failed)
        return;
    c->failed = true;
    snprintf(why, sizeof(why), "cannot write the guest's console: %s", strerror(errno));
    c->events.failed(c->events.opaque, why);
}

void console_write(struct console_end *console, const uint8_t *bytes, size_t length)
{
    pthread_mutex_lock(&console->lock);
    while (length && console->out >= 0 && !console->failed) {
        ssize_t n = write(console->out, bytes, length);

        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = console->out, .events = POLLOUT};

            /* A client that does not read loses bytes; a terminal is waited for. */
            if (console->listen_source)
                break;
            poll(&wait, 1, 1000);
        } else if (n < 0 && errno != EINTR) {
            write_failed(console);
            break;
        }
    }
    pthread_mutex_unlock(&console->lock);
}

/* --- Opening --- */

static int raw_terminal(struct console_end *c, struct error *err)
{
    struct termios raw;

    if (!isatty(c->in) || tcgetattr(c->in, &c->saved) < 0)
        return 0;
    raw = c->saved;
    cfmakeraw(&raw);
    if (tcsetattr(c->in, TCSANOW, &raw) < 0)
        return error_system(err, errno, "cannot set the terminal to raw mode");
    c->terminal = true;
    tell("lodge: Ctrl-] then q quits\r\n");
    return 0;
}

static int watch(struct console_end *c, struct error *err)
{
    int r = loop_add_fd(c->loop, c->in, EPOLLIN, input_ready, c, &c->in_source, err);

    /* epoll takes no regular files: a script as input is read at once. */
    if (r == -EPERM) {
        uint8_t bytes[sizeof(c->held) - 1024];
        ssize_t n = read(c->in, bytes, sizeof(bytes));

        if (n > 0)
            take_input(c, bytes, (size_t)n);
        return 0;
    }
    return r;
}

static int open_stdio(struct console_end *c, struct error *err)
{
    const int flags = fcntl(STDOUT_FILENO, F_GETFL);
    int r;

    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return error_set(err, EBADF, "the standard output is closed; give --console another place");
    c->in = STDIN_FILENO;
    c->out = STDOUT_FILENO;
    r = raw_terminal(c, err);
    return r < 0 ? r : watch(c, err);
}

static void accepted(void *opaque, uint32_t events)
{
    struct console_end *c = opaque;
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    if (c->out >= 0) { /* one at a time */
        close(fd);
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->in = c->out = fd;
    pthread_mutex_unlock(&c->lock);
    watch(c, NULL);
}

static int open_socket(struct console_end *c, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!*path || strlen(path) >= sizeof(address.sun_path))
        return error_set(err, EINVAL, "the console's socket path '%s' must have 1 to %zu bytes",
                         path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0)
        return error_system(err, errno, "cannot make a socket");
    if (bind(c->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(c->listener, 1) < 0)
        return error_system(err, errno, "cannot listen at %s", path);
    c->socket_path = realpath(path, NULL); /* the way to it may be gone in the sandbox */
    return loop_add_fd(c->loop, c->listener, EPOLLIN, accepted, c, &c->listen_source, err);
}

static int open_file(struct console_end *c, const char *path, struct error *err)
{
    c->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
    return c->out < 0 ? error_system(err, errno, "cannot open %s for the console", path) : 0;
}

int console_open(const char *where, struct loop *loop, const struct console_events *events,
                 struct console_end **ret_console, struct error *err)
{
    struct console_end *c = calloc(1, sizeof(*c));
    int r = 0;

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->loop = loop;
    c->events = *events;
    c->in = c->out = c->listener = -1;
    pthread_mutex_init(&c->lock, NULL);
    if (!strcmp(where, "stdio"))
        r = open_stdio(c, err);
    else if (!strncmp(where, "unix:", 5))
        r = open_socket(c, where + 5, err);
    else if (strcmp(where, "none") != 0)
        r = open_file(c, where, err);
    if (r < 0) {
        console_close(c);
        return r;
    }
    *ret_console = c;
    return 0;
}

void console_close(struct console_end *console)
{
    if (!console)
        return;
    if (console->terminal)
        tcsetattr(console->in, TCSADRAIN, &console->saved);
    loop_remove(console->in_source);
    loop_remove(console->listen_source);
    if (console->out > STDERR_FILENO)
        close(console->out);
    if (console->listener >= 0)
        close(console->listener);
    if (console->socket_path)
        unlink(console->socket_path);
    free(console->socket_path);
    pthread_mutex_destroy(&console->lock);
    free(console);
}
