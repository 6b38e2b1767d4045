#include "machine/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"

#define MEMORY_MIN (2ull << 20)
#define HUGE_PAGE  (2ull << 20)

static int check_size(uint64_t size, struct error *err)
{
    struct sysinfo info;
    char have[32], want[32];

    if (size < MEMORY_MIN)
        return error_set(err, EINVAL,
                         "%s of memory is too little for any guest; give it at least 2M",
                         size_format(size, want, sizeof(want)));
    if (size & 0xfff)
        return error_set(err, EINVAL, "%llu bytes of memory is no multiple of 4 KiB",
                         (unsigned long long)size);
    if (sysinfo(&info) == 0 && size > (uint64_t)info.totalram * info.mem_unit)
        return error_set(err, EINVAL, "%s of memory is more than the %s this host has; give less",
                         size_format(size, want, sizeof(want)),
                         size_format((uint64_t)info.totalram * info.mem_unit, have, sizeof(have)));
    return 0;
}

int guest_memory_create(uint64_t size, struct guest_memory **ret_memory, struct error *err)
{
    AUTO_CLOSE int fd = -1;
    struct guest_memory *memory;
    uint64_t low;
    uint8_t *host;
    int r = check_size(size, err);

    if (r < 0)
        return r;
    fd = memfd_create("lodge-ram", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return error_system(err, errno, "cannot create the guest's memory");
    host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (host == MAP_FAILED)
        return error_system(err, errno, "cannot map the guest's memory");
    madvise(host, size, MADV_HUGEPAGE); /* fewer misses where the host allows it */
    memory = calloc(1, sizeof(*memory));
    if (!memory) {
        munmap(host, size);
        return error_set(err, ENOMEM, "out of memory");
    }
    low = MIN(size, GUEST_MEMORY_HOLE_START);
    memory->fd = steal_fd(&fd);
    memory->size = size;
    memory->region[memory->region_count++] =
        (struct guest_memory_region){.address = 0, .size = low, .host = host};
    if (size > low)
        memory->region[memory->region_count++] = (struct guest_memory_region){
            .address = GUEST_MEMORY_HIGH_START, .size = size - low, .host = host + low};
    *ret_memory = memory;
    return 0;
}

void guest_memory_destroy(struct guest_memory *memory)
{
    if (!memory)
        return;
    munmap(memory->region[0].host, memory->size);
    close(memory->fd);
    free(memory);
}

void *guest_memory_at(const struct guest_memory *memory, uint64_t address, uint64_t size)
{
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct guest_memory_region *region = &memory->region[i];
        uint64_t offset = address - region->address;

        if (offset <= region->size && size <= region->size - offset)
            return region->host + offset;
    }
    return NULL;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t address, void *to, size_t size)
{
    const void *from = guest_memory_at(memory, address, size);

    if (!from)
        return -EFAULT;
    memcpy(to, from, size);
    return 0;
}

int guest_memory_write(struct guest_memory *memory, uint64_t address, const void *from,
                       size_t size)
{
    void *to = guest_memory_at(memory, address, size);

    if (!to)
        return -EFAULT;
    memcpy(to, from, size);
    return 0;
}

void guest_memory_written(const struct guest_memory *memory, const void *host, uint64_t size)
{
    for (unsigned i = 0; memory->written && i < memory->region_count; i++) {
        const struct guest_memory_region *region = &memory->region[i];
        uint64_t offset = (uint64_t)((const uint8_t *)host - region->host);

        if (offset < region->size) {
            memory->written(memory->written_opaque, region->address + offset, size);
            return;
        }
    }
}
