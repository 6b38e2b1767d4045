/* task.c - the text of a task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"

/* "TYPE SOFT HARD", by the kernel's names. */
static void take_limit(struct task *task, const char *text)
{
    static const struct {
        const char *type;
        int resource;
    } types[] = {
        {"RLIMIT_AS", RLIMIT_AS},           {"RLIMIT_CORE", RLIMIT_CORE},
        {"RLIMIT_CPU", RLIMIT_CPU},         {"RLIMIT_DATA", RLIMIT_DATA},
        {"RLIMIT_FSIZE", RLIMIT_FSIZE},     {"RLIMIT_LOCKS", RLIMIT_LOCKS},
        {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
        {"RLIMIT_NICE", RLIMIT_NICE},       {"RLIMIT_NOFILE", RLIMIT_NOFILE},
        {"RLIMIT_NPROC", RLIMIT_NPROC},     {"RLIMIT_RSS", RLIMIT_RSS},
        {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},   {"RLIMIT_RTTIME", RLIMIT_RTTIME},
        {"RLIMIT_STACK", RLIMIT_STACK},     {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    };
    char type[32];
    long long soft, hard;

    if (sscanf(text, "%31s %lld %lld", type, &soft, &hard) != 3)
        return;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strcmp(types[i].type, type) && task->limit_count < LIMITS_MAX)
            task->limits[task->limit_count++] =
                (struct limit){types[i].resource, {(rlim_t)soft, (rlim_t)hard}};
}

static void take_record(struct task *task, char letter, char *record)
{
    char *text = record + 1;

    switch (letter) {
    case 'A':
        if (task->argument_count < WORDS_MAX)
            task->arguments[task->argument_count++] = text;
        break;
    case 'E':
        if (task->environment_count < WORDS_MAX)
            task->environment[task->environment_count++] = text;
        break;
    case 'W':
        task->directory = text;
        break;
    case 'U':
        task->uid = (uid_t)strtoul(text, NULL, 10);
        break;
    case 'G':
        task->gid = (gid_t)strtoul(text, NULL, 10);
        break;
    case 'K':
        task->umask = (mode_t)strtoul(text, NULL, 10) & 0777;
        break;
    case 'S':
        if (task->group_count < GROUPS_MAX)
            task->groups[task->group_count++] = (gid_t)strtoul(text, NULL, 10);
        break;
    case 'R':
        take_limit(task, text);
        break;
    case 'T':
        task->terminal = true;
        break;
    case 'I':
        task->reaps = true;
        break;
    case 'C':
        task->copies = text[0] == 'o' ? COPY_OUT : COPY_IN;
        break;
    case 'L':
        task->lists = true;
        task->tabulates = text[0] == 't';
        break;
    default:
        if (task->machine_count < RECORDS_MAX)
            task->machine[task->machine_count++] = record;
        break;
    }
}

void task_read(struct task *task, char *text, size_t length)
{
    *task = (struct task){.directory = "/", .umask = 022};
    text[length] = 0;
    for (char *p = text; p < text + length; p += strlen(p) + 1)
        take_record(task, *p, p);
}
