#include "guest/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/file.h"
#include "guest/channel.h"
#include "guest/guest-private.h"
#include "guest/initramfs.h"
#include "machine/loader/loader.h"

#define MEMORY_DEFAULT (512ull << 20)
#define MEMORY_BESIDES (192ull << 20) /* what the kernel and its programs want at least */
#define INITRD         "initrd"

enum { CONFIG_MAX = 1 << 20 };

/* Lodge's init, linked in as it is (guest/meson.build). */
extern const char lodge_init_start[] __asm__("_binary_guest_lodge_init_start");
extern const char lodge_init_end[] __asm__("_binary_guest_lodge_init_end");

struct vm {
    const struct vm_options *options;
    struct loop *loop;
    struct machine *machine;
    struct boot_image image;
    struct loop_source *signals, *input;
    int signal_fd, kernel_log;
    bool raw; /* the user's terminal was changed */
    struct termios before;
    /* From the guest: touched by the callback of its console only. */
    size_t hello; /* how much of its first words have come */
    uint8_t frame[CHANNEL_HEADER + CHANNEL_DATA_MAX];
    size_t frame_used;
    /* To the guest: on the loop's thread. */
    uint8_t pending[2 * (CHANNEL_HEADER + CHANNEL_DATA_MAX)];
    size_t pending_used;
    bool ready;         /* the init has said hello */
    atomic_uint credit; /* given by the guest, and not yet added to window */
    unsigned window;    /* input bytes that may be sent */
    bool is_file;       /* the input is no source of events: it can always be read */
    bool input_ended;
    /* How it ended. */
    int status; /* -1: not known yet */
    struct error why;
};

/* --- To the guest --- */

static void flush(struct vm *vm)
{
    size_t n = machine_console_input(vm->machine, vm->pending, vm->pending_used);

    vm->pending_used -= n;
    memmove(vm->pending, vm->pending + n, vm->pending_used);
}

/* False when there is no room, which signals and sizes may find. */
static bool send(struct vm *vm, uint8_t type, const void *data, size_t length)
{
    if (!vm->ready || length + CHANNEL_HEADER > sizeof(vm->pending) - vm->pending_used)
        return false;
    channel_header(vm->pending + vm->pending_used, type, (uint16_t)length);
    memcpy(vm->pending + vm->pending_used + CHANNEL_HEADER, data, length);
    vm->pending_used += CHANNEL_HEADER + length;
    flush(vm);
    return true;
}

static void send_size(struct vm *vm)
{
    struct winsize size;
    uint8_t data[4];

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
        return;
    store_le16(data, size.ws_row);
    store_le16(data + 2, size.ws_col);
    send(vm, CHANNEL_SIZE, data, sizeof(data));
}

static void stop_input(struct vm *vm)
{
    loop_remove(vm->input);
    vm->input = NULL;
}

static void input_came(void *opaque, uint32_t events);

/* Watch the input while the guest has room for it. */
static void want_input(struct vm *vm)
{
    int r;

    if (vm->input || vm->input_ended)
        return;
    r = vm->is_file
            ? -EPERM
            : loop_add_fd(vm->loop, STDIN_FILENO, EPOLLIN, input_came, vm, &vm->input, NULL);
    vm->is_file = r == -EPERM;
    if (vm->is_file)
        input_came(vm, EPOLLIN);
}

static void input_came(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    uint8_t bytes[CHANNEL_WINDOW];
    size_t room = vm->window;
    ssize_t n;

    (void)events;
    if (!room || vm->pending_used) { /* a credit, or room in the port, wakes it again */
        stop_input(vm);
        return;
    }
    n = read(STDIN_FILENO, bytes, room);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        vm->input_ended = true;
        stop_input(vm);
        send(vm, CHANNEL_INPUT, bytes, 0);
        return;
    }
    vm->window -= (unsigned)n;
    send(vm, CHANNEL_INPUT, bytes, (size_t)n);
}

