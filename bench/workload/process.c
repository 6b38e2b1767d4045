/* Work for the kernel: system calls, pipes, processes, and Debian's busybox as
 * the program that others write. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define DATA "/tmp/lodge-bench-data"

uint64_t system_calls(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 1000000; i++)
        sum += syscall(SYS_getpid) > 0;
    return sum;
}

uint64_t ping_pong(void)
{
    enum { ROUNDS = 20000 };
    int there[2], back[2], status;
    uint64_t sum = 0;
    uint8_t byte = 0;
    pid_t child;

    if (pipe(there) || pipe(back) || (child = fork()) < 0)
        abort();
    if (!child) {
        for (unsigned i = 0; i < ROUNDS; i++)
            if (read(there[0], &byte, 1) != 1 || (byte++, write(back[1], &byte, 1)) != 1)
                _exit(1);
        _exit(0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            abort();
        sum += byte;
    }
    waitpid(child, &status, 0);
    for (unsigned i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    return sum;
}

/* Run a command without its output; its exit status is added to the checksum. */
static uint64_t run(char *const arguments[])
{
    extern char **environ;
    int status, null = open("/dev/null", O_RDWR);
    pid_t child = fork();

    if (!child) {
        dup2(null, 0);
        dup2(null, 1);
        execve(arguments[0], arguments, environ);
        execvp(arguments[0], arguments);
        _exit(127);
    }
    close(null);
    if (child < 0 || waitpid(child, &status, 0) != child)
        abort();
    return (uint64_t)WEXITSTATUS(status);
}

uint64_t fork_exec(void)
{
    char *const arguments[] = {"/proc/self/exe", "nothing", NULL};
    uint64_t sum = 0;

    for (unsigned i = 0; i < 200; i++)
        sum += run(arguments) + 1;
    return sum;
}

/* Text that compresses as text does. */
static void write_data(unsigned megabytes)
{
    static const char *const words[] = {"guest ", "memory ", "page ", "of the ", "block\n", "and ",
                                        "interrupt ", "disk ", "a ", "network ", "is ", "0x1f\n"};
    FILE *file = fopen(DATA, "w");
    uint32_t random = 1;

    if (!file)
        abort();
    for (size_t size = 0; size < (size_t)megabytes << 20;) {
        random = random * 1664525 + 1013904223;
        const char *word = words[(random >> 24) % 12];

        fputs(word, file);
        size += strlen(word);
    }
    if (fclose(file))
        abort();
}

/* The time counts the command, and a file written for it that is small beside it. */
uint64_t sha256(void)
{
    char *const arguments[] = {"busybox", "sha256sum", DATA, NULL};
    uint64_t result;

    write_data(8);
    result = 0;
    for (unsigned i = 0; i < 8; i++) /* 64 MB in all */
        result += run(arguments);
    unlink(DATA);
    return result;
}

uint64_t gzip(void)
{
    char *const arguments[] = {"busybox", "gzip", "-9", "-c", DATA, NULL};
    uint64_t result;

    write_data(1);
    result = run(arguments);
    unlink(DATA);
    return result;
}

uint64_t shell_loop(void)
{
    char *const arguments[] = {"busybox", "sh", "-c",
                               "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; exit 7", NULL};

    return run(arguments);
}

uint64_t parallel(void)
{
    char *const arguments[] = {
        "busybox", "sh", "-c",
        "busybox seq 60 | busybox xargs -n 1 -P 2 busybox sh -c 'i=0; while [ $i -lt 2000 ]; do "
        "i=$((i + 1)); done' && exit 9", NULL};

    return run(arguments);
}
