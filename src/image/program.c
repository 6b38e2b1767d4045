#include "image/program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

extern char **environ;

/* The last line of the file that is not empty, into line. */
static void last_line(const char *path, char *line, size_t size)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[4096];
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = end <= 0 ? 0
                         : pread(fd, text, sizeof(text) - 1,
                                 end > (off_t)sizeof(text) - 1 ? end - (off_t)sizeof(text) + 1 : 0);
    char *start;

    while (n > 0 && strchr("\r\n ", text[n - 1]))
        n--;
    text[n > 0 ? n : 0] = 0;
    start = strrchr(text, '\n');
    snprintf(line, size, "%.*s", (int)size - 1, start ? start + 1 : text);
}

/* environ with extra behind it; only the array is to be freed. */
static char **join(const char *const *extra)
{
    size_t own = 0, more = 0;
    char **joined;

    while (environ[own])
        own++;
    while (extra && extra[more])
        more++;
    joined = calloc(own + more + 1, sizeof(*joined));
    if (!joined)
        return NULL;
    memcpy(joined, environ, own * sizeof(*joined));
    for (size_t i = 0; i < more; i++)
        joined[own + i] = (char *)extra[i];
    return joined;
}

int program_run(const char *const *argv, const char *const *extra, const char *log,
                struct error *err)
{
    AUTO_FREE char **environment = join(extra);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, ignored;
    char line[256];
    pid_t pid;
    int status, code;

    if (!environment)
        return error_set(err, ENOMEM, "out of memory");
    /* Signals as a program expects to find them, whatever this one ignores or blocks. */
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &ignored);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    code = posix_spawnp(&pid, argv[0], &files, &attributes, (char *const *)argv, environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (code)
        return error_system(err, code, "cannot run %s: is its package installed?", argv[0]);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_system(err, errno, "cannot wait for %s", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    last_line(log, line, sizeof(line));
    return error_set(err, EIO, "%s failed: %s", argv[0], line);
}
