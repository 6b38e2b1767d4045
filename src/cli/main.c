#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
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

/* Engines call a runtime by a program's name: lodge-oci is `lodge oci`. */
static bool is_runtime(const char *name)
{
    static const char runtime[] = "lodge-oci";
    size_t length = strlen(name);

    return length >= sizeof(runtime) - 1 && !strcmp(name + length - (sizeof(runtime) - 1), runtime);
}

int main(int argc, char **argv)
{
    const struct log log = {.fd = STDERR_FILENO, .level = LOG_WARNING};

    keep_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    if (argc > 0 && is_runtime(argv[0])) {
        static char verb[] = "oci";
        char **words = calloc((size_t)argc + 2, sizeof(*words));

        if (!words)
            return CLI_FAILED;
        words[0] = argv[0];
        words[1] = verb;
        memcpy(words + 2, argv + 1, (size_t)argc * sizeof(*words));
        argc++;
        argv = words;
    }
    return cli_main(cli_verbs, &log, argc, argv);
}
