/* lodge-init.c - the first process of a virtual machine that runs an image: it
 * mounts what programs expect, runs the one command, carries its standard streams,
 * signals, terminal size and exit status over the first serial port (channel.h), and
 * powers the machine off. Static, for any root filesystem. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest/channel.h"

enum { WORDS_MAX = 4096, GROUPS_MAX = 256, CONFIG_MAX = 1 << 20 };

/* What the host asks for; strings stay in the text that was read. */
struct task {
    char *arguments[WORDS_MAX + 1], *environment[WORDS_MAX + 1];
    size_t argument_count, environment_count, group_count;
    const char *directory, *hostname;
    uid_t uid;
    gid_t gid, groups[GROUPS_MAX];
    bool terminal;
};

struct session {
    int port; /* the serial port */
    pid_t pid;
    int input, output, error; /* to and from the command; -1: closed */
    int signals;
    uint8_t buffer[CHANNEL_HEADER + CHANNEL_DATA_MAX]; /* a frame from the host, in parts */
    size_t used;
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

static void say(int port, uint8_t type, const void *data, size_t length)
{
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX];

    channel_header(frame, type, (uint16_t)length);
    memcpy(frame + CHANNEL_HEADER, data, length);
    write_all(port, frame, CHANNEL_HEADER + length);
}

static void power_off(int port)
{
    tcdrain(port);
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void fail(int port, const char *what)
{
    char text[256];
    int length = snprintf(text, sizeof(text), "%s: %s", what, strerror(errno));

    say(port, CHANNEL_FAILURE, text, (size_t)length);
    power_off(port);
}

/* --- The system --- */

static void mount_all(void)
{
    static const struct {
        const char *target, *type, *options;
        unsigned long flags;
    } mounts[] = {
        {"/proc", "proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"/sys", "sysfs", "", MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"/dev", "devtmpfs", "mode=755", MS_NOSUID},
        {"/dev/pts", "devpts", "mode=620,ptmxmode=666,gid=5", MS_NOSUID | MS_NOEXEC},
        {"/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV | MS_NOEXEC},
    };
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};

    /* What fails is missed by the programs that need it, and no reason to stop. */
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i].target, 0755);
        mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options);
    }
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            continue;
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0) {
        ioctl(fd, SIOCSIFFLAGS, &request);
        close(fd);
    }
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd >= 0) {
        write_all(fd, text, strlen(text));
        close(fd);
    }
}

static void set_hostname(const char *name)
{
    char text[400];

    sethostname(name, strlen(name));
    snprintf(text, sizeof(text), "%.255s\n", name);
    write_file("/etc/hostname", text);
    snprintf(text, sizeof(text), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %.255s\n", name);
    write_file("/etc/hosts", text);
    close(open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_CLOEXEC, 0644)); /* there is no DNS */
}

static int open_port(void)
{
    int port = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;

    if (port < 0)
        reboot(RB_POWER_OFF); /* the host sees an end without a hello */
    tcgetattr(port, &raw);
    cfmakeraw(&raw);
    cfsetspeed(&raw, B115200);
    raw.c_cflag |= CLOCAL | CREAD;
    raw.c_cflag &= ~(tcflag_t)CRTSCTS;
    tcsetattr(port, TCSANOW, &raw);
    klogctl(6, NULL, 0); /* the kernel's messages would come between the frames */
    write_all(port, CHANNEL_HELLO, strlen(CHANNEL_HELLO));
    return port;
}

/* --- The task --- */

static void take_record(struct task *task, char letter, char *text)
{
    switch (letter) {
    case 'A':
        if (task->argument_count < WORDS_MAX)
            task->arguments[task->argument_count++] = text;
        break;
    case 'E':
        if (task->environment_count < WORDS_MAX)
            task->environment[task->environment_count++] = text;
        break;
    case 'W':
        task->directory = text;
        break;
    case 'H':
        task->hostname = text;
        break;
    case 'U':
        task->uid = (uid_t)strtoul(text, NULL, 10);
        break;
    case 'G':
        task->gid = (gid_t)strtoul(text, NULL, 10);
        break;
    case 'S':
        if (task->group_count < GROUPS_MAX)
            task->groups[task->group_count++] = (gid_t)strtoul(text, NULL, 10);
        break;
    case 'T':
        task->terminal = true;
        break;
    }
}

static void read_task(struct task *task, int port)
{
    static char text[CONFIG_MAX];
    int fd = open(CHANNEL_CONFIG, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t n = 0;

    while (fd >= 0 && (n = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)n;
    if (fd < 0 || n < 0)
        fail(port, CHANNEL_CONFIG);
    close(fd);
    for (char *p = text; p < text + used; p += strlen(p) + 1)
        take_record(task, *p, p + 1);
    unlink(CHANNEL_CONFIG);
    unlink(CHANNEL_INIT);
    rmdir("/.lodge");
}

static void become_command(const struct task *task, int report)
{
    sigset_t none;
    int code;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setgroups(task->group_count, task->groups) == 0 && setgid(task->gid) == 0 &&
        setuid(task->uid) == 0 && chdir(task->directory) == 0)
        execvpe(task->arguments[0], task->arguments, task->environment);
    code = errno;
    write_all(report, &code, sizeof(code));
    _exit(127);
}

static const char *variable(const struct task *task, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < task->environment_count; i++)
        if (!strncmp(task->environment[i], name, length) && task->environment[i][length] == '=')
            return task->environment[i] + length + 1;
    return "";
}

