#include "guest/vm_machine.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/sandbox.h"
#include "device/virtio/9p.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "guest/channel.h"
#include "guest/guest-private.h"
#include "guest/kernel.h"
#include "guest/session.h"
#include "guest/task.h"
#include "guest/vm_process.h"
#include "machine/loader/loader.h"
#include "network/publish.h"

#define MEMORY_DEFAULT (512ull << 20)

/* Nothing is looked for that the machine does not have. */
#define COMMAND_LINE                                                                               \
    "console=ttyS0 quiet panic=-1 rdinit=/init random.trust_cpu=on tsc=reliable "                  \
    "no_timer_check noreplace-smp i8042.noaux i8042.nokbd 8250.nr_uarts=1 cryptomgr.notests"

struct vm {
    const struct engine_ops *engine;
    const struct guest_run *run;
    struct guest *guest;
    struct vm_process *process;
    struct sandbox *sandbox; /* NULL: none */
    struct loop *loop;
    struct machine *machine;
    struct boot_image image;
    struct session *session;
    struct loop_source *signals;
    struct task task;
    int signal_fd, kernel_log;
    int status; /* -1: not known yet */
    struct error why;
};

static struct log *log_of(const struct vm *vm)
{
    return (struct log *)vm->run->log;
}

/* --- What the guest asks for --- */

static bool has_network(const struct guest *guest)
{
    return strcmp(guest_text(guest, "network"), "none") != 0;
}

unsigned vm_features(const struct guest *guest)
{
    return (has_network(guest) ? KERNEL_NETWORK : 0u) |
           (json_array_size(json_object_get(guest->record, "volumes")) ? KERNEL_SHARES : 0u);
}

/* --- Devices --- */

static int add_disk(const struct vm *vm, struct error *err)
{
    char path[PATH_MAX];
    struct virtio_blk_config config = {.path = path, .format = "qcow2", .queues = 1};
    struct virtio_device *device;
    int r;

    snprintf(path, sizeof(path), "%.4000s/" ROOT_DISK, vm->guest->path);
    r = virtio_blk_create(&config, log_of(vm), &device, err);
    return r < 0 ? r : machine_add_virtio(vm->machine, device, err);
}

/* At the end they are the parent's to remove: the sandbox has no files. */
static void remove_ports(const struct guest *guest)
{
    char name[16];

    for (unsigned i = 0; i < CHANNEL_PORTS; i++) {
        snprintf(name, sizeof(name), CHANNEL_PORT, i);
        unlinkat(guest->fd, name, 0);
    }
}

static int add_ports(const struct vm *vm, struct error *err)
{
    struct virtio_console_port ports[CHANNEL_PORTS];
    char names[CHANNEL_PORTS][16], paths[CHANNEL_PORTS][64];
    struct virtio_device *device;
    int r;

    remove_ports(vm->guest); /* of a process that was killed */
    for (unsigned i = 0; i < CHANNEL_PORTS; i++) {
        snprintf(names[i], sizeof(names[i]), CHANNEL_PORT, i);
        snprintf(paths[i], sizeof(paths[i]), "/proc/self/fd/%d/" CHANNEL_PORT, vm->guest->fd, i);
        ports[i] = (struct virtio_console_port){names[i], paths[i]};
    }
    r = virtio_console_create(ports, CHANNEL_PORTS, log_of(vm), &device, err);
    return r < 0 ? r : machine_add_virtio(vm->machine, device, err);
}

static int add_network(const struct vm *vm, struct error *err)
{
    const struct guest *guest = vm->guest;
    char name[NAMED_NAME_MAX + 1];
    struct virtio_net_config config = {
        .network = {.kind = guest_text(guest, "network"), .hostname = name, .log = log_of(vm)},
        .queue_pairs = 1};
    AUTO_FREE struct network_publish *publish = NULL;
    struct virtio_device *device;
    json_t *port;
    size_t i;
    int r = 0;

    network_guest_name(guest, name);
    json_array_foreach(json_object_get(guest->record, "ports"), i, port) if (r == 0)
        r = publish_parse(json_string_value(port), &publish, &config.network.publish_count, err);
    if (r < 0)
        return r;
    config.network.publish = publish;
    if (getrandom(config.network.mac, NETWORK_MAC_SIZE, 0) != NETWORK_MAC_SIZE)
        return error_system(err, errno, "no random bytes for a network address");
    config.network.mac[0] = (uint8_t)((config.network.mac[0] & 0xfc) | 2); /* of its own making */
    r = virtio_net_create(&config, log_of(vm), &device, err);
    return r < 0 ? r : machine_add_virtio(vm->machine, device, err);
}

