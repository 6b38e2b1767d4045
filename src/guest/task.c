#include "guest/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "guest/guest-private.h"

enum { CONFIG_MAX = 1 << 20, FILE_MAX = 65536 };

void task_release(struct task *task)
{
    free(task->text);
    *task = (struct task){0};
}

static void add(FILE *out, char letter, const char *text)
{
    fprintf(out, "%c%s%c", letter, text ? text : "", 0);
}

static void add_number(FILE *out, char letter, const json_t *number)
{
    fprintf(out, "%c%lld%c", letter, (long long)json_integer_value(number), 0);
}

static void add_process(FILE *out, const json_t *process, struct task *task)
{
    const json_t *user = json_object_get(process, "user");
    json_t *item;
    size_t i;

    json_array_foreach(json_object_get(process, "args"), i, item)
        add(out, 'A', json_string_value(item));
    json_array_foreach(json_object_get(process, "env"), i, item)
        add(out, 'E', json_string_value(item));
    json_array_foreach(json_object_get(user, "additionalGids"), i, item) add_number(out, 'S', item);
    json_array_foreach(json_object_get(process, "rlimits"), i, item)
        fprintf(out, "R%s %lld %lld%c", json_string_value(json_object_get(item, "type")),
                (long long)json_integer_value(json_object_get(item, "soft")),
                (long long)json_integer_value(json_object_get(item, "hard")), 0);
    add_number(out, 'U', json_object_get(user, "uid"));
    add_number(out, 'G', json_object_get(user, "gid"));
    add(out, 'W', json_string_value(json_object_get(process, "cwd")));
    if (json_object_get(user, "umask"))
        add_number(out, 'K', json_object_get(user, "umask"));
    task->terminal = json_is_true(json_object_get(process, "terminal"));
    if (task->terminal)
        add(out, 'T', "1");
}

/* A file that spec.c made for the guest. */
static void add_file(FILE *out, const struct guest *guest, const char *name, const char *target)
{
    AUTO_FREE char *text = NULL;

    if (file_read(guest->fd, name, FILE_MAX, &text, NULL, NULL) == 0)
        fprintf(out, "F%s\n%s%c", target, text, 0);
}

static char volume_letter(const json_t *volume)
{
    bool read_only = json_is_true(json_object_get(volume, "readOnly"));
    struct stat st;

    if (stat(json_string_value(json_object_get(volume, "source")), &st) == 0 && S_ISREG(st.st_mode))
        return read_only ? 'b' : 'B';
    return read_only ? 'v' : 'V';
}

static void add_tmpfs(void *out, const char *target, const char *options)
{
    fprintf(out, "m%s %s%c", target, options, 0);
}

static void add_machine(FILE *out, const struct guest *guest)
{
    char shm[SHM_OPTIONS_MAX];
    const char *name;
    const json_t *confine = json_object_get(guest->record, "confine");
    json_t *item;
    size_t i;

    if (guest_flag(guest, "init"))
        add(out, 'I', "1");
    add(out, 'H', guest_text(guest, "hostname"));
    if (strcmp(guest_text(guest, "network"), "none") != 0)
        add(out, 'N', "dhcp");
    if (!guest_flag(guest, "noHosts"))
        add_file(out, guest, "hosts", "/etc/hosts");
    add_file(out, guest, "hostname", "/etc/hostname");
    add_file(out, guest, "resolv.conf", "/etc/resolv.conf");
    json_array_foreach(json_object_get(guest->record, "volumes"), i, item)
        fprintf(out, "%c" TASK_TAG " %s%c", volume_letter(item), i,
                json_string_value(json_object_get(item, "target")), 0);
    fprintf(out, "M/dev/shm %s%c", spec_shm_options(guest, shm), 0);
    json_object_foreach(json_object_get(guest->record, "sysctls"), name, item)
        fprintf(out, "Y%s=%s%c", name, json_string_value(item), 0);
    confine_each_tmpfs(confine, add_tmpfs, out);
    if (json_is_true(json_object_get(confine, "readOnly")))
        add(out, 'O', "");
}

static int finish(FILE *out, struct task *task, struct error *err)
{
    if (out && fclose(out) == 0)
        return 0;
    task_release(task);
    return error_set(err, ENOMEM, "out of memory");
}

int task_of_guest(const struct guest *guest, struct task *ret_task, struct error *err)
{
    AUTO_FREE char *text = NULL;
    struct task task = {0};
    json_t *config;
    FILE *out;
    int r = file_read(guest->fd, "config.json", CONFIG_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    out = open_memstream(&task.text, &task.length);
    if (out) {
        config = json_loads(text, 0, NULL);
        add_machine(out, guest);
        add_process(out, json_object_get(config, "process"), &task);
        json_decref(config);
    }
    r = finish(out, &task, err);
    if (r == 0)
        *ret_task = task;
    return r;
}

int task_of_process(const char *process, struct task *ret_task, struct error *err)
{
    struct task task = {0};
    FILE *out = open_memstream(&task.text, &task.length);
    json_t *tree;
    int r;

    if (out) {
        tree = json_loads(process, 0, NULL);
        add_process(out, tree, &task);
        json_decref(tree);
    }
    r = finish(out, &task, err);
    if (r == 0)
        *ret_task = task;
    return r;
}

int task_of_list(const char *const *columns, struct task *ret_task, struct error *err)
{
    struct task task = {0};
    FILE *out = open_memstream(&task.text, &task.length);
    int r;

    if (out)
        add(out, 'L', columns ? "table" : "list");
    for (; out && columns && *columns; columns++)
        add(out, 'A', *columns);
    r = finish(out, &task, err);
    if (r == 0)
        *ret_task = task;
    return r;
}

int task_of_copy(bool out, const char *path, const char *name, struct task *ret_task,
                 struct error *err)
{
    struct task task = {0};
    FILE *text = open_memstream(&task.text, &task.length);
    int r;

    if (text) {
        add(text, 'C', out ? "out" : "in");
        add(text, 'A', path);
        if (!out)
            add(text, 'A', name);
    }
    r = finish(text, &task, err);
    if (r == 0)
        *ret_task = task;
    return r;
}
