/* lodge run: boot a kernel in a virtual machine, with its console here. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/run_directory.h"
#include "base/size.h"
#include "cli/console.h"
#include "cli/exit_status.h"
#include "cli/run_devices.h"
#include "cli/run_disk.h"
#include "cli/run_image.h"
#include "cli/verbs.h"
#include "machine/control.h"
#include "machine/loader/loader.h"
#include "machine/machine.h"

#define MEMORY_DEFAULT "512M"

/* One run of the verb. */
struct run {
    struct sandbox *sandbox; /* NULL: none */
    struct loop *loop;
    struct machine *machine;
    struct console_end *console;
    struct control *control; /* of a machine with a name, as the next two */
    char crash_path[PATH_MAX];
    FILE *crash; /* open from the start: in the sandbox no file can be made */
    struct loop_source *signals;
    struct boot_image image;
    bool no_reboot;
    int signal_fd;
    int stop_status;      /* why machine_stop was called */
    struct error failure; /* said when code is not 0 */
    int status;
};

/* --- Events --- */

static size_t console_input(void *opaque, const uint8_t *bytes, size_t length)
{
    struct run *run = opaque;

    return machine_console_input(run->machine, bytes, length);
}

static void console_output(void *opaque, const uint8_t *bytes, size_t length)
{
    struct run *run = opaque;

    console_write(run->console, bytes, length);
}

static void console_has_room(void *opaque)
{
    struct run *run = opaque;

    console_ready(run->console);
}

static void quit(void *opaque)
{
    struct run *run = opaque;

    run->stop_status = EXIT_STATUS_QUIT;
    machine_stop(run->machine);
}

static void console_failed(void *opaque, const char *why)
{
    struct run *run = opaque;

    error_set(&run->failure, EIO, "%s", why);
    machine_stop(run->machine);
}

