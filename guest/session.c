/* session.c - a session: one command, on a terminal or on pipes, with its streams, signals and
 * exit status carried over a port (channel.h). */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <grp.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/channel.h"
#include "guest/processes.h"
#include "init.h"

enum { PIDS_MAX = 32768 };

struct session {
    unsigned number;
    int port;
    struct shared *shared;
    pid_t pid;                /* 0: nothing runs */
    int input, output, error; /* to and from the command; -1: closed */
    int signals, status;
    bool inside; /* the children of this process are in the command's namespaces */
    bool ended; /* the command; what it wrote last may be on its way */
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX]; /* from the host, in parts */
    size_t used;
    char *text; /* the task's, as far as it has come */
    size_t text_length;
    struct task task;
    /* Input that the command has not taken yet. */
    uint8_t waiting[CHANNEL_WINDOW];
    size_t waiting_length;
    bool input_ends;
};

/* --- Talking --- */

static void write_all(int fd, const void *data, size_t length)
{
    const char *bytes = data;

    while (length > 0) {
        ssize_t n = write(fd, bytes, length);

        if (n < 0 && errno != EINTR)
            return; /* nobody to tell */
        bytes += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

static void say(const struct session *session, uint8_t type, const void *data, size_t length)
{
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX];

    channel_header(frame, type, (uint16_t)length);
    if (length)
        memcpy(frame + CHANNEL_HEADER, data, length);
    write_all(session->port, frame, CHANNEL_HEADER + length);
}

static void fail(const struct session *session, const char *what)
{
    char text[256];
    int length = snprintf(text, sizeof(text), "%s: %s", what, strerror(errno));

    say(session, CHANNEL_FAILURE, text, (size_t)length < sizeof(text) ? (size_t)length
                                                                     : sizeof(text) - 1);
}

/* --- The command --- */

static const char *variable(const struct task *task, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < task->environment_count; i++)
        if (!strncmp(task->environment[i], name, length) && task->environment[i][length] == '=')
            return task->environment[i] + length + 1;
    return "";
}

static void become_command(const struct task *task, int report)
{
    sigset_t none;
    int code;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (size_t i = 0; i < task->limit_count; i++)
        setrlimit(task->limits[i].resource, &task->limits[i].value);
    umask(task->umask);
    setenv("PATH", variable(task, "PATH"), 1); /* execvpe looks there */
    if (setgroups(task->group_count, task->groups) == 0 && setgid(task->gid) == 0 &&
        setuid(task->uid) == 0 && chdir(task->directory) == 0)
        execvpe(task->arguments[0], task->arguments, task->environment);
    code = errno;
    if (task->reaps) { /* the init runs, and ends as in a container */
        fprintf(stderr, "lodge-init: cannot run %s: %s\n", task->arguments[0], strerror(code));
        _exit(code == ENOENT ? 127 : 126);
    }
    write_all(report, &code, sizeof(code));
    _exit(127);
}

/* The guest's own command is the first process of namespaces of its own, as that of a container;
 * further ones join them. */
static int enter_namespaces(struct session *session)
{
    static const char *const kinds[] = {"pid", "mnt"};
    char path[48];

    if (session->inside)
        return 0;
    if (session->number == 0)
        return unshare(CLONE_NEWPID | CLONE_NEWNS);
    while (!session->shared->command) /* the guest's own command comes first */
        usleep(1000);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/ns/%s", session->shared->command, kinds[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, 0) < 0)
            return -1;
        close(fd);
    }
    session->inside = true;
    return chdir("/");
}

/* The processes as `lodge ps` prints them, or `lodge top` with its columns; out: where to. */
static void list_processes(const struct task *task, FILE *out)
{
    AUTO_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE pid_t *pids = malloc(PIDS_MAX * sizeof(*pids));
    struct processes processes = {.pids = pids, .first = 1, .root_fd = root};
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    while (pids && proc && (entry = readdir(proc)) && processes.count < PIDS_MAX)
        if (!entry->d_name[strspn(entry->d_name, "0123456789")] && atoi(entry->d_name) != getpid())
            pids[processes.count++] = atoi(entry->d_name);
    if (proc)
        closedir(proc);
    if (task->tabulates)
        processes_print(&processes, (const char *const *)task->arguments, out);
    else
        processes_list(&processes, out);
}

static void run_child(struct session *session, int in, int out, int err, int report)
{
    const struct task *task = &session->task;

    if (session->number == 0)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (!task->terminal &&
        (setsid() < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0))
        _exit(127);
    if (task->copies || task->lists || task->reaps)
        close(report);
    if (task->copies)
        _exit(copy_serve(task));
    if (task->lists) {
        list_processes(task, stdout);
        fflush(stdout);
        _exit(0);
    }
    if (task->reaps)
        reaper_become();
    become_command(task, report);
}