/* --- From the guest --- */

static void write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);

        if (n < 0 && errno != EINTR)
            return; /* as a program whose output is closed */
        bytes += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

static void begin_input(void *opaque)
{
    struct vm *vm = opaque;

    vm->ready = true;
    send_size(vm);
    want_input(vm);
    if (vm->options->started)
        vm->options->started(vm->options->opaque);
}

static void take_credit(void *opaque)
{
    struct vm *vm = opaque;

    /* Never more than at first: the guest is not trusted to count. */
    vm->window += MIN(atomic_exchange(&vm->credit, 0), CHANNEL_WINDOW - vm->window);
    want_input(vm);
}

static void has_room(void *opaque)
{
    struct vm *vm = opaque;

    flush(vm);
    if (!vm->pending_used)
        want_input(vm);
}

static void console_has_room(void *opaque)
{
    struct vm *vm = opaque;

    loop_post(vm->loop, has_room, vm);
}

static void take_frame(struct vm *vm, uint8_t type, const uint8_t *data, size_t length)
{
    switch (type) {
    case CHANNEL_OUTPUT:
        write_all(STDOUT_FILENO, data, length);
        break;
    case CHANNEL_ERROR:
        write_all(STDERR_FILENO, data, length);
        break;
    case CHANNEL_CREDIT:
        if (length == 2) {
            atomic_fetch_add(&vm->credit, load_le16(data));
            loop_post(vm->loop, take_credit, vm);
        }
        break;
    case CHANNEL_EXIT:
        if (length == 1)
            vm->status = data[0];
        break;
    case CHANNEL_FAILURE:
        error_set(&vm->why, EIO, "%.*s", (int)length, (const char *)data);
        break;
    }
}

static void console_byte(struct vm *vm, uint8_t byte)
{
    static const char hello[] = CHANNEL_HELLO;
    size_t length;

    if (vm->hello < sizeof(hello) - 1) {
        vm->hello = byte == (uint8_t)hello[vm->hello] ? vm->hello + 1 : byte == (uint8_t)hello[0];
        if (vm->hello == sizeof(hello) - 1)
            loop_post(vm->loop, begin_input, vm);
        return;
    }
    vm->frame[vm->frame_used++] = byte;
    if (vm->frame_used < CHANNEL_HEADER)
        return;
    length = load_le16(vm->frame + 1);
    if (length > CHANNEL_DATA_MAX) { /* the kernel's words, or a hostile guest */
        vm->frame_used = 0;
        return;
    }
    if (vm->frame_used == CHANNEL_HEADER + length) {
        take_frame(vm, vm->frame[0], vm->frame + CHANNEL_HEADER, length);
        vm->frame_used = 0;
    }
}

static void console_output(void *opaque, const uint8_t *bytes, size_t length)
{
    struct vm *vm = opaque;

    if (vm->hello < strlen(CHANNEL_HELLO))
        write_all(vm->kernel_log, bytes, length);
    for (size_t i = 0; i < length; i++)
        console_byte(vm, bytes[i]);
}

/* --- Signals, and the end --- */