/* Start the command on a terminal or on pipes; its failure comes through a pipe that a
 * successful exec closes. */
static void start(struct session *session, const struct task *task)
{
    int report[2], in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, code;

    setenv("PATH", variable(task, "PATH"), 1); /* execvpe looks there */
    if (pipe2(report, O_CLOEXEC) < 0 ||
        (!task->terminal &&
         (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)))
        fail(session->port, "pipe");
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
        fail(session->port, "fork");
    if (session->pid == 0) {
        if (!task->terminal &&
            (setsid() < 0 || dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(err[1], 2) < 0))
            _exit(127);
        become_command(task, report[1]);
    }
    close(report[1]);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    if (read(report[0], &code, sizeof(code)) == sizeof(code)) {
        errno = code;
        fail(session->port, task->arguments[0]);
    }
    close(report[0]);
    fcntl(session->output, F_SETFD, FD_CLOEXEC);
}

/* --- The session --- */

static void take_frame(struct session *session, uint8_t type, const uint8_t *data, uint16_t length)
{
    uint8_t credit[2] = {(uint8_t)length, (uint8_t)(length >> 8)};
    struct winsize size;

    switch (type) {
    case CHANNEL_INPUT:
        if (length) {
            write_all(session->input, data, length);
            say(session->port, CHANNEL_CREDIT, credit, sizeof(credit));
        } else if (session->input == session->output) {
            write_all(session->input, "\4", 1); /* a terminal ends by ^D */
        } else {
            close(session->input);
            session->input = -1;
        }
        break;
    case CHANNEL_SIGNAL:
        if (length == 1)
            kill(session->pid, data[0]);
        break;
    case CHANNEL_SIZE:
        if (length == 4) {
            size = (struct winsize){.ws_row = (uint16_t)(data[0] | data[1] << 8),
                                    .ws_col = (uint16_t)(data[2] | data[3] << 8)};
            ioctl(session->output, TIOCSWINSZ, &size);
        }
        break;
    }
}

static void hear(struct session *session)
{
    uint8_t *buffer = session->buffer;
    ssize_t n =
        read(session->port, buffer + session->used, sizeof(session->buffer) - session->used);

    if (n <= 0)
        return;
    session->used += (size_t)n;
    while (session->used >= CHANNEL_HEADER) {
        uint16_t length = (uint16_t)(buffer[1] | buffer[2] << 8);

        if (length > CHANNEL_DATA_MAX || session->used < (size_t)CHANNEL_HEADER + length)
            return;
        take_frame(session, buffer[0], buffer + CHANNEL_HEADER, length);
        session->used -= (size_t)CHANNEL_HEADER + length;
        memmove(buffer, buffer + CHANNEL_HEADER + length, session->used);
    }
}

/* Pass on what the command printed; closes the descriptor at its end. */
static void pass(const struct session *session, int *fd, uint8_t type)
{
    char bytes[CHANNEL_DATA_MAX];
    ssize_t n = read(*fd, bytes, sizeof(bytes));

    if (n > 0) {
        say(session->port, type, bytes, (size_t)n);
    } else if (n == 0 || errno != EINTR) {
        close(*fd);
        *fd = -1;
    }
}

/* Gather the dead; true when the command is among them. */
static bool reap(const struct session *session, int *status)
{
    struct signalfd_siginfo info;
    bool ended = false;
    int one;
    pid_t pid;

    if (read(session->signals, &info, sizeof(info)) < 0)
        return false;
    while ((pid = waitpid(-1, &one, WNOHANG)) > 0)
        if (pid == session->pid) {
            *status = one;
            ended = true;
        }
    return ended;
}

static int serve(struct session *session)
{
    bool ended = false;
    int status = 0;

    for (;;) {
        struct pollfd fds[] = {{session->port, POLLIN, 0},
                               {session->signals, POLLIN, 0},
                               {session->output, POLLIN, 0},
                               {session->error, POLLIN, 0}};

        /* After its end, what it wrote last: others may hold the pipes for ever. */
        if (poll(fds, 4, ended ? 50 : -1) == 0 && ended)
            return status;
        if (fds[2].revents)
            pass(session, &session->output, CHANNEL_OUTPUT);
        if (fds[3].revents)
            pass(session, &session->error, CHANNEL_ERROR);
        if (fds[1].revents && reap(session, &status))
            ended = true;
        if (fds[0].revents && !ended)
            hear(session);
        if (ended && session->output < 0 && session->error < 0)
            return status;
    }
}

int main(void)
{
    static struct task task = {.directory = "/", .hostname = "lodge"};
    static struct session session;
    sigset_t children;
    uint8_t code;
    int status;

    mount_all();
    session.port = open_port();
    read_task(&task, session.port);
    raise_loopback();
    set_hostname(task.hostname);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    session.signals = signalfd(-1, &children, SFD_CLOEXEC);
    start(&session, &task);
    status = serve(&session);
    code = (uint8_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    say(session.port, CHANNEL_EXIT, &code, 1);
    power_off(session.port);
}
