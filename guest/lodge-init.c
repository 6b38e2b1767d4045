/* lodge-init.c - the first process of a virtual machine that runs an image. It has one process for
 * each port of the virtio console, which serves the sessions there (channel.h), and powers
 * the machine off when the guest's own command has ended. Static, for any root filesystem.
 * In a container it is but the first process (--init; reaper.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/channel.h"
#include "guest/init_program.h"
#include "init.h"

static void mount_kernel(void)
{
    static const char *const mounts[][2] = {
        {"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}};

    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i][1], 0755);
        mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
    }
}

/* The command has the status that shells have for one that cannot be run. */
static int run_in_container(char **command)
{
    int why;

    if (!command[0])
        return 2;
    reaper_become();
    execvp(command[0], command);
    why = errno;
    fprintf(stderr, "lodge-init: cannot run %s: %s\n", command[0], strerror(why));
    return why == ENOENT ? 127 : 126;
}

static int run_machine(void)
{
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t first = 0, pid;

    mount_kernel();
    system_load_modules();
    for (unsigned port = 0; port < CHANNEL_PORTS; port++) {
        pid = fork();
        if (pid == 0) {
            session_serve(port, shared);
            _exit(0);
        }
        if (port == 0)
            first = pid;
    }
    /* Others that end were orphans. */
    while ((pid = wait(NULL)) != first && (pid > 0 || errno == EINTR))
        ;
    sync();
    reboot(RB_POWER_OFF);
    return 0;
}

int main(int argc, char **argv)
{
    return argc > 0 && !strcmp(argv[0], INIT_OF_MACHINE) ? run_machine()
                                                         : run_in_container(argv + (argc > 0));
}
