#include "base/report.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WELL '\0' /* no line begins with it */

int report_open(int ret_ends[2], struct error *err)
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_ends) < 0
               ? error_system(err, errno, "cannot make a pair of sockets")
               : 0;
}

void report_send(int *fd, const struct error *why)
{
    const char well = WELL;

    if (*fd < 0)
        return;
    send(*fd, why ? why->text : &well, why ? strlen(why->text) : 1, MSG_NOSIGNAL);
    close(*fd);
    *fd = -1;
}

int report_await(int fd, const char *who, struct error *err)
{
    char text[sizeof(err->text)];
    ssize_t n;

    while ((n = read(fd, text, sizeof(text))) < 0 && errno == EINTR)
        ;
    if (n == 1 && text[0] == WELL)
        return 0;
    return n > 0 ? error_set(err, EIO, "%.*s", (int)n, text)
                 : error_set(err, EIO, "%s ended at once", who);
}
