#include "container/relay.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/window.h"
#include "container/socket.h"

struct relay {
    struct loop *loop;
    struct loop_source *signals, *input, *output;
    int signal_fd, socket_fd, master;
    pid_t pid;
    int status; /* of waitpid(2) */
    bool raw;   /* the user's terminal was changed */
    struct termios before;
};

int relay_open(bool terminal, struct relay **ret_relay, int *ret_console_fd, struct error *err)
{
    static const int passed[] = {SIGHUP,  SIGINT,  SIGQUIT,  SIGTERM, SIGUSR1, SIGUSR2,
                                 SIGCONT, SIGTSTP, SIGWINCH, SIGCHLD, SIGALRM, SIGTTIN};
    struct relay *relay = calloc(1, sizeof(*relay));
    int pair[2];
    sigset_t set;

    if (!relay)
        return error_set(err, ENOMEM, "out of memory");
    relay->signal_fd = relay->socket_fd = relay->master = -1;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
        sigaddset(&set, passed[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    relay->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (relay->signal_fd < 0) {
        error_system(err, errno, "cannot watch signals");
        goto fail;
    }
    if (terminal) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
            error_system(err, errno, "cannot make a socket pair");
            goto fail;
        }
        relay->socket_fd = pair[0];
        *ret_console_fd = pair[1];
    }
    *ret_relay = relay;
    return 0;
fail:
    relay_close(relay);
    return -err->code;
}

void relay_close(struct relay *relay)
{
    if (!relay)
        return;
    if (relay->raw)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &relay->before);
    loop_remove(relay->signals);
    loop_remove(relay->input);
    loop_remove(relay->output);
    loop_destroy(relay->loop);
    if (relay->signal_fd >= 0)
        close(relay->signal_fd);
    if (relay->socket_fd >= 0)
        close(relay->socket_fd);
    if (relay->master >= 0)
        close(relay->master);
    free(relay);
}

static void window_pass(const struct relay *relay, const struct signalfd_siginfo *info)
{
    struct winsize size;

    if (window_of(info, &size))
        ioctl(relay->master, TIOCSWINSZ, &size);
}

static void signalled(void *opaque, uint32_t events)
{
    struct relay *relay = opaque;
    struct signalfd_siginfo info;

    (void)events;
    while (read(relay->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            if (waitpid(relay->pid, &relay->status, WNOHANG) == relay->pid) {
                loop_stop(relay->loop);
                return;
            }
        } else if (info.ssi_signo == SIGWINCH && relay->master >= 0) {
            window_pass(relay, &info);
        } else {
            kill(relay->pid, (int)info.ssi_signo);
        }
    }
}

static int write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

static void typed(void *opaque, uint32_t events)
{
    struct relay *relay = opaque;
    char bytes[1024];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    (void)events;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0 && write_all(relay->master, bytes, (size_t)n) == 0)
        return;
    if (n == 0) /* the end of a file that is no terminal: ^D */
        write_all(relay->master, "\4", 1);
    loop_remove(relay->input);
    relay->input = NULL;
}

/* Returns false once nothing more will come. */
static bool output_pass(const struct relay *relay)
{
    char bytes[4096];
    ssize_t n = read(relay->master, bytes, sizeof(bytes));

    if (n < 0 && errno == EINTR)
        return true;
    return n > 0 && write_all(STDOUT_FILENO, bytes, (size_t)n) == 0;
}

static void printed(void *opaque, uint32_t events)
{
    struct relay *relay = opaque;

    (void)events;
    if (output_pass(relay))
        return;
    loop_remove(relay->output);
    relay->output = NULL;
}

static int terminal_begin(struct relay *relay, struct error *err)
{
    struct termios raw;
    int r;

    relay->master = socket_receive_fd(relay->socket_fd);
    if (relay->master < 0)
        return error_system(err, -relay->master, "cannot take the container's terminal");
    if (tcgetattr(STDIN_FILENO, &relay->before) == 0) {
        raw = relay->before;
        cfmakeraw(&raw);
        if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) < 0)
            return error_system(err, errno, "cannot change the terminal");
        relay->raw = true;
        window_pass(relay, &(struct signalfd_siginfo){.ssi_code = SI_KERNEL});
    }
    r = loop_add_fd(relay->loop, relay->master, EPOLLIN, printed, relay, &relay->output, err);
    if (r == 0) {
        r = loop_add_fd(relay->loop, STDIN_FILENO, EPOLLIN, typed, relay, &relay->input, NULL);
        if (r == -EPERM) /* a file: it can always be read, but not be waited for */
            while (typed(relay, EPOLLIN), relay->input)
                ;
        r = 0;
    }
    return r;
}

int relay_run(struct relay *relay, pid_t pid, struct error *err)
{
    int r = loop_create(&relay->loop, err);

    relay->pid = pid;
    if (r == 0)
        r = loop_add_fd(relay->loop, relay->signal_fd, EPOLLIN, signalled, relay, &relay->signals,
                        err);
    if (r == 0 && relay->socket_fd >= 0)
        r = terminal_begin(relay, err);
    if (r == 0)
        r = loop_run(relay->loop, err);
    if (r < 0)
        return r;
    /* What the program wrote last; others may still hold the terminal. */
    if (relay->output && fcntl(relay->master, F_SETFL, O_NONBLOCK) == 0)
        while (output_pass(relay))
            ;
    return WIFEXITED(relay->status) ? WEXITSTATUS(relay->status) : 128 + WTERMSIG(relay->status);
}
