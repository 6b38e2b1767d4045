/* lodge logs, attach, wait: what a detached guest has printed, prints, and how it ends. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/verbs.h"

enum { TYPED_MAX = 1024 };

/* Copy what there is from one descriptor to another; false at an error of the latter. */
static bool pass(int from, int to)
{
    char buffer[16384];
    ssize_t n;

    while ((n = read(from, buffer, sizeof(buffer))) > 0)
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(to, buffer + done, (size_t)(n - done))) < 0)
                return false;
    return true;
}

static bool has_ended(const struct guest *guest)
{
    struct guest_status status;

    return guest_is_gone(guest) || guest_status(guest, &status, NULL) < 0 ||
           status.state == GUEST_EXITED;
}

static int exit_status_of_guest(const struct guest *guest, struct error *err)
{
    struct guest_status status = {.exit_status = -1};

    guest_await_status(guest);
    guest_status(guest, &status, NULL);
    return status.exit_status >= 0
               ? status.exit_status
               : error_set(err, EIO, "how the guest %s ended is not known", guest->name);
}

/* --- Following --- */

/* What follows a guest's log, and what its terminal says meanwhile. */
struct follower {
    const struct guest *guest;
    int log, watch;
    int input;   /* the guest's; -1: what is typed is nobody's */
    int signals; /* SIGWINCH; -1: not watched */
    bool raw, prefix, detached;
    struct termios before;
};

#define DETACH_PREFIX 16 /* ^P, then */
#define DETACH_KEY    17 /* ^Q: podman's and docker's keys */

/* Take the detach keys out of what was typed at a terminal, and what comes behind them; true when
 * they came. */
static bool filter_keys(struct follower *f, char *bytes, ssize_t *length)
{
    ssize_t kept = 0;
    char out[2 * TYPED_MAX];
    bool found = false;

    for (ssize_t i = 0; i < *length && !found; i++) {
        found = f->prefix && bytes[i] == DETACH_KEY;
        if (f->prefix && !found)
            out[kept++] = DETACH_PREFIX;
        f->prefix = bytes[i] == DETACH_PREFIX;
        if (!f->prefix && !found)
            out[kept++] = bytes[i];
    }
    memcpy(bytes, out, (size_t)kept);
    *length = kept;
    return found;
}

static void pass_typed(struct follower *f)
{
    char bytes[2 * TYPED_MAX];
    ssize_t n = read(STDIN_FILENO, bytes, TYPED_MAX);
    bool ends = n <= 0;

    if (f->raw)
        f->detached = ends || filter_keys(f, bytes, &n);
    if (f->input >= 0 && (ends || write(f->input, bytes, (size_t)n) < 0))
        close(steal_fd(&f->input));
}

static void pass_size(const struct follower *f)
{
    struct signalfd_siginfo info;
    struct winsize size;

    while (read(f->signals, &info, sizeof(info)) == sizeof(info))
        ;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        guest_resize(f->guest, &size);
}

/* Print the log as it grows until the guest has ended, or the user leaves. */
static int follow(struct follower *f, struct error *err)
{
    char path[4096], events[4096];
    bool ended;

    snprintf(path, sizeof(path), "%s/output.log", f->guest->path);
    if (inotify_add_watch(f->watch, path, IN_MODIFY) < 0)
        return error_system(err, errno, "cannot watch %s", path);
    do {
        struct pollfd fds[] = {{.fd = f->watch, .events = POLLIN},
                               {.fd = f->input < 0 && !f->raw ? -1 : STDIN_FILENO,
                                .events = POLLIN},
                               {.fd = f->signals, .events = POLLIN}};

        ended = has_ended(f->guest); /* before the log is read: nothing is missed */
        if (!pass(f->log, STDOUT_FILENO))
            return error_system(err, errno, "cannot write to the standard output");
        if (ended || poll(fds, 3, 200) <= 0)
            continue;
        while (read(f->watch, events, sizeof(events)) > 0)
            ;
        if (fds[1].revents)
            pass_typed(f);
        if (fds[2].revents)
            pass_size(f);
    } while (!ended && !f->detached);
    return 0;
}

static int follower_open(struct follower *f, const struct guest *guest, int log, struct error *err)
{
    *f = (struct follower){.guest = guest, .log = log, .input = -1, .signals = -1};
    f->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return f->watch < 0 ? error_system(err, errno, "cannot watch files") : 0;
}

/* The guest's terminal is the caller's, as far as that is one. */
static void follower_take_terminal(struct follower *f)
{
    struct termios raw;
    sigset_t set;

    if (!guest_flag(f->guest, "terminal") || tcgetattr(STDIN_FILENO, &f->before) < 0)
        return;
    raw = f->before;
    cfmakeraw(&raw);
    f->raw = tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) == 0;
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    f->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    pass_size(f);
}

static void follower_close(struct follower *f)
{
    if (f->raw)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &f->before);
    if (f->watch >= 0)
        close(f->watch);
    if (f->input >= 0)
        close(f->input);
    if (f->signals >= 0)
        close(f->signals);
}

/* --- The verbs --- */

