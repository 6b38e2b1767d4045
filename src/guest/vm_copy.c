/* vm_copy.c - files into a virtual machine that runs, and out of it: its init sends or takes an
 * archive over a session, and a child of this process does the host's end, so that neither waits
 * for the other with a full pipe. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "guest/archive.h"
#include "guest/place.h"
#include "guest/rootless.h"
#include "guest/vm_further.h"

/* --- The host's end --- */

struct helper {
    pid_t pid;
    int why; /* what is read from it: a struct error, when it failed; owned */
};

struct copy {
    bool out;
    const struct place *place; /* of the host */
    int pipe[2];               /* between the helper and the session */
    int words[2];              /* what the guest says of its failure; it waits for nobody */
    int null;
    struct helper helper;
};

static int receive(int directory, const char *name, void *stream, struct error *err)
{
    return archive_receive(stream, false, directory, name, err);
}

static int helper_work(const struct copy *copy, struct error *err)
{
    AUTO_FCLOSE FILE *stream = fdopen(copy->pipe[copy->out ? 0 : 1], copy->out ? "r" : "w");

    if (!stream)
        return error_set(err, ENOMEM, "out of memory");
    return copy->out ? place_fill(copy->place, receive, stream, err)
                     : archive_send(copy->place->directory, copy->place->name, stream, err);
}

static int helper_start(struct copy *copy, struct error *err)
{
    int why[2];

    if (pipe2(why, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    copy->helper.pid = fork();
    if (copy->helper.pid == 0) {
        struct error failed = {0};

        close(copy->pipe[copy->out ? 1 : 0]);
        if (helper_work(copy, &failed) < 0 &&
            write(why[1], &failed, sizeof(failed)) != sizeof(failed))
            _exit(1);
        _exit(0);
    }
    close(why[1]);
    copy->helper.why = why[0];
    return copy->helper.pid < 0 ? error_system(err, errno, "cannot start a process") : 0;
}

/* Until it has ended, by itself: 0, or why it failed. */
static int helper_end(struct helper *helper, struct error *err)
{
    struct error failed = {0};
    int status = 0;
    ssize_t n;

    if (helper->pid <= 0)
        return 0;
    n = read(helper->why, &failed, sizeof(failed));
    close(helper->why);
    while (waitpid(helper->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (n == sizeof(failed) && failed.code) {
        *err = failed;
        return -failed.code;
    }
    return status == 0 ? 0 : error_set(err, EIO, "the process that copies has been killed");
}

/* --- The whole --- */

static int copy_open(struct copy *copy, struct error *err)
{
    copy->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (copy->null < 0 || pipe2(copy->pipe, O_CLOEXEC) < 0 ||
        pipe2(copy->words, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_system(err, errno, "cannot make a pipe");
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void copy_close(struct copy *copy)
{
    int *const fds[] = {&copy->pipe[0], &copy->pipe[1], &copy->words[0], &copy->words[1],
                        &copy->null};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close_fd(fds[i]);
}

/* The guest's words: one line, without what a terminal would take for commands. */
static int guest_failure(const struct copy *copy, struct error *err)
{
    char text[400];
    ssize_t n = read(copy->words[0], text, sizeof(text));

    for (ssize_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 127)
            text[i] = '?';
    return n > 0 ? error_set(err, EIO, "%.*s", (int)n, text)
                 : error_set(err, EIO, "the virtual machine's init could not copy");
}

/* The session's end, then the helper's. Who merely found the other gone is asked last why. */
static int copy_run(const struct guest *guest, struct copy *copy, const struct task *task,
                    struct error *err)
{
    const struct vm_streams streams = {.input = copy->out ? copy->null : copy->pipe[0],
                                       .output = copy->out ? copy->pipe[1] : copy->words[1],
                                       .error = copy->null};
    struct error why = {0};
    int r = helper_start(copy, err), helped;

    if (r < 0)
        return r;
    close_fd(&copy->pipe[copy->out ? 0 : 1]);
    r = vm_further(guest, task, &streams, err);
    close_fd(&copy->pipe[copy->out ? 1 : 0]);
    helped = helper_end(&copy->helper, &why);
    if (helped < 0 && (helped != -EPIPE || (r > 0 && copy->out))) {
        if (err)
            *err = why;
        return helped;
    }
    if (r > 0)
        return guest_failure(copy, err);
    if (r == 0 && helped < 0)
        r = error_set(err, EPIPE, "%s", why.text);
    return r;
}

static int copy_between(const struct guest *guest, bool out, const struct place *place,
                        const char *path, const char *name, struct error *err)
{
    struct copy copy = {
        .out = out, .place = place, .pipe = {-1, -1}, .words = {-1, -1}, .null = -1};
    struct task task = {0};
    int r = task_of_copy(out, path, name, &task, err);

    if (r == 0)
        r = copy_open(&copy, err);
    if (r == 0)
        r = copy_run(guest, &copy, &task, err);
    copy_close(&copy);
    task_release(&task);
    return r;
}

/* A user without privileges goes where their ids are those of the guest. */

int vm_copy_in(const struct guest *guest, const char *from, const char *to, struct error *err)
{
    struct place place = {.directory = -1};
    int r = rootless_enter(err);

    if (r == 0)
        r = place_open(NULL, from, &place, err);
    if (r == 0)
        r = copy_between(guest, false, &place, to, place.name, err);
    place_close(&place);
    return r;
}

int vm_copy_out(const struct guest *guest, const char *from, const char *to, struct error *err)
{
    struct place place = {.directory = -1};
    char name[NAME_MAX + 1];
    int r = place_name(from, name, err);

    if (r == 0)
        r = rootless_enter(err);
    if (r == 0)
        r = place_open_target(NULL, to, name, &place, err);
    if (r == 0)
        r = copy_between(guest, true, &place, from, NULL, err);
    place_close(&place);
    return r;
}
