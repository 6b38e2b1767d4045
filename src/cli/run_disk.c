#include "cli/run_disk.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/directories.h"
#include "base/privilege.h"

#define ROOT           "root=LABEL=root console=ttyS0 " /* as debian_build_disk labels it */
#define MEMORY_DEFAULT "1G"

/* Names are parts of paths. */
static bool is_name(const char *text)
{
    return *text && *text != '.' && !strchr(text, '/') && strlen(text) <= 64;
}

int run_disk_path(const char *name, bool make, char *path, size_t size, struct error *err)
{
    char directory[4096];
    int r;

    if (!is_name(name))
        return error_set(err, EINVAL, "'%.64s' is no name for a disk: 1 to 64 characters without /",
                         name);
    if (!privilege_data_path("disks", directory, sizeof(directory)))
        return error_set(err, ENOENT, "there is no place for disks: set HOME or XDG_DATA_HOME");
    r = make ? directories_make(directory, 0755, 0700, err) : 0;
    if (r < 0)
        return r;
    if (snprintf(path, size, "%s/%s.qcow2", directory, name) >= (int)size)
        return error_set(err, ENAMETOOLONG, "the path of the disk '%s' is too long", name);
    return 0;
}

static bool has_kernel(const char *path)
{
    char kernel[4096 + 16];

    return snprintf(kernel, sizeof(kernel), "%s.vmlinuz", path) < (int)sizeof(kernel) &&
           access(path, F_OK) == 0 && access(kernel, R_OK) == 0;
}

bool run_disk_find(const char *operand, char *path, size_t size)
{
    if (snprintf(path, size, "%s", operand) < (int)size && has_kernel(path))
        return true;
    if (!is_name(operand))
        return false;
    if (snprintf(path, size, "%s.qcow2", operand) < (int)size && has_kernel(path))
        return true;
    return run_disk_path(operand, false, path, size, NULL) == 0 && has_kernel(path);
}

/* Give an option the text of two parts. It is needed as long as the program runs. */
static int give(struct cli *cli, const char *option, const char *a, const char *b,
                struct error *err)
{
    char *text;

    if (asprintf(&text, "%s%s", a, b) < 0)
        return error_set(err, ENOMEM, "out of memory");
    return cli_give(cli, !strcmp(option, "disk"), option, text, err);
}

int run_disk_boot(struct cli *cli, const char *path, struct error *err)
{
    const char *append = cli_value(cli, "append");
    int r = give(cli, "kernel", path, ".vmlinuz", err);

    if (r == 0)
        r = give(cli, "initrd", path, ".initrd", err);
    if (r == 0)
        r = give(cli, "append", ROOT, append ? append : "", err);
    if (r == 0)
        r = give(cli, "disk", path, "", err);
    if (r == 0 && !cli_value(cli, "network"))
        r = cli_give(cli, false, "network", "user", err);
    if (r == 0 && !cli_value(cli, "memory"))
        r = cli_give(cli, false, "memory", MEMORY_DEFAULT, err);
    return r;
}
