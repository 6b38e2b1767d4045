#include "container/program.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/file.h"
#include "container/path.h"

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum { PASSWD_BYTES_MAX = 1 << 20 };

/* The sixth field of the user's line in /etc/passwd (passwd(5)), which is the
 * container's: a regular file of some size, or it is not read. */
static char *home_find(uint64_t uid)
{
    AUTO_CLOSE int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct path_root root = {.fd = top};
    AUTO_FREE char *text = top < 0 ? NULL : path_read_text(&root, "/etc/passwd", PASSWD_BYTES_MAX);

    if (!text)
        return NULL;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *fields[7] = {0}, *end;
        size_t count = 0;

        for (char *field; count < 7 && (field = strsep(&line, ":"));)
            fields[count++] = field;
        if (count < 6 || !fields[2][0] || strtoull(fields[2], &end, 10) != uid || *end)
            continue;
        return fields[5][0] ? strdup(fields[5]) : NULL;
    }
    return NULL;
}

static const char *variable(char *const *env, const char *name)
{
    size_t length = strlen(name);

    for (; *env; env++)
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

int program_environment(const struct process *process, char ***ret_env, char **ret_home,
                        struct error *err)
{
    AUTO_FREE char **env = calloc(process->env.count + 2, sizeof(*env));
    AUTO_FREE char *home = NULL;
    size_t count = 0;

    if (!env)
        return error_set(err, ENOMEM, "out of memory");
    FOR_EACH(entry, process->env)
    env[count++] = (char *)(uintptr_t)*entry;
    if (!variable(env, "HOME") || !variable(env, "HOME")[0]) {
        AUTO_FREE char *found = home_find(process->user ? (uint64_t)process->user->uid.value : 0);
        if (asprintf(&home, "HOME=%s", found ? found : "/") < 0)
            return error_set(err, ENOMEM, "out of memory");
        env[count++] = home;
    }
    *ret_env = steal_pointer(&env);
    *ret_home = steal_pointer(&home);
    return 0;
}

int program_error(struct error *err, int code, const char *name)
{
    char words[128];
    const char *text = strerror_r(code, words, sizeof(words));

    return error_set(err, code, "exec: \"%.256s\": %c%s", name, tolower(text[0]), text + 1);
}

/* 0: can be executed. */
static int executable_check(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EACCES;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

int program_find(const char *name, char *const *env, char **ret_path, struct error *err)
{
    const char *directories = variable(env, "PATH");
    char path[PATH_MAX];
    int worst = -ENOENT;

    if (strchr(name, '/')) {
        int r = executable_check(name);
        if (r < 0)
            return program_error(err, -r, name);
        *ret_path = strdup(name);
        return *ret_path ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    if (!directories)
        directories = default_path;
    for (const char *at = directories; name[0]; at++) {
        size_t length = strcspn(at, ":");
        int r;

        if (snprintf(path, sizeof(path), "%.*s/%s", length ? (int)length : 1, length ? at : ".",
                     name) < (int)sizeof(path)) {
            r = executable_check(path);
            if (r == 0) {
                *ret_path = strdup(path);
                return *ret_path ? 0 : error_set(err, ENOMEM, "out of memory");
            }
            if (r == -EACCES)
                worst = r;
        }
        at += length;
        if (!*at)
            break;
    }
    if (worst == -EACCES)
        return program_error(err, EACCES, name);
    return error_set(err, ENOENT, "exec: \"%.256s\": executable file not found in $PATH", name);
}
