/* What a virtual machine sends as an archive: it stays below its directory. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/archive.h"
#include "image/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[] = "/tmp/fuzz-archive-XXXXXX";
    static int top = -1;
    FILE *in = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    struct stat st;

    if (top < 0) {
        if (!mkdtemp(path))
            abort();
        top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (!in || mkdirat(top, "inner", 0700) < 0)
        return 0;
    int inner = openat(top, "inner", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    archive_receive(in, false, inner, "made", NULL);
    fclose(in);
    if (fstatat(inner, "made", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode) ||
         (!S_ISLNK(st.st_mode) && st.st_mode & (S_ISUID | S_ISGID))))
        abort();
    close(inner);
    tree_remove(top, "inner");
    if (fstat(top, &st) < 0 || st.st_nlink != 2) /* no other directory */
        abort();
    return 0;
}
