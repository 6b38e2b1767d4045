#include "cli/guest_live.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/image.h"
#include "cli/oci.h"
#include "guest/vm.h"

static bool is_asked(const struct guest *guest, const char *option)
{
    return json_is_true(json_object_get(guest->record, option));
}

/* The guest's standard input is the caller's only when asked for. */
static int set_input(const struct guest *guest, bool detached,
                     struct error *err)
{
    AUTO_CLOSE int fd = -1;

    if (is_asked(guest, "interactive") && !detached)
        return 0;
    /* A detached guest reads what `attach` writes; opened for both, it never ends. */
    fd = is_asked(guest, "interactive") ? openat(guest->fd, "input", O_RDWR | O_CLOEXEC)
                              : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        return error_system(err, errno, "cannot set the guest's standard input");
    return 0;
}

static int live_vm(struct cli *cli, struct guest *guest, struct store **store,
                   void (*started)(void *opaque), void *opaque, struct error *err)
{
    const char *engine = json_string_value(json_object_get(guest->record, "engine"));
    struct vm_options options = {
        .log = (struct log *)cli->log,
        .started = started,
        .opaque = opaque,
    };
    int r = engine_find(engine ? engine : "auto", &options.engine, err);

    if (r == 0)
        r = vm_prepare(guest, *store, err);
    store_close(*store); /* its lock would keep others from removing images */
    *store = NULL;
    return r < 0 ? r : vm_run(guest, &options, err);
}

static int live_container(struct cli *cli, struct guest *guest, struct store **store,
                          void (*started)(void *opaque), void *opaque, struct error *err)
{
    struct oci_relay *relay = NULL;
    int console_fd = -1;
    pid_t pid;
    int r = oci_relay_open(is_asked(guest, "terminal"), &relay, &console_fd, err);

    if (r == 0)
        r = guest_launch(guest, *store, console_fd, cli->log, &pid, err);
    if (console_fd >= 0)
        close(console_fd);
    store_close(*store);
    *store = NULL;
    if (r == 0) {
        if (started)
            started(opaque);
        r = oci_relay_run(relay, pid, err);
    }
    oci_relay_close(relay);
    return r;
}

/* Launch the guest, tell started (NULL: nobody) that it runs, wait for it, clean up. */
static int live(struct cli *cli, struct guest *guest, bool detached,
                struct store **store, void (*started)(void *opaque), void *opaque,
                struct error *err)
{
    struct error why;
    int r = set_input(guest, detached, err);

    if (r == 0)
        r = guest_is_vm(guest) ? live_vm(cli, guest, store, started, opaque, err)
                               : live_container(cli, guest, store, started, opaque, err);
    if (guest_end(guest, r, r < 0 ? NULL : err) < 0 && r >= 0)
        r = -EIO;
    /* What never ran is of no use either. */
    if ((r < 0 && !guest->has_run) || is_asked(guest, "remove")) {
        int removed = *store ? 0 : image_store_open(cli, store, &why);

        if (removed == 0)
            removed = guest_remove(guest, *store, &why);
        if (removed < 0 && r >= 0) {
            *err = why;
            r = removed;
        }
    }
    return r < 0 ? -EIO : r;
}

static void tell_parent(void *opaque)
{
    int *fd = opaque;

    /* An empty word is the good news. The virtual machine's process has the descriptor too. */
    if (write(*fd, "", 1) < 0)
        return; /* nobody waits */
    close(*fd);
    *fd = -1;
}

/* In the child: a process of its own, whose output is the guest's log. */
static int become_monitor(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int log =
        openat(guest->fd, "output.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

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
    if (r < 0 && fd >= 0 && write(fd, err.text, strlen(err.text)) < 0)
        r = -EIO; /* the parent is gone: the log keeps no trace either */
    _exit(r < 0 ? CLI_FAILED : CLI_OK);
}

static int detach(struct cli *cli, struct guest *guest, struct store *store, struct error *err)
{
    int pipe_fds[2];
    AUTO_CLOSE int fd = -1;
    char text[sizeof(err->text)];
    ssize_t n;
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    fd = pipe_fds[0];
    pid = fork();
    if (pid == 0)
        monitor(cli, guest, store, pipe_fds[1]);
    close(pipe_fds[1]);
    if (pid < 0)
        return error_system(err, errno, "cannot fork");
    n = read(fd, text, sizeof(text) - 1);
    if (n > 0 && text[0])
        return error_set(err, EIO, "%.*s", (int)n, text);
    fprintf(cli->out, "%s\n", guest->name);
    return CLI_OK;
}

int guest_live(struct cli *cli, struct guest *guest, bool detached, struct store **store,
               struct error *err)
{
    return detached ? detach(cli, guest, *store, err)
                    : live(cli, guest, false, store, NULL, NULL, err);
}
