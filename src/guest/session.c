#include "guest/session.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/window.h"
#include "guest/channel.h"

struct session {
    struct session_events events;
    struct loop *loop;
    struct loop_source *socket, *input;
    int fd, directory_fd, port;
    bool any_port; /* the next one is tried when this one is taken */
    struct session_task task;
    bool raw; /* the user's terminal was changed */
    struct termios before;
    uint8_t hello[CHANNEL_HELLO_SIZE]; /* what the guest is to begin with */
    size_t hello_used;
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX]; /* from the guest, in parts */
    size_t frame_used;
    unsigned window;  /* input bytes that may be sent */
    bool is_file;     /* the input is no source of events: it can always be read */
    bool started, input_ended, done;
};


static void finish(struct session *session, int status, const struct error *why)
{
    if (session->done)
        return;
    session->done = true;
    loop_remove(session->input);
    loop_remove(session->socket);
    session->input = session->socket = NULL;
    session->events.ended(session->events.opaque, status, why);
}

/* As a program whose output is closed, a further one ends when nobody reads. */
static void print(struct session *session, int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);

        if (n < 0 && errno == EPIPE && session->any_port)
            finish(session, 128 + SIGPIPE, NULL);
        if (n < 0 && errno != EINTR)
            return;
        bytes += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

/* --- To the guest --- */

/* The socket's buffer has room for what the window lets out, and signals and sizes beside it. */
static bool send_frame(struct session *session, uint8_t type, const void *data, size_t length)
{
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX];

    channel_header(frame, type, (uint16_t)length);
    memcpy(frame + CHANNEL_HEADER, data, length);
    return send(session->fd, frame, CHANNEL_HEADER + length, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           (ssize_t)(CHANNEL_HEADER + length);
}

static void send_size(struct session *session, const struct winsize *size)
{
    uint8_t data[4];

    store_le16(data, size->ws_row);
    store_le16(data + 2, size->ws_col);
    send_frame(session, CHANNEL_SIZE, data, sizeof(data));
}

static void input_came(void *opaque, uint32_t events)
{
    struct session *session = opaque;
    uint8_t bytes[CHANNEL_DATA_MAX];
    ssize_t n;

    (void)events;
    if (!session->window) { /* a credit wakes it again */
        loop_remove(session->input);
        session->input = NULL;
        return;
    }
    n = read(session->task.input, bytes, MIN(session->window, sizeof(bytes)));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        session->input_ended = true;
        loop_remove(session->input);
        session->input = NULL;
        n = 0;
    }
    session->window -= (unsigned)n;
    send_frame(session, CHANNEL_INPUT, bytes, (size_t)n);
}

/* Watch the input while the guest has room for it. */
static void want_input(struct session *session)
{
    int r;

    if (session->input || session->input_ended || session->done)
        return;
    r = session->is_file ? -EPERM
                         : loop_add_fd(session->loop, session->task.input, EPOLLIN, input_came,
                                       session, &session->input, NULL);
    session->is_file = r == -EPERM;
    while (session->is_file && session->window && !session->input_ended)
        input_came(session, EPOLLIN);
}

/* --- From the guest --- */

static void take_frame(struct session *session, uint8_t type, const uint8_t *data, size_t length)
{
    struct winsize size;
    struct error why;

    switch (type) {
    case CHANNEL_STARTED:
        if (session->started)
            break;
        session->started = true;
        if (session->raw && ioctl(session->task.input, TIOCGWINSZ, &size) == 0)
            send_size(session, &size);
        want_input(session);
        if (session->events.started)
            session->events.started(session->events.opaque);
        break;
    case CHANNEL_OUTPUT:
        print(session, session->task.output, data, length);
        break;
    case CHANNEL_ERROR:
        print(session, session->task.error, data, length);
        break;
    case CHANNEL_CREDIT:
        /* Never more than at first: the guest is not trusted to count. */
        if (length == 2)
            session->window += MIN((unsigned)load_le16(data), CHANNEL_WINDOW - session->window);
        want_input(session);
        break;
    case CHANNEL_EXIT:
        if (length == 1)
            finish(session, data[0], NULL);
        break;
    case CHANNEL_FAILURE:
        error_set(&why, EIO, "%.*s", (int)MIN(length, 400u), (const char *)data);
        finish(session, -1, &why);
        break;
    default:
        break;
    }
}

static void take_hello(struct session *session, uint8_t byte)
{
    size_t used = session->hello_used;

    /* No byte but the first one occurs twice before the nonce, and that may be anything: a
     * guest that repeats itself in part only is not waited for. */
    session->hello_used = byte == session->hello[used] ? used + 1 : byte == session->hello[0];
}

static void take_byte(struct session *session, uint8_t byte)
{
    size_t length;

    if (session->hello_used < CHANNEL_HELLO_SIZE) {
        take_hello(session, byte);
        return;
    }
    session->frame[session->frame_used++] = byte;
    if (session->frame_used < CHANNEL_HEADER)
        return;
    length = load_le16(session->frame + 1);
    if (length > CHANNEL_DATA_MAX) {
        struct error why;

        error_set(&why, EPROTO, "the virtual machine's init says what it must not");
        finish(session, -1, &why);
    } else if (session->frame_used == CHANNEL_HEADER + length) {
        session->frame_used = 0;
        take_frame(session, session->frame[0], session->frame + CHANNEL_HEADER, length);
    }
}

static int connect_port(struct session *session, struct error *err);

