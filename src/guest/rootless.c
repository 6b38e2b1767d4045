#include "guest/rootless.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "container/file.h"
#include "container/namespace.h"

enum { RANGES_MAX = 16 };

static void map_add(id_map_list *map, int64_t inside, int64_t outside, int64_t size)
{
    map->items[map->count++] = (struct id_map){
        .container_id = {.value = inside, .given = true},
        .host_id = {.value = outside, .given = true},
        .size = {.value = size, .given = true},
    };
}

/* The user's own id as 0, and behind it the ranges that "NAME:FIRST:COUNT" lines of the file give
 * by name or number (subuid(5)). map has room for RANGES_MAX + 1. */
static void map_read(const char *file, id_map_list *map, unsigned id, const char *name)
{
    FILE *stream = fopen(file, "re");
    char line[256], number[16];
    int64_t next = 1;

    map->count = 0;
    map_add(map, 0, id, 1);
    snprintf(number, sizeof(number), "%u", geteuid());
    while (stream && map->count <= RANGES_MAX && fgets(line, sizeof(line), stream)) {
        char *first = strchr(line, ':'), *count = first ? strchr(first + 1, ':') : NULL;
        long long from, size;

        if (!count)
            continue;
        *first++ = *count++ = 0;
        if (strcmp(line, name) != 0 && strcmp(line, number) != 0)
            continue;
        from = strtoll(first, NULL, 10);
        size = strtoll(count, NULL, 10);
        if (from <= 0 || size <= 0 || from + size > UINT32_MAX || next + size > UINT32_MAX)
            continue;
        map_add(map, next, from, size);
        next += size;
    }
    if (stream)
        fclose(stream);
}

/* In a child that stays outside: the maps of its parent, with the subordinate ids or, where those
 * are not to be had, without. */
static int maps_write(pid_t pid, struct error *err)
{
    struct id_map uids[RANGES_MAX + 1], gids[RANGES_MAX + 1];
    id_map_list uid_map = {.items = uids}, gid_map = {.items = gids};
    const struct passwd *user = getpwuid(geteuid());
    int r = -ENOENT;

    map_read("/etc/subuid", &uid_map, geteuid(), user ? user->pw_name : "");
    map_read("/etc/subgid", &gid_map, getegid(), user ? user->pw_name : "");
    if (uid_map.count > 1 && gid_map.count > 1)
        r = namespace_write_id_maps(pid, &uid_map, &gid_map, err);
    if (r < 0) {
        uid_map.count = gid_map.count = 1;
        r = namespace_write_id_maps(pid, &uid_map, &gid_map, err);
    }
    return r;
}

static _Noreturn void mapper_run(pid_t parent, int ready_fd, int answer_fd)
{
    struct error err = {0};
    char byte;

    /* The end without a byte: the parent has no namespace. */
    if (read(ready_fd, &byte, 1) == 1)
        report_send(&answer_fd, maps_write(parent, &err) < 0 ? &err : NULL);
    _exit(0);
}

/* The calling process in its new namespace, with the maps that the child writes. */
static int namespace_make(int ready_fd, int answer_fd, struct error *err)
{
    int r;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return error_set(err, EPERM, "users may not make user namespaces here: %s",
                         strerror(errno));
    if (write(ready_fd, "", 1) != 1)
        return error_system(err, errno, "cannot reach a child");
    r = report_await(answer_fd, "the process that maps ids", err);
    if (r < 0)
        return r;
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return error_set(err, EIO, "cannot become root of the user namespace");
    setgroups(0, NULL); /* where a single id is mapped, the caller's groups stay */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return error_set(err, EIO, "cannot detach the mounts from the host's");
    return 0;
}

int rootless_enter(struct error *err)
{
    int ready[2], answer[2], r;
    pid_t parent = getpid(), child;

    if (geteuid() == 0)
        return 0;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_system(err, errno, "cannot make a pipe");
    r = report_open(answer, err);
    if (r < 0) {
        close(ready[0]);
        close(ready[1]);
        return r;
    }
    child = fork();
    if (child == 0) {
        close(ready[1]);
        close(answer[0]);
        mapper_run(parent, ready[0], answer[1]);
    }
    close(ready[0]);
    close(answer[1]);
    r = child < 0 ? error_system(err, errno, "cannot fork")
                  : namespace_make(ready[1], answer[0], err);
    close(ready[1]);
    close(answer[0]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return r;
}

/* --- Configurations --- */

/* user_namespaces(7): who is alone in a namespace may not have further groups. */
static bool is_alone(void)
{
    AUTO_FREE char *text = NULL;

    return file_read(AT_FDCWD, "/proc/self/setgroups", 64, &text, NULL, NULL) == 0 &&
           !strncmp(text, "deny", 4);
}

static void remove_text(json_t *list, const char *text)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (!strcmp(json_string_value(item), text)) {
            json_array_remove(list, i);
            return;
        }
    }
}

static bool has_own_network(const json_t *config)
{
    const json_t *namespace;
    size_t i;

    json_array_foreach(json_object_get(json_object_get(config, "linux"), "namespaces"), i,
                       namespace)
    {
        if (!strcmp(json_string_value(json_object_get(namespace, "type")), "network"))
            return true;
    }
    return false;
}

void rootless_adapt(json_t *config)
{
    json_t *process = json_object_get(config, "process"), *mount;
    bool alone = is_alone(), own_network = has_own_network(config);
    size_t i;

    if (alone)
        json_object_del(json_object_get(process, "user"), "additionalGids");
    json_array_foreach(json_object_get(config, "mounts"), i, mount)
    {
        const char *type = json_string_value(json_object_get(mount, "type"));

        if (alone && !strcmp(type, "devpts"))
            remove_text(json_object_get(mount, "options"), "gid=5");
        /* A sysfs shows the network's devices: it belongs to who owns the network. */
        if (!own_network && !strcmp(type, "sysfs")) {
            json_object_set_new(mount, "type", json_string("bind"));
            json_object_set_new(mount, "source", json_string("/sys"));
            json_array_append_new(json_object_get(mount, "options"), json_string("rbind"));
        }
    }
}
