#include "base/directories.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int directories_make(const char *path, mode_t above, mode_t last, struct error *err)
{
    char part[PATH_MAX];

    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", path);
    for (char *slash = part + 1;; slash++) {
        slash = strchrnul(slash, '/');
        char after = *slash;

        *slash = 0;
        if (mkdir(part, after ? above : last) < 0 && errno != EEXIST)
            return error_system(err, errno, "cannot make the directory %s", part);
        *slash = after;
        if (!after)
            return 0;
    }
}
