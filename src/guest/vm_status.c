/* vm_status.c - a virtual machine seen from outside: the process that it lives in. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "guest/guest-private.h"

enum { PROC_MAX = 4096 };

/* A file of the machine's process. */
static int read_proc(pid_t pid, const char *name, char **ret_text, struct error *err)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return file_read(AT_FDCWD, path, PROC_MAX, ret_text, NULL, err);
}

/* proc(5): the state is behind the name, which may have spaces and parentheses. */
static bool stands_still(pid_t pid)
{
    AUTO_FREE char *stat = NULL;
    const char *name_end;

    if (read_proc(pid, "stat", &stat, NULL) < 0)
        return false;
    name_end = strrchr(stat, ')');
    return name_end && !strncmp(name_end, ") T", 3);
}

/* A virtual machine lives in the process that holds the guest's lock. */
void vm_status(const struct guest *guest, struct guest_status *status)
{
    AUTO_CLOSE int fd = openat(guest->fd, "lock", O_RDWR | O_CLOEXEC);
    AUTO_FREE char *text = NULL;

    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK &&
        file_read(guest->fd, "pid", 32, &text, NULL, NULL) == 0) {
        status->pid = atoi(text);
        status->state = stands_still(status->pid) ? GUEST_PAUSED : GUEST_RUNNING;
    } else if (faccessat(guest->fd, "pid", F_OK, 0) == 0) {
        status->state = GUEST_EXITED;
    }
}

/* The number behind a name in the lines of text; 0 when it is not there. */
static json_int_t number_behind(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoll(at + strlen(name), NULL, 10) : 0;
}

int vm_stats(const struct guest *guest, const struct guest_status *status, json_t **ret_stats,
             struct error *err)
{
    AUTO_FREE char *stat = NULL, *status_text = NULL, *io = NULL;
    unsigned long long user = 0, system = 0;
    const char *fields;
    int r = read_proc(status->pid, "stat", &stat, err);

    (void)guest;
    if (r == 0)
        r = read_proc(status->pid, "status", &status_text, err);
    if (r == 0)
        r = read_proc(status->pid, "io", &io, err);
    if (r < 0)
        return r;
    /* proc(5): utime and stime are fields 14 and 15; the name before may have spaces. */
    fields = strrchr(stat, ')');
    if (!fields || sscanf(fields + 2, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu",
                          &user, &system) != 2)
        return error_set(err, EIO, "the figures of process %d are not understood",
                         (int)status->pid);
    *ret_stats = json_pack(
        "{s{s{sI sI sI}} s{s{sI}} s{sI} s{sI sI}}", "cpu", "usage", "total",
        (json_int_t)((user + system) * 1000000000ull / (unsigned long)sysconf(_SC_CLK_TCK)),
        "user", (json_int_t)(user * 1000000000ull / (unsigned long)sysconf(_SC_CLK_TCK)), "kernel",
        (json_int_t)(system * 1000000000ull / (unsigned long)sysconf(_SC_CLK_TCK)), "memory",
        "usage", "usage", number_behind(status_text, "VmRSS:") * 1024, "pids", "current",
        number_behind(status_text, "Threads:"), "blkio", "readBytes",
        number_behind(io, "\nread_bytes:"), "writeBytes", number_behind(io, "\nwrite_bytes:"));
    return *ret_stats ? 0 : error_set(err, ENOMEM, "out of memory");
}
