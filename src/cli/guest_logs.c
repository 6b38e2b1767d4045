/* lodge logs, attach: what a detached guest has printed, and prints. */
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/verbs.h"

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

    return guest_status(guest, &status, NULL) < 0 || status.state == GUEST_EXITED;
}

/* Print the log as it grows until the guest has ended; pass the standard input on to input_fd
 * (-1: no). */
static int follow(const struct guest *guest, int log, int input_fd, struct error *err)
{
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char path[4096], events[4096];
    bool ended;

    snprintf(path, sizeof(path), "%s/output.log", guest->path);
    if (watch < 0 || inotify_add_watch(watch, path, IN_MODIFY) < 0)
        return error_system(err, errno, "cannot watch %s", path);
    do {
        struct pollfd fds[2] = {{.fd = watch, .events = POLLIN},
                                {.fd = input_fd < 0 ? -1 : STDIN_FILENO, .events = POLLIN}};

        ended = has_ended(guest); /* before the log is read: nothing is missed */
        if (!pass(log, STDOUT_FILENO))
            return error_system(err, errno, "cannot write to the standard output");
        if (ended || poll(fds, 2, 200) <= 0)
            continue;
        while (read(watch, events, sizeof(events)) > 0)
            ;
        if (fds[1].revents) {
            ssize_t n = read(STDIN_FILENO, events, sizeof(events));

            if (n <= 0 || write(input_fd, events, (size_t)n) < 0)
                input_fd = -1;
        }
    } while (!ended);
    return 0;
}

static int open_log(const struct guest *guest, struct error *err)
{
    int fd = openat(guest->fd, "output.log", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, ENOENT, "the guest %s has no log: it was not started with --detach",
                         guest->name);
    return fd;
}

static int logs_run(struct cli *cli, struct error *err)
{
    AUTO_CLOSE int log = -1;
    struct guest guest;
    int r = guest_operand(cli, 1, 1, &guest, err);

    if (r < 0)
        return r;
    r = log = open_log(&guest, err);
    if (r >= 0)
        r = cli_flag(cli, "follow") ? follow(&guest, log, -1, err)
            : pass(log, STDOUT_FILENO)
                ? 0
                : error_system(err, errno, "cannot write to the standard output");
    guest_close(&guest);
    return r < 0 ? -EIO : CLI_OK;
}

static int attach_run(struct cli *cli, struct error *err)
{
    AUTO_CLOSE int log = -1, input = -1;
    struct guest_status status = {.exit_status = -1};
    struct guest guest;
    int r = guest_operand(cli, 1, 1, &guest, err);

    if (r < 0)
        return r;
    r = log = open_log(&guest, err);
    if (r >= 0)
        lseek(log, 0, SEEK_END);
    if (r >= 0 && guest_flag(&guest, "interactive"))
        input = openat(guest.fd, "input", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (r >= 0)
        r = follow(&guest, log, input, err);
    if (r == 0)
        r = guest_status(&guest, &status, err);
    guest_close(&guest);
    if (r < 0)
        return -EIO;
    return status.exit_status >= 0 ? status.exit_status : CLI_OK;
}

static const struct cli_option logs_options[] = {
    {"follow", 'f', NULL, "Go on until the guest has ended.", NULL},
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
                   "The exit status is the guest's.",
    .run = attach_run,
};
