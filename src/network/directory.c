#include "network/directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int directory_open(const char *path, struct error *err)
{
    char part[128];
    int fd;

    for (const char *slash = path; slash; ) {
        slash = strchr(slash + 1, '/');
        snprintf(part, sizeof(part), "%.*s", slash ? (int)(slash - path) : (int)strlen(path), path);
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return error_system(err, errno, "cannot make %s", part);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_system(err, errno, "cannot open %s", path) : fd;
}

int directory_list(int directory_fd, struct dirent ***ret_entries, struct error *err)
{
    int count = scandirat(directory_fd, ".", ret_entries, NULL, alphasort);

    return count < 0 ? error_system(err, errno, "cannot list networks") : count;
}

void directory_free(struct dirent **entries, int count)
{
    while (count > 0)
        free(entries[--count]);
    free(entries);
}
