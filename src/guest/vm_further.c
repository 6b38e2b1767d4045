#include "guest/vm_further.h"

#include <sys/epoll.h>
#include <unistd.h>

#include "guest/session.h"

struct further {
    struct loop *loop;
    struct session *session;
    int signal_fd, status;
    struct error why;
};

static void further_signalled(void *opaque, uint32_t events)
{
    struct further *further = opaque;

    (void)events;
    session_take_signals(further->session, further->signal_fd, NULL, NULL);
}

static void further_ended(void *opaque, int status, const struct error *why)
{
    struct further *further = opaque;

    further->status = status;
    if (why)
        further->why = *why;
    loop_stop(further->loop);
}

int vm_further(const struct guest *guest, const struct task *task,
               const struct vm_streams *streams, struct error *err)
{
    struct further further = {.signal_fd = -1};
    const struct session_events events = {NULL, further_ended, &further};
    const struct session_task session_task = {.text = task->text,
                                              .length = task->length,
                                              .terminal = task->terminal,
                                              .input = streams->input,
                                              .output = streams->output,
                                              .error = streams->error};
    struct loop_source *signals = NULL;
    int r = loop_create(&further.loop, err);

    if (r == 0)
        r = session_watch_signals(&further.signal_fd, err);
    if (r == 0)
        r = loop_add_fd(further.loop, further.signal_fd, EPOLLIN, further_signalled, &further,
                        &signals, err);
    if (r == 0)
        r = session_open(guest->fd, -1, &session_task, further.loop, &events, &further.session,
                         err);
    if (r == 0)
        r = loop_run(further.loop, err);
    if (r == 0 && further.why.code)
        r = error_set(err, further.why.code, "%s", further.why.text);
    if (r == 0)
        r = further.status;
    session_close(further.session);
    loop_remove(signals);
    loop_destroy(further.loop);
    if (further.signal_fd >= 0)
        close(further.signal_fd);
    return r;
}
