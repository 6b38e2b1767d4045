/* window.h - the size of a terminal's window as the number that goes with a SIGWINCH (sigqueue(3)),
 * from a process that has the terminal to one that has not. */
#ifndef LODGE_BASE_WINDOW_H
#define LODGE_BASE_WINDOW_H

#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

static inline void window_send(pid_t pid, const struct winsize *size)
{
    const union sigval value = {.sival_int = (size->ws_row & 0x7fff) << 16 | size->ws_col};

    sigqueue(pid, SIGWINCH, value);
}

/* What came with the signal; else that of the standard input. False: there is none. */
static inline bool window_of(const struct signalfd_siginfo *info, struct winsize *ret_size)
{
    if (info->ssi_code != SI_QUEUE)
        return ioctl(0, TIOCGWINSZ, ret_size) == 0;
    *ret_size = (struct winsize){.ws_row = (unsigned short)(info->ssi_int >> 16),
                                 .ws_col = (unsigned short)info->ssi_int};
    return true;
}

#endif
