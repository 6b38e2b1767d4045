/* record.c - what is asked for, checked and written down as a guest's record (guest.json). */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/signal_number.h"
#include "guest/guest-private.h"
#include "guest/isolation.h"
#include "network/named.h"

/* --- Options that are written down as they are --- */

static const struct {
    const char *key;
    size_t offset; /* of a const char *; NULL is left out */
} texts[] = {
    {"user", offsetof(struct guest_options, user)},
    {"workingDirectory", offsetof(struct guest_options, working_directory)},
    {"kernel", offsetof(struct guest_options, kernel)},
    {"engine", offsetof(struct guest_options, engine)},
};

static const struct {
    const char *key;
    size_t offset; /* of a bool */
} flags[] = {
    {"terminal", offsetof(struct guest_options, terminal)},
    {"interactive", offsetof(struct guest_options, interactive)},
    {"remove", offsetof(struct guest_options, remove)},
    {"detached", offsetof(struct guest_options, detached)},
    {"init", offsetof(struct guest_options, init)},
    {"noHosts", offsetof(struct guest_options, no_hosts)},
    {"unsetAll", offsetof(struct guest_options, unset_all)},
    {"noSandbox", offsetof(struct guest_options, no_sandbox)},
};

static const struct {
    const char *key;
    size_t offset; /* of a uint64_t; 0 is left out */
} numbers[] = {
    {"memory", offsetof(struct guest_options, memory)},
    {"shmSize", offsetof(struct guest_options, shm_size)},
};

static int add_plain(json_t *record, const struct guest_options *options, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        const char *text = FIELD_AT(const char *const, options, texts[i].offset);

        if (text && json_object_set_new(record, texts[i].key, json_string(text)) < 0)
            return error_set(err, EINVAL, "'%.60s' is no UTF-8 text", text);
    }
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        json_object_set_new(record, flags[i].key,
                            json_boolean(FIELD_AT(const bool, options, flags[i].offset)));
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        uint64_t number = FIELD_AT(const uint64_t, options, numbers[i].offset);

        if (number)
            json_object_set_new(record, numbers[i].key, json_integer((json_int_t)number));
    }
    if (options->cpus > 0)
        json_object_set_new(record, "cpus", json_real(options->cpus));
    return 0;
}

/* --- Lists, a text at a time --- */

/* NAME=VALUE; a NAME alone takes the caller's value. */
static int add_variable(json_t *list, const char *text, struct error *err)
{
    const char *value;

    if (!text[0] || text[0] == '=')
        return error_set(err, EINVAL, "the variable '%.100s' has no name", text);
    if (strchr(text, '='))
        json_array_append_new(list, json_string(text));
    else if ((value = getenv(text)))
        json_array_append_new(list, json_sprintf("%s=%s", text, value));
    return 0;
}

/* NAME[=VALUE] into an object. */
static int add_label(json_t *object, const char *text, struct error *err)
{
    const char *equals = strchrnul(text, '=');

    if (equals == text)
        return error_set(err, EINVAL, "the label '%.100s' has no name", text);
    json_object_setn_new_nocheck(object, text, (size_t)(equals - text),
                                 json_string(*equals ? equals + 1 : ""));
    return 0;
}

static bool is_address(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* NAME:ADDRESS as a line of a hosts file (hosts(5)). */
static int add_host(json_t *list, const char *text, struct error *err)
{
    const char *colon = strchr(text, ':');

    if (!colon || colon == text || strcspn(text, " \t\n#") < (size_t)(colon - text) ||
        !is_address(colon + 1))
        return error_set(err, EINVAL, "the host '%.100s' is not NAME:ADDRESS", text);
    json_array_append_new(
        list, json_sprintf("%s %.*s", colon + 1, (int)(colon - text), text));
    return 0;
}

static int add_name_server(json_t *list, const char *text, struct error *err)
{
    if (!is_address(text))
        return error_set(err, EINVAL, "the name server '%.60s' is no address", text);
    json_array_append_new(list, json_string(text));
    return 0;
}

/* A domain, for resolv.conf(5). */
static int add_domain(json_t *list, const char *text, struct error *err)
{
    if (!text[0] || strpbrk(text, " \t\n"))
        return error_set(err, EINVAL, "'%.60s' is no domain", text);
    json_array_append_new(list, json_string(text));
    return 0;
}

/* NAME=VALUE into an object. */
static int add_sysctl(json_t *object, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text || strchr(text, '/') || strstr(text, ".."))
        return error_set(err, EINVAL, "the kernel's parameter '%.100s' is not NAME=VALUE", text);
    json_object_setn_new_nocheck(object, text, (size_t)(equals - text), json_string(equals + 1));
    return 0;
}

static int add_text(json_t *list, const char *text, struct error *err)
{
    (void)err;
    return json_array_append_new(list, json_string(text));
}

