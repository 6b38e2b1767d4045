/* task.c - the text of a task. */
#include <stdlib.h>
#include <string.h>

#include "init.h"

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
    case 'S':
        if (task->group_count < GROUPS_MAX)
            task->groups[task->group_count++] = (gid_t)strtoul(text, NULL, 10);
        break;
    case 'T':
        task->terminal = true;
        break;
    case 'L':
        task->lists = true;
        break;
    default:
        if (task->machine_count < RECORDS_MAX)
            task->machine[task->machine_count++] = record;
        break;
    }
}

void task_read(struct task *task, char *text, size_t length)
{
    *task = (struct task){.directory = "/"};
    text[length] = 0;
    for (char *p = text; p < text + length; p += strlen(p) + 1)
        take_record(task, *p, p);
}
