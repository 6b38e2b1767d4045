#include "container/sync.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int sync_pair(int ret_fds[2], struct error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
        return error_system(err, errno, "cannot make a socket pair");
    return 0;
}

static int message_send(int fd, const struct sync_message *message)
{
    return write(fd, message, sizeof(*message)) < 0 ? -errno : 0;
}

int sync_send(int fd, enum sync_step step, int number)
{
    const struct sync_message message = {.step = step, .number = number};

    return message_send(fd, &message);
}

void sync_send_error(int fd, const struct error *error)
{
    const struct sync_message message = {.step = SYNC_FAILED, .error = *error};

    message_send(fd, &message);
}

int sync_receive(int fd, struct sync_message *message, struct error *err)
{
    ssize_t n;

    do
        n = read(fd, message, sizeof(*message));
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        message->step = SYNC_CLOSED;
        return 0;
    }
    if (n != sizeof(*message))
        return error_system(err, n < 0 ? errno : EPROTO, "cannot hear from the new process");
    if (message->step != SYNC_FAILED)
        return 0;
    message->error.text[sizeof(message->error.text) - 1] = 0;
    return error_set(err, message->error.code > 0 ? message->error.code : ECANCELED, "%s",
                     message->error.text);
}

int sync_expect(int fd, enum sync_step step, int *ret_number, struct error *err)
{
    struct sync_message message;
    int r = sync_receive(fd, &message, err);

    if (r < 0)
        return r;
    if (message.step != step)
        return error_set(err, ESRCH, "the new process ended before its time");
    if (ret_number)
        *ret_number = message.number;
    return 0;
}
