/* reaper.c - the first process of a PID namespace in place of a command that does not know how to
 * be it: orphans are its children, and the kernel gives it no signal that it has not asked for
 * (pid_namespaces(7)). */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

/* Reap all, pass signals on, and end as the command does. */
static _Noreturn void serve(pid_t command, const sigset_t *signals)
{
    siginfo_t info;
    int status;
    pid_t pid;

    for (;;) {
        if (sigwaitinfo(signals, &info) < 0)
            continue;
        if (info.si_signo != SIGCHLD)
            kill(command, info.si_signo);
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == command)
                _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
}

void reaper_become(void)
{
    sigset_t all, before;
    pid_t command;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* where the PID namespace is another's */
    command = fork();
    if (command > 0) {
        close_range(3, ~0u, 0);
        serve(command, &all);
    }
    if (command == 0) { /* a terminal's signals are for the command, and come once */
        setpgid(0, 0);
        tcsetpgrp(STDIN_FILENO, getpgrp());
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
}
