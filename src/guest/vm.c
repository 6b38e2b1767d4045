/* vm.c - guests as virtual machines: a Linux of their own, whose init is Lodge's. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/path.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "guest/kernel.h"
#include "guest/session.h"
#include "guest/task.h"
#include "guest/vm_further.h"
#include "guest/vm_machine.h"
#include "network/resolver.h"

#define MEMORY_MIN (64ull << 20)
#define USERS      "users" /* passwd and group of the image; a folder like the root */

enum { USERS_MAX = 1 << 20 };

static int check(const struct guest_options *options, struct error *err)
{
    const struct {
        const char *option;
        bool given;
    } foreign[] = {
        {"--pid", options->pid},
        {"--ipc", options->ipc},
        {"--uts", options->uts},
    };

    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
        if (foreign[i].given)
            return error_set(err, ENOTSUP, "%s is for --isolation container", foreign[i].option);
    if (limits_foreign_to_vm(&options->limits))
        return error_set(err, ENOTSUP,
                         "--%s is for --isolation container: a virtual machine has --memory and "
                         "--cpus",
                         limits_foreign_to_vm(&options->limits));
    if (options->network && !strcmp(options->network, "host"))
        return error_set(err, EINVAL,
                         "a virtual machine cannot have the host's network: --network user passes "
                         "its connections on");
    if (options->memory && options->memory < MEMORY_MIN)
        return error_set(err, EINVAL, "a virtual machine needs --memory 64M at least");
    if (confine_foreign_to_vm(&options->confine))
        return error_set(err, ENOTSUP,
                         "%s is for --isolation container: a virtual machine's kernel is its own",
                         confine_foreign_to_vm(&options->confine));
    return 0;
}

/* --- Running --- */

static int write_initrd(const struct guest *guest, struct error *err)
{
    AUTO_CLOSE int fd =
        openat(guest->fd, VM_INITRD, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char kernel[PATH_MAX];
    int r;

    if (fd < 0)
        return error_system(err, errno, "cannot make the initial RAM disk");
    r = kernel_find(guest_text(guest, "kernel"), vm_features(guest), kernel, err);
    return r < 0 ? r : kernel_write_initrd(kernel, vm_features(guest), fd, err);
}

/* What the image says of users, for further commands: its root is not at hand then. */
static int save_users(const struct guest *guest, struct error *err)
{
    static const char *const names[] = {"/etc/passwd", "/etc/group"};
    AUTO_CLOSE int fd = openat(guest->fd, "rootfs", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct path_root root = {.fd = fd};
    char path[32];
    int r = 0;

    mkdirat(guest->fd, USERS, 0700);
    mkdirat(guest->fd, USERS "/etc", 0700);
    for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++) {
        AUTO_FREE char *text = path_read_text(&root, names[i], USERS_MAX);

        snprintf(path, sizeof(path), USERS "%s", names[i]);
        r = text ? guest_write(guest, path, text, err) : 0;
    }
    return r;
}

static int prepare(struct guest *guest, struct store *store, struct error *err)
{
    struct manifest manifest = {0};
    struct image_config config = {0};
    int r = guest_read_image(guest, store, &manifest, &config, err);

    if (r == 0)
        r = write_initrd(guest, err);
    if (r == 0)
        r = image_unpack(store, &manifest, &config, err);
    if (r == 0)
        r = root_make_disk(guest, store, &config, err);
    /* Users are looked up in the image's own files. */
    if (r == 0)
        r = root_mount(guest, store, &config, err);
    if (r == 0) {
        r = mounts_fill_volumes(guest, err);
        if (r == 0)
            r = spec_write(guest, &config, err);
        if (r == 0)
            r = save_users(guest, err);
        root_unmount(guest, NULL);
    }
    image_config_release(&config);
    manifest_release(&manifest);
    return r;
}

static int run(struct guest *guest, struct store **store, const struct guest_run *how,
               struct error *err)
{
    const char *name = json_string_value(json_object_get(guest->record, "engine"));
    const struct engine_ops *engine;
    int r = engine_find(name ? name : "auto", &engine, err);

    if (r == 0)
        r = prepare(guest, *store, err);
    store_close(steal_pointer(store)); /* its lock would keep others from removing images */
    return r < 0 ? r : vm_machine_run(guest, engine, how, err);
}

/* Where its network answers names (docs/network.md). */
static char *resolver(const struct guest *guest)
{
    struct named_network network;
    char address[INET_ADDRSTRLEN], *text;
    struct in_addr host;

    if (!network_is_named(guest))
        return strdup(!strcmp(guest_text(guest, "network"), "user") ? "nameserver 10.0.2.3\n" : "");
    if (named_open(guest_text(guest, "network"), &network, NULL) < 0)
        return NULL;
    host = subnet_host(&network.subnet);
    inet_ntop(AF_INET, &host, address, sizeof(address));
    return asprintf(&text, "nameserver %s\nsearch " RESOLVER_DOMAIN "\n", address) < 0 ? NULL
                                                                                       : text;
}

static int clean(const struct guest *guest, struct error *err)
{
    (void)guest;
    (void)err;
    return 0; /* all that it has goes with its process */
}

/* --- Further commands --- */

/* Of this process. */
static const struct vm_streams standard_streams = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

static int exec(const struct guest *guest, const char *process, bool terminal,
                const struct log *log, struct error *err)
{
    struct task task = {0};
    int r = task_of_process(process, &task, err);

    (void)terminal; /* as the process has it */
    (void)log;
    if (r == 0)
        r = vm_further(guest, &task, &standard_streams, err);
    task_release(&task);
    return r;
}

static int print_processes(const struct guest *guest, const struct guest_status *status,
                           const char *const *columns, FILE *out, struct error *err)
{
    struct task task = {0};
    int r = task_of_list(columns, &task, err);

    (void)status;
    fflush(out); /* they come over a session, to its descriptor */
    if (r == 0)
        r = vm_further(guest, &task, &standard_streams, err);
    task_release(&task);
    return r;
}

/* --- Its process --- */

/* The image's: its root is not at hand while it runs. */
static int open_users(const struct guest *guest, const struct guest_status *status)
{
    (void)status;
    return openat(guest->fd, USERS, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The machine's process passes it on. */
static int send_signal(const struct guest *guest, const struct guest_status *status, int signal,
                       struct error *err)
{
    if (status->pid <= 0 || kill(status->pid, signal == SIGKILL ? SESSION_SIGKILL : signal) < 0)
        return error_set(err, ESRCH, "the guest %s does not run", guest->name);
    return 0;
}

/* All its CPUs and devices are threads of one process. */
static int freeze(const struct guest *guest, const struct guest_status *status, bool pause,
                  struct error *err)
{
    if (kill(status->pid, pause ? SIGSTOP : SIGCONT) < 0)
        return error_system(err, errno, "cannot pause the guest %s", guest->name);
    return 0;
}

const struct isolation vm_isolation = {
    .name = "vm",
    .check = check,
    .run = run,
    .clean = clean,
    .resolver = resolver,
    .status = vm_status,
    .open_users = open_users,
    .copy_in = vm_copy_in,
    .copy_out = vm_copy_out,
    .exec = exec,
    .kill = send_signal,
    .pause = freeze,
    .stats = vm_stats,
    .print_processes = print_processes,
};
