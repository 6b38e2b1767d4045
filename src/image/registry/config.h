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
 * Passwords are where podman and docker keep theirs: $REGISTRY_AUTH_FILE alone, or else
 * $XDG_RUNTIME_DIR/containers/auth.json (without that variable
 * /run/containers/UID/auth.json), $XDG_CONFIG_HOME/containers/auth.json (or
 * ~/.config/containers) and ~/.docker/config.json, of which the first counts that
 * has the host. */
#ifndef LODGE_IMAGE_REGISTRY_CONFIG_H
#define LODGE_IMAGE_REGISTRY_CONFIG_H

#include <jansson.h>

#include "image/registry/http.h"

enum { PASSWORD_FILES_MAX = 5 };

struct registry_config {
    json_t *registries;                    /* NULL: no file */
    json_t *passwords[PASSWORD_FILES_MAX]; /* in the order to look; NULL behind the last */
    const char *path;   /* of registries.json, for messages; "" when there is none */
    char path_text[4096];
};

/* Read registries.json; then the passwords too. auth_file: another one for them, or NULL. */
int registry_config_load(struct registry_config *config, struct error *err);
int registry_config_load_passwords(struct registry_config *config, const char *auth_file,
                                   struct error *err);
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
/* The file that a login is kept in: auth_file, or (NULL) the first of the places. */
void registry_config_login_path(const char *auth_file, char *path, size_t size);

#endif