static void lost(struct session *session)
{
    struct error why;

    if (!session->hello_used && session->any_port && session->port + 1 < CHANNEL_PORTS) {
        session->port++;
        if (connect_port(session, &why) < 0)
            finish(session, -1, &why);
        return;
    }
    if (!session->hello_used && session->any_port)
        error_set(&why, EBUSY, "%d further commands run in the guest already", CHANNEL_PORTS - 1);
    else
        error_set(&why, EIO, "the virtual machine ended before the command did");
    finish(session, -1, &why);
}

static void socket_came(void *opaque, uint32_t events)
{
    struct session *session = opaque;
    uint8_t bytes[16384];
    ssize_t n = recv(session->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lost(session);
        return;
    }
    for (ssize_t i = 0; i < n && !session->done; i++)
        take_byte(session, bytes[i]);
}

void session_drain(struct session *session)
{
    uint8_t byte;

    while (session && !session->done && recv(session->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0)
        socket_came(session, EPOLLIN);
}

/* --- Beginning and end --- */

static int send_task(struct session *session, struct error *err)
{
    static const uint8_t nothing[CHANNEL_FLUSH];
    bool sent = send(session->fd, nothing, sizeof(nothing), MSG_NOSIGNAL | MSG_DONTWAIT) ==
                sizeof(nothing);
    size_t done = 0, part;

    for (; sent && done < session->task.length; done += part) {
        part = MIN(session->task.length - done, (size_t)CHANNEL_DATA_MAX);
        sent = send_frame(session, CHANNEL_TASK, session->task.text + done, part);
    }
    if (!sent || !send_frame(session, CHANNEL_RUN, session->hello + 8, 4))
        return errno == EPIPE || errno == ECONNRESET /* taken: the next one is tried */
                   ? 0
                   : error_system(err, errno, "cannot send the task to the virtual machine");
    return 0;
}

static int connect_port(struct session *session, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int size = CHANNEL_TASK_MAX;

    loop_remove(session->socket);
    session->socket = NULL;
    if (session->fd >= 0)
        close(session->fd);
    session->fd = -1;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" CHANNEL_PORT,
             session->directory_fd, (unsigned)session->port);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_system(err, errno, "the virtual machine takes no commands");
    /* The whole task is on its way before the guest is there to read it. */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    session->fd = steal_fd(&fd);
    if (send_task(session, err) < 0)
        return -err->code;
    return loop_add_fd(session->loop, session->fd, EPOLLIN, socket_came, session, &session->socket,
                       err);
}

static void set_terminal(struct session *session)
{
    struct termios raw;

    if (tcgetattr(session->task.input, &session->before) < 0)
        return;
    raw = session->before;
    cfmakeraw(&raw);
    session->raw = tcsetattr(session->task.input, TCSAFLUSH, &raw) == 0;
}

int session_open(int directory_fd, int port, const struct session_task *task, struct loop *loop,
                 const struct session_events *events, struct session **ret_session,
                 struct error *err)
{
    struct session *session;
    int r;

    if (task->length > CHANNEL_TASK_MAX)
        return error_set(err, E2BIG, "the command and its environment are too long");
    session = calloc(1, sizeof(*session));
    if (!session)
        return error_set(err, ENOMEM, "out of memory");
    *session = (struct session){.events = *events,
                                .loop = loop,
                                .fd = -1,
                                .directory_fd = directory_fd,
                                .any_port = port < 0,
                                .port = port < 0 ? 1 : port,
                                .task = *task,
                                .window = CHANNEL_WINDOW};
    memcpy(session->hello, CHANNEL_HELLO, 8);
    if (getrandom(session->hello + 8, 4, 0) != 4)
        r = error_system(err, errno, "no random bytes");
    else
        r = connect_port(session, err);
    if (r < 0) {
        session_close(session);
        return r;
    }
    if (task->terminal)
        set_terminal(session);
    *ret_session = session;
    return 0;
}

void session_close(struct session *session)
{
    if (!session)
        return;
    if (session->raw)
        tcsetattr(session->task.input, TCSAFLUSH, &session->before);
    loop_remove(session->input);
    loop_remove(session->socket);
    if (session->fd >= 0)
        close(session->fd);
    free(session);
}

/* --- Signals --- */

/* False when the command is not there yet. */
static bool pass_signal(struct session *session, const struct signalfd_siginfo *info)
{
    int signal = (int)info->ssi_signo;
    uint8_t number = (uint8_t)(signal == SESSION_SIGKILL ? SIGKILL : signal);
    struct winsize size;

    if (!session || !session->started)
        return false;
    if (number != SIGWINCH)
        send_frame(session, CHANNEL_SIGNAL, &number, 1);
    else if (window_of(info, &size))
        send_size(session, &size);
    return true;
}

int session_watch_signals(int *ret_fd, struct error *err)
{
    static const int passed[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,
                                 SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
        sigaddset(&set, passed[i]);
    sigaddset(&set, SIGRTMIN + 3); /* systemd's, to power off */
    sigaddset(&set, SESSION_SIGKILL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    *ret_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *ret_fd < 0 ? error_system(err, errno, "cannot watch signals") : 0;
}

void session_take_signals(struct session *session, int fd, void (*nobody)(void *opaque),
                          void *opaque)
{
    struct signalfd_siginfo info;

    while (read(fd, &info, sizeof(info)) == sizeof(info))
        if (!pass_signal(session, &info) && info.ssi_signo != SIGWINCH && nobody)
            nobody(opaque);
}
