#include "base/directories.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/cleanup.h"

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

int directory_open_alone(const char *path, bool readonly)
{
    const unsigned whole = AT_EMPTY_PATH | AT_RECURSIVE;
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (readonly ? MOUNT_ATTR_RDONLY : 0u)};
    AUTO_CLOSE int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int alone =
        fd < 0 ? -1 : open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | whole);

    if (alone < 0)
        return steal_fd(&fd);
    mount_setattr(alone, "", whole, &attributes, sizeof(attributes)); /* Linux 5.12 */
    return steal_fd(&alone);
}
