#include "machine/loader/loader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"

/* Tried in this order: a Linux image can carry other headers too. */
static const struct loader *const loaders[] = {&linux_loader, &pvh_loader, &multiboot_loader};

#define FILE_MAX (4ull << 30)

static int read_all(int fd, const char *path, uint8_t *to, size_t size, struct error *err)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, to + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot read %s", path);
        if (n == 0)
            return error_set(err, EIO, "%s became shorter while it was read", path);
        done += (size_t)n;
    }
    return 0;
}

static int read_file(const char *what, const char *path, uint64_t memory, uint8_t **ret_bytes,
                     size_t *ret_size, struct error *err)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE uint8_t *bytes = NULL;
    char want[32], have[32];
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_system(err, errno, "cannot open the %s %s", what, path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, S_ISDIR(st.st_mode) ? EISDIR : ENOTSUP,
                         "the %s %s is %s; give a regular file", what, path,
                         S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
    if (st.st_size == 0)
        return error_set(err, ENOEXEC, "the %s %s is empty", what, path);
    if ((uint64_t)st.st_size > MIN(memory, FILE_MAX))
        return error_set(err, EINVAL,
                         "the %s %s (%s) does not fit into %s of memory; give more with --memory",
                         what, path, size_format((uint64_t)st.st_size, want, sizeof(want)),
                         size_format(MIN(memory, FILE_MAX), have, sizeof(have)));
    bytes = malloc((size_t)st.st_size);
    if (!bytes)
        return error_set(err, ENOMEM, "out of memory for the %s %s", what, path);
    r = read_all(fd, path, bytes, (size_t)st.st_size, err);
    if (r < 0)
        return r;
    *ret_bytes = steal_pointer(&bytes);
    *ret_size = (size_t)st.st_size;
    return 0;
}

int boot_image_open(const char *kernel_path, const char *initrd_path, const char *append,
                    uint64_t memory, struct boot_image *ret_image, struct error *err)
{
    struct boot_image image = {
        .kernel_path = strdup(kernel_path),
        .initrd_path = initrd_path ? strdup(initrd_path) : NULL,
        .append = strdup(append ? append : ""),
    };
    int r = 0;

    if (!image.kernel_path || !image.append || (initrd_path && !image.initrd_path))
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = read_file("kernel", kernel_path, memory, &image.kernel, &image.kernel_size, err);
    if (r == 0 && initrd_path)
        r = read_file("initrd", initrd_path, memory, &image.initrd, &image.initrd_size, err);
    if (r < 0) {
        boot_image_close(&image);
        return r;
    }
    *ret_image = image;
    return 0;
}

void boot_image_close(struct boot_image *image)
{
    free(image->kernel_path);
    free(image->initrd_path);
    free(image->append);
    free(image->kernel);
    free(image->initrd);
    memset(image, 0, sizeof(*image));
}

int boot_image_load(const struct boot_image *image, struct machine *machine, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(loaders); i++)
        if (loaders[i]->recognizes(image))
            return loaders[i]->load(image, machine, err);
    return error_set(err, ENOEXEC,
                     "%s is no kernel: neither a Linux bzImage, nor an ELF file with a PVH entry, "
                     "nor multiboot",
                     image->kernel_path);
}
