#include "network/directory.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/directories.h"

int directory_open(const char *path, struct error *err)
{
    int fd, r = directories_make(path, 0755, 0755, err);

    if (r < 0)
        return r;
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