static void signalled(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct signalfd_siginfo info;
    uint8_t number;

    (void)events;
    if (read(vm->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    number = (uint8_t)info.ssi_signo;
    if (number == SIGWINCH)
        send_size(vm);
    else if (!send(vm, CHANNEL_SIGNAL, &number, 1)) /* nobody is there yet to take it */
        machine_stop(vm->machine);
}

static void ended(void *opaque, const struct machine_outcome *outcome)
{
    struct vm *vm = opaque;

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

/* --- Setting up --- */

static void add_record(FILE *out, char letter, const char *text)
{
    fprintf(out, "%c%s%c", letter, text, 0);
}

static void add_number(FILE *out, char letter, const json_t *number)
{
    fprintf(out, "%c%lld%c", letter, (long long)json_integer_value(number), 0);
}

/* What CHANNEL_CONFIG holds, out of the guest's config.json. */
static int make_task(const struct guest *guest, char **ret_text, size_t *ret_length,
                     struct error *err)
{
    AUTO_FREE char *text = NULL;
    json_t *config, *process, *user, *item;
    size_t i;
    FILE *out;
    int r = file_read(guest->fd, "config.json", CONFIG_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    out = open_memstream(ret_text, ret_length);
    if (!out)
        return error_set(err, ENOMEM, "out of memory");
    config = json_loads(text, 0, NULL);
    process = json_object_get(config, "process");
    user = json_object_get(process, "user");
    json_array_foreach(json_object_get(process, "args"), i, item)
        add_record(out, 'A', json_string_value(item));
    json_array_foreach(json_object_get(process, "env"), i, item)
        add_record(out, 'E', json_string_value(item));
    json_array_foreach(json_object_get(user, "additionalGids"), i, item) add_number(out, 'S', item);
    add_number(out, 'U', json_object_get(user, "uid"));
    add_number(out, 'G', json_object_get(user, "gid"));
    add_record(out, 'W', json_string_value(json_object_get(process, "cwd")));
    add_record(out, 'H', json_string_value(json_object_get(config, "hostname")));
    if (json_is_true(json_object_get(process, "terminal")))
        add_record(out, 'T', "1");
    json_decref(config);
    return fclose(out) == 0 ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int fill_initrd(const struct guest *guest, int fd, struct error *err)
{
    AUTO_CLOSE int root = openat(guest->fd, "rootfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *task = NULL;
    struct initramfs *initramfs = NULL;
    size_t length;
    int r = make_task(guest, &task, &length, err);

    if (r == 0)
        r = initramfs_create(fd, &initramfs, err);
    if (r == 0)
        r = initramfs_add_tree(initramfs, root, err);
    /* Last, so that nothing of the image takes its place. */
    if (r == 0)
        r = initramfs_add(initramfs, ".lodge", S_IFDIR | 0700, NULL, 0, err);
    if (r == 0)
        r = initramfs_add(initramfs, &CHANNEL_INIT[1], S_IFREG | 0700, lodge_init_start,
                          (size_t)(lodge_init_end - lodge_init_start), err);
    if (r == 0)
        r = initramfs_add(initramfs, &CHANNEL_CONFIG[1], S_IFREG | 0600, task, length, err);
    if (r == 0)
        r = initramfs_finish(initramfs, err);
    initramfs_destroy(initramfs);
    return r;
}

int vm_prepare(struct guest *guest, const struct store *store, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    struct manifest manifest = {0};
    struct image_config config = {0};
    int r = guest_read_image(guest, store, &manifest, &config, err);

    if (r == 0)
        r = image_unpack((struct store *)store, &manifest, &config, err);
    if (r == 0)
        r = root_mount(guest, store, &config, err);
    if (r == 0) {
        r = spec_write(guest, &config, err);
        fd = openat(guest->fd, INITRD, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (r == 0 && fd < 0)
            r = error_system(err, errno, "cannot make the initial RAM disk");
        if (r == 0)
            r = fill_initrd(guest, fd, err);
        root_unmount(guest, NULL);
    }
    image_config_release(&config);
    manifest_release(&manifest);
    return r;
}

static int choose_memory(const struct guest *guest, uint64_t *ret_memory, struct error *err)
{
    uint64_t asked = (uint64_t)json_integer_value(json_object_get(guest->record, "memory"));
    struct stat initrd;
    uint64_t least;

    if (fstatat(guest->fd, INITRD, &initrd, 0) < 0)
        return error_system(err, errno, "the guest %s has no initial RAM disk", guest->name);
    /* It is there twice while the kernel unpacks it. */
    least = ALIGN_UP(2 * (uint64_t)initrd.st_size + MEMORY_BESIDES, 1ull << 20);
    if (asked && asked < least)
        return error_set(err, EINVAL, "the image needs --memory %lluM as a virtual machine",
                         (unsigned long long)(least >> 20));
    *ret_memory = asked ? asked : MAX(least, MEMORY_DEFAULT);
    return 0;
}

static int open_image(struct vm *vm, const struct guest *guest, uint64_t memory, struct error *err)
{
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/" INITRD, guest->path);
    r = boot_image_open(vm->options->kernel, path,
                        "console=ttyS0 quiet panic=-1 rootfstype=ramfs rdinit=" CHANNEL_INIT,
                        memory, &vm->image, err);
    unlinkat(guest->fd, INITRD, 0);
    if (r < 0)
        return r;
    vm->kernel_log =
        openat(guest->fd, "kernel.log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return vm->kernel_log < 0 ? error_system(err, errno, "cannot make kernel.log") : 0;
}

static int watch_signals(struct vm *vm, struct error *err)
{
    static const int passed[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,
                                 SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
        sigaddset(&set, passed[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    vm->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vm->signal_fd < 0)
        return error_system(err, errno, "cannot watch signals");
    return loop_add_fd(vm->loop, vm->signal_fd, EPOLLIN, signalled, vm, &vm->signals, err);
}

static void set_terminal(struct vm *vm, const struct guest *guest)
{
    struct termios raw;

    if (!json_is_true(json_object_get(guest->record, "terminal")) ||
        tcgetattr(STDIN_FILENO, &vm->before) < 0)
        return;
    raw = vm->before;
    cfmakeraw(&raw);
    vm->raw = tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) == 0;
}

static int set_up(struct vm *vm, const struct guest *guest, struct error *err)
{
    double cpus = json_real_value(json_object_get(guest->record, "cpus"));
    struct machine_config config = {
        .name = guest->name,
        .cpus = cpus > 1 ? (unsigned)(cpus + 0.999) : 1,
        .engine = vm->options->engine,
        .console = {console_output, console_has_room, vm},
        .log = vm->options->log,
    };
    int r = choose_memory(guest, &config.memory, err);

    if (r == 0)
        r = open_image(vm, guest, config.memory, err);
    if (r == 0)
        r = loop_create(&vm->loop, err);
    config.loop = vm->loop;
    if (r == 0)
        r = watch_signals(vm, err); /* before there are threads, which inherit the mask */
    if (r == 0)
        r = machine_create(&config, &vm->machine, err);
    if (r == 0)
        r = boot_image_load(&vm->image, vm->machine, err);
    return r;
}

static void take_down(struct vm *vm)
{
    if (vm->raw)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &vm->before);
    loop_remove(vm->input);
    loop_remove(vm->signals);
    machine_destroy(vm->machine);
    if (vm->loop)
        loop_destroy(vm->loop);
    boot_image_close(&vm->image);
    if (vm->signal_fd >= 0)
        close(vm->signal_fd);
    if (vm->kernel_log >= 0)
        close(vm->kernel_log);
    free(vm);
}

int vm_run(struct guest *guest, const struct vm_options *options, struct error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    char pid[32];
    int r;

    if (!vm)
        return error_set(err, ENOMEM, "out of memory");
    vm->options = options;
    vm->signal_fd = vm->kernel_log = vm->status = -1;
    vm->window = CHANNEL_WINDOW;
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    r = guest_write(guest, "pid", pid, err);
    if (r == 0)
        r = set_up(vm, guest, err);
    if (r == 0) {
        set_terminal(vm, guest);
        r = machine_start(vm->machine, ended, vm, err);
    }
    if (r == 0)
        r = loop_run(vm->loop, err);
    if (r == 0 && vm->why.code)
        r = error_set(err, vm->why.code, "%s", vm->why.text);
    if (r == 0)
        r = vm->status;
    take_down(vm);
    return r;
}
