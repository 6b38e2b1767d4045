#include "guest/vm_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "guest/session.h"

/* What the child says, at most twice. It is small enough to be written at once (pipe(7)). */
struct report {
    bool ended; /* else it has started */
    int status; /* 0 to 255; negative: why says it */
    struct error why;
};

struct vm_process {
    int fd; /* of the child: where its reports go */
};

/* --- The child --- */

static void send_report(const struct vm_process *process, const struct report *report)
{
    if (write(process->fd, report, sizeof(*report)) < 0) /* the parent is gone: so is this */
        return;
}

void vm_process_started(struct vm_process *process)
{
    const struct report report = {.ended = false};

    send_report(process, &report);
}

/* --- The parent --- */

struct wait {
    pid_t pid;
    int reports_fd, signals_fd;
    struct report last;
    void (*started)(void *opaque);
    void *opaque;
};

/* The terminal sends its signals to both processes. */
static void pass_signals(const struct wait *wait)
{
    struct signalfd_siginfo info;

    while (read(wait->signals_fd, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_code <= 0) /* from a process (sigaction(2)) */
            sigqueue(wait->pid, (int)info.ssi_signo, (union sigval){.sival_int = info.ssi_int});
}

/* False when there is none to come. */
static bool take_report(struct wait *wait)
{
    struct report report;
    ssize_t n = read(wait->reports_fd, &report, sizeof(report));

    if (n < 0 && errno == EINTR)
        return true;
    if (n != sizeof(report))
        return false;
    report.why.text[sizeof(report.why.text) - 1] = 0;
    if (!report.ended && wait->started) {
        wait->started(wait->opaque);
        wait->started = NULL;
    }
    wait->last = report;
    return !report.ended;
}

static void await(struct wait *wait)
{
    struct pollfd fds[] = {{.fd = wait->reports_fd, .events = POLLIN},
                           {.fd = wait->signals_fd, .events = POLLIN}};
    bool more = true;

    while (more) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents)
            pass_signals(wait);
        if (fds[0].revents)
            more = take_report(wait);
    }
}

/* How the child ended, once it has. */
static int outcome(const struct wait *wait, int status, struct error *err)
{
    const struct report *last = &wait->last;

    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 128 + SIGKILL;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return error_set(err, EPERM, "the virtual machine's process was killed: its sandbox "
                                     "forbids what it did");
    if (WIFSIGNALED(status))
        return error_set(err, EIO, "the virtual machine's process was killed by signal %d",
                         WTERMSIG(status));
    if (!last->ended || last->status > 255 || (last->status < 0 && last->why.code <= 0))
        return error_set(err, EIO, "the virtual machine's process did not say how it ended");
    return last->status >= 0 ? last->status : error_set(err, last->why.code, "%s", last->why.text);
}

static int wait_for(struct wait *wait, struct error *err)
{
    struct termios terminal;
    bool has_terminal = tcgetattr(STDIN_FILENO, &terminal) == 0;
    int status;

    await(wait);
    while (waitpid(wait->pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_system(err, errno, "cannot wait for the virtual machine's process");
    if (WIFSIGNALED(status) && has_terminal) /* left as the guest had it */
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    return outcome(wait, status, err);
}

int vm_process_run(int (*body)(struct vm_process *process, void *opaque, struct error *err),
                   void (*started)(void *opaque), void *opaque, struct error *err)
{
    struct wait wait = {.started = started, .opaque = opaque};
    AUTO_CLOSE int reports = -1, signals = -1, to_parent = -1;
    const pid_t parent = getpid();
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    reports = fds[0];
    to_parent = fds[1];
    r = session_watch_signals(&signals, err);
    if (r < 0)
        return r;
    wait.pid = fork();
    if (wait.pid < 0)
        return error_system(err, errno, "cannot fork");
    if (wait.pid == 0) {
        struct vm_process process = {.fd = to_parent};
        struct report report = {.ended = true};

        close(reports);
        close(signals);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) /* it died before that */
            _exit(0);
        report.status = body(&process, opaque, &report.why);
        send_report(&process, &report);
        _exit(0);
    }
    close(steal_fd(&to_parent)); /* so that the child's end is seen */
    wait.reports_fd = reports;
    wait.signals_fd = signals;
    return wait_for(&wait, err);
}
