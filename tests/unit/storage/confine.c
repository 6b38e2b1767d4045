/* Threads that made a disk's calls before there was a sandbox keep to it afterwards. */
#include "../unit.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sandbox.h"
#include "storage/disk.h"

#define SIZE     (1u << 20)
#define PATIENCE 1000 /* times 10 ms */

/* Read a block of the disk, before the sandbox and in it, and wait to be looked at. */
static int child(const char *path, int ready)
{
    const struct disk_options options = {.format = "raw"};
    struct storage *storage;
    struct sandbox *sandbox;
    struct disk *disk;
    uint8_t block[512];

    if (sandbox_create(SANDBOX_DISK, NULL, &sandbox, NULL) < 0 ||
        storage_create(NULL, "threads", &storage, NULL) < 0 ||
        disk_open(storage, path, &options, &disk, NULL) < 0 ||
        disk_read(disk, 0, block, sizeof(block)) < 0 || sandbox_enter(sandbox, NULL) < 0)
        return 1;
    storage_confine(storage, sandbox);
    if (disk_read(disk, 0, block, sizeof(block)) < 0 || write(ready, "", 1) != 1)
        return 2;
    for (;;)
        poll(NULL, 0, -1);
}

/* What "Seccomp:" of a thread says; 2 is a filter. */
static int seccomp_of(pid_t pid, const char *thread)
{
    char path[64], line[128];
    int mode = -1;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", pid, thread);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "Seccomp: %d", &mode) == 1)
            break;
    fclose(file);
    return mode;
}

/* How many threads there are, and how many of them have a filter. */
static void count(pid_t pid, int *ret_threads, int *ret_confined)
{
    char tasks[64];
    struct dirent *entry;
    DIR *folder;

    *ret_threads = *ret_confined = 0;
    snprintf(tasks, sizeof(tasks), "/proc/%d/task", pid);
    folder = opendir(tasks);
    assert_non_null(folder);
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        *ret_confined += seccomp_of(pid, entry->d_name) == 2;
        ++*ret_threads;
    }
    closedir(folder);
}

static void every_thread_that_serves_the_disk_is_filtered(void **state)
{
    char path[] = "/tmp/lodge-unit-XXXXXX", byte;
    int file = mkstemp(path), pipes[2], threads = 0, confined = 0, status;
    pid_t pid;

    (void)state;
    if (!sandbox_available()) {
        unlink(path);
        skip();
    }
    assert_true(file >= 0 && ftruncate(file, SIZE) == 0 && pipe(pipes) == 0);
    pid = fork();
    if (pid == 0)
        _exit(child(path, pipes[1]));
    close(pipes[1]);
    if (read(pipes[0], &byte, 1) == 1)
        for (int i = 0; i < PATIENCE && (threads < 2 || confined < threads); i++) {
            count(pid, &threads, &confined); /* those that have nothing to do follow in a moment */
            usleep(10000);
        }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(pipes[0]);
    close(file);
    unlink(path);
    assert_true(threads >= 2);
    assert_int_equal(confined, threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_that_serves_the_disk_is_filtered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
