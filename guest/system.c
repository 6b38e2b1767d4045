/* system.c - the surroundings of the guest's commands: modules, filesystems, names, parameters. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "container/copy.h"
#include "guest/channel.h"
#include "init.h"

#define ROOT  "/root"
#define FILES "/files" /* what covers files of the root; in memory */
#define ASIDE "/dev/shm" /* free until it is mounted itself, by a later record */

void system_load_modules(void)
{
    char path[32];
    int fd;

    for (unsigned i = 0; snprintf(path, sizeof(path), "/modules/%u", i),
                  (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0; i++) {
        syscall(SYS_finit_module, fd, "", 0);
        close(fd);
        unlink(path); /* its memory is free again */
    }
}

/* --- Filesystems --- */

/* As in a container (src/guest/spec.c), but all of /sys and of the control groups. */
static void mount_all(void)
{
    static const struct {
        const char *target, *type, *options;
        unsigned long flags;
    } mounts[] = {
        {ROOT "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {ROOT "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {ROOT "/sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {ROOT "/dev", "tmpfs", "mode=755,size=65536k", MS_NOSUID},
        {ROOT "/dev/pts", "devpts", "newinstance,mode=620,ptmxmode=666,gid=5",
         MS_NOSUID | MS_NOEXEC},
        {ROOT "/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    };
    static const struct {
        const char *path;
        unsigned minor;
    } devices[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}};
    static const char *const links[][2] = {{"/proc/self/fd", ROOT "/dev/fd"},
                                           {"/proc/self/fd/0", ROOT "/dev/stdin"},
                                           {"/proc/self/fd/1", ROOT "/dev/stdout"},
                                           {"/proc/self/fd/2", ROOT "/dev/stderr"},
                                           {"pts/ptmx", ROOT "/dev/ptmx"}};
    char path[64];

    /* What fails is missed by the programs that need it, and no reason to stop. */
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i].target, 0755);
        mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options);
    }
    umask(0);
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        snprintf(path, sizeof(path), ROOT "/dev/%s", devices[i].path);
        mknod(path, S_IFCHR | 0666, makedev(1, devices[i].minor));
    }
    mknod(ROOT "/dev/tty", S_IFCHR | 0666, makedev(5, 0));
    umask(022);
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            continue;
}

/* The directories above path, inside the root; the last part too when it is a directory. */
static void make_path(char *path, bool whole)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
    if (whole)
        mkdir(path, 0755);
}

/* "PATH\nCONTENT": written in memory, and open for cover_file. */
static int make_file(const char *text, unsigned number)
{
    char path[32];
    const char *content = strchr(text, '\n');
    int fd;

    snprintf(path, sizeof(path), FILES "/%u", number);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && content && write(fd, content + 1, strlen(content + 1)) < 0)
        return fd; /* empty, then */
    return fd;
}

