/* runtime.c - main of lodge-oci: `lodge oci` as a program of its own, which engines call
 * several times a container. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/verbs.h"

/* The verbs that `lodge help` would list: here there is but one, and its name is implied. */
const struct verb *const cli_verbs[] = {&oci_command, NULL};

int main(int argc, char **argv)
{
    const struct log log = {.fd = STDERR_FILENO, .level = LOG_WARNING};
    static char verb[] = "oci";
    AUTO_FREE char **words = calloc((size_t)argc + 2, sizeof(*words));

    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", O_RDONLY);
    signal(SIGPIPE, SIG_IGN);
    if (!words || argc < 1)
        return CLI_FAILED;
    words[0] = argv[0];
    words[1] = verb;
    memcpy(words + 2, argv + 1, (size_t)(argc - 1) * sizeof(*words));
    return cli_main(cli_verbs, &log, argc + 1, words);
}
