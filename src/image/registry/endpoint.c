/* A registry or a mirror: its address, its authentication, and exchanges with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/registry/registry-private.h"

/* --- Opening --- */

static int add_endpoint(struct endpoints *endpoints, const char *host, bool push,
                        const struct registry_options *options, struct error *err)
{
    struct endpoint *e = endpoints->items + endpoints->count;

    if (endpoints->count == ENDPOINTS_MAX)
        return error_set(err, EINVAL, "%s: %s has more than %d mirrors", endpoints->config.path,
                         endpoints->reference.registry, ENDPOINTS_MAX - 1);
    if (strlen(host) >= sizeof(e->host))
        return error_set(err, EINVAL, "the registry '%.60s...' has too long a name", host);
    *e = (struct endpoint){.reference = &endpoints->reference, .push = push};
    strcpy(e->host, host);
    snprintf(e->base, sizeof(e->base), "https://%s", host);
    e->peer = registry_config_peer(&endpoints->config, host);
    e->peer.insecure |= options->insecure;
    if (options->ca_file)
        e->peer.ca_file = options->ca_file;
    e->basic = registry_config_basic(&endpoints->config, host);
    pthread_mutex_init(&e->lock, NULL);
    endpoints->count++;
    return 0;
}

/* An insecure registry may speak plain HTTP: ask it. */
static void find_scheme(struct endpoint *e)
{
    struct http_request request = {.method = "GET", .body_fd = -1};
    struct http_answer answer;
    char url[URL_MAX];

    if (!e->peer.insecure)
        return;
    snprintf(url, sizeof(url), "%s/v2/", e->base);
    request.url = url;
    if (http_perform(&e->peer, &request, &answer, NULL) == 0)
        http_answer_release(&answer);
    else
        snprintf(e->base, sizeof(e->base), "http://%s", e->host);
}

int endpoints_open(struct endpoints *endpoints, const char *text, bool push,
                   const struct registry_options *options, struct error *err)
{
    struct reference *reference = &endpoints->reference;
    const char *mirror, *standard;
    int r;

    endpoints->count = 0;
    r = http_prepare(err);
    if (r == 0)
        r = registry_config_load(&endpoints->config, err);
    if (r < 0)
        return r;
    r = registry_config_load_passwords(&endpoints->config, options->auth_file, err);
    if (r == 0)
        r = reference_parse(text, reference, err);
    standard = registry_config_default(&endpoints->config);
    if (r == 0 && !reference->registry[0]) {
        if (!standard)
            r = error_set(
                err, EINVAL,
                "'%.200s' names no registry (HOST/NAME), and none is set as \"default\" in "
                "/etc/lodge/registries.json or ~/.config/lodge/registries.json",
                text);
        else if (strlen(standard) >= sizeof(reference->registry))
            r = error_set(err, EINVAL, "%s: default is too long", endpoints->config.path);
        else
            strcpy(reference->registry, standard);
    }
    for (size_t i = 0;
         r == 0 && !push &&
         (mirror = registry_config_mirror(&endpoints->config, reference->registry, i));
         i++)
        r = add_endpoint(endpoints, mirror, false, options, err);
    if (r == 0)
        r = add_endpoint(endpoints, reference->registry, push, options, err);
    if (r < 0) {
        endpoints_close(endpoints);
        return r;
    }
    for (size_t i = 0; i < endpoints->count; i++)
        find_scheme(endpoints->items + i);
    return 0;
}

int endpoints_open_host(struct endpoints *endpoints, const char *host, const char *basic,
                        const struct registry_options *options, struct error *err)
{
    int r;

    endpoints->count = 0;
    endpoints->reference = (struct reference){0};
    r = http_prepare(err);
    if (r == 0)
        r = registry_config_load(&endpoints->config, err);
    if (r < 0)
        return r;
    r = add_endpoint(endpoints, host, false, options, err);
    if (r < 0) {
        endpoints_close(endpoints);
        return r;
    }
    endpoints->items[0].basic = basic;
    find_scheme(endpoints->items);
    return 0;
}

void endpoints_close(struct endpoints *endpoints)
{
    for (size_t i = 0; i < endpoints->count; i++)
        pthread_mutex_destroy(&endpoints->items[i].lock);
    endpoints->count = 0;
    registry_config_release(&endpoints->config);
}

/* --- Refusals --- */

int endpoint_refusal(const struct endpoint *endpoint, const char *what,
                     const struct http_answer *answer, struct error *err)
{
    json_t *tree = answer->text ? json_loadb(answer->text, answer->length, 0, NULL) : NULL;
    const char *message = json_string_value(
        json_object_get(json_array_get(json_object_get(tree, "errors"), 0), "message"));
    int code = answer->status == 404   ? ENOENT
               : answer->status == 401 ? EACCES
               : answer->status == 403 ? EACCES
               : answer->status >= 500 ? EAGAIN
                                       : EIO;
    int r;

    if (answer->status == 404)
        r = error_set(err, code, "%s has no %s in %s", endpoint->host, what,
                      endpoint->reference->repository);
    else
        r = error_set(err, code, "%s refuses %s: status %ld%s%.200s%s", endpoint->host, what,
                      answer->status, message ? ", " : "", message ? message : "",
                      answer->status == 401 ? " ('lodge image login' keeps passwords)" : "");
    json_decref(tree);
    return r;
}

/* --- Authentication --- */

