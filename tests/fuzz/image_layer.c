/* The unpacking of layers. Whatever comes, nothing appears beside the root. Checksums of headers
 * are put right first, or hardly a change of a seed would be looked at. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* ustar interchange format (IEEE Std 1003.1, pax): the sum of the header's bytes, its own field
 * taken as spaces. */
static void repair(uint8_t *bytes, size_t size)
{
    enum { BLOCK = 512, SUM = 148, SUM_SIZE = 8, MAGIC = 257 };

    for (uint8_t *block = bytes; size - (size_t)(block - bytes) >= BLOCK; block += BLOCK) {
        unsigned sum = 0;

        if (memcmp(block + MAGIC, "ustar", 5) != 0)
            continue;
        memset(block + SUM, ' ', SUM_SIZE);
        for (size_t i = 0; i < BLOCK; i++)
            sum += block[i];
        snprintf((char *)block + SUM, SUM_SIZE, "%06o", sum);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
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
    check(copy != NULL);
    memcpy(copy, data, size);
    repair(copy, size);
    fd = memfd_create("layer", 0);
    check(fd >= 0 && write(fd, copy, size) == (ssize_t)size);
    free(copy);
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
