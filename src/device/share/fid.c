#include "device/share/fid.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIDS_MAX = 4096 };

struct fid *fid_find(const struct fid_table *table, uint32_t number)
{
    struct fid *fid = table->buckets[number % FID_BUCKETS];

    while (fid && fid->number != number)
        fid = fid->next;
    return fid;
}

int fid_add(struct fid_table *table, uint32_t number, int path, uid_t user)
{
    struct fid **bucket = &table->buckets[number % FID_BUCKETS], *fid;

    if (number == NO_FID || fid_find(table, number)) {
        close(path);
        return -EINVAL;
    }
    fid = table->count < FIDS_MAX ? malloc(sizeof(*fid)) : NULL;
    if (!fid) {
        close(path);
        return -ENFILE;
    }
    *fid = (struct fid){number, path, -1, user, *bucket};
    *bucket = fid;
    table->count++;
    return 0;
}

void fid_drop(struct fid_table *table, struct fid *fid)
{
    struct fid **at = &table->buckets[fid->number % FID_BUCKETS];

    while (*at != fid)
        at = &(*at)->next;
    *at = fid->next;
    close(fid->path);
    if (fid->file >= 0)
        close(fid->file);
    free(fid);
    table->count--;
}

void fid_drop_all(struct fid_table *table)
{
    for (unsigned i = 0; i < FID_BUCKETS; i++)
        while (table->buckets[i])
            fid_drop(table, table->buckets[i]);
}
