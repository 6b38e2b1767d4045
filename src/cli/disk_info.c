/* lodge disk info, check, map: what is in an image. */
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/disk.h"

static const char *size_words(uint64_t size, char *buffer, size_t length)
{
    char exact[32];

    size_format(size, buffer, length);
    snprintf(exact, sizeof(exact), " (%llu bytes)", (unsigned long long)size);
    if (size >= 1024)
        strncat(buffer, exact, length - strlen(buffer) - 1);
    return buffer;
}

/* --- info --- */

static json_t *info_json(const struct disk *disk, const struct image_info *info,
                         const struct image_snapshot *snapshots, unsigned count)
{
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", disk_path(disk), "format",
                             disk_format_name(disk), "size", (json_int_t)info->size, "file_size",
                             (json_int_t)info->file_size, "allocated", (json_int_t)info->allocated);
    json_t *list = json_array();

    if (*info->backing)
        json_object_set_new(root, "backing", json_string(info->backing));
    if (*info->backing_format)
        json_object_set_new(root, "backing_format", json_string(info->backing_format));
    if (info->cluster_size)
        json_object_set_new(root, "cluster_size", json_integer(info->cluster_size));
    if (info->version) {
        json_object_set_new(root, "version", json_integer(info->version));
        json_object_set_new(root, "refcount_bits", json_integer(info->refcount_bits));
        json_object_set_new(root, "compression", json_string(info->compression));
        json_object_set_new(root, "lazy_refcounts", json_boolean(info->lazy_refcounts));
        json_object_set_new(root, "extended_l2", json_boolean(info->extended_l2));
        json_object_set_new(root, "dirty", json_boolean(info->dirty));
        json_object_set_new(root, "corrupt", json_boolean(info->corrupt));
    }
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I}", "id", snapshots[i].id, "name",
                                        snapshots[i].name, "size", (json_int_t)snapshots[i].size,
                                        "seconds", (json_int_t)snapshots[i].seconds));
    json_object_set_new(root, "snapshots", list);
    return root;
}

static void info_text(const struct cli *cli, const struct disk *disk, const struct image_info *info,
                      unsigned snapshots)
{
    char words[64];

    fprintf(cli->out, "path        %s\n", disk_path(disk));
    fprintf(cli->out, "format      %s", disk_format_name(disk));
    if (info->version)
        fprintf(cli->out, " version %u, %u-bit refcounts%s%s, %s", info->version,
                info->refcount_bits, info->lazy_refcounts ? ", lazy refcounts" : "",
                info->extended_l2 ? ", extended L2 entries" : "", info->compression);
    fprintf(cli->out, "\nsize        %s\n", size_words(info->size, words, sizeof(words)));
    fprintf(cli->out, "on the host %s\n", size_words(info->allocated, words, sizeof(words)));
    if (info->cluster_size)
        fprintf(cli->out, "clusters    %s\n",
                size_format(info->cluster_size, words, sizeof(words)));
    if (*info->backing)
        fprintf(cli->out, "backing     %s%s%s\n", info->backing, *info->backing_format ? ", " : "",
                info->backing_format);
    if (snapshots)
        fprintf(cli->out, "snapshots   %u\n", snapshots);
    if (info->dirty)
        fprintf(cli->out, "state       dirty: it was not closed\n");
    if (info->corrupt)
        fprintf(cli->out, "state       corrupt: see 'lodge disk check'\n");
}

static int info_run(struct cli *cli, struct error *err)
{
    AUTO_FREE struct image_snapshot *snapshots = NULL;
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    /* Facts may be asked for while a guest runs, and without the backing file. */
    const struct disk_options options = {
        .format = cli_value(cli, "format"), .no_lock = true, .no_backing = true};
    struct image_info info;
    unsigned count = 0;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = disk_cli_storage(cli, &storage, err);
    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0)
        r = image_info(disk, &info, err);
    if (r == 0 && info.version)
        r = image_snapshot_list(disk, &snapshots, &count, err);
    if (r == 0 && cli_flag(cli, "json"))
        r = disk_cli_json(cli, info_json(disk, &info, snapshots, count), err);
    else if (r == 0)
        info_text(cli, disk, &info, count);
    return disk_cli_close(storage, disk, r, err);
}

static const struct cli_option info_options[] = {
    DISK_OPTION_FORMAT,
    DISK_OPTION_JSON,
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_info_command = {
    .name = "info",
    .summary = "tell about a disk image",
    .operands = "IMAGE",
    .options = info_options,
    .run = info_run,
};

/* --- check --- */

static json_t *check_json(const struct image_check *check)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "corruptions",
                     (json_int_t)check->corruptions, "leaks", (json_int_t)check->leaks,
                     "corruptions_repaired", (json_int_t)check->corruptions_repaired,
                     "leaks_repaired", (json_int_t)check->leaks_repaired, "allocated_clusters",
                     (json_int_t)check->allocated_clusters, "total_clusters",
                     (json_int_t)check->total_clusters, "compressed_clusters",
                     (json_int_t)check->compressed_clusters, "image_end",
                     (json_int_t)check->image_end, "first", check->first);
}

