/* init.h - inside Lodge's init for virtual machines that run images. */
#ifndef LODGE_INIT_H
#define LODGE_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { WORDS_MAX = 4096, GROUPS_MAX = 256, RECORDS_MAX = 256, LIMITS_MAX = 16 };

/* What the host asks for (channel.h); strings stay in the text that was read. */
struct task {
    char *arguments[WORDS_MAX + 1], *environment[WORDS_MAX + 1];
    size_t argument_count, environment_count, group_count;
    const char *directory;
    uid_t uid;
    gid_t gid, groups[GROUPS_MAX];
    mode_t umask;
    struct limit {
        int resource; /* of setrlimit(2) */
        struct rlimit value;
    } limits[LIMITS_MAX];
    size_t limit_count;
    bool terminal, lists, tabulates, reaps;
    enum { COPY_NOTHING, COPY_OUT, COPY_IN } copies;
    /* The machine's records (channel.h), each with its letter. */
    char *machine[RECORDS_MAX];
    size_t machine_count;
};

/* What the servers of all ports share. */
struct shared {
    volatile pid_t command; /* the guest's own, whose namespaces the others join; 0: not yet */
};

/* task.c: take the task's text apart. */
void task_read(struct task *task, char *text, size_t length);

/* system.c: insert the modules that the initial RAM disk has. */
void system_load_modules(void);
/* Mount the root disk with all that programs expect, set the names and the network, and make the
 * disk this process's root. NULL, or what failed, with errno. */
const char *system_enter(const struct task *task);

/* network.c: the loopback; and the network card by DHCP, false and errno when nobody answers. */
void network_raise_loopback(void);
bool network_configure(void);

/* reaper.c: fork. The caller goes on as the child, in a process group of its own, which has the
 * terminal on descriptor 0. The parent passes its signals on, reaps, and ends with its status. */
void reaper_become(void);

/* copy.c: do what `lodge cp` asks for, over the standard streams. Returns the exit status. */
int copy_serve(const struct task *task);

/* session.c: serve the sessions of a port, one after another. That of port 0 returns when the
 * guest's own command has ended; the others do not return. */
void session_serve(unsigned port, struct shared *shared);

#endif