static int open_log(const struct guest *guest, struct error *err)
{
    int fd = openat(guest->fd, "output.log", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, ENOENT, "the guest %s has no log: it was not started with --detach",
                         guest->name);
    return fd;
}

/* --tail: where the last lines of the log begin. An end without a newline is a line, too. */
static off_t tail_begin(int log, unsigned long lines)
{
    off_t at = lseek(log, 0, SEEK_END);
    bool last = true; /* the newline at the very end ends a line, and begins none */
    char block[4096];

    while (at > 0 && lines > 0) {
        off_t from = at > (off_t)sizeof(block) ? at - (off_t)sizeof(block) : 0;
        ssize_t n = pread(log, block, (size_t)(at - from), from);

        if (n <= 0)
            return 0;
        for (; n > 0; n--, last = false)
            if (block[n - 1] == '\n' && !last && --lines == 0)
                return from + n;
        at = from;
    }
    return at;
}

static int seek_tail(const struct cli *cli, int log, struct error *err)
{
    const char *text = cli_value(cli, "tail");

    if (!text || !strcmp(text, "all") || !strcmp(text, "-1"))
        return 0;
    if (!*text || strlen(text) > 9 || text[strspn(text, "0123456789")])
        return error_set(err, EINVAL, "--tail '%.20s' is not a number of lines, or all", text);
    lseek(log, tail_begin(log, strtoul(text, NULL, 10)), SEEK_SET);
    return 0;
}

static int logs_run(struct cli *cli, struct error *err)
{
    AUTO_CLOSE int log = -1;
    struct follower follower = {.watch = -1};
    struct guest guest;
    int r = guest_operand(cli, 1, 1, &guest, err);

    if (r < 0)
        return r;
    r = log = open_log(&guest, err);
    if (r >= 0 && (r = seek_tail(cli, log, err)) < 0) {
        guest_close(&guest);
        return r;
    }
    if (r >= 0 && cli_flag(cli, "follow")) {
        r = follower_open(&follower, &guest, log, err);
        if (r == 0)
            r = follow(&follower, err);
        follower_close(&follower);
    } else if (r >= 0) {
        r = pass(log, STDOUT_FILENO)
                ? 0
                : error_system(err, errno, "cannot write to the standard output");
    }
    guest_close(&guest);
    return r < 0 ? -EIO : CLI_OK;
}

/* Where the guest reads; -1 when it does not run. */
static int open_input(const struct guest *guest)
{
    int fd = openat(guest->fd, "input", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    signal(SIGPIPE, SIG_IGN); /* it may end at any moment */
    if (fd >= 0)
        fcntl(fd, F_SETFL, 0); /* what is typed waits until it is read */
    return fd;
}

static int attach(const struct guest *guest, bool *ret_detached, struct error *err)
{
    AUTO_CLOSE int log = open_log(guest, err);
    struct follower follower;
    int r = log < 0 ? log : follower_open(&follower, guest, log, err);

    if (r < 0)
        return r;
    lseek(log, 0, SEEK_END);
    if (guest_flag(guest, "interactive"))
        follower.input = open_input(guest);
    follower_take_terminal(&follower);
    r = follow(&follower, err);
    *ret_detached = follower.detached;
    follower_close(&follower);
    return r;
}

static int attach_run(struct cli *cli, struct error *err)
{
    AUTO_CLOSE int watch = -1;
    bool detached = false;
    struct guest guest;
    int r = guest_operand(cli, 1, 1, &guest, err);

    if (r < 0)
        return r;
    r = watch = guest_watch(&guest, err);
    if (r >= 0)
        r = attach(&guest, &detached, err);
    if (r == 0 && !detached)
        r = exit_status_of_guest(&guest, err);
    guest_close(&guest);
    return r < 0 ? -EIO : r;
}

/* Its exit status, once it has ended for good. */
static int wait_for(struct cli *cli, struct guest *guest, struct error *err)
{
    AUTO_CLOSE int watch = guest_watch(guest, err);
    int r;

    if (watch < 0)
        return watch;
    while (!has_ended(guest))
        poll(NULL, 0, 100);
    r = exit_status_of_guest(guest, err);
    if (r >= 0)
        fprintf(cli->out, "%d\n", r);
    return r < 0 ? r : 0;
}

static int wait_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, wait_for, err);
}

static const struct cli_option logs_options[] = {
    {"follow", 'f', NULL, "Go on until the guest has ended.", NULL},
    {"tail", 'n', "N", "Only the last lines (default all).", NULL},
    {0},
};

const struct verb logs_command = {
    .name = "logs",
    .summary = "print what a detached guest has printed",
    .operands = "GUEST",
    .options = logs_options,
    .run = logs_run,
};

const struct verb attach_command = {
    .name = "attach",
    .summary = "follow a detached guest until it has ended",
    .operands = "GUEST",
    .description = "The standard input goes to the guest when it was started with --interactive. "
                   "With a terminal, ^P ^Q leaves the guest to itself. The exit status is the "
                   "guest's.",
    .run = attach_run,
};

const struct verb wait_command = {
    .name = "wait",
    .summary = "wait until guests have ended, and print their exit statuses",
    .operands = "GUEST...",
    .run = wait_run,
};
