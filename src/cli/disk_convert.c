/* lodge disk convert, compare, commit, rebase: copies of a kind. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/disk.h"

#define OPTION_IO                                                                                  \
    {                                                                                              \
        "io", 0, "ENGINE", "How I/O is done: threads (default), uring or auto.",                   \
            "threads uring auto"                                                                   \
    }

/* Pieces as large as these are no work for io_uring: it hands all writes of a file to one kernel
 * thread, which a busy machine lets wait. */
static int copying_storage(const struct cli *cli, struct storage **ret_storage, struct error *err)
{
    const char *engine = cli_value(cli, "io");

    return storage_create(NULL, engine ? engine : "threads", ret_storage, err);
}

/* --- convert --- */

struct conversion {
    struct disk_create_options create;
    const char *format;
    const char *target;
    struct image_copy_options copy;
    bool flush;
    bool existing; /* the target is there */
};

static int make_target(struct storage *storage, const struct conversion *c, struct disk **ret_disk,
                       struct error *err)
{
    const struct disk_options options = {
        .format = c->format, .writable = true, .no_flush = !c->flush};
    int r = c->existing ? 0 : disk_create(storage, c->target, c->format, &c->create, err);

    return r < 0 ? r : disk_open(storage, c->target, &options, ret_disk, err);
}

static int convert_run(struct cli *cli, struct error *err)
{
    const char *compression = cli_value(cli, "compression");
    struct conversion c = {
        .existing = cli_flag(cli, "existing"),
        .copy = {.compress = cli_flag(cli, "compress"), .target_zero = !cli_flag(cli, "existing")},
        .flush = cli_flag(cli, "flush"),
        .create = {.compression = compression, .overwrite = cli_flag(cli, "force")},
    };
    struct storage *storage = NULL;
    struct disk *from = NULL, *to = NULL;
    struct progress_bar bar;
    bool made;
    int r = disk_cli_operands(cli, 2, "IMAGE TARGET", err), r2;

    if (r == 0)
        r = copying_storage(cli, &storage, err);
    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", false, &storage, &from, err);
    if (r < 0)
        return disk_cli_close(storage, from, r, err);
    c.target = cli->argv[1];
    c.format = disk_cli_new_format(cli, "output-format", c.target);
    c.create.size = disk_size(from);
    r = make_target(storage, &c, &to, err);
    made = r == 0 && !c.existing;
    if (r == 0) {
        progress_bar_start(&bar, "converting");
        r = image_copy(from, to, &c.copy, &bar.progress, err);
        progress_bar_end(&bar);
    }
    r2 = disk_close(to, r < 0 ? NULL : err);
    r = r < 0 ? r : r2;
    if (r < 0 && made && !c.create.overwrite)
        unlink(c.target); /* nothing half-made stays */
    return disk_cli_close(storage, from, r, err);
}

static const struct cli_option convert_options[] = {
    DISK_OPTION_FORMAT,
    {"output-format", 'O', "FORMAT",
     "The target's format: qcow2 or raw; without it, raw for a name that ends in .raw or .img.",
     "qcow2 raw"},
    {"compress", 'c', NULL, "Compress the target's clusters.", NULL},
    {"compression", 0, "KIND", "How: zlib (default) or zstd.", "zlib zstd"},
    {"flush", 0, NULL, "End only when the target is on the host's disk for good.", NULL},
    {"existing", 'n', NULL, "Write into a target that is there, such as an NBD export.", NULL},
    {"force", 0, NULL, "Overwrite a file that is there.", NULL},
    OPTION_IO,
    {0},
};

const struct verb disk_convert_command = {
    .name = "convert",
    .summary = "copy a disk into an image of another format",
    .operands = "IMAGE TARGET",
    .description = "The target has the whole content, without backing file and snapshots. Zeroes "
                   "take no room in it.",
    .options = convert_options,
    .run = convert_run,
};

/* --- compare --- */

