/* place.h - where something is copied from, or to: a name in an open directory, so that what
 * happens to the path meanwhile leads nowhere else. Shared with guest/. */
#ifndef LODGE_GUEST_PLACE_H
#define LODGE_GUEST_PLACE_H

#include <limits.h>

#include "base/error.h"
#include "container/path.h"

struct place {
    int directory; /* owned; -1: none */
    char name[NAME_MAX + 1];
};

/* The last name of a path; -EINVAL with words when it has none. */
int place_name(const char *path, char name[NAME_MAX + 1], struct error *err);
/* The directory of a path, and the last name in it. root NULL: the caller's own. */
int place_open(struct path_root *root, const char *path, struct place *ret_place,
               struct error *err);
/* Where something called name goes that is to be copied to path: into it when that is a directory,
 * else as it. */
int place_open_target(struct path_root *root, const char *path, const char *name,
                      struct place *ret_place, struct error *err);
/* A place that is none is ignored. */
void place_close(struct place *place);

/* Let fn make the whole under another name, and put it there then; or leave nothing. What is there
 * already is replaced where rename(2) does. */
int place_fill(const struct place *place,
               int (*fn)(int directory, const char *name, void *opaque, struct error *err),
               void *opaque, struct error *err);

#endif
