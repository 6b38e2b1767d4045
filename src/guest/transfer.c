/* transfer.c - files into a guest, and out of it. Paths there are resolved within its
 * root; what it changes meanwhile leads nowhere else. */
#include <sched.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "container/copy.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "guest/place.h"
#include "guest/rootless.h"

static int copy(int directory, const char *name, void *opaque, struct error *err)
{
    const struct place *from = opaque;

    return copy_entry(from->directory, from->name, directory, name, err);
}

static int transfer(struct path_root *from_root, const char *from, struct path_root *to_root,
                    const char *to, struct error *err)
{
    struct place source = {.directory = -1}, target = {.directory = -1};
    int r = place_open(from_root, from, &source, err);

    if (r == 0)
        r = place_open_target(to_root, to, source.name, &target, err);
    if (r == 0)
        r = place_fill(&target, copy, &source, err);
    place_close(&source);
    place_close(&target);
    return r;
}

/* --- The guest's root --- */

int guest_prepare_copy(struct error *err)
{
    int r = rootless_enter(err);

    if (r == 0 && (unshare(CLONE_NEWNS) < 0 ||
                   mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
        r = error_system(err, errno, "cannot make a mount namespace");
    return r;
}

static bool is_live(const struct guest_status *status)
{
    return status->state == GUEST_RUNNING || status->state == GUEST_PAUSED;
}

static int mount_root(struct guest *guest, struct store *store, struct error *err)
{
    struct guest_status status;
    int r = guest_lock(guest, true, err); /* who waited for it may still be cleaning up */

    if (r == 0)
        r = guest_status(guest, &status, err);
    if (r == 0 && (!store || is_live(&status) || guest_is_gone(guest)))
        r = error_set(err, EBUSY, "the guest %s has just been started or removed", guest->name);
    if (r == 0)
        r = guest_end(guest, -1, err);
    return r < 0 ? r : isolation_of(guest)->mount_root(guest, store, err);
}

static int open_root(struct guest *guest, const struct guest_status *status, struct store *store,
                     struct error *err)
{
    return is_live(status) ? isolation_of(guest)->open_root(guest, status, err)
                           : mount_root(guest, store, err);
}

/* The root of one that does not run is mounted where its files are at hand at all. */
static int look(const struct guest *guest, struct guest_status *status, struct error *err)
{
    int r = guest_status(guest, status, err);

    if (r == 0 && !is_live(status) && !isolation_of(guest)->mount_root)
        r = error_set(err, ENOTSUP,
                      "the virtual machine %s does not run, and its disk is its own: 'lodge start' "
                      "it first",
                      guest->name);
    if (r == 0 && status->state == GUEST_PAUSED && isolation_of(guest)->copy_in)
        r = error_set(err, EBUSY, "the virtual machine %s is paused: 'lodge unpause' it first",
                      guest->name);
    return r;
}

static int copy_files(struct guest *guest, struct store *store, bool in, const char *from,
                      const char *to, struct error *err)
{
    const struct isolation *isolation = isolation_of(guest);
    struct guest_status status;
    struct path_root root;
    AUTO_CLOSE int fd = -1;
    int r = look(guest, &status, err);

    if (r < 0)
        return r;
    if (isolation->copy_in)
        return (in ? isolation->copy_in : isolation->copy_out)(guest, from, to, err);
    fd = open_root(guest, &status, store, err);
    root = (struct path_root){.fd = fd};
    return fd < 0 ? fd : transfer(in ? NULL : &root, from, in ? &root : NULL, to, err);
}

int guest_copy_in(struct guest *guest, struct store *store, const char *from, const char *to,
                  struct error *err)
{
    return copy_files(guest, store, true, from, to, err);
}

int guest_copy_out(struct guest *guest, struct store *store, const char *from, const char *to,
                   struct error *err)
{
    return copy_files(guest, store, false, from, to, err);
}
