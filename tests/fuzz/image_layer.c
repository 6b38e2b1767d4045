/* The unpacking of layers. Whatever comes, nothing appears beside the root. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/layer.h"
#include "image/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int directory = -1; /* of the root and the canary */
static char path[] = "/tmp/lodge-fuzz-XXXXXX";

static void remove_directory(void)
{
    tree_remove(AT_FDCWD, path);
}

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest digest;
    struct error err;
    struct stat status;
    int fd, root;

    if (directory < 0) {
        check(mkdtemp(path) != NULL);
        directory = open(path, O_RDONLY | O_DIRECTORY);
        atexit(remove_directory);
        check(directory >= 0 && mkdirat(directory, "canary", 0700) == 0);
    }
    fd = memfd_create("layer", 0);
    check(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    check(mkdirat(directory, "root", 0755) == 0);
    root = openat(directory, "root", O_RDONLY | O_DIRECTORY);
    layer_unpack(fd, 0, size, root, NULL, &digest, &err);
    close(root);
    close(fd);
    check(tree_remove(directory, "root") == 0);
    /* An entry or a link count too many would be an escape. */
    check(fstat(directory, &status) == 0 && status.st_nlink == 3);
    check(fstatat(directory, "canary", &status, 0) == 0 && status.st_nlink == 2);
    return 0;
}