static int add_port(json_t *list, const char *text, struct error *err)
{
    int r;

    if (!strchr(text, ':'))
        return ports_add_free(list, text, false, err);
    r = port_check(text, err);

    return r < 0 ? r : add_text(list, text, err);
}

static const struct {
    const char *key;
    size_t offset; /* of a list of texts */
    bool object;   /* else an array */
    int (*add)(json_t *collection, const char *text, struct error *err);
} lists[] = {
    {"command", offsetof(struct guest_options, command), false, add_text},
    {"environment", offsetof(struct guest_options, environment), false, add_variable},
    {"ports", offsetof(struct guest_options, ports), false, add_port},
    {"volumes", offsetof(struct guest_options, volumes), false, mounts_add_volume},
    {"labels", offsetof(struct guest_options, labels), true, add_label},
    {"hosts", offsetof(struct guest_options, hosts), false, add_host},
    {"nameServers", offsetof(struct guest_options, name_servers), false, add_name_server},
    {"domains", offsetof(struct guest_options, domains), false, add_domain},
    {"resolverOptions", offsetof(struct guest_options, resolver_options), false, add_domain},
    {"unset", offsetof(struct guest_options, unset), false, add_text},
    {"annotations", offsetof(struct guest_options, annotations), true, add_label},
    {"sysctls", offsetof(struct guest_options, sysctls), true, add_sysctl},
    {"groups", offsetof(struct guest_options, groups), false, add_text},
};

static bool is_utf8(const char *text)
{
    json_t *string = json_string(text);

    json_decref(string);
    return string;
}

static int add_lists(json_t *record, const struct guest_options *options, struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        const char *const *list = FIELD_AT(const char *const *const, options, lists[i].offset);
        json_t *collection = lists[i].object ? json_object() : json_array();

        json_object_set_new(record, lists[i].key, collection);
        for (; r == 0 && list && *list; list++)
            r = is_utf8(*list) ? lists[i].add(collection, *list, err)
                               : error_set(err, EINVAL, "'%.60s' is no UTF-8 text", *list);
    }
    return r;
}

/* --publish-all: what the image exposes, or --expose. */
static int add_exposed(json_t *record, const char *whose, const char *const *ports,
                       struct error *err)
{
    int r = 0;

    for (; r == 0 && *ports; ports++) {
        r = ports_add_free(json_object_get(record, "ports"), *ports, true, err);
        if (r < 0)
            error_prepend(err, "%s %.60s", whose, *ports);
    }
    return r;
}

/* --- Single ones --- */

/* A program's name, or a JSON array; NULL: the image's. */
static int add_entrypoint(json_t *record, const char *text, struct error *err)
{
    json_t *list, *item;
    size_t i;

    if (!text)
        return 0;
    list = text[0] == '[' ? json_loads(text, 0, NULL)
           : text[0]      ? json_pack("[s]", text)
                          : json_array();
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item)) {
            json_decref(list);
            list = NULL;
            break;
        }
    }
    if (!list)
        return error_set(err, EINVAL, "the entry point '%.100s' is no list of texts", text);
    json_object_set_new(record, "entrypoint", list);
    return 0;
}

static int add_network(json_t *record, const struct guest_options *options, struct error *err)
{
    const char *network = options->network ? options->network : "user";
    struct named_network named;

    if (strcmp(network, "user") && strcmp(network, "host") && strcmp(network, "none") &&
        named_open(network, &named, NULL) < 0)
        return error_set(err, EINVAL, "the network '%.60s' is not user, host, none, nor one of "
                                      "'lodge net ls'", network);
    if (((options->ports && options->ports[0]) || options->publish_all) &&
        (strcmp(network, "host") == 0 || strcmp(network, "none") == 0))
        return error_set(err, EINVAL, "ports are not published with --network %s", network);
    json_object_set_new(record, "network", json_string(network));
    return 0;
}


/* "host" shares the host's namespace of a kind; "private" is the default. */
static int add_namespaces(json_t *record, const struct guest_options *options, struct error *err)
{
    const struct {
        const char *type, *value;
    } kinds[] = {{"pid", options->pid}, {"ipc", options->ipc}, {"uts", options->uts}};
    json_t *list = json_array();

    json_object_set_new(record, "hostNamespaces", list);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!kinds[i].value || !strcmp(kinds[i].value, "private"))
            continue;
        if (strcmp(kinds[i].value, "host") != 0)
            return error_set(err, EINVAL, "--%s '%.60s' is not host or private", kinds[i].type,
                             kinds[i].value);
        json_array_append_new(list, json_string(kinds[i].type));
    }
    return 0;
}

