#include "machine/memory.h"

#include <errno.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "base/bytes.h"
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

/* Ordinary memory, which the host makes of huge pages by itself where it has such; it does so for
 * anonymous memory, but for a memfd only where an administrator asked for it. */
static void *map_ordinary(uint64_t size, struct error *err)
{
    /* Guest and host address must agree within a huge page for KVM to map one: a little more is
     * mapped, and what is before and behind the aligned part given back. */
    const uint64_t room = size + HUGE_PAGE;
    uint8_t *all = mmap(NULL, room, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *host = (uint8_t *)ALIGN_UP((uintptr_t)all, (uintptr_t)HUGE_PAGE);

    if (all == MAP_FAILED) {
        error_system(err, errno, "cannot map the guest's memory");
        return NULL;
    }
    if (host != all)
        munmap(all, (size_t)(host - all));
    munmap(host + size, (size_t)(all + room - (host + size)));
    madvise(host, size, MADV_HUGEPAGE);
    madvise(host, size, MADV_DONTDUMP);
    return host;
}

/* From the pages that the host has set aside; taken now, so that none is missing later. */
static void *map_huge(uint64_t size, struct error *err)
{
    char text[32];
    void *host;

    if (size % HUGE_PAGE) {
        error_set(err, EINVAL, "%s of memory is no multiple of huge pages of 2 MiB",
                  size_format(size, text, sizeof(text)));
        return NULL;
    }
    host = mmap(NULL, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
    if (host == MAP_FAILED) {
        error_set(err, ENOMEM,
                  "the host has not set aside %llu huge pages of 2 MiB; the administrator does "
                  "by /proc/sys/vm/nr_hugepages",
                  (unsigned long long)(size / HUGE_PAGE));
        return NULL;
    }
    return host;
}

static int create(uint64_t size, void *(*map)(uint64_t size, struct error *err),
                  struct guest_memory **ret_memory, struct error *err)
{
    struct guest_memory *memory;
    uint64_t low;
    uint8_t *host;
    int r = check_size(size, err);

    if (r < 0)
        return r;
    host = map(size, err);
    if (!host)
        return -ENOMEM;
    memory = calloc(1, sizeof(*memory));
    if (!memory) {
        munmap(host, size);
        return error_set(err, ENOMEM, "out of memory");
    }
    low = MIN(size, GUEST_MEMORY_HOLE_START);
    memory->size = size;
    memory->region[memory->region_count++] =
        (struct guest_memory_region){.address = 0, .size = low, .host = host};
    if (size > low)
        memory->region[memory->region_count++] = (struct guest_memory_region){
            .address = GUEST_MEMORY_HIGH_START, .size = size - low, .host = host + low};
    *ret_memory = memory;
    return 0;
}

int guest_memory_create(uint64_t size, struct guest_memory **ret_memory, struct error *err)
{
    return create(size, map_ordinary, ret_memory, err);
}

int guest_memory_create_huge(uint64_t size, struct guest_memory **ret_memory, struct error *err)
{
    return create(size, map_huge, ret_memory, err);
}

void guest_memory_destroy(struct guest_memory *memory)
{
    if (!memory)
        return;
    munmap(memory->region[0].host, memory->size);
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

int guest_memory_discard(const struct guest_memory *memory, void *host, uint64_t size)
{
    if (madvise(host, size, MADV_DONTNEED) < 0)
        return -errno;
    guest_memory_written(memory, host, size);
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
