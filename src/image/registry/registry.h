/* registry.h - images from and to a registry (OCI distribution specification 1.1;
 * tokens as the Docker registry's token authentication has them). */
#ifndef LODGE_IMAGE_REGISTRY_REGISTRY_H
#define LODGE_IMAGE_REGISTRY_REGISTRY_H

#include "image/progress.h"
#include "image/store.h"

struct registry_options {
    const char *auth_file; /* passwords; NULL: the usual places (config.h) */
    const char *ca_file;   /* certificates to trust, or NULL */
    bool insecure;         /* any certificate will do, and plain HTTP too */
    struct platform platform;
    struct progress *progress;
};

/* Pull what text names into the store: the manifest for the platform, its configuration, its
 * layers (several at once, what is there already left out, a broken download gone on with), and
 * unpack them. Mirrors are asked first. A name without a registry gets the default one of
 * registries.json. */
int registry_pull(struct store *store, const char *text, const struct registry_options *options,
                  struct descriptor *ret_descriptor, struct error *err);

/* Push the image that source names in the store to what target names. */
int registry_push(struct store *store, const char *source, const char *target,
                  const struct registry_options *options, struct error *err);

/* Keep the password of a user for a registry (HOST[:PORT]), once the registry has taken it, in the
 * file that podman's login would write (config.h), of mode 0600. */
int registry_login(const char *host, const char *user, const char *password,
                   const struct registry_options *options, struct error *err);
/* Forget it; host NULL: all of them. -ENOENT with words when there is none. */
int registry_logout(const char *host, const char *auth_file, struct error *err);

#endif