/* The value of a parameter of a challenge: name="value". */
static bool parameter(const char *challenge, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);

    for (const char *p = challenge; (p = strcasestr(p, name)); p += n) {
        const char *start = p + n + 2;
        size_t length;

        if (p == challenge || !strchr(" ,", p[-1]) || strncmp(p + n, "=\"", 2))
            continue;
        length = strcspn(start, "\"");
        if (start[length] != '"' || length >= size)
            return false;
        memcpy(value, start, length);
        value[length] = 0;
        return true;
    }
    return false;
}

static int token_url(const struct endpoint *e, const char *challenge, char *url, size_t size,
                     struct error *err)
{
    char realm[1024], service[512] = "", scope[600];
    AUTO_FREE char *escaped_service = NULL, *escaped_scope = NULL;

    if (!parameter(challenge, "realm", realm, sizeof(realm)))
        return error_set(err, EPROTO, "%s asks for a token, but does not say where from", e->host);
    parameter(challenge, "service", service, sizeof(service));
    if (!parameter(challenge, "scope", scope, sizeof(scope))) {
        scope[0] = 0;
        if (e->reference->repository[0])
            snprintf(scope, sizeof(scope), "repository:%s:%s", e->reference->repository,
                     e->push ? "pull,push" : "pull");
    }
    escaped_service = http_escape(service);
    escaped_scope = http_escape(scope);
    if (!escaped_service || !escaped_scope)
        return error_set(err, ENOMEM, "out of memory");
    if (snprintf(url, size, "%s%cservice=%s%s%s", realm, strchr(realm, '?') ? '&' : '?',
                 escaped_service, scope[0] ? "&scope=" : "", escaped_scope) >= (int)size)
        return error_set(err, EPROTO, "%s asks for a token with too long an address", e->host);
    return 0;
}

static int get_token(const struct endpoint *e, const char *challenge, char *authorization,
                     struct error *err)
{
    char url[URL_MAX], basic[AUTHORIZATION_MAX];
    struct http_request request = {.method = "GET", .url = url, .body_fd = -1};
    struct http_answer answer;
    const char *token;
    json_t *tree;
    int r = token_url(e, challenge, url, sizeof(url), err);

    if (r < 0)
        return r;
    if (e->basic) {
        snprintf(basic, sizeof(basic), "Basic %s", e->basic);
        request.authorization = basic;
    }
    r = http_perform(&e->peer, &request, &answer, err);
    if (r < 0)
        return r;
    if (answer.status != 200) {
        r = endpoint_refusal(e, "a token", &answer, err);
        http_answer_release(&answer);
        return r;
    }
    tree = json_loadb(answer.text ? answer.text : "", answer.length, 0, NULL);
    token = json_string_value(json_object_get(tree, "token"));
    if (!token)
        token = json_string_value(json_object_get(tree, "access_token"));
    if (!token || strpbrk(token, "\r\n") || strlen(token) + 8 > AUTHORIZATION_MAX)
        r = error_set(err, EPROTO, "%s gives no token that could be used", e->host);
    else
        sprintf(authorization, "Bearer %s", token);
    json_decref(tree);
    http_answer_release(&answer);
    return r;
}

/* Answer a challenge; used: the authorization that was refused, by whose change others are seen. */
static int authenticate(struct endpoint *e, const char *challenge, const char *used,
                        struct error *err)
{
    char authorization[AUTHORIZATION_MAX] = "";
    int r = 0;

    pthread_mutex_lock(&e->lock);
    if (strcmp(e->authorization, used) != 0) { /* another thread did it */
        pthread_mutex_unlock(&e->lock);
        return 0;
    }
    if (!strncasecmp(challenge, "Bearer ", 7))
        r = get_token(e, challenge, authorization, err);
    else if (strncasecmp(challenge, "Basic", 5) != 0)
        r = error_set(err, EACCES, "%s asks for an authentication that is not known: %.60s",
                      e->host, challenge);
    else if (!e->basic)
        r = error_set(err, EACCES, "%s wants a password: 'lodge image login' keeps one", e->host);
    else
        snprintf(authorization, sizeof(authorization), "Basic %s", e->basic);
    if (r == 0)
        strcpy(e->authorization, authorization);
    pthread_mutex_unlock(&e->lock);
    return r;
}

int endpoint_perform(struct endpoint *endpoint, const char *path, struct http_request *request,
                     struct http_answer *ret_answer, struct error *err)
{
    char url[URL_MAX], authorization[AUTHORIZATION_MAX];
    int length = strncmp(path, "http", 4)
                     ? snprintf(url, sizeof(url), "%s/v2/%s/%s", endpoint->base,
                                endpoint->reference->repository, path)
                     : snprintf(url, sizeof(url), "%s", path);

    if (length >= (int)sizeof(url))
        return error_set(err, EPROTO, "%s: an address is too long", endpoint->host);
    request->url = url;
    for (unsigned tries = 0;; tries++) {
        struct http_answer answer;
        int r;

        pthread_mutex_lock(&endpoint->lock);
        strcpy(authorization, endpoint->authorization);
        pthread_mutex_unlock(&endpoint->lock);
        request->authorization = authorization[0] ? authorization : NULL;
        r = http_perform(&endpoint->peer, request, &answer, err);
        if (r < 0)
            return r;
        /* Twice: a token may have run out, and its successor be another thread's. */
        if (answer.status != 401 || tries == 2 || !answer.challenge[0]) {
            *ret_answer = answer;
            return 0;
        }
        r = authenticate(endpoint, answer.challenge, authorization, err);
        http_answer_release(&answer);
        if (r < 0)
            return r;
    }
}
