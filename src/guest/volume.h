/* volume.h - volumes: directories with a name, which outlive the guests that use them. A directory
 * is all there is of one, so that any process of Lodge may die at any moment:
 *
 *     /var/lib/lodge/volumes/lock    held (flock) by who makes volumes or guests with them, or
 *                                    removes volumes
 *     /var/lib/lodge/volumes/NAME/
 *         data                       what guests see; without it there is no such volume
 *         volume.json                when it was made, and its labels
 *         fresh                      until a guest has used it; locked by who fills it
 *         filling                    content on its way to data; of no worth after a crash
 *
 * Users without privileges have theirs under $XDG_DATA_HOME/lodge/volumes. */
#ifndef LODGE_GUEST_VOLUME_H
#define LODGE_GUEST_VOLUME_H

#include <jansson.h>
#include <limits.h>

#include "base/error.h"

/* While the descriptor returned is open, volumes are neither made nor removed by others. */
int volume_lock(struct error *err);

/* Make a volume; labels (NULL: none) are a JSON object. -EEXIST with words when there is one. The
 * caller has the lock. */
int volume_create(const char *name, json_t *labels, struct error *err);
/* The path of its data; -ENOENT with words. */
int volume_path(const char *name, char path[PATH_MAX], struct error *err);

/* What a guest's first use does: directory_fd's content becomes that of the volume, owner and mode
 * too, when the volume was never used and is empty. */
int volume_fill(const char *name, int directory_fd, struct error *err);

/* Call fn with each, by name; a negative return of fn ends it. */
int volume_list(int (*fn)(const char *name, void *opaque), void *opaque, struct error *err);
/* Name, path, creation, labels, and the guests that use it. A new reference. */
int volume_describe(const char *name, json_t **ret_tree, struct error *err);
/* -EBUSY while there is a guest that uses it. The caller has the lock. */
int volume_remove(const char *name, struct error *err);

#endif
