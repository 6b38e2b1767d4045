/* lodge image build: root filesystems out of a distribution's packages. */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/image.h"
#include "cli/run_disk.h"
#include "image/debian.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/storage.h"

#define SIZE_DEFAULT "4G"

enum { KEY_MAX = 8192 };

/* The first line of a file. */
static int read_line(const char *path, char *line, size_t size, struct error *err)
{
    AUTO_FCLOSE FILE *file = fopen(path, "re");

    if (!file || !fgets(line, (int)size, file))
        return error_system(err, errno ? errno : ENODATA, "cannot read %s", path);
    line[strcspn(line, "\r\n")] = 0;
    return 0;
}

/* Copy the raw disk at raw into a qcow2 one at path. */
static int copy_to_qcow2(struct storage *storage, const char *raw, const char *path,
                         struct error *err)
{
    const struct disk_options from_options = {.format = "raw"};
    const struct disk_options to_options = {.format = "qcow2", .writable = true};
    const struct image_copy_options copy = {.target_zero = true};
    struct disk_create_options create = {.overwrite = true};
    struct disk *from = NULL, *to = NULL;
    int r = disk_open(storage, raw, &from_options, &from, err), closed;

    if (r < 0)
        return r;
    create.size = disk_size(from);
    r = disk_create(storage, path, "qcow2", &create, err);
    if (r == 0)
        r = disk_open(storage, path, &to_options, &to, err);
    if (r == 0)
        r = image_copy(from, to, &copy, NULL, err);
    closed = disk_close(to, r < 0 ? NULL : err);
    disk_close(from, NULL);
    if (r == 0)
        r = closed;
    if (r < 0)
        unlink(path);
    return r;
}

/* The disk was built raw. When its name asks for qcow2, make it that. */
static int convert_disk(const char *output, struct error *err)
{
    const char *dot = strrchr(output, '.');
    struct storage *storage;
    char made[4096];
    int r;

    if (!dot || strcmp(dot, ".qcow2") != 0)
        return 0;
    if (snprintf(made, sizeof(made), "%s.new", output) >= (int)sizeof(made))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", output);
    r = storage_create(NULL, "auto", &storage, err);
    if (r < 0)
        return r;
    r = copy_to_qcow2(storage, output, made, err);
    storage_destroy(storage);
    if (r == 0 && rename(made, output) < 0)
        r = error_system(err, errno, "cannot make %s", output);
    return r;
}

static int build_disk(struct cli *cli, const struct debian *debian, const char *output,
                      struct error *err)
{
    const char *text = cli_value(cli, "size");
    uint64_t size;
    int r = size_parse(text ? text : SIZE_DEFAULT, 1ull << 30, &size, err);

    if (r < 0) {
        error_prepend(err, "--size");
        return -EINVAL;
    }
    r = debian_build_disk(debian, output, size, err);
    if (r == 0 && (r = convert_disk(output, err)) < 0)
        unlink(output);
    if (r == 0)
        fprintf(cli->out, "%s\n%s.vmlinuz\n%s.initrd\n", output, output, output);
    return r;
}

static int build_image(struct cli *cli, const struct debian *debian, const char *name,
                       struct error *err)
{
    struct descriptor descriptor;
    struct store *store;
    /* mmdebstrap has a namespace of its own. */
    int r = store_open(cli_value(cli, "store"), &store, err);

    if (r < 0)
        return r;
    r = debian_build_image(debian, store, name, &descriptor, err);
    store_close(store);
    if (r == 0)
        fprintf(cli->out, "%s\n", descriptor.name);
    return r;
}

static int build_run(struct cli *cli, struct error *err)
{
    const char *output = cli_value(cli, "output"), *name = cli_value(cli, "oci");
    const char *kept = cli_value(cli, "name");
    const char *key_file = cli_value(cli, "ssh-key");
    struct debian debian = {
        .suite = cli_value(cli, "suite"),
        .mirror = cli_value(cli, "mirror"),
        .packages = cli_value(cli, "packages"),
        .user = cli_value(cli, "user"),
        .password = cli_value(cli, "password"),
        .hostname = cli_value(cli, "hostname"),
    };
    char key[KEY_MAX], path[PATH_MAX];
    int r = image_operands(cli, 1, 1, err);

    if (r < 0)
        return r;
    if (strcmp(cli->argv[0], "debian") != 0)
        return error_set(err, EINVAL, "'%s' cannot be built: there is only debian", cli->argv[0]);
    if (!!output + !!name + !!kept > 1)
        return error_set(err, EINVAL, "build takes one of --name NAME and --output FILE (a disk) "
                                      "and --oci NAME (an image)");
    if (!output && !name) {
        r = run_disk_path(kept ? kept : cli->argv[0], true, path, sizeof(path), err);
        output = path;
    }
    if (r < 0)
        return r;
    if (key_file) {
        r = read_line(key_file, key, sizeof(key), err);
        if (r < 0)
            return r;
        debian.ssh_key = key;
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "building Debian from its packages, a minute or two...\n");
    return output ? build_disk(cli, &debian, output, err) : build_image(cli, &debian, name, err);
}

static const struct cli_option build_options[] = {
    {"name", 'n', "NAME",
     "Make a disk and keep it by this name (default debian), for 'lodge run NAME'.", NULL},
    {"output", 'o', "FILE",
     "Make a disk, bootable, with FILE.vmlinuz and FILE.initrd beside it: qcow2 when FILE ends "
     "with .qcow2, else raw.",
     "FILE"},
    {"oci", 0, "NAME", "Make an image in the store instead.", NULL},
    {"size", 0, "SIZE", "The disk's size (default " SIZE_DEFAULT "); a bare number counts GiB.",
     NULL},
    {"suite", 0, "NAME", "Debian's release (default bookworm).", "bookworm trixie sid"},
    {"mirror", 0, "URL", "Where packages come from.", NULL},
    {"packages", 0, "LIST", "More packages, separated by commas.", NULL},
    {"user", 0, "NAME", "Make a user who may use sudo.", NULL},
    {"password", 0, "TEXT", "The user's password, or root's.", NULL},
    {"ssh-key", 0, "FILE", "A public key that may log in as the user, or as root.", "FILE"},
    {"hostname", 0, "NAME", "The host's name.", NULL},
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb image_build_verb = {
    .name = "build",
    .summary = "build a root filesystem out of a distribution's packages",
    .operands = "debian",
    .description = "Uses mmdebstrap, and mke2fs for a disk. Without root it needs user namespaces "
                   "and ids in /etc/subuid.",
    .options = build_options,
    .run = build_run,
};
