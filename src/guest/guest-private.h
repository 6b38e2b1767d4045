/* guest-private.h - for the files of src/guest/. */
#ifndef LODGE_GUEST_GUEST_PRIVATE_H
#define LODGE_GUEST_GUEST_PRIVATE_H

#include "guest/guest.h"
#include "image/install.h"
#include "network/named.h"

/* The image's documents by the digest in the record. */
int guest_read_image(const struct guest *guest, const struct store *store,
                     struct manifest *ret_manifest, struct image_config *ret_config,
                     struct error *err);

/* Take the guest's lock, which its handle keeps; -EWOULDBLOCK when wait is false and another has
 * it. -ENOENT when the guest is gone. */
int guest_lock(struct guest *guest, bool wait, struct error *err);

/* Replace a small file in the guest's directory. */
int guest_write(const struct guest *guest, const char *name, const char *text, struct error *err);

/* root.c: the layers and the guest's upper one, mounted at rootfs; and taken away. */
int root_mount(const struct guest *guest, const struct store *store,
               const struct image_config *config, struct error *err);
int root_unmount(const struct guest *guest, struct error *err);

/* disk.c: the guest's disk, on top of the image's one in the store, which is made where missing. */
#define ROOT_DISK "root.qcow2"
int root_make_disk(const struct guest *guest, struct store *store,
                   const struct image_config *config, struct error *err);

/* vm_status.c: whether a virtual machine runs; what it takes of the host, in the form of
 * guest_stats. */
void vm_status(const struct guest *guest, struct guest_status *status);
int vm_stats(const struct guest *guest, const struct guest_status *status, json_t **ret_stats,
             struct error *err);

/* user.c: "USER[:GROUP]", names or numbers, by the passwd and group files under root_fd, as
 * the user object of config.json. A new reference. ret_home: their home, freed by the caller, or
 * NULL when it is not asked for. */
int user_resolve(int root_fd, const char *text, json_t **ret_user, char **ret_home,
                 struct error *err);

/* Further groups, names or numbers of a list, into such an object. */
int user_add_groups(int root_fd, const json_t *groups, json_t *user, struct error *err);

/* record.c: the options, checked, as guest.json. A new reference. The volumes' lock is held when
 * there are any. */
int record_make(const struct guest_options *options, const char *name,
                const struct descriptor *image, const struct image_config *config,
                json_t **ret_record, struct error *err);

/* mounts.c: "SOURCE:/TARGET[:ro]" or "/TARGET" into the record's volumes; "type=KIND,..." there, or
 * into the texts of --tmpfs. Volumes are made; one without a name gets one, and is marked as
 * anonymous. */
int mounts_add_volume(json_t *volumes, const char *text, struct error *err);
int mounts_add_mount(json_t *volumes, json_t *tmpfs, const char *text, struct error *err);
/* What another guest has mounted, "GUEST[:ro|rw]", where nothing else is. */
int mounts_add_from(json_t *volumes, const char *text, struct error *err);
/* Anonymous volumes at the image's own targets, where nothing else is mounted. */
int mounts_add_image(json_t *volumes, const json_t *tmpfs, const char *const *targets,
                     struct error *err);
/* Remove the anonymous ones of a record whose guest is gone; the volumes' lock is held. */
int mounts_remove_anonymous(const json_t *record, struct error *err);
/* What the image has where a volume is mounted that was never used; the root is mounted. */
int mounts_fill_volumes(const struct guest *guest, struct error *err);

/* spec.c: write config.json, and the files that are bound into the root. */
int spec_write(const struct guest *guest, const struct image_config *config, struct error *err);

/* The options of the mount at /dev/shm (mount(8)). */
enum { SHM_OPTIONS_MAX = 80 };
const char *spec_shm_options(const struct guest *guest, char text[SHM_OPTIONS_MAX]);

/* network.c: give a created container its network and published ports. */
int network_connect(const struct guest *guest, pid_t pid, struct error *err);
/* End what network_connect began; when it has ended, nothing. */
void network_disconnect(const struct guest *guest);
/* Is it a named network's? */
bool network_is_named(const struct guest *guest);
/* The guest's name as networks have them: "a.b_c" is a-b-c. */
void network_guest_name(const struct guest *guest, char name[NAMED_NAME_MAX + 1]);
/* -EINVAL unless text is as in network/publish.h. */
int port_check(const char *text, struct error *err);
/* "GUEST[-LAST][/tcp|/udp]" into a list of ports, each behind one of the host that is free now;
 * with once, unless the list leads there already. */
int ports_add_free(json_t *ports, const char *text, bool once, struct error *err);

#endif
