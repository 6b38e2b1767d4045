#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/sandbox_policy.h"

#ifdef __has_feature /* clang's word for __SANITIZE_ADDRESS__ */
#if __has_feature(address_sanitizer)
#define LODGE_CLANG_SANITIZER
#endif
#endif

#define KEPT_MAX     16
#define NEW_ROOT     "/sys" /* a directory that every host has and no kept one is below */
#define OPEN_FILES   1024
#define PATH_LENGTH  4096

struct sandbox {
    unsigned features;
    const struct log *log;
    bool namespaces; /* the host allowed them */
    uint32_t capabilities; /* that are left */
    struct sock_fprog filters[SANDBOX_THREADS];
    unsigned kept_count;
    char *kept[KEPT_MAX]; /* directories, absolute */
};

/* --- Namespaces --- */

static int write_file(const char *path, const char *text)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* In a user namespace of its own the process may do what follows; its user and
 * group are the only ones there (user_namespaces(7)). */
static int enter_user_namespace(void)
{
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    char map[64];
    int r;

    if (unshare(CLONE_NEWUSER) < 0)
        return -errno;
    snprintf(map, sizeof(map), "%u %u 1", uid, uid);
    r = write_file("/proc/self/uid_map", map);
    if (r == 0)
        r = write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof(map), "%u %u 1", gid, gid);
    return r < 0 ? r : write_file("/proc/self/gid_map", map);
}

static int enter_namespaces(void)
{
    int r = geteuid() != 0 ? enter_user_namespace() : 0;

    if (r < 0)
        return r;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    return 0;
}