/* A file alone in a folder, seen in this process's own mounts only. */
static int lone_file(const struct vm *vm, const char *source, size_t number, char folder[PATH_MAX],
                     struct error *err)
{
    char file[PATH_MAX];

    if (!vm->sandbox)
        return error_set(err, ENOTSUP, "the volume %.200s is a file: that needs the sandbox",
                         source);
    snprintf(folder, PATH_MAX, "%.4000s/file.%zu", vm->guest->path, number);
    snprintf(file, sizeof(file), "%.4080s/" CHANNEL_FILE, folder);
    if ((mkdir(folder, 0755) < 0 && errno != EEXIST) ||
        (mknod(file, S_IFREG | 0644, 0) < 0 && errno != EEXIST) ||
        mount(source, file, NULL, MS_BIND, NULL) < 0)
        return error_system(err, errno, "cannot show the file %.200s", source);
    return 0;
}

static int add_volume(const struct vm *vm, const json_t *volume, size_t number, struct error *err)
{
    const char *source = json_string_value(json_object_get(volume, "source"));
    struct virtio_device *device;
    char tag[TASK_TAG_MAX], folder[PATH_MAX];
    struct stat st;
    int r = 0;

    snprintf(tag, sizeof(tag), TASK_TAG, number);
    if (stat(source, &st) == 0 && S_ISREG(st.st_mode)) {
        r = lone_file(vm, source, number, folder, err);
        source = folder;
    }
    if (r == 0)
        r = virtio_9p_create(source, tag, json_is_true(json_object_get(volume, "readOnly")),
                             log_of(vm), &device, err);
    return r < 0 ? r : machine_add_virtio(vm->machine, device, err);
}

static int add_volumes(const struct vm *vm, struct error *err)
{
    json_t *volume;
    size_t i;
    int r = 0;

    json_array_foreach(json_object_get(vm->guest->record, "volumes"), i, volume) if (r == 0)
        r = add_volume(vm, volume, i, err);
    return r;
}

static int add_devices(const struct vm *vm, struct error *err)
{
    int r = add_ports(vm, err); /* first: the init knows them by the device's number */

    if (r == 0)
        r = add_disk(vm, err);
    if (r == 0 && has_network(vm->guest))
        r = add_network(vm, err);
    return r < 0 ? r : add_volumes(vm, err);
}

/* --- Events --- */

static void console_output(void *opaque, const uint8_t *bytes, size_t length)
{
    const struct vm *vm = opaque;

    if (write(vm->kernel_log, bytes, length) < 0) /* a full disk costs the log only */
        return;
}

static void stop_machine(void *opaque)
{
    const struct vm *vm = opaque;

    machine_stop(vm->machine);
}

static void signalled(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;

    (void)events;
    session_take_signals(vm->session, vm->signal_fd, stop_machine, vm);
}

static void command_started(void *opaque)
{
    const struct vm *vm = opaque;

    vm_process_started(vm->process);
}

static void command_ended(void *opaque, int status, const struct error *why)
{
    struct vm *vm = opaque;

    vm->status = status;
    if (why)
        vm->why = *why;
}

static void machine_ended(void *opaque, const struct machine_outcome *outcome)
{
    struct vm *vm = opaque;

    session_drain(vm->session);
    if (vm->status < 0 && !vm->why.code) {
        if (outcome->end == MACHINE_FAILED)
            vm->why = outcome->why;
        else if (outcome->end == MACHINE_STOPPED)
            vm->status = 128 + SIGTERM;
        else
            error_set(&vm->why, EIO,
                      "the virtual machine ended before its command did; its kernel.log may say "
                      "why");
    }
    loop_stop(vm->loop);
}

/* --- The machine --- */

