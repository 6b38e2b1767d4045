/* lodge disk create, resize: images and their sizes. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/disk.h"
#include "cli/value.h"
#include "machine/control.h"

static int parse_size(const char *what, const char *text, uint64_t *ret_size, struct error *err)
{
    if (!text)
        return 0;
    if (size_parse(text, 1, ret_size, err) < 0) {
        error_prepend(err, "%s", what);
        return -EINVAL;
    }
    return 0;
}

static int parse_options(const struct cli *cli, struct disk_create_options *options,
                         struct error *err)
{
    const char *version = cli_value(cli, "compat");
    uint64_t cluster = 0;
    int r = parse_size("--cluster-size", cli_value(cli, "cluster-size"), &cluster, err);

    if (r == 0 && cli->argc > 1)
        r = parse_size("the size", cli->argv[1], &options->size, err);
    if (r == 0 && cluster > UINT32_MAX)
        r = error_set(err, EINVAL, "--cluster-size %s is too large",
                      cli_value(cli, "cluster-size"));
    if (r == 0)
        r = value_count(cli_value(cli, "refcount-bits"), 0, 1, 64, "--refcount-bits",
                        &options->refcount_bits, err);
    if (r == 0 && version && strcmp(version, "2") && strcmp(version, "3"))
        r = error_set(err, EINVAL, "--compat %s: qcow2 has the versions 2 and 3", version);
    if (r < 0)
        return r;
    options->cluster_size = (uint32_t)cluster;
    options->version = version ? (unsigned)(*version - '0') : 0;
    options->backing = cli_value(cli, "backing");
    options->backing_format = cli_value(cli, "backing-format");
    options->compression = cli_value(cli, "compression");
    options->lazy_refcounts = cli_flag(cli, "lazy-refcounts");
    options->extended_l2 = cli_flag(cli, "extended-l2");
    options->overwrite = cli_flag(cli, "force");
    return 0;
}

static int create_run(struct cli *cli, struct error *err)
{
    struct disk_create_options options = {0};
    struct storage *storage = NULL;
    int r;

    if (cli->argc < 1 || cli->argc > 2 || (cli->argc == 1 && !cli_flag(cli, "backing")))
        return error_set(err, EINVAL,
                         "create needs IMAGE SIZE; with --backing the size may be "
                         "left out");
    r = parse_options(cli, &options, err);
    if (r == 0)
        r = disk_cli_storage(cli, &storage, err);
    if (r == 0)
        r = disk_create(storage, cli->argv[0], disk_cli_new_format(cli, "format", cli->argv[0]),
                        &options, err);
    storage_destroy(storage);
    return r;
}

static const struct cli_option create_options[] = {
    {"format", 'f', "FORMAT", "qcow2 or raw; without it, raw for a name that ends in .raw or .img.",
     "qcow2 raw"},
    {"backing", 'b', "FILE",
     "What is not written is read from this image; a path relative to the "
     "new image's folder.",
     "FILE"},
    {"backing-format", 'F', "FORMAT", "The backing file's format; without it, its content tells.",
     "raw qcow2 vmdk vdi vhdx"},
    {"cluster-size", 0, "SIZE", "Of qcow2: 512 to 2M (default 64K).", NULL},
    {"compat", 0, "VERSION", "Of qcow2: 2 or 3 (default).", "2 3"},
    {"refcount-bits", 0, "N", "Of qcow2: 1, 2, 4, 8, 16 (default), 32 or 64.", NULL},
    {"lazy-refcounts", 0, NULL,
     "Of qcow2: write refcounts at the end only; after a crash they are made anew.", NULL},
    {"extended-l2", 0, NULL, "Of qcow2: allocate by the 32nd part of a cluster.", NULL},
    {"compression", 0, "KIND", "Of qcow2: zlib (default) or zstd.", "zlib zstd"},
    {"force", 0, NULL, "Overwrite a file that is there.", NULL},
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_create_command = {
    .name = "create",
    .summary = "make an empty disk image",
    .operands = "IMAGE [SIZE]",
    .description = "SIZE is what the guest sees: 10G, 512M; a bare number counts bytes.",
    .options = create_options,
    .run = create_run,
};

/* --- resize --- */

/* "+SIZE" and "-SIZE" are relative. */
static int parse_new_size(const char *text, uint64_t size, bool shrink, uint64_t *ret_size,
                          struct error *err)
{
    uint64_t value;
    bool relative = *text == '+' || *text == '-';
    int r = parse_size("the size", text + relative, &value, err);

    if (r < 0)
        return r;
    if (*text == '+' && __builtin_add_overflow(size, value, &value))
        return error_set(err, EINVAL, "the size: %s is too large", text);
    if (*text == '-') {
        if (value > size)
            return error_set(err, EINVAL, "the size: the disk has no %s to give up", text + 1);
        value = size - value;
    }
    if (value < size && !shrink)
        return error_set(err, EINVAL,
                         "this would cut the end of the disk off, and what is there is "
                         "lost; --shrink does it");
    *ret_size = value;
    return 0;
}

/* While a machine has it: the size is looked up here, and changed there. */
static int resize_running(struct cli *cli, const char *machine, struct error *err)
{
    const struct disk_options options = {
        .format = cli_value(cli, "format"), .no_lock = true, .no_backing = true};
    AUTO_FREE char *path = realpath(cli->argv[0], NULL), *request = NULL;
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    uint64_t size = 0;
    int r = disk_cli_storage(cli, &storage, err);

    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0)
        r = parse_new_size(cli->argv[1], disk_size(disk), cli_flag(cli, "shrink"), &size, err);
    r = disk_cli_close(storage, disk, r, err);
    if (r == 0 && asprintf(&request, "resize %llu %s", (unsigned long long)size,
                           path ? path : cli->argv[0]) < 0)
        r = error_set(err, ENOMEM, "out of memory");
    return r < 0 ? r : control_request(machine, request, -1, err);
}

static int resize_run(struct cli *cli, struct error *err)
{
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    uint64_t size = 0;
    int r = disk_cli_operands(cli, 2, "IMAGE SIZE", err);

    if (r == 0 && cli_value(cli, "machine"))
        return resize_running(cli, cli_value(cli, "machine"), err);

    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", true, &storage, &disk, err);
    if (r == 0)
        r = parse_new_size(cli->argv[1], disk_size(disk), cli_flag(cli, "shrink"), &size, err);
    if (r == 0)
        r = disk_resize(disk, size, err);
    return disk_cli_close(storage, disk, r, err);
}

static const struct cli_option resize_options[] = {
    DISK_OPTION_FORMAT,
    {"machine", 0, "NAME",
     "The disk is one of the running machine of that name (lodge run --name), whose guest is told.",
     NULL},
    {"shrink", 0, NULL, "Allow a smaller size.", NULL},
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_resize_command = {
    .name = "resize",
    .summary = "change the size of a disk",
    .operands = "IMAGE SIZE",
    .description =
        "SIZE is the new size, or +SIZE or -SIZE for a change. What is new reads as zeroes.",
    .options = resize_options,
    .run = resize_run,
};
