#include "image/registry/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Finding the files --- */

/* The first of the places that has a file; path is "" when none has. */
struct place {
    const char *variable; /* of the environment; NULL: none */
    const char *suffix;   /* behind its value */
};

static const struct place registries_places[] = {
    {"LODGE_REGISTRIES", ""},
    {"XDG_CONFIG_HOME", "/lodge/registries.json"},
    {"HOME", "/.config/lodge/registries.json"},
    {NULL, "/etc/lodge/registries.json"},
    {NULL, NULL},
};

/* Behind $REGISTRY_AUTH_FILE and the runtime directory's. */
static const struct place password_places[] = {
    {"XDG_CONFIG_HOME", "/containers/auth.json"},
    {"HOME", "/.config/containers/auth.json"},
    {"HOME", "/.docker/config.json"},
    {NULL, NULL},
};

static void find(const struct place *places, char *path, size_t size)
{
    for (const struct place *p = places; p->suffix; p++) {
        const char *start = p->variable ? getenv(p->variable) : "";

        if (!start || (p->variable && !start[0]))
            continue;
        /* A file that a variable names itself must be there: reading it will say so. */
        if (snprintf(path, size, "%s%s", start, p->suffix) < (int)size &&
            (!p->suffix[0] || access(path, F_OK) == 0))
            return;
    }
    path[0] = 0;
}

static int read_file(const char *path, json_t **ret_tree, struct error *err)
{
    json_error_t wrong;
    json_t *tree = json_load_file(path, 0, &wrong);

    if (!tree)
        return error_set(err, EINVAL, "%s: line %d: %s", path, wrong.line, wrong.text);
    if (!json_is_object(tree)) {
        json_decref(tree);
        return error_set(err, EINVAL, "%s: must be an object", path);
    }
    *ret_tree = tree;
    return 0;
}

/* A mistyped member would otherwise be passed over silently, and with it a CA or a mirror. */
static int check(const struct registry_config *config, struct error *err)
{
    const json_t *defaults = json_object_get(config->registries, "default");
    json_t *registries = json_object_get(config->registries, "registries"), *item;
    const char *host;

    if (defaults && !json_is_string(defaults))
        return error_set(err, EINVAL, "%s: default must be a string", config->path);
    if (registries && !json_is_object(registries))
        return error_set(err, EINVAL, "%s: registries must be an object", config->path);
    json_object_foreach(registries, host, item)
    {
        const json_t *ca = json_object_get(item, "ca"), *mirrors = json_object_get(item, "mirrors");
        const json_t *insecure = json_object_get(item, "insecure");

        if (!json_is_object(item) || (ca && !json_is_string(ca)) ||
            (mirrors && !json_is_array(mirrors)) || (insecure && !json_is_boolean(insecure)))
            return error_set(err, EINVAL,
                             "%s: registries.%s: ca must be a string, mirrors a list, insecure a "
                             "boolean",
                             config->path, host);
    }
    return 0;
}

/* podman's own place, in the user's runtime directory. */
static void runtime_path(char *path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (runtime && runtime[0])
        snprintf(path, size, "%s/containers/auth.json", runtime);
    else
        snprintf(path, size, "/run/containers/%u/auth.json", geteuid());
}

static const char *named_file(const char *auth_file)
{
    const char *named = auth_file ? auth_file : getenv("REGISTRY_AUTH_FILE");

    return named && named[0] ? named : NULL;
}

void registry_config_login_path(const char *auth_file, char *path, size_t size)
{
    const char *named = named_file(auth_file);

    if (named)
        snprintf(path, size, "%s", named);
    else
        runtime_path(path, size);
}

int registry_config_load(struct registry_config *config, struct error *err)
{
    int r = 0;

    *config = (struct registry_config){.path = config->path_text};
    find(registries_places, config->path_text, sizeof(config->path_text));
    if (config->path[0])
        r = read_file(config->path, &config->registries, err);
    if (r == 0)
        r = check(config, err);
    if (r < 0)
        registry_config_release(config);
    return r;
}

int registry_config_load_passwords(struct registry_config *config, const char *auth_file,
                                   struct error *err)
{
    const char *named = named_file(auth_file), *start;
    char path[4096];
    size_t count = 0;
    int r = 0;

    /* A file that is named must be there: reading it will say so. */
    if (named)
        return read_file(named, config->passwords, err);
    runtime_path(path, sizeof(path));
    if (access(path, F_OK) == 0)
        r = read_file(path, config->passwords + count++, err);
    for (const struct place *place = password_places; r == 0 && place->suffix; place++) {
        start = getenv(place->variable);
        if (start && start[0] &&
            snprintf(path, sizeof(path), "%s%s", start, place->suffix) < (int)sizeof(path) &&
            access(path, F_OK) == 0)
            r = read_file(path, config->passwords + count++, err);
    }
    return r;
}

void registry_config_release(struct registry_config *config)
{
    json_decref(config->registries);
    for (size_t i = 0; i < PASSWORD_FILES_MAX; i++)
        json_decref(config->passwords[i]);
    memset(config->passwords, 0, sizeof(config->passwords));
    config->registries = NULL;
}

static const json_t *registry_of(const struct registry_config *config, const char *host)
{
    return json_object_get(json_object_get(config->registries, "registries"), host);
}

const char *registry_config_default(const struct registry_config *config)
{
    return json_string_value(json_object_get(config->registries, "default"));
}

const char *registry_config_mirror(const struct registry_config *config, const char *host, size_t n)
{
    return json_string_value(
        json_array_get(json_object_get(registry_of(config, host), "mirrors"), n));
}

struct http_peer registry_config_peer(const struct registry_config *config, const char *host)
{
    const json_t *registry = registry_of(config, host);

    return (struct http_peer){
        .ca_file = json_string_value(json_object_get(registry, "ca")),
        .insecure = json_is_true(json_object_get(registry, "insecure")),
    };
}

const char *registry_config_basic(const struct registry_config *config, const char *host)
{
    const char *text = NULL;

    for (size_t i = 0; !text && i < PASSWORD_FILES_MAX; i++)
        text = json_string_value(json_object_get(
            json_object_get(json_object_get(config->passwords[i], "auths"), host), "auth"));
    /* It goes into a header line as it is. */
    return text && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789+/=")] == 0
               ? text
               : NULL;
}
