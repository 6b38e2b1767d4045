/* guest-private.h - for the files of src/guest/. */
#ifndef LODGE_GUEST_GUEST_PRIVATE_H
#define LODGE_GUEST_GUEST_PRIVATE_H

#include "guest/guest.h"
#include "image/install.h"

/* The image's documents by the digest in the record. */
int guest_read_image(const struct guest *guest, const struct store *store,
                     struct manifest *ret_manifest, struct image_config *ret_config,
                     struct error *err);

/* Take the guest's lock, which its handle keeps; -EWOULDBLOCK when wait is false and another has
 * it. */
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

/* spec.c: write config.json, and the files that are bound into the root. */
int spec_write(const struct guest *guest, const struct image_config *config, struct error *err);

/* network.c: give a created container its network and published ports. */
int network_connect(const struct guest *guest, pid_t pid, struct error *err);
/* End what network_connect began; when it has ended, nothing. */
void network_disconnect(const struct guest *guest);
/* Is it a named network's? */
bool network_is_named(const struct guest *guest);
/* -EINVAL unless text is as in network/publish.h. */
int port_check(const char *text, struct error *err);

#endif