/* Its failure comes through a pipe that a successful exec closes. */
static const char *start(struct session *session)
{
    const struct task *task = &session->task;
    int report[2], in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, code;

    if (pipe2(report, O_CLOEXEC) < 0 ||
        (!task->terminal &&
         (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)))
        return "pipe";
    if (task->terminal) {
        session->pid = forkpty(&session->output, NULL, NULL, NULL);
        session->input = session->output;
        session->error = -1;
    } else {
        session->pid = fork();
        session->input = in[1];
        session->output = out[0];
        session->error = err[0];
    }
    if (session->pid < 0)
        return "fork";
    if (session->pid == 0)
        run_child(session, in[0], out[1], err[1], report[1]);
    close(report[1]);
    if (!task->terminal) {
        close(in[0]);
        close(out[1]);
        close(err[1]);
    }
    if (read(report[0], &code, sizeof(code)) == sizeof(code)) {
        close(report[0]);
        errno = code;
        return task->arguments[0];
    }
    close(report[0]);
    fcntl(session->output, F_SETFD, FD_CLOEXEC);
    fcntl(session->input, F_SETFL, O_NONBLOCK); /* a command that does not read stops nothing */
    return NULL;
}

/* --- The session --- */

static void run_task(struct session *session, const uint8_t *nonce)
{
    uint8_t hello[CHANNEL_HELLO_SIZE];
    const char *failed = NULL;

    memcpy(hello, CHANNEL_HELLO, 8);
    memcpy(hello + 8, nonce, 4);
    write_all(session->port, hello, sizeof(hello));
    task_read(&session->task, session->text, session->text_length);
    session->text_length = 0;
    session->waiting_length = 0;
    session->input_ends = session->ended = false;
    if (session->number == 0)
        failed = system_enter(&session->task);
    if (!failed && enter_namespaces(session) < 0)
        failed = "the guest's namespaces";
    if (!failed)
        failed = start(session);
    if (failed) {
        fail(session, failed);
        session->pid = 0;
        return;
    }
    if (session->number == 0)
        session->shared->command = session->pid;
    say(session, CHANNEL_STARTED, NULL, 0);
}

static void push_input(struct session *session)
{
    uint8_t credit[2];
    ssize_t n;

    while (session->waiting_length > 0) {
        n = session->input < 0
                ? (ssize_t)session->waiting_length /* it does not want any more */
                : write(session->input, session->waiting, session->waiting_length);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0)
            n = (ssize_t)session->waiting_length;
        session->waiting_length -= (size_t)n;
        memmove(session->waiting, session->waiting + n, session->waiting_length);
        credit[0] = (uint8_t)n;
        credit[1] = (uint8_t)(n >> 8);
        say(session, CHANNEL_CREDIT, credit, sizeof(credit));
    }
    if (!session->input_ends || session->input < 0)
        return;
    session->input_ends = false;
    if (session->input == session->output) {
        write_all(session->input, "\4", 1); /* a terminal ends by ^D */
    } else {
        close(session->input);
        session->input = -1;
    }
}

static void close_all(struct session *session)
{
    if (session->input >= 0 && session->input != session->output)
        close(session->input);
    if (session->output >= 0)
        close(session->output);
    if (session->error >= 0)
        close(session->error);
    session->input = session->output = session->error = -1;
    session->pid = 0;
}

/* Of a host that went away: its command ends, too. */
static void end_command(struct session *session)
{
    if (session->pid > 0 && !session->ended) {
        kill(session->pid, SIGHUP);
        kill(session->pid, SIGKILL);
        waitpid(session->pid, &session->status, 0);
    }
    close_all(session);
}

static void take_frame(struct session *session, uint8_t type, const uint8_t *data, uint16_t length)
{
    struct winsize size;

    switch (type) {
    case CHANNEL_TASK:
        if (session->text_length + length <= CHANNEL_TASK_MAX)
            memcpy(session->text + session->text_length, data, length);
        session->text_length += session->text_length + length <= CHANNEL_TASK_MAX ? length : 0;
        break;
    case CHANNEL_RUN:
        if (length == 4 && session->number) /* the host went, and one came, unseen */
            end_command(session);
        if (length == 4 && !session->pid)
            run_task(session, data);
        break;
    case CHANNEL_INPUT:
        if (length <= sizeof(session->waiting) - session->waiting_length)
            memcpy(session->waiting + session->waiting_length, data, length);
        session->waiting_length += length <= sizeof(session->waiting) - session->waiting_length
                                       ? length
                                       : 0;
        session->input_ends |= length == 0;
        push_input(session);
        break;
    case CHANNEL_SIGNAL:
        if (length == 1 && session->pid > 0 && !session->ended)
            kill(session->pid, data[0]);
        break;
    case CHANNEL_SIZE:
        if (length == 4 && session->pid > 0 && session->output >= 0) {
            size = (struct winsize){.ws_row = (uint16_t)(data[0] | data[1] << 8),
                                    .ws_col = (uint16_t)(data[2] | data[3] << 8)};
            ioctl(session->output, TIOCSWINSZ, &size);
        }
        break;
    default:
        break;
    }
}