/* A number that is written down when it is given: NULL is not. */
static int add_number(json_t *record, const char *key, const char *option, const char *text,
                      int base, long most, struct error *err)
{
    char *end;
    long value;

    if (!text)
        return 0;
    errno = 0;
    value = strtol(text, &end, base);
    if (errno || *end || end == text || value < 0 || value > most)
        return error_set(err, EINVAL, base == 8 ? "--%s '%.30s' is not an octal number up to %lo"
                                                : "--%s '%.30s' is not a number up to %ld",
                         option, text, most);
    json_object_set_new(record, key, json_integer(value));
    return 0;
}

static int add_numbers(json_t *record, const struct guest_options *options, struct error *err)
{
    int r = add_number(record, "umask", "umask", options->umask, 8, 0777, err);

    return r < 0 ? r
                 : add_number(record, "stopTimeout", "stop-timeout", options->stop_timeout, 10,
                              99999, err);
}

static int add_limits(json_t *record, const struct guest_options *options, struct error *err)
{
    json_t *limits;
    int r = limits_record(&options->limits, options->memory, options->cpus, &limits, err);

    return r < 0 ? r : json_object_set_new(record, "limits", limits);
}

static int add_stop_signal(json_t *record, const char *asked, const char *image, struct error *err)
{
    if (asked && signal_number(asked) < 0)
        return error_set(err, EINVAL, "--stop-signal '%.30s' is no signal", asked);
    json_object_set_new(record, "stopSignal", json_string(asked ? asked : image));
    return 0;
}

static int add_restart(json_t *record, const char *text, struct error *err)
{
    struct restart_policy policy;

    if (!text)
        return 0;
    if (restart_policy_read(text, &policy) < 0)
        return error_set(err, EINVAL,
                         "--restart '%.30s' is not no, always, unless-stopped or on-failure[:N]",
                         text);
    if (policy.when != RESTART_NEVER && json_is_true(json_object_get(record, "remove")))
        return error_set(err, EINVAL, "--restart and --rm do not go together");
    json_object_set_new(record, "restart", json_string(text));
    return 0;
}

/* --mount has both of what volumes and what the confinement mount. */
static int add_mounts(json_t *record, const struct guest_options *options, struct error *err)
{
    json_t *confine;
    int r = confine_record(&options->confine, &confine, err);

    if (r < 0)
        return r;
    json_object_set_new(record, "confine", confine);
    for (size_t i = 0; r == 0 && options->mounts && options->mounts[i]; i++)
        r = mounts_add_mount(json_object_get(record, "volumes"), json_object_get(confine, "tmpfs"),
                             options->mounts[i], err);
    return r;
}

/* --- The whole --- */

static int fill(json_t *record, const struct guest_options *options,
                const struct image_config *config, struct error *err)
{
    const struct isolation *isolation;
    int r = isolation_find(options->isolation, &isolation, err);

    if (r == 0)
        r = isolation->check(options, err);
    if (r < 0)
        return r;
    json_object_set_new(record, "isolation", json_string(isolation->name));
    r = add_plain(record, options, err);
    if (r == 0)
        r = add_network(record, options, err);
    if (r == 0)
        r = add_numbers(record, options, err);
    if (r == 0)
        r = add_limits(record, options, err);
    if (r == 0)
        r = add_lists(record, options, err);
    if (r == 0)
        r = add_mounts(record, options, err);
    for (const char *const *from = options->volumes_from; r == 0 && from && *from; from++)
        r = mounts_add_from(json_object_get(record, "volumes"), *from, err);
    if (r == 0 && options->publish_all)
        r = add_exposed(record, "the image's port", config->exposed_ports, err);
    if (r == 0 && options->publish_all && options->exposed)
        r = add_exposed(record, "--expose", options->exposed, err);
    if (r == 0)
        r = mounts_add_image(json_object_get(record, "volumes"),
                             json_object_get(json_object_get(record, "confine"), "tmpfs"),
                             config->volumes, err);
    if (r == 0)
        r = add_entrypoint(record, options->entrypoint, err);
    if (r == 0)
        r = add_namespaces(record, options, err);
    if (r == 0)
        r = add_stop_signal(record, options->stop_signal, config->stop_signal, err);
    if (r == 0)
        r = add_restart(record, options->restart, err);
    return r;
}

int record_make(const struct guest_options *options, const char *name,
                const struct descriptor *image, const struct image_config *config,
                json_t **ret_record, struct error *err)
{
    char created[32];
    time_t now = time(NULL);
    struct tm utc;
    json_t *record;
    int r;

    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    record = json_pack("{ss ss so ss ss}", "name", name, "image",
                       image->name[0] ? image->name : image->digest.text, "manifest",
                       descriptor_write(image), "created", created, "hostname",
                       options->hostname ? options->hostname : name);
    r = record ? fill(record, options, config, err)
               : error_set(err, EINVAL, "an option is no UTF-8 text");
    if (r < 0) {
        mounts_remove_anonymous(record, NULL);
        json_decref(record);
        return r;
    }
    *ret_record = record;
    return 0;
}
