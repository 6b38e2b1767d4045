#include "container/hook.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "base/cleanup.h"

/* A memory file: a hook that never reads its input cannot stop the runtime. */
static int state_file(const char *state)
{
    AUTO_CLOSE int fd = memfd_create("state", MFD_CLOEXEC);
    size_t length = strlen(state);

    if (fd < 0 || write(fd, state, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    return steal_fd(&fd);
}

static void hook_exec(const struct hook *hook, int input)
{
    char *path[] = {(char *)(uintptr_t)hook->path, NULL};
    char *const *argv = hook->args.count ? (char *const *)(uintptr_t)hook->args.items : path;
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    dup2(input, STDIN_FILENO);
    /* No env at all inherits the runtime's, as with runc. */
    if (hook->env.items)
        execve(hook->path, argv, (char *const *)(uintptr_t)hook->env.items);
    else
        execv(hook->path, argv);
    _exit(errno == ENOENT ? 127 : 126);
}

static int hook_wait(pid_t pid, const struct hook *hook, const char *kind, struct error *err)
{
    AUTO_CLOSE int process = -1;
    int status;

    if (hook->timeout.given) {
        struct pollfd wait = {.events = POLLIN};
        int64_t ms = hook->timeout.value * 1000;

        process = wait.fd = pidfd_open(pid, 0);
        if (process >= 0 && poll(&wait, 1, ms > INT32_MAX ? -1 : (int)ms) == 0) {
            kill(pid, SIGKILL);
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
            return error_set(err, ETIMEDOUT, "the %s hook %.128s ran longer than %lld seconds",
                             kind, hook->path, (long long)hook->timeout.value);
        }
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_system(err, errno, "cannot wait for the %s hook %.128s", kind, hook->path);
    if (WIFSIGNALED(status))
        return error_set(err, ECANCELED, "the %s hook %.128s was killed by signal %d", kind,
                         hook->path, WTERMSIG(status));
    if (WEXITSTATUS(status) == 127)
        return error_set(err, ENOENT, "the %s hook %.128s cannot be run: no such file", kind,
                         hook->path);
    if (WEXITSTATUS(status))
        return error_set(err, ECANCELED, "the %s hook %.128s ended with status %d", kind,
                         hook->path, WEXITSTATUS(status));
    return 0;
}

int hook_run(const hook_list *hooks, const char *kind, const char *state, struct error *err)
{
    FOR_EACH(hook, *hooks)
    {
        AUTO_CLOSE int input = state_file(state);
        pid_t pid;
        int r;

        if (input < 0)
            return error_system(err, -input, "cannot make the state for the %s hook", kind);
        pid = fork();
        if (pid == 0)
            hook_exec(hook, input);
        if (pid < 0)
            return error_system(err, errno, "cannot start the %s hook", kind);
        if ((r = hook_wait(pid, hook, kind, err)) < 0)
            return r;
    }
    return 0;
}

void hook_run_all(const hook_list *hooks, const char *kind, const char *state,
                  const struct log *log)
{
    FOR_EACH (hook, *hooks) {
        const hook_list one = {hook, 1};
        struct error why = {0};

        if (hook_run(&one, kind, state, &why) < 0)
            log_warning(log, "%s", why.text);
    }
}