static void check_text(const struct cli *cli, const struct image_check *check)
{
    if (!check->corruptions && !check->leaks)
        fputs("No errors were found.\n", cli->out);
    if (check->corruptions)
        fprintf(cli->out, "%llu corruptions, the first: %s; %llu repaired\n",
                (unsigned long long)check->corruptions, check->first,
                (unsigned long long)check->corruptions_repaired);
    if (check->leaks)
        fprintf(cli->out,
                "%llu clusters leaked: space is wasted, no data is harmed; %llu repaired\n",
                (unsigned long long)check->leaks, (unsigned long long)check->leaks_repaired);
    fprintf(cli->out, "%llu of %llu clusters are allocated, %llu of them compressed\n",
            (unsigned long long)check->allocated_clusters,
            (unsigned long long)check->total_clusters,
            (unsigned long long)check->compressed_clusters);
}

static int check_run(struct cli *cli, struct error *err)
{
    const unsigned repair = cli_flag(cli, "repair") ? IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ALL : 0;
    const struct disk_options options = {.format = cli_value(cli, "format"),
                                         .writable = repair != 0,
                                         .no_backing = true,
                                         .repairing = true};
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    struct image_check check;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = disk_cli_storage(cli, &storage, err);
    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0)
        r = image_check(disk, repair, &check, err);
    if (r == 0 && cli_flag(cli, "json"))
        r = disk_cli_json(cli, check_json(&check), err);
    else if (r == 0)
        check_text(cli, &check);
    if (r == 0 &&
        (check.corruptions > check.corruptions_repaired || check.leaks > check.leaks_repaired))
        r = CLI_FAILED;
    return disk_cli_close(storage, disk, r, err);
}

static const struct cli_option check_options[] = {
    DISK_OPTION_FORMAT,
    {"repair", 'r', NULL, "Set right what can be.", NULL},
    DISK_OPTION_JSON,
    DISK_OPTION_IO,
    {0},
};

const struct verb disk_check_command = {
    .name = "check",
    .summary = "check an image's consistency, and repair it",
    .operands = "IMAGE",
    .description =
        "The exit status is 0 when all is well or was set right, and 1 when something is "
        "left. Only qcow2 images have something to check.",
    .options = check_options,
    .run = check_run,
};

/* --- map --- */

static bool alike(const struct disk_extent *a, const struct disk_extent *b)
{
    return a->depth == b->depth && a->present == b->present && a->zero == b->zero &&
           a->data == b->data && a->compressed == b->compressed &&
           a->has_host_offset == b->has_host_offset &&
           (!a->has_host_offset || a->host_offset + a->length == b->host_offset);
}

/* The extent at offset, with those behind it that are alike. */
static int long_extent(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    struct disk_extent extent, more;
    int r = disk_map(disk, offset, &extent);

    while (r == 0 && offset + extent.length < disk_size(disk)) {
        r = disk_map(disk, offset + extent.length, &more);
        if (r < 0 || !alike(&extent, &more))
            break;
        extent.length += more.length;
    }
    *ret_extent = extent;
    return r;
}

static json_t *extent_json(uint64_t offset, const struct disk_extent *extent)
{
    json_t *row = json_pack("{s:I, s:I, s:i, s:b, s:b, s:b, s:b}", "start", (json_int_t)offset,
                            "length", (json_int_t)extent->length, "depth", (int)extent->depth,
                            "present", extent->present, "zero", extent->zero, "data", extent->data,
                            "compressed", extent->compressed);

    if (extent->has_host_offset)
        json_object_set_new(row, "offset", json_integer((json_int_t)extent->host_offset));
    return row;
}

static void extent_text(const struct cli *cli, uint64_t offset, const struct disk_extent *extent)
{
    fprintf(cli->out, "0x%-14llx 0x%-14llx %-6u %s%s", (unsigned long long)offset,
            (unsigned long long)extent->length, extent->depth,
            extent->zero         ? "zero"
            : extent->compressed ? "compressed"
                                 : "data",
            extent->present ? "" : " (nowhere)");
    if (extent->has_host_offset && extent->data)
        fprintf(cli->out, " at 0x%llx", (unsigned long long)extent->host_offset);
    fputc('\n', cli->out);
}

static int map_run(struct cli *cli, struct error *err)
{
    json_t *rows = cli_flag(cli, "json") ? json_array() : NULL;
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    struct disk_extent extent;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", false, &storage, &disk, err);
    if (r == 0 && !rows)
        fputs("start            length           depth  content\n", cli->out);
    for (uint64_t at = 0; r == 0 && at < disk_size(disk); at += extent.length) {
        r = long_extent(disk, at, &extent);
        if (r < 0)
            error_system(err, -r, "cannot read the tables of %s", cli->argv[0]);
        else if (rows)
            json_array_append_new(rows, extent_json(at, &extent));
        else
            extent_text(cli, at, &extent);
    }
    if (r == 0 && rows)
        r = disk_cli_json(cli, steal_pointer(&rows), err);
    json_decref(rows);
    return disk_cli_close(storage, disk, r, err);
}

const struct verb disk_map_command = {
    .name = "map",
    .summary = "list where the data of a disk is",
    .operands = "IMAGE",
    .description =
        "Each line is a range of the disk: what it holds, and how many backing files down "
        "that is.",
    .options = info_options,
    .run = map_run,
};
