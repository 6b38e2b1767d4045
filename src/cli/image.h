/* image.h - what the verbs of `lodge image` share; one file a group of verbs. */
#ifndef LODGE_CLI_IMAGE_H
#define LODGE_CLI_IMAGE_H

#include "cli/cli.h"
#include "cli/progress_bars.h"
#include "image/registry/registry.h"
#include "image/store.h"

extern const struct verb image_pull_verb, image_push_verb, image_login_verb, image_logout_verb;
extern const struct verb image_load_verb, image_import_verb;
extern const struct verb image_save_verb, image_export_verb;
extern const struct verb image_ls_verb, image_inspect_verb, image_rm_verb, image_tag_verb;
extern const struct verb image_check_verb, image_prune_verb, image_build_verb;

/* The row that every verb of images has among its options. */
#define IMAGE_STORE_OPTION                                                                         \
    {                                                                                              \
        "store", 0, "DIR",                                                                         \
            "The image store, instead of the user's own (/var/lib/lodge/images for root, else "    \
            "~/.local/share/lodge/images).",                                                       \
            "FILE"                                                                                 \
    }

/* The rows of those that ask registries, and what they say; the platform is --platform's, if the
 * verb has it. */
#define IMAGE_REGISTRY_OPTIONS                                                                     \
    {"authfile", 0, "FILE",                                                                        \
     "Passwords for registries (default: $REGISTRY_AUTH_FILE, the user's "                         \
     "containers/auth.json or .docker/config.json).",                                              \
     "FILE"},                                                                                      \
        {"ca", 0, "FILE", "Certificates to trust, instead of the system's.", "FILE"},              \
        {"insecure", 0, NULL, "Take any certificate, and speak plain HTTP where there is no TLS.", \
         NULL},                                                                                    \
        IMAGE_STORE_OPTION
int image_registry_options(const struct cli *cli, struct progress_bars *bars,
                           struct registry_options *options, struct error *err);

/* Open the store that --store names. A user without privileges goes into a namespace first, where
 * the files of images can have their owners (rootless.h). */
int image_store_open(const struct cli *cli, struct store **ret_store, struct error *err);

/* -EINVAL with the verb's usage when there are not min to max operands. */
int image_operands(const struct cli *cli, int min, int max, struct error *err);

#endif
