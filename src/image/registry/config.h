/* config.h - where images come from: files that a person writes.
 *
 * registries.json, the first of $LODGE_REGISTRIES, $XDG_CONFIG_HOME/lodge (or
 * ~/.config/lodge) and /etc/lodge that there is:
 *
 *     { "default": "HOST[:PORT]",               for names without a registry
 *       "registries": { "HOST[:PORT]": {
 *           "mirrors": ["HOST[:PORT]", ...],     asked first, in this order
 *           "ca": "FILE.pem", "insecure": false } } }
 *
 * Passwords are where podman and docker keep theirs: $REGISTRY_AUTH_FILE,
 * $XDG_RUNTIME_DIR/containers/auth.json, or ~/.docker/config.json. */
#ifndef LODGE_IMAGE_REGISTRY_CONFIG_H
#define LODGE_IMAGE_REGISTRY_CONFIG_H

#include <jansson.h>

#include "image/registry/http.h"

struct registry_config {
    json_t *registries; /* NULL: no file */
    json_t *passwords;  /* NULL: none */
    const char *path;   /* of registries.json, for messages; "" when there is none */
    char path_text[4096];
};

/* Read both files. auth_file: another one for passwords, or NULL. */
int registry_config_load(struct registry_config *config, const char *auth_file, struct error *err);
void registry_config_release(struct registry_config *config);

/* The registry for names without one, or NULL. */
const char *registry_config_default(const struct registry_config *config);
/* Mirror number n of host, or NULL. */
const char *registry_config_mirror(const struct registry_config *config, const char *host,
                                   size_t n);
/* How to reach host. Strings live as long as the configuration. */
struct http_peer registry_config_peer(const struct registry_config *config, const char *host);
/* The base64 of "user:password" for host, or NULL. */
const char *registry_config_basic(const struct registry_config *config, const char *host);

#endif
