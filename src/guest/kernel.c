#include "guest/kernel.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/file.h"
#include "guest/init_program.h"
#include "guest/initramfs.h"

enum { ORDER_MAX = 65536, MODULE_MAX = 16 << 20 };

/* Where kernels are (meson.build): installed, and fetched in the tree that this was built in. */
static const char *const places[] = {LODGE_KERNELS_INSTALLED, LODGE_KERNELS_FETCHED};

/* Debian's flavours, the smallest first. The kernel for clouds has no 9P. */
static const struct {
    const char *name;
    unsigned features;
} flavours[] = {
    {"cloud-amd64", KERNEL_NETWORK},
    {"amd64", KERNEL_NETWORK | KERNEL_SHARES},
};

/* Modules by what needs them; those that a kernel has built in are not in its folder. */
static const struct {
    const char *name;
    unsigned feature; /* 0: every guest */
} modules[] = {
    {"virtio_ring.ko", 0},
    {"virtio_pci_modern_dev.ko", 0},
    {"virtio_pci_legacy_dev.ko", 0},
    {"virtio.ko", 0},
    {"virtio_pci.ko", 0},
    {"virtio_blk.ko", 0},
    {"virtio_console.ko", 0},
    {"jbd2.ko", 0},
    {"mbcache.ko", 0},
    {"crc16.ko", 0},
    {"crc32c_generic.ko", 0},
    {"ext4.ko", 0},
    {"failover.ko", KERNEL_NETWORK},
    {"net_failover.ko", KERNEL_NETWORK},
    {"virtio_net.ko", KERNEL_NETWORK},
    {"9pnet.ko", KERNEL_SHARES},
    {"9pnet_virtio.ko", KERNEL_SHARES},
    {"netfs.ko", KERNEL_SHARES},
    {"fscache.ko", KERNEL_SHARES},
    {"9p.ko", KERNEL_SHARES},
};

int kernel_find(const char *asked, unsigned features, char path[PATH_MAX], struct error *err)
{
    if (asked && *asked) {
        snprintf(path, PATH_MAX, "%s", asked);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(flavours); i++)
        for (size_t j = 0; j < ARRAY_SIZE(places); j++) {
            snprintf(path, PATH_MAX, "%s/%s/vmlinuz", places[j], flavours[i].name);
            if ((flavours[i].features & features) == features && access(path, R_OK) == 0)
                return 0;
        }
    return error_set(err, ENOENT,
                     "there is no Linux kernel for virtual machines with %s: 'make kernels' "
                     "fetches Debian's, or --kernel FILE names one",
                     features & KERNEL_SHARES ? "volumes" : "images");
}

static bool is_needed(const char *name, unsigned features)
{
    for (size_t i = 0; i < ARRAY_SIZE(modules); i++)
        if (!strcmp(modules[i].name, name))
            return !modules[i].feature || (modules[i].feature & features);
    return false;
}

/* The init inserts modules/0, modules/1 and so on. */
static int add_modules(struct initramfs *initramfs, const char *kernel, unsigned features,
                       struct error *err)
{
    const char *slash = strrchr(kernel, '/');
    int length = slash ? (int)(slash - kernel) : 1;
    char folder[PATH_MAX + 16];
    AUTO_FREE char *order = NULL;
    AUTO_CLOSE int fd = -1;
    unsigned count = 0;
    int r;

    snprintf(folder, sizeof(folder), "%.*s/modules", length, slash ? kernel : ".");
    fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    r = file_read(fd, "order", ORDER_MAX, &order, NULL, err);
    if (r == 0)
        r = initramfs_add(initramfs, "modules", S_IFDIR | 0700, NULL, 0, err);
    for (char *save = NULL, *name = r < 0 ? NULL : strtok_r(order, "\n", &save); name && r == 0;
         name = strtok_r(NULL, "\n", &save)) {
        AUTO_FREE char *data = NULL;
        char path[32];
        size_t size;

        if (!is_needed(name, features))
            continue;
        snprintf(path, sizeof(path), "modules/%u", count++);
        r = file_read(fd, name, MODULE_MAX, &data, &size, err);
        if (r == 0)
            r = initramfs_add(initramfs, path, S_IFREG | 0600, data, size, err);
    }
    return r;
}

int kernel_write_initrd(const char *kernel, unsigned features, int fd, struct error *err)
{
    struct initramfs *initramfs;
    int r = initramfs_create(fd, &initramfs, err);

    if (r < 0)
        return r;
    r = initramfs_add(initramfs, &INIT_OF_MACHINE[1], S_IFREG | 0700, lodge_init_start,
                      (size_t)(lodge_init_end - lodge_init_start), err);
    if (r == 0)
        r = add_modules(initramfs, kernel, features, err);
    if (r == 0)
        r = initramfs_finish(initramfs, err);
    initramfs_destroy(initramfs);
    return r;
}
