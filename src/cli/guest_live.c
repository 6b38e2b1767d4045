#include "cli/guest_live.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/report.h"
#include "cli/image.h"

/* Between the end of a guest and its next run: a tenth of a second, four, nine, ... */
enum { RESTART_WAIT_MS = 100, RESTART_WAITS_MAX = 100 };

/* The guest's standard input is the caller's only when asked for. */
static int set_input(const struct guest *guest, bool detached, struct error *err)
{
    AUTO_CLOSE int fd = -1;

    if (guest_flag(guest, "interactive") && !detached)
        return 0;
    /* A detached guest reads what `attach` writes; opened for both, it never ends. */
    fd = guest_flag(guest, "interactive") ? openat(guest->fd, "input", O_RDWR | O_CLOEXEC)
                              : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        return error_system(err, errno, "cannot set the guest's standard input");
    return 0;
}

/* Run the guest once, and take note of how it ended. */
static int live_once(struct cli *cli, struct guest *guest, bool detached, struct store **store,
                     const struct guest_run *run, struct error *err)
{
    int r = *store ? 0 : image_store_open(cli, store, err);

    if (r == 0)
        r = set_input(guest, detached, err);
    if (r == 0)
        r = guest_run(guest, store, run, err);
    if (guest_end(guest, r, r < 0 ? NULL : err) < 0 && r >= 0)
        r = -EIO;
    return r;
}

/* Whether it is run again: at once, then after longer and longer. */
static bool is_again(const struct guest *guest, int exit_status, unsigned failures)
{
    unsigned waits = MIN(failures * failures, (unsigned)RESTART_WAITS_MAX);

    for (unsigned i = 0; i < waits && guest_is_to_restart(guest, exit_status, failures); i++)
        poll(NULL, 0, RESTART_WAIT_MS);
    return guest_is_to_restart(guest, exit_status, failures);
}

/* Run the guest, tell started (NULL: nobody) that it runs, wait for it, clean up. */
static int live(struct cli *cli, struct guest *guest, bool detached, struct store **store,
                void (*started)(void *opaque), void *opaque, struct error *err)
{
    const struct guest_run run = {cli->log, started, opaque};
    unsigned failures = 0;
    struct error why;
    int r = live_once(cli, guest, detached, store, &run, err);

    while (r >= 0 && is_again(guest, r, failures += r != 0) &&
           guest_restart(guest, NULL) == 0)
        r = live_once(cli, guest, detached, store, &run, err);
    /* What never ran is of no use either. */
    if ((r < 0 && !guest->has_run) || guest_flag(guest, "remove")) {
        int removed = *store ? 0 : image_store_open(cli, store, &why);

        guest_await_watchers(guest);
        if (removed == 0)
            removed = guest_remove(guest, *store, true, &why);
        if (removed < 0 && r >= 0) {
            *err = why;
            r = removed;
        }
    }
    return r < 0 ? -EIO : r;
}

static void tell_parent(void *opaque)
{
    report_send(opaque, NULL);
}

/* In the child: a process of its own, whose output is the guest's log. */
static int become_monitor(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int log =
        openat(guest->fd, "output.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int r = guest_note_monitor(guest, err);

    if (r < 0)
        return r;
    if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        return error_system(err, errno, "cannot open the guest's log");
    setsid();
    return chdir("/") < 0 ? error_system(err, errno, "cannot change to /") : 0;
}

static _Noreturn void monitor(struct cli *cli, struct guest *guest,
                              struct store *store, int fd)
{
    struct error err = {0};
    int r = become_monitor(guest, &err);

    if (r == 0)
        r = live(cli, guest, true, &store, tell_parent, &fd, &err);
    if (r < 0)
        report_send(&fd, &err);
    _exit(r < 0 ? CLI_FAILED : CLI_OK);
}

static int detach(struct cli *cli, struct guest *guest, struct store *store, struct error *err)
{
    AUTO_CLOSE int said = -1;
    int ends[2], r = report_open(ends, err);
    pid_t pid;

    if (r < 0)
        return r;
    said = ends[0];
    pid = fork();
    if (pid == 0)
        monitor(cli, guest, store, ends[1]);
    close(ends[1]);
    if (pid < 0)
        return error_system(err, errno, "cannot fork");
    r = report_await(said, "the process that waits for the guest", err);
    if (r < 0)
        return r;
    fprintf(cli->out, "%s\n", guest->name);
    return CLI_OK;
}

int guest_live(struct cli *cli, struct guest *guest, bool detached, struct store **store,
               struct error *err)
{
    return detached ? detach(cli, guest, *store, err)
                    : live(cli, guest, false, store, NULL, NULL, err);
}