static void signalled(void *opaque, uint32_t events)
{
    struct run *run = opaque;
    struct signalfd_siginfo info;

    (void)events;
    if (read(run->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    run->stop_status = info.ssi_signo == SIGINT ? EXIT_STATUS_QUIT : EXIT_STATUS_TERMINATED;
    machine_stop(run->machine);
}

static void write_crash_file(struct run *run)
{
    if (!run->crash)
        return;
    machine_dump(run->machine, run->crash);
    fprintf(stderr, "\nlodge: the state of the CPUs is in %s\n", run->crash_path);
    fclose(run->crash);
    run->crash = NULL;
}

static void ended(void *opaque, const struct machine_outcome *outcome)
{
    struct run *run = opaque;

    if (outcome->end == MACHINE_REBOOT && !run->no_reboot) {
        machine_reset(run->machine);
        if (boot_image_load(&run->image, run->machine, &run->failure) == 0 &&
            machine_start(run->machine, ended, run, &run->failure) == 0)
            return;
    } else if (outcome->end == MACHINE_FAILED) {
        run->failure = outcome->why;
        write_crash_file(run);
    } else if (outcome->end == MACHINE_STOPPED) {
        run->status = run->stop_status;
    } else {
        run->status = exit_status_of(outcome);
        if (outcome->end == MACHINE_TRIPLE_FAULT) {
            fprintf(stderr, "\nlodge: the guest crashed: %s\n", outcome->why.text);
            write_crash_file(run);
        }
    }
    loop_stop(run->loop);
}

/* --- Options --- */

/* Without the option *ret_number stays. */
static int parse_number(const struct cli *cli, const char *name, unsigned max,
                        unsigned *ret_number, struct error *err)
{
    const char *text = cli_value(cli, name);
    char *end;
    unsigned long n;

    if (!text)
        return 0;
    errno = 0;
    n = strtoul(text, &end, 10);
    if (*end || end == text || *text == '-')
        return error_set(err, EINVAL, "--%s '%s' is no number", name, text);
    if (errno || n == 0 || n > max)
        return error_set(err, EINVAL, "--%s %s: it can be 1 to %u", name, text, max);
    *ret_number = (unsigned)n;
    return 0;
}

static int parse_size(const struct cli *cli, const char *name, const char *otherwise,
                      uint64_t *ret_size, struct error *err)
{
    const char *text = cli_value(cli, name) ? cli_value(cli, name) : otherwise;
    int r = text ? size_parse(text, 1ull << 20, ret_size, err) : 0;

    if (r < 0) {
        error_prepend(err, "--%s", name);
        return -EINVAL;
    }
    return 0;
}

static int parse_config(const struct cli *cli, struct machine_config *config, struct error *err)
{
    const char *engine = cli_value(cli, "engine");
    const char *apics = cli_value(cli, "apics") ? cli_value(cli, "apics") : "engine";
    int r;

    if (strcmp(apics, "engine") != 0 && strcmp(apics, "machine") != 0)
        return error_set(err, EINVAL, "--apics '%s' is neither engine nor machine", apics);

    config->name = cli_value(cli, "name") ? cli_value(cli, "name") : "lodge";
    config->cpus = 1;
    config->own_apics = !strcmp(apics, "machine");
    config->log = (struct log *)cli->log;
    config->huge_pages = cli_flag(cli, "huge-pages");
    config->stats = cli_flag(cli, "stats");
    config->trace_path = cli_value(cli, "trace");
    config->perf_map = cli_flag(cli, "perf-map");
    r = parse_number(cli, "cpus", ENGINE_CPUS_MAX, &config->cpus, err);
    if (r == 0)
        r = parse_number(cli, "hot-after", INT_MAX, &config->hot_turns, err);
    if (r == 0)
        r = parse_size(cli, "memory", MEMORY_DEFAULT, &config->memory, err);
    if (r == 0)
        r = parse_size(cli, "translation-cache", NULL, &config->translation_cache, err);
    if (r == 0)
        r = engine_find(engine ? engine : "auto", &config->engine, err);
    return r;
}

/* --- The sandbox --- */

/* What the machine is given says what its process must be able to do. A machine
 * with a name may go on under any engine. */
static const struct {
    const char *option;
    unsigned features;
} needs[] = {
    {"name", SANDBOX_KVM | SANDBOX_TRANSLATE | SANDBOX_SOCKETS},
    {"disk", SANDBOX_DISK},
    {"network", SANDBOX_NETWORK},
    {"publish", SANDBOX_NETWORK},
    {"share", SANDBOX_SHARE},
    {"channel", SANDBOX_SOCKETS},
};

static unsigned sandbox_features(const struct cli *cli, const struct machine_config *config)
{
    const char *console = cli_value(cli, "console");
    unsigned features = 0;

    for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
        if (cli_value(cli, needs[i].option))
            features |= needs[i].features;
    if (!strcmp(config->engine->name, "kvm"))
        features |= SANDBOX_KVM;
    if (!strcmp(config->engine->name, "translate"))
        features |= SANDBOX_TRANSLATE;
    if (console && !strncmp(console, "unix:", 5))
        features |= SANDBOX_SOCKETS;
    return features;
}

static int enter_sandbox(struct run *run, const struct cli *cli, struct error *err)
{
    const char *console = cli_value(cli, "console");
    int r = 0;

    if (console && !strncmp(console, "unix:", 5))
        r = sandbox_keep(run->sandbox, console + 5, err);
    if (r == 0)
        r = run_devices_keep(cli, run->sandbox, err);
    if (r == 0 && run->control)
        r = sandbox_keep(run->sandbox, control_path(run->control), err);
    return r < 0 ? r : sandbox_enter(run->sandbox, err);
}

/* --- The whole --- */

static int watch_signals(struct run *run, struct error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd < 0)
        return error_system(err, errno, "cannot watch signals");
    return loop_add_fd(run->loop, run->signal_fd, EPOLLIN, signalled, run, &run->signals, err);
}

static int open_crash_file(struct run *run, const char *name, struct error *err)
{
    int r = run_directory_path(name, "crash", run->crash_path, sizeof(run->crash_path), err);

    if (r < 0)
        return r;
    run->crash = fopen(run->crash_path, "we");
    return run->crash ? 0 : error_system(err, errno, "cannot make %s", run->crash_path);
}

/* Who names an engine that is of little use on this host gets it, and is told. */
static void warn_of_engine(const struct cli *cli, const struct machine_config *config)
{
    const char *named = cli_value(cli, "engine");
    struct error why;

    /* Of auto's choice the probe is done. */
    if (named && strcmp(named, "auto") != 0 && config->engine->probe(&why) < 0)
        log_warning(cli->log, "--engine %s: %s; 'lodge engines' lists what works", named,
                    why.text);
}

static int set_up(struct run *run, const struct cli *cli, struct machine_config *config,
                  struct error *err)
{
    const char *where = cli_value(cli, "console") ? cli_value(cli, "console") : "stdio";
    const struct console_events events = {console_input, quit, console_failed, run};
    int r = loop_create(&run->loop, err);

    if (r < 0)
        return r;
    config->loop = run->loop;
    config->console.output = console_output;
    config->console.ready = console_has_room;
    config->console.opaque = run;
    r = watch_signals(run, err); /* before there are threads, which inherit the mask */
    if (r == 0)
        r = machine_create(config, &run->machine, err);
    if (r == 0)
        r = run_devices_add(cli, run->machine, err);
    if (r == 0)
        r = boot_image_load(&run->image, run->machine, err);
    if (r == 0)
        warn_of_engine(cli, config);
    if (r == 0)
        r = console_open(where, run->loop, &events, &run->console, err);
    if (r == 0 && cli_value(cli, "name"))
        r = control_open(config->name, run->machine, run->loop, &run->control, err);
    if (r == 0 && cli_value(cli, "name"))
        r = open_crash_file(run, config->name, err);
    return r;
}

static void take_down(struct run *run)
{
    control_close(run->control);
    if (run->crash) { /* not needed */
        fclose(run->crash);
        unlink(run->crash_path);
    }
    console_close(run->console);
    loop_remove(run->signals);
    if (run->signal_fd >= 0)
        close(run->signal_fd);
    machine_destroy(run->machine);
    loop_destroy(run->loop);
    sandbox_destroy(run->sandbox);
    boot_image_close(&run->image);
}

static int run_kernel(struct cli *cli, const char *kernel, struct error *err)
{
    struct run run = {.signal_fd = -1, .no_reboot = cli_flag(cli, "no-reboot")};
    struct machine_config config = {0};
    int r = parse_config(cli, &config, err);
    if (r == 0)
        r = boot_image_open(kernel, cli_value(cli, "initrd"), cli_value(cli, "append"),
                            config.memory, &run.image, err);
    if (r < 0)
        return r;
    if (!cli_flag(cli, "no-sandbox"))
        r = sandbox_create(sandbox_features(cli, &config), config.log, &run.sandbox, err);
    config.sandbox = run.sandbox;
    if (r == 0)
        r = set_up(&run, cli, &config, err);
    if (r == 0)
        r = enter_sandbox(&run, cli, err);
    if (r == 0)
        r = machine_start(run.machine, ended, &run, err);
    if (r == 0)
        r = loop_run(run.loop, err);
    if (r == 0 && cli_flag(cli, "stats"))
        machine_print_stats(run.machine, stderr);
    if (r == 0 && run.failure.code) {
        *err = run.failure;
        r = -run.failure.code;
    }
    take_down(&run);
    /* What fails now is no usage error, whatever its code. */
    return r < 0 ? r : run.status;
}

static int run_run(struct cli *cli, struct error *err)
{
    char disk[PATH_MAX];
    int r = 0;

    if (cli->argc == 1 && !cli_value(cli, "kernel") && !cli_value(cli, "isolation") &&
        run_disk_find(cli->argv[0], disk, sizeof(disk))) {
        r = run_disk_boot(cli, disk, err);
        cli->argc = 0;
    }
    if (r < 0)
        return r;
    if (!cli->argc && !cli_value(cli, "kernel"))
        return error_set(err, EINVAL, "run needs an image, a disk, or a kernel: --kernel FILE");
    return cli->argc ? run_image(cli, err) : run_kernel(cli, cli_value(cli, "kernel"), err);
}

static const struct cli_option run_options[] = {
    {"kernel", 'k', "FILE",
     "The kernel: a Linux bzImage, an ELF file with a PVH entry, or a multiboot kernel.", "FILE"},
    {"initrd", 0, "FILE", "The initial RAM disk.", "FILE"},
    {"append", 'a', "TEXT", "The kernel's command line.", NULL},
    {"cpus", 'c', "N", "How many CPUs the guest has, 1 to 64 (default 1).", NULL},
    {"memory", 'm', "SIZE",
     "How much memory: 512M, 2G; a bare number counts MiB (default " MEMORY_DEFAULT ").", NULL},
    {"huge-pages", 0, NULL,
     "Take the memory at once, out of the huge pages that the host has set aside.", NULL},
    {"engine", 0, "NAME",
     "How guest code runs: auto takes the best there is; 'lodge engines' lists them.",
     "auto kvm translate interpret"},
    {"apics", 0, "WHERE",
     "Who keeps the CPUs' local APICs: the engine where it can (default), or the machine.",
     "engine machine"},
    {"console", 0, "WHERE",
     "Where the guest's first serial port goes: stdio (default), none, unix:PATH (a socket that "
     "is listened at), or a file.",
     "stdio none unix: FILE"},
    RUN_DEVICE_OPTIONS
    {"name", 'n', "NAME", "The machine's name, for 'lodge engine'.", NULL},
    {"no-reboot", 0, NULL, "End when the guest reboots, instead of starting it again.", NULL},
    {"no-sandbox", 0, NULL, "Run without the sandbox; for debugging only.", NULL},
    {"stats", 0, NULL, "Tell at the end what the engine did.", NULL},
    {"translation-cache", 0, "SIZE",
     "Memory for translated code and its tables, all CPUs together: 1M, 512M (default an eighth "
     "of the guest's memory, from 64M to 256M).", NULL},
    {"hot-after", 0, "TURNS",
     "How often code runs before it is translated anew, for speed (1: at once; default 16384).",
     NULL},
    {"trace", 0, "FILE", "Log the blocks of guest code that are run, disassembled. Slow.", "FILE"},
    {"perf-map", 0, NULL, "Name translated code for perf(1), in /tmp/perf-PID.map.", NULL},
    RUN_IMAGE_OPTIONS,
    {0},
};

const struct verb run_command = {
    .name = "run",
    .summary = "run an image, or boot a disk or a kernel in a virtual machine",
    .operands = "[IMAGE [COMMAND...] | DISK]",
    .raw_options = true,
    .description =
        "With an image, runs a command in it ('lodge image' gets images), as a guest that 'lodge "
        "ls' lists. The exit status is the command's.\n\n"
        "With a disk that 'lodge image build' made, by its path or its name, boots it as a virtual "
        "machine with a network (--network user) and 1G of memory, unless said otherwise. A disk "
        "goes before an image of the same name, unless there is --isolation.\n\n"
        "With --kernel, boots the kernel without firmware and connects the guest's first serial "
        "port to the "
        "terminal: give console=ttyS0 with --append. On a terminal, Ctrl-] then q quits, and "
        "Ctrl-] twice sends it to the guest.",
    .options = run_options,
    .guest_status = true,
    .run = run_run,
};
