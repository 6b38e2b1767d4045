/* task.h - what Lodge's init in a virtual machine is told to do, as text (channel.h). */
#ifndef LODGE_GUEST_TASK_H
#define LODGE_GUEST_TASK_H

#include "guest/guest.h"

struct task {
    char *text; /* owned */
    size_t length;
    bool terminal;
};

/* The machine and its first command, from the guest's record and config.json. */
int task_of_guest(const struct guest *guest, struct task *ret_task, struct error *err);
/* A further command, from a process object of config.json. */
int task_of_process(const char *process, struct task *ret_task, struct error *err);
/* To print the processes: by columns (processes.h), or NULL. */
int task_of_list(const char *const *columns, struct task *ret_task, struct error *err);
/* To send what is at path in the guest; or to take something there that is called name. */
int task_of_copy(bool out, const char *path, const char *name, struct task *ret_task,
                 struct error *err);
void task_release(struct task *task);

/* The tag of the shared folder for the volume of that number. */
#define TASK_TAG     "volume%zu"
enum { TASK_TAG_MAX = 32 };

#endif
