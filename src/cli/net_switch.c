/* lodge net switch, kinds: an Ethernet between guests that needs no rights. */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "cli/verbs.h"
#include "network/network.h"
#include "network/switch.h"

static int run_kinds(struct cli *cli, struct error *err)
{
    (void)err;
    for (unsigned i = 0; network_kinds[i]; i++)
        fprintf(cli->out, "%-8s %s\n", network_kinds[i]->name, network_kinds[i]->summary);
    return CLI_OK;
}

static void stop(void *opaque, uint32_t events)
{
    (void)events;
    loop_stop(opaque);
}

static int run_switch(struct cli *cli, struct error *err)
{
    struct ethernet_switch *ethernet = NULL;
    struct loop_source *signals = NULL;
    AUTO_CLOSE int signal_fd = -1;
    struct loop *loop;
    sigset_t set;
    int r;

    if (cli->argc != 1)
        return error_set(err, EINVAL, "net switch needs the path of a socket to listen at");
    r = loop_create(&loop, err);
    if (r < 0)
        return r;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        r = error_system(err, errno, "cannot watch signals");
    if (r == 0)
        r = loop_add_fd(loop, signal_fd, EPOLLIN, stop, loop, &signals, err);
    if (r == 0)
        r = ethernet_switch_create(cli->argv[0], loop, cli->log, &ethernet, err);
    if (r == 0)
        r = loop_run(loop, err);
    ethernet_switch_destroy(ethernet);
    loop_remove(signals);
    loop_destroy(loop);
    return r == -EINVAL ? -EIO : r; /* what fails here is no usage error */
}

const struct verb net_switch_command = {
    .name = "switch",
    .summary = "connect guests that run with --network switch:SOCKET, until a signal",
    .operands = "SOCKET",
    .run = run_switch,
};

const struct verb net_kinds_command = {
    .name = "kinds",
    .summary = "list the kinds of networks",
    .run = run_kinds,
};