static int open_image(struct vm *vm, uint64_t memory, struct error *err)
{
    char initrd[PATH_MAX], kernel[PATH_MAX];
    int r = kernel_find(guest_text(vm->guest, "kernel"), vm_features(vm->guest), kernel, err);

    snprintf(initrd, sizeof(initrd), "%.4000s/" VM_INITRD, vm->guest->path);
    if (r == 0)
        r = boot_image_open(kernel, initrd, COMMAND_LINE, memory, &vm->image, err);
    unlinkat(vm->guest->fd, VM_INITRD, 0);
    if (r < 0)
        return r;
    vm->kernel_log =
        openat(vm->guest->fd, "kernel.log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return vm->kernel_log < 0 ? error_system(err, errno, "cannot make kernel.log") : 0;
}

static int open_session(struct vm *vm, struct error *err)
{
    const struct session_events events = {command_started, command_ended, vm};
    struct session_task task = {.output = STDOUT_FILENO, .error = STDERR_FILENO};
    int r = task_of_guest(vm->guest, &vm->task, err);

    task.text = vm->task.text;
    task.length = vm->task.length;
    task.terminal = vm->task.terminal;
    return r < 0 ? r
                 : session_open(vm->guest->fd, 0, &task, vm->loop, &events, &vm->session, err);
}

/* --- The sandbox --- */

static int create_sandbox(struct vm *vm, struct error *err)
{
    const struct guest *guest = vm->guest;
    unsigned features = SANDBOX_DISK | SANDBOX_SOCKETS;

    if (guest_flag(guest, "noSandbox"))
        return 0;
    if (!strcmp(vm->engine->name, "kvm"))
        features |= SANDBOX_KVM;
    if (!strcmp(vm->engine->name, "translate"))
        features |= SANDBOX_TRANSLATE;
    if (has_network(guest))
        features |= SANDBOX_NETWORK;
    if (json_array_size(json_object_get(guest->record, "volumes")))
        features |= SANDBOX_SHARE | SANDBOX_OWNERS;
    return sandbox_create(features, log_of(vm), &vm->sandbox, err);
}

/* A descriptor of a directory of the host's would be a way out of the empty file system. */
static int enter_sandbox(struct vm *vm, struct error *err)
{
    if (!vm->sandbox)
        return 0;
    close(vm->guest->fd);
    vm->guest->fd = -1;
    return sandbox_enter(vm->sandbox, err);
}

/* --- The whole --- */

static int set_up(struct vm *vm, struct error *err)
{
    const struct guest *guest = vm->guest;
    double cpus = json_real_value(json_object_get(guest->record, "cpus"));
    uint64_t memory = (uint64_t)json_integer_value(json_object_get(guest->record, "memory"));
    struct machine_config config = {
        .name = guest->name,
        .cpus = cpus > 1 ? (unsigned)(cpus + 0.999) : 1,
        .memory = memory ? memory : MEMORY_DEFAULT,
        .engine = vm->engine,
        .console = {console_output, NULL, vm},
        .log = log_of(vm),
        .sandbox = vm->sandbox,
    };
    int r = open_image(vm, config.memory, err);

    if (r == 0)
        r = loop_create(&vm->loop, err);
    config.loop = vm->loop;
    if (r == 0)
        r = session_watch_signals(&vm->signal_fd, err); /* threads inherit the mask */
    if (r == 0)
        r = loop_add_fd(vm->loop, vm->signal_fd, EPOLLIN, signalled, vm, &vm->signals, err);
    if (r == 0)
        r = machine_create(&config, &vm->machine, err);
    if (r == 0)
        r = add_devices(vm, err);
    if (r == 0)
        r = boot_image_load(&vm->image, vm->machine, err);
    return r < 0 ? r : open_session(vm, err);
}

static void take_down(struct vm *vm)
{
    session_close(vm->session);
    loop_remove(vm->signals);
    machine_destroy(vm->machine);
    if (vm->loop)
        loop_destroy(vm->loop);
    sandbox_destroy(vm->sandbox);
    boot_image_close(&vm->image);
    task_release(&vm->task);
    if (vm->signal_fd >= 0)
        close(vm->signal_fd);
    if (vm->kernel_log >= 0)
        close(vm->kernel_log);
}

/* The machine's process, from its beginning to its end. */
static int run_machine(struct vm_process *process, void *opaque, struct error *err)
{
    struct vm *vm = opaque;
    char pid[32];
    int r;

    vm->process = process;
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    r = guest_write(vm->guest, "pid", pid, err);
    if (r == 0)
        r = create_sandbox(vm, err);
    if (r == 0)
        r = set_up(vm, err);
    if (r == 0)
        r = enter_sandbox(vm, err);
    if (r == 0)
        r = machine_start(vm->machine, machine_ended, vm, err);
    if (r == 0)
        r = loop_run(vm->loop, err);
    if (r == 0 && vm->why.code)
        r = error_set(err, vm->why.code, "%s", vm->why.text);
    if (r == 0)
        r = vm->status;
    take_down(vm);
    return r;
}

static void tell_started(void *opaque)
{
    const struct vm *vm = opaque;

    if (vm->run->started)
        vm->run->started(vm->run->opaque);
}

int vm_machine_run(struct guest *guest, const struct engine_ops *engine,
                   const struct guest_run *run, struct error *err)
{
    struct vm vm = {.engine = engine,
                    .run = run,
                    .guest = guest,
                    .signal_fd = -1,
                    .kernel_log = -1,
                    .status = -1};
    int r = vm_process_run(run_machine, tell_started, &vm, err);

    remove_ports(guest);
    return r;
}
