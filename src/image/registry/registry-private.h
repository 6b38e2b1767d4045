/* registry-private.h - a conversation with a registry about one repository; for
 * endpoint.c, pull.c and push.c. */
#ifndef LODGE_IMAGE_REGISTRY_PRIVATE_H
#define LODGE_IMAGE_REGISTRY_PRIVATE_H

#include <pthread.h>

#include "image/registry/config.h"
#include "image/registry/http.h"
#include "image/registry/registry.h"

enum { URL_MAX = 2048, AUTHORIZATION_MAX = 16384, ENDPOINTS_MAX = 8 };

/* One host that has the repository: the registry itself or a mirror. */
struct endpoint {
    char host[256];
    char base[300]; /* "https://HOST" */
    struct http_peer peer;
    const char *basic; /* base64 of user and password, or NULL */
    const struct reference *reference;
    bool push;
    pthread_mutex_t lock;                  /* guards authorization */
    char authorization[AUTHORIZATION_MAX]; /* the header's value; "": none needed so far */
};

/* The hosts for a reference, in the order to ask them. */
struct endpoints {
    struct registry_config config;
    struct reference reference; /* with its registry */
    struct endpoint items[ENDPOINTS_MAX];
    size_t count;
};

/* push: only the registry itself, and with the right to push. */
int endpoints_open(struct endpoints *endpoints, const char *text, bool push,
                   const struct registry_options *options, struct error *err);
/* The registry of that name itself, about no repository, with the base64 of user and password. */
int endpoints_open_host(struct endpoints *endpoints, const char *host, const char *basic,
                        const struct registry_options *options, struct error *err);
void endpoints_close(struct endpoints *endpoints);

/* An exchange about path under /v2/REPOSITORY/, or (beginning with http) a whole
 * URL; authenticates when asked to, and tries again what broke off before any of
 * the body came. The request's url and authorization are filled in. Any thread. */
int endpoint_perform(struct endpoint *endpoint, const char *path, struct http_request *request,
                     struct http_answer *ret_answer, struct error *err);

/* Words for an answer that is a refusal: status and the registry's own message. */
int endpoint_refusal(const struct endpoint *endpoint, const char *what,
                     const struct http_answer *answer, struct error *err);

#endif