/* What the host says; false when it is not there any more. */
static bool hear(struct session *session)
{
    uint8_t bytes[CHANNEL_DATA_MAX];
    ssize_t n = read(session->port, bytes, sizeof(bytes));

    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    for (ssize_t i = 0; i < n; i++) {
        uint16_t length;

        if (session->used == 0 && bytes[i] == CHANNEL_NOTHING)
            continue;
        session->frame[session->used++] = bytes[i];
        if (session->used < CHANNEL_HEADER)
            continue;
        length = (uint16_t)(session->frame[1] | session->frame[2] << 8);
        if (length > CHANNEL_DATA_MAX) {
            session->used = 0;
        } else if (session->used == (size_t)CHANNEL_HEADER + length) {
            session->used = 0;
            take_frame(session, session->frame[0], session->frame + CHANNEL_HEADER, length);
        }
    }
    return true;
}

/* Pass on what the command printed; closes the descriptor at its end. */
static void pass(struct session *session, int *fd, uint8_t type)
{
    char bytes[CHANNEL_DATA_MAX];
    ssize_t n = read(*fd, bytes, sizeof(bytes));

    if (n > 0) {
        say(session, type, bytes, (size_t)n);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        if (session->input == *fd)
            session->input = -1;
        close(*fd);
        *fd = -1;
    }
}

static void reap(struct session *session)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(session->signals, &info, sizeof(info)) == sizeof(info))
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == session->pid) {
            session->status = status;
            session->ended = true;
        }
}

static void say_end(struct session *session)
{
    int status = session->status;
    uint8_t code = (uint8_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));

    close_all(session);
    say(session, CHANNEL_EXIT, &code, 1);
}

/* The host went away. */
static void abandon(struct session *session)
{
    end_command(session);
    session->used = session->text_length = 0;
}

/* Until something happens; true when, after the command's end, nothing more does. */
static bool step(struct session *session)
{
    bool wants = session->waiting_length > 0 && session->input >= 0;
    struct pollfd fds[] = {{session->port, POLLIN, 0},
                           {session->signals, POLLIN, 0},
                           {session->output, POLLIN, 0},
                           {session->error, POLLIN, 0},
                           {wants ? session->input : -1, POLLOUT, 0}};

    /* After its end, what it wrote last: others may hold the pipes for ever. */
    if (poll(fds, 5, session->ended ? 20 : -1) == 0)
        return session->ended;
    if (fds[2].revents)
        pass(session, &session->output, CHANNEL_OUTPUT);
    if (fds[3].revents)
        pass(session, &session->error, CHANNEL_ERROR);
    if (fds[1].revents)
        reap(session);
    if (fds[4].revents)
        push_input(session);
    if (fds[0].revents && !hear(session)) {
        abandon(session);
        usleep(1000);
    }
    return session->ended && session->output < 0 && session->error < 0;
}

/* The device of a port appears as the driver gets to know it. */
static int open_port(unsigned number)
{
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/dev/vport0p%u", number + 1);
    while ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        usleep(1000);
    return fd;
}

/* Sleep while nobody is at the host's end: then a port is always ready, for nothing. */
static void await_host(int port, const sigset_t *coming)
{
    struct pollfd fd = {port, POLLIN, 0};

    while (poll(&fd, 1, 0) > 0 && (fd.revents & POLLHUP) && !(fd.revents & POLLIN))
        sigwaitinfo(coming, NULL);
}

void session_serve(unsigned number, struct shared *shared)
{
    static struct session session;
    sigset_t set, coming;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&coming);
    sigaddset(&coming, SIGIO); /* the host comes or goes */
    set = coming;
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    session = (struct session){.number = number,
                               .shared = shared,
                               .input = -1,
                               .output = -1,
                               .error = -1,
                               .port = open_port(number),
                               .signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                               .text = malloc(CHANNEL_TASK_MAX + 1)};
    fcntl(session.port, F_SETOWN, getpid());
    fcntl(session.port, F_SETFL, fcntl(session.port, F_GETFL) | O_ASYNC);
    for (;;) {
        if (!session.pid)
            await_host(session.port, &coming);
        if (step(&session)) {
            say_end(&session);
            if (number == 0)
                return;
        }
        if (number == 0 && !session.pid && session.task.argument_count)
            return; /* it could not be started, which was said */
    }
}
