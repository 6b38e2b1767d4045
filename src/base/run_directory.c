#include "base/run_directory.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define NAME_MAX_LENGTH 64

static int check_name(const char *name, struct error *err)
{
    size_t length = strlen(name);

    if (length > 0 && length <= NAME_MAX_LENGTH && isalnum((unsigned char)name[0])) {
        while (length && (isalnum((unsigned char)name[length - 1]) ||
                          strchr("._-", name[length - 1])))
            length--;
        if (!length)
            return 0;
    }
    return error_set(err, EINVAL,
                     "'%s' is no name: it has 1 to %d letters, digits, '.', '-' or '_', a letter "
                     "or digit first",
                     name, NAME_MAX_LENGTH);
}

int run_directory_path(const char *name, const char *suffix, char *path, size_t size,
                       struct error *err)
{
    const char *top = getenv("XDG_RUNTIME_DIR");
    AUTO_FREE char *directory = NULL;
    int length, r = check_name(name, err);

    if (r < 0)
        return r;
    if (!top || *top != '/')
        top = "/run";
    length = snprintf(path, size, "%s/lodge", top);
    if (length < 0 || (size_t)length >= size)
        return error_set(err, ENAMETOOLONG, "the path %s is too long", top);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_system(err, errno, "cannot make the directory %s; set XDG_RUNTIME_DIR", path);
    directory = realpath(path, NULL);
    if (!directory)
        return error_system(err, errno, "cannot find %s", path);
    length = snprintf(path, size, "%s/%s.%s", directory, name, suffix);
    if (length < 0 || (size_t)length >= size)
        return error_set(err, ENAMETOOLONG, "the path of '%s' under %s is too long", name, top);
    return 0;
}