static int compare_run(struct cli *cli, struct error *err)
{
    struct storage *storage = NULL;
    struct disk *a = NULL, *b = NULL;
    struct progress_bar bar;
    uint64_t where = 0;
    int r = disk_cli_operands(cli, 2, "IMAGE IMAGE", err);

    if (r == 0)
        r = copying_storage(cli, &storage, err);
    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", false, &storage, &a, err);
    if (r == 0)
        r = disk_cli_open(cli, cli->argv[1], "second-format", false, &storage, &b, err);
    if (r == 0) {
        progress_bar_start(&bar, "comparing");
        r = image_compare(a, b, &bar.progress, &where, err);
        progress_bar_end(&bar);
    }
    if (r == 1)
        fprintf(cli->out, "The disks differ, first at byte %llu.\n", (unsigned long long)where);
    else if (r == 0)
        fputs("The disks are alike.\n", cli->out);
    disk_close(b, NULL);
    return disk_cli_close(storage, a, r == 1 ? CLI_FAILED : r, err);
}

static const struct cli_option compare_options[] = {
    DISK_OPTION_FORMAT,
    {"second-format", 'F', "FORMAT", "The second image's format.", "raw qcow2 vmdk vdi vhdx"},
    OPTION_IO,
    {0},
};

const struct verb disk_compare_command = {
    .name = "compare",
    .summary = "tell whether two disks have the same content",
    .operands = "IMAGE IMAGE",
    .description =
        "The formats do not matter; where one disk is longer it must be zeroes. The exit "
        "status is 1 when they differ.",
    .options = compare_options,
    .run = compare_run,
};

/* --- commit --- */

static int commit_run(struct cli *cli, struct error *err)
{
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    struct progress_bar bar;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = copying_storage(cli, &storage, err);
    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", true, &storage, &disk, err);
    if (r == 0) {
        progress_bar_start(&bar, "committing");
        r = image_commit(disk, &bar.progress, err);
        progress_bar_end(&bar);
    }
    return disk_cli_close(storage, disk, r, err);
}

static const struct cli_option commit_options[] = {
    DISK_OPTION_FORMAT,
    OPTION_IO,
    {0},
};

const struct verb disk_commit_command = {
    .name = "commit",
    .summary = "write what an image has into its backing file, and empty it",
    .operands = "IMAGE",
    .options = commit_options,
    .run = commit_run,
};

/* --- rebase --- */

static int rebase_run(struct cli *cli, struct error *err)
{
    const char *backing = cli_value(cli, "backing"), *format = cli_value(cli, "backing-format");
    const bool only_name = cli_flag(cli, "unsafe");
    /* With --unsafe the old backing file may be gone. */
    const struct disk_options options = {
        .format = cli_value(cli, "format"), .writable = true, .no_backing = only_name};
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    struct progress_bar bar;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0 && !backing)
        r = error_set(err, EINVAL,
                      "rebase needs the new backing file: --backing FILE, or '' for "
                      "none");
    if (r == 0)
        r = copying_storage(cli, &storage, err);
    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0) {
        progress_bar_start(&bar, "rebasing");
        r = image_rebase(disk, backing, format ? format : "", only_name, &bar.progress, err);
        progress_bar_end(&bar);
    }
    return disk_cli_close(storage, disk, r, err);
}

static const struct cli_option rebase_options[] = {
    DISK_OPTION_FORMAT,
    {"backing", 'b', "FILE", "The new backing file; '' for none.", "FILE"},
    {"backing-format", 'F', "FORMAT", "Its format; without it, its content tells.",
     "raw qcow2 vmdk vdi vhdx"},
    {"unsafe", 'u', NULL, "Only write its name down, as after moving the old one.", NULL},
    OPTION_IO,
    {0},
};

const struct verb disk_rebase_command = {
    .name = "rebase",
    .summary = "give an image another backing file; its content stays",
    .operands = "IMAGE",
    .options = rebase_options,
    .run = rebase_run,
};
