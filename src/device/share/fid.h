/* fid.h - what a client has got to know of a share: handles by numbers of its choice (9P: fids). */
#ifndef LODGE_DEVICE_SHARE_FID_H
#define LODGE_DEVICE_SHARE_FID_H

#include <stdint.h>
#include <sys/types.h>

#define NO_FID UINT32_MAX

struct fid {
    uint32_t number;
    int path;   /* O_PATH: what the fid is; owned */
    int file;   /* opened, or -1; owned */
    uid_t user; /* the guest's, by whom files are made */
    struct fid *next;
};

enum { FID_BUCKETS = 256 };

struct fid_table {
    unsigned count;
    struct fid *buckets[FID_BUCKETS];
};

/* NULL when there is none of that number. */
struct fid *fid_find(const struct fid_table *table, uint32_t number);
/* Takes path over, also on failure: -EINVAL when the number is taken, -ENFILE when there are too
 * many. */
int fid_add(struct fid_table *table, uint32_t number, int path, uid_t user);
void fid_drop(struct fid_table *table, struct fid *fid);
void fid_drop_all(struct fid_table *table);

#endif
