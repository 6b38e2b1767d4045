#include "base/privilege.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool privilege_is_full(void)
{
    unsigned inside, outside, count;
    bool whole;
    FILE *map;

    if (geteuid() != 0)
        return false;
    map = fopen("/proc/self/uid_map", "re");
    if (!map)
        return true; /* a kernel without user namespaces */
    whole = fscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
            outside == 0 && count == UINT32_MAX;
    fclose(map);
    return whole;
}

bool privilege_data_path(const char *name, char *path, unsigned size)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int length = -1;

    if (privilege_is_full())
        length = snprintf(path, size, "/var/lib/lodge/%s", name);
    else if (data && data[0] == '/')
        length = snprintf(path, size, "%s/lodge/%s", data, name);
    else if (home && home[0] == '/')
        length = snprintf(path, size, "%s/.local/share/lodge/%s", home, name);
    return length >= 0 && length < (int)size;
}