static void cover_file(char *text, int file)
{
    char source[32];
    char *end = strchr(text, '\n');

    if (!end || file < 0)
        return;
    *end = 0;
    make_path(text, false);
    close(open(text, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    snprintf(source, sizeof(source), "/proc/self/fd/%d", file);
    mount(source, text, NULL, MS_BIND, NULL);
    close(file);
}

static const char *mount_volume(char letter, char *text)
{
    char *target = strchr(text, ' ');
    bool folder = letter == 'v' || letter == 'V', failed;

    if (!target)
        return NULL;
    *target++ = 0;
    make_path(target, folder);
    mkdir(ASIDE, 0755);
    if (mount(text, folder ? target : ASIDE, "9p", letter == 'v' || letter == 'b' ? MS_RDONLY : 0,
              "trans=virtio,version=9p2000.L,cache=mmap,msize=262144") < 0)
        return target;
    if (folder)
        return NULL;
    close(open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    failed = mount(ASIDE "/" CHANNEL_FILE, target, NULL, MS_BIND, NULL) < 0;
    umount2(ASIDE, MNT_DETACH);
    return failed ? target : NULL;
}

/* Options of mount(8), of which some are flags of mount(2). */
static int mount_with_words(const char *type, const char *target, char *words)
{
    static const struct {
        const char *word;
        unsigned long flag;
    } flags[] = {{"ro", MS_RDONLY},     {"nosuid", MS_NOSUID}, {"nodev", MS_NODEV},
                 {"noexec", MS_NOEXEC}, {"noatime", MS_NOATIME}, {"rw", 0}, {"exec", 0},
                 {"suid", 0}, {"dev", 0}};
    char data[512] = "";
    unsigned long all = 0;

    for (char *save = NULL, *word = strtok_r(words, ",", &save); word;
         word = strtok_r(NULL, ",", &save)) {
        size_t i = 0, used = strlen(data);

        while (i < sizeof(flags) / sizeof(flags[0]) && strcmp(flags[i].word, word) != 0)
            i++;
        if (i < sizeof(flags) / sizeof(flags[0]))
            all |= flags[i].flag;
        else
            snprintf(data + used, sizeof(data) - used, "%s%s", used ? "," : "", word);
    }
    return mount(type, target, type, all, data);
}

/* "TARGET OPTIONS" */
static const char *mount_memory(char *text, bool copies)
{
    char *options = strchr(text, ' ');
    int below, above;
    bool good;

    if (!options)
        return NULL;
    *options++ = 0;
    make_path(text, true);
    below = open(text, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (mount_with_words("tmpfs", text, options) < 0)
        return text;
    above = open(text, O_PATH | O_DIRECTORY | O_CLOEXEC);
    good = !copies || copy_tree(below, above, NULL) == 0;
    close(below);
    close(above);
    return good ? NULL : text;
}

/* "NAME=VALUE": written to the file of that name (sysctl(8)). */
static const char *set_parameter(char *text)
{
    char path[256], *value = strchr(text, '=');
    int fd, n;

    if (!value)
        return NULL;
    *value++ = 0;
    snprintf(path, sizeof(path), "/proc/sys/%s", text);
    for (char *c = path + strlen("/proc/sys/"); *c; c++)
        if (*c == '.')
            *c = '/';
    fd = open(path, O_WRONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : (int)write(fd, value, strlen(value));
    if (fd >= 0)
        close(fd);
    return n < 0 ? text : NULL;
}

/* --- All --- */

static int mount_root(void)
{
    mkdir(ROOT, 0755);
    mkdir(FILES, 0700);
    return mount("/dev/vda", ROOT, "ext4", MS_NOATIME, "noinit_itable");
}

static int change_root(void)
{
    return chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
                   chdir("/") < 0
               ? -1
               : 0;
}

const char *system_enter(const struct task *task)
{
    int files[RECORDS_MAX];
    const char *failed = NULL;

    if (mount_root() < 0)
        return "the root disk";
    for (size_t i = 0; i < task->machine_count; i++)
        files[i] = *task->machine[i] == 'F' ? make_file(task->machine[i] + 1, (unsigned)i) : -1;
    mount_all();
    if (change_root() < 0)
        return "the root";
    network_raise_loopback();
    for (size_t i = 0; i < task->machine_count && !failed; i++) {
        char *text = task->machine[i] + 1;

        switch (*task->machine[i]) {
        case 'H':
            sethostname(text, strlen(text));
            break;
        case 'N':
            if (!network_configure())
                failed = "the network's address";
            break;
        case 'F':
            cover_file(text, files[i]);
            break;
        case 'V':
        case 'v':
        case 'B':
        case 'b':
            failed = mount_volume(*task->machine[i], text);
            break;
        case 'M':
        case 'm':
            failed = mount_memory(text, *task->machine[i] == 'm');
            break;
        case 'O':
            if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, NULL) < 0)
                failed = "the read-only root";
            break;
        case 'Y':
            failed = set_parameter(text);
            break;
        default:
            break;
        }
    }
    return failed;
}
