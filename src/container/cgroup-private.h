/* cgroup-private.h - between the files of control groups, and the two kinds of trees. */
#ifndef LODGE_CONTAINER_CGROUP_PRIVATE_H
#define LODGE_CONTAINER_CGROUP_PRIVATE_H

#include "container/cgroup.h"

/* One value into a file of the group. A controller that is not there is said so. */
int cgroup_put(const struct cgroup_tree *tree, const char *file, const char *value,
               struct error *err);
int cgroup_put_number(const struct cgroup_tree *tree, const char *file, int64_t value,
                      struct error *err);
/* The first line of a file, without its newline; false when there is none. */
bool cgroup_get(const struct cgroup_tree *tree, const char *file, char *line, size_t size);

/* Make a new v1 group usable where its parent's values must be copied. */
int cgroup_v1_prepare(const struct cgroup_tree *tree, int parent_fd, struct error *err);
int cgroup_v1_set(const struct cgroup *cgroup, const struct resources *resources,
                  struct error *err);
/* Turn the controllers on that groups in parent_fd can have. */
void cgroup_v2_prepare(int parent_fd);
int cgroup_v2_set(const struct cgroup *cgroup, const struct cgroup_tree *tree,
                  const struct resources *resources, struct error *err);

/* The device rules as a BPF program on a v2 group (config-linux.md, Allowed Device list). */
int cgroup_device_attach(int cgroup_fd, const struct resources *resources, struct error *err);

/* The devices every container has (config-linux.md, Default Devices). */
extern const struct device_rule cgroup_default_devices[];
extern const size_t cgroup_default_devices_count;

#endif
