/* lodge disk snapshot create, list, apply, delete. */
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/disk.h"

static const struct cli_option change_options[] = {
    DISK_OPTION_FORMAT,
    DISK_OPTION_IO,
    {0},
};

static const struct cli_option list_options[] = {
    DISK_OPTION_FORMAT,
    DISK_OPTION_JSON,
    DISK_OPTION_IO,
    {0},
};

static int change(struct cli *cli, int (*fn)(struct disk *, const char *, struct error *),
                  struct error *err)
{
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    int r = disk_cli_operands(cli, 2, "IMAGE NAME", err);

    if (r == 0)
        r = disk_cli_open(cli, cli->argv[0], "format", true, &storage, &disk, err);
    if (r == 0)
        r = fn(disk, cli->argv[1], err);
    return disk_cli_close(storage, disk, r, err);
}

static int create_run(struct cli *cli, struct error *err)
{
    return change(cli, image_snapshot_create, err);
}

static int apply_run(struct cli *cli, struct error *err)
{
    return change(cli, image_snapshot_apply, err);
}

static int delete_run(struct cli *cli, struct error *err)
{
    return change(cli, image_snapshot_delete, err);
}

static void list_text(const struct cli *cli, const struct image_snapshot *list, unsigned count)
{
    fprintf(cli->out, "%-6s %-32s %-10s %s\n", "id", "name", "size", "made");
    for (unsigned i = 0; i < count; i++) {
        time_t seconds = (time_t)list[i].seconds;
        char size[32], made[32] = "";
        struct tm tm;

        if (localtime_r(&seconds, &tm))
            strftime(made, sizeof(made), "%Y-%m-%d %H:%M:%S", &tm);
        fprintf(cli->out, "%-6s %-32s %-10s %s\n", list[i].id, list[i].name,
                size_format(list[i].size, size, sizeof(size)), made);
    }
}

static json_t *list_json(const struct image_snapshot *list, unsigned count)
{
    json_t *rows = json_array();

    for (unsigned i = 0; i < count; i++)
        json_array_append_new(rows, json_pack("{s:s, s:s, s:I, s:I}", "id", list[i].id, "name",
                                              list[i].name, "size", (json_int_t)list[i].size,
                                              "seconds", (json_int_t)list[i].seconds));
    return rows;
}

static int list_run(struct cli *cli, struct error *err)
{
    AUTO_FREE struct image_snapshot *list = NULL;
    const struct disk_options options = {
        .format = cli_value(cli, "format"), .no_lock = true, .no_backing = true};
    struct storage *storage = NULL;
    struct disk *disk = NULL;
    unsigned count = 0;
    int r = disk_cli_operands(cli, 1, "IMAGE", err);

    if (r == 0)
        r = disk_cli_storage(cli, &storage, err);
    if (r == 0)
        r = disk_open(storage, cli->argv[0], &options, &disk, err);
    if (r == 0)
        r = image_snapshot_list(disk, &list, &count, err);
    if (r == 0 && cli_flag(cli, "json"))
        r = disk_cli_json(cli, list_json(list, count), err);
    else if (r == 0)
        list_text(cli, list, count);
    return disk_cli_close(storage, disk, r, err);
}

static const struct verb create_command = {
    .name = "create",
    .summary = "keep the disk as it is now under a name",
    .operands = "IMAGE NAME",
    .options = change_options,
    .run = create_run,
};

static const struct verb list_command = {
    .name = "list",
    .summary = "list the snapshots of an image",
    .operands = "IMAGE",
    .options = list_options,
    .run = list_run,
};

static const struct verb apply_command = {
    .name = "apply",
    .summary = "make the disk what it was; what came since is lost",
    .operands = "IMAGE NAME",
    .options = change_options,
    .run = apply_run,
};

static const struct verb delete_command = {
    .name = "delete",
    .summary = "forget a snapshot",
    .operands = "IMAGE NAME",
    .options = change_options,
    .run = delete_run,
};

static const struct verb *const snapshot_verbs[] = {&create_command, &list_command, &apply_command,
                                                    &delete_command, NULL};

const struct verb disk_snapshot_command = {
    .name = "snapshot",
    .summary = "make, list, apply and delete snapshots inside an image",
    .verbs = snapshot_verbs,
};
