/* disk.h - what the verbs of `lodge disk` share. */
#ifndef LODGE_CLI_DISK_H
#define LODGE_CLI_DISK_H

#include <jansson.h>

#include "cli/cli.h"
#include "storage/image.h"

extern const struct verb disk_create_command, disk_info_command, disk_convert_command,
    disk_resize_command, disk_snapshot_command, disk_commit_command, disk_rebase_command,
    disk_check_command, disk_map_command, disk_compare_command, disk_serve_command,
    disk_bench_command;

/* Storage without a loop; --io names the engine. */
int disk_cli_storage(const struct cli *cli, struct storage **ret_storage, struct error *err);

/* The format of a disk that is to be made: what option says, else what its name means: raw for
 * NAME.raw and NAME.img, qcow2 otherwise. */
const char *disk_cli_new_format(const struct cli *cli, const char *option, const char *path);

/* Check that there are count operands. usage names them, "IMAGE SIZE". */
int disk_cli_operands(const struct cli *cli, int count, const char *usage, struct error *err);

/* Open an operand; --format (or what format_option says) names its format. The storage is made
 * when *storage is NULL. */
int disk_cli_open(const struct cli *cli, const char *path, const char *format_option, bool writable,
                  struct storage **storage, struct disk **ret_disk, struct error *err);

/* Close both, either may be NULL. Returns r, or what closing says when r is not negative. The
 * last that a verb does. */
int disk_cli_close(struct storage *storage, struct disk *disk, int r, struct error *err);

/* Print and free a JSON value. */
int disk_cli_json(const struct cli *cli, json_t *value, struct error *err);

/* A bar on the standard error output while it is a terminal. From its start on, SIGINT and the like
 * stop the work, and end the process when disk_cli_close has put all in order. */
struct progress_bar {
    struct image_progress progress;
    const char *what;
    bool shown;
    int percent; /* the last one shown */
};
void progress_bar_start(struct progress_bar *bar, const char *what);
void progress_bar_end(struct progress_bar *bar);

#define DISK_OPTION_FORMAT                                                                         \
    {                                                                                              \
        "format", 'f', "FORMAT", "The image's format; without it, its content tells.",             \
            "raw qcow2 vmdk vdi vhdx"                                                              \
    }
#define DISK_OPTION_IO                                                                             \
    {                                                                                              \
        "io", 0, "ENGINE", "How I/O is done: auto (default), uring or threads.",                   \
            "auto uring threads"                                                                   \
    }
#define DISK_OPTION_JSON                                                                           \
    {                                                                                              \
        "json", 0, NULL, "Print facts as JSON.", NULL                                              \
    }

#endif
