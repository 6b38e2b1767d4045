/* The program: its log, its standard descriptors, its verbs. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "cli/cli.h"

/* A closed standard descriptor must not become some file of ours: 0 reads
 * nothing, 1 and 2 refuse to be written. */
static void keep_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", O_RDONLY);
}

int main(int argc, char **argv)
{
    const struct log log = {.fd = STDERR_FILENO, .level = LOG_WARNING};

    keep_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    return cli_main(cli_verbs, &log, argc, argv);
}