static int make_directories(const char *top, const char *path)
{
    char whole[PATH_LENGTH];
    int length = snprintf(whole, sizeof(whole), "%s%s", top, path);

    if (length < 0 || (size_t)length >= sizeof(whole))
        return -ENAMETOOLONG;
    for (char *slash = whole + strlen(top) + 1; *slash; slash++) {
        if (*slash != '/')
            continue;
        *slash = 0;
        if (mkdir(whole, 0755) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return mkdir(whole, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int bind_kept(const char *path)
{
    char target[PATH_LENGTH];
    int r = make_directories(NEW_ROOT, path);

    if (r < 0)
        return r;
    snprintf(target, sizeof(target), "%s%s", NEW_ROOT, path);
    return mount(path, target, NULL, MS_BIND | MS_REC, NULL) < 0 ? -errno : 0;
}

/* Make the new root the only one. An initramfs cannot be pivoted away: it is
 * covered and left. */
static int change_root(void)
{
    char here[PATH_LENGTH];
    const bool known = getcwd(here, sizeof(here));
    int r;

    if (chdir(NEW_ROOT) < 0)
        return -errno;
    if (syscall(SYS_pivot_root, ".", ".") == 0)
        r = umount2(".", MNT_DETACH);
    else if ((r = mount(".", "/", NULL, MS_MOVE, NULL)) == 0)
        r = chroot(".");
    if (r < 0 || chdir("/") < 0)
        return -errno;
    /* Relative paths of what is kept stay good; where nothing is, / will do. */
    if (known && chdir(here) < 0)
        return errno == ENOENT ? 0 : -errno;
    return 0;
}

/* The user's network asks the host's name servers, and looks here for them. */
static int copy_resolver(void)
{
    AUTO_CLOSE int from = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC), to = -1;
    char text[4096];
    ssize_t n = from < 0 ? 0 : read(from, text, sizeof(text));

    if (n <= 0)
        return 0; /* then there are none */
    if (mkdir(NEW_ROOT "/etc", 0755) < 0 && errno != EEXIST)
        return -errno;
    to = open(NEW_ROOT "/etc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    return to < 0 || write(to, text, (size_t)n) != n ? -errno : 0;
}

/* An empty file system but for the kept directories, and no way to write into it. */
static int empty_file_system(struct sandbox *sandbox)
{
    int r = 0;

    if (mount("sandbox", NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0755,size=64k") < 0)
        return -errno;
    for (unsigned i = 0; r == 0 && i < sandbox->kept_count; i++)
        r = bind_kept(sandbox->kept[i]);
    if (r == 0 && (sandbox->features & SANDBOX_NETWORK))
        r = copy_resolver();
    if (r == 0)
        r = change_root();
    if (r == 0 && mount(NULL, "/", NULL,
                        MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                        NULL) < 0)
        r = -errno;
    return r;
}

/* --- Capabilities and resources --- */

/* What is left of the rights over files of all users (capabilities(7)): where they are asked for
 * and the process's own namespace keeps everything else out of its sight. */
static uint32_t owners_capabilities(const struct sandbox *sandbox)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[2];

    if (!(sandbox->features & SANDBOX_OWNERS) || !sandbox->namespaces ||
        syscall(SYS_capget, &header, had) < 0)
        return 0;
    return had[0].permitted & (1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER);
}

static int drop_capabilities(const struct sandbox *sandbox)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct left[2] = {
        {.effective = sandbox->capabilities, .permitted = sandbox->capabilities}, {0}};

    return syscall(SYS_capset, &header, left) < 0 ? -errno : 0;
}

static void limit_resources(void)
{
    const struct rlimit core = {0, 0};
    struct rlimit files;

    setrlimit(RLIMIT_CORE, &core); /* a core file would hold the guest's memory */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_max = MIN(files.rlim_max, (rlim_t)OPEN_FILES);
        files.rlim_cur = MIN(files.rlim_cur, files.rlim_max);
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* --- The steps --- */

bool sandbox_available(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(LODGE_CLANG_SANITIZER)
    return false;
#else
    return true;
#endif
}

int sandbox_create(unsigned features, const struct log *log, struct sandbox **ret_sandbox,
                   struct error *err)
{
    struct sandbox *sandbox;
    int r = 0;

    if (!sandbox_available()) {
        *ret_sandbox = NULL;
        return 0;
    }
    sandbox = calloc(1, sizeof(*sandbox));
    if (!sandbox)
        return error_set(err, ENOMEM, "out of memory for the sandbox");
    sandbox->features = features;
    sandbox->log = log;
    for (int kind = 0; r == 0 && kind < SANDBOX_THREADS; kind++)
        r = sandbox_policy_compile((enum sandbox_thread)kind, features, &sandbox->filters[kind],
                                   err);
    if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = error_system(err, errno, "cannot forbid new privileges");
    if (r < 0) {
        sandbox_destroy(sandbox);
        return r;
    }
    r = enter_namespaces();
    if (r < 0)
        log_info(log, "the sandbox has no namespaces of its own: %s", strerror(-r));
    sandbox->namespaces = r == 0;
    sandbox->capabilities = owners_capabilities(sandbox);
    *ret_sandbox = sandbox;
    return 0;
}

void sandbox_destroy(struct sandbox *sandbox)
{
    if (!sandbox)
        return;
    for (int kind = 0; kind < SANDBOX_THREADS; kind++)
        free(sandbox->filters[kind].filter);
    for (unsigned i = 0; i < sandbox->kept_count; i++)
        free(sandbox->kept[i]);
    free(sandbox);
}

int sandbox_keep(struct sandbox *sandbox, const char *path, struct error *err)
{
    AUTO_FREE char *directory = NULL;
    char *slash;

    if (!sandbox)
        return 0;
    if (sandbox->kept_count == KEPT_MAX)
        return error_set(err, ENOSPC, "the sandbox keeps %d directories and no more", KEPT_MAX);
    directory = realpath(path, NULL);
    if (!directory)
        return error_system(err, errno, "the sandbox cannot keep %s", path);
    slash = strrchr(directory, '/');
    if (slash == directory)
        return error_set(err, EINVAL, "%s: the sandbox cannot keep /; use another directory", path);
    *slash = 0;
    sandbox->kept[sandbox->kept_count++] = steal_pointer(&directory);
    return 0;
}

int sandbox_enter(struct sandbox *sandbox, struct error *err)
{
    int r = 0;

    if (!sandbox)
        return 0;
    /* What the C library would read from files later: the time zone; and, before it gives
     * a thread's memory back, whether the kernel overcommits. So it keeps that memory. */
    tzset();
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    if (sandbox->namespaces && !(sandbox->features & SANDBOX_NETWORK) && unshare(CLONE_NEWNET) < 0)
        r = -errno;
    if (r == 0 && sandbox->namespaces)
        r = empty_file_system(sandbox);
    if (r < 0)
        return error_system(err, -r, "cannot close the sandbox (--no-sandbox does without)");
    limit_resources();
    return sandbox_thread(sandbox, SANDBOX_MAIN, err);
}

int sandbox_thread(const struct sandbox *sandbox, enum sandbox_thread kind, struct error *err)
{
    int r;

    if (!sandbox)
        return 0;
    r = drop_capabilities(sandbox);
    if (r == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &sandbox->filters[kind]) < 0)
        r = -errno;
    return r < 0 ? error_system(err, -r, "cannot confine a thread to its system calls") : 0;
}
