#include "machine/loader/loader.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* Tried in this order: a Linux image can carry other headers too. */
static const struct loader *const loaders[] = {&linux_loader, &pvh_loader, &multiboot_loader};

int boot_image_open(const char *kernel_path, const char *initrd_path, const char *append,
                    uint64_t memory, struct boot_image *ret_image, struct error *err)
{
    struct boot_image image = {.append = strdup(append ? append : "")};
    int r = image.append ? 0 : error_set(err, ENOMEM, "out of memory");

    if (r == 0)
        r = boot_file_open("kernel", kernel_path, memory, &image.kernel, err);
    if (r == 0 && initrd_path)
        r = boot_file_open("initrd", initrd_path, memory, &image.initrd, err);
    if (r < 0) {
        boot_image_close(&image);
        return r;
    }
    *ret_image = image;
    return 0;
}

void boot_image_close(struct boot_image *image)
{
    boot_file_close(&image->kernel);
    boot_file_close(&image->initrd);
    free(image->append);
    image->append = NULL;
}

int boot_image_load(const struct boot_image *image, struct machine *machine, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(loaders); i++)
        if (loaders[i]->recognizes(image))
            return loaders[i]->load(image, machine, err);
    return error_set(err, ENOEXEC,
                     "%s is no kernel: neither a Linux bzImage, nor an ELF file with a PVH entry, "
                     "nor multiboot",
                     image->kernel.path);
}
